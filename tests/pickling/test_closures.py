"""Functions and classes without a name: they arrive with all that they share.

What holds for a message: what is one object where it was sent is one where it arrives,
whether it is an argument, in a closure, a class's attribute or an instance's class; what has a
name arrives as what that name means there; arrays go through shared memory from wherever they
are.
"""

import abc
import enum
import functools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import counts, eventually, run_script

import shared_numpy as snp
from shared_numpy._pickling import closures, pickler

pytest.importorskip("cloudpickle")


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()
    yield
    eventually(lambda: counts() == before)


def sent(thing):
    """Return what arrives of a thing, here in the same process."""
    handles = []
    stream = closures.dumps(thing, handles)
    del handles[:]  # (They are received.)
    return pickler.loads(stream)


class Named:
    def __init__(self, value):
        self.value = value


def named(thing):
    return thing


def counter():
    state = []

    def add(value):
        state.append(value)

    def get():
        return list(state)

    return add, get, state


def use(add, get, state):
    add(1)
    add(2)
    return get(), state


def test_functions_share_what_they_have_captured():
    add, get, state = counter()
    with snp.ProcessPoolExecutor(1) as ex:
        assert ex.submit(use, add, get, state).result() == ([1, 2], [1, 2])
        add, get, state = ex.submit(lambda: counter()).result()
    assert use(add, get, state) == ([1, 2], [1, 2])
    # Also through a container, a partial function and a method.
    add, get, state = counter()
    things = sent({"parts": [functools.partial(add, 3), get], "state": state, "thing": Named(get)})
    things["parts"][0]()
    assert things["parts"][1]() == things["state"] == things["thing"].value() == [3]
    assert things["thing"].value is things["parts"][1] and type(things["thing"]) is Named


def test_functions_that_call_each_other():
    def even(n):
        return n == 0 or odd(n - 1)

    def odd(n):
        return n != 0 and even(n - 1)

    with snp.ProcessPoolExecutor(1) as ex:
        assert ex.submit(even, 10).result() and not ex.submit(odd, 10).result()
    both = sent([even, odd])
    assert both[0].__closure__[0].cell_contents is both[1]
    assert both[1].__closure__[0].cell_contents is both[0]


def test_instances_are_of_the_class_that_arrives():
    registry = []

    class Local:
        all = registry

        def same(self):
            return Local

    class Sub(Local):
        def same(self):
            return super().same()

    class Abstract(abc.ABC):
        @abc.abstractmethod
        def same(self):
            pass

    class Concrete(Abstract):
        def same(self):
            return Concrete

    class Color(enum.Enum):
        RED = 1

    def look(local, sub, concrete, color, instances, names):
        one, other, third, red = instances
        return [
            type(one) is local, type(other) is sub, issubclass(sub, local), other.same() is local,
            local.all is names, type(third) is concrete, third.same() is concrete,
            red is color.RED,
        ]  # fmt: skip

    instances = [Local(), Sub(), Concrete(), Color.RED]
    with snp.ProcessPoolExecutor(1) as ex:
        for _ in range(2):
            seen = ex.submit(look, Local, Sub, Concrete, Color, instances, registry).result()
            assert seen == [True] * 8


def test_what_has_a_name_goes_by_it():
    thing = Named(named)
    back = sent([lambda: (named, Named, thing), thing, len, int, type(None), np.exp, np.float32])
    function, cls, captured = back[0]()
    assert function is named and cls is Named and captured is back[1]
    assert type(captured) is Named and captured.value is named
    assert back[2:] == [len, int, type(None), np.exp, np.float32]


def test_arrays_are_one_wherever_they_are():
    plain, shared = np.zeros(10**5), snp.zeros(10)

    class Holder:
        array = plain

    def closure():
        return plain, shared, Holder

    handles = []
    stream = closures.dumps([closure, plain, shared, Holder()], handles)
    assert len(stream) < 5000 and len(handles) == 2
    back = pickler.loads(stream)
    captured, by_reference, cls = back[0]()
    assert captured is back[1] is cls.array and type(back[3]) is cls and by_reference is back[2]
    by_reference[0] = captured[0] = 7
    assert shared[0] == 7 and plain[0] == 0


def test_kinds_that_only_cloudpickle_knows():
    def function():
        return 1

    back = sent((function, memoryview(b"xy"), {1: 2}.keys(), function.__code__, type(function)))
    assert back[0]() == 1 and back[1] == b"xy" and list(back[2]) == [1]
    assert back[3] == function.__code__ and back[4] is type(function)


def test_failures_leave_nothing_and_are_told():
    handles = []
    with pytest.raises((TypeError, pickle.PicklingError)):
        closures.dumps([lambda: 1, snp.zeros(3), np.zeros(10**5), open(os.devnull).buffer], handles)
    pickler.cancel(handles)


MAIN = """
import sys
import shared_numpy as snp
class Thing:
    pass
count = [0]
def name_of(thing):
    return isinstance(thing, Thing)
if __name__ == "__main__":
    thing = Thing()
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as ex:
        print(ex.submit(lambda x: (isinstance(x, Thing), name_of(thing), x is thing), thing).result())
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_names_of_the_main_module(tmp_path, method):
    process = run_script(tmp_path, MAIN, method)
    assert (process.stdout, process.stderr) == ("(True, True, True)\n", "")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_prompt(tmp_path, method):
    """There no module has the functions' names; they are all there is."""
    code = MAIN.replace('if __name__ == "__main__":', "if True:")
    process = subprocess.run(
        [sys.executable, "-c", code, method], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=60,
    )  # fmt: skip
    assert (process.stdout, process.stderr) == ("(True, True, True)\n", "")
