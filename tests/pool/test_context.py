"""`SharedContext` and `ArrayManager`: arrays that are there once, for many processes."""

import functools
import gc
import multiprocessing
import os
import sys
import types
from math import sqrt

import numpy as np
import pytest
from conftest import counts, eventually
from numpy import exp

import shared_numpy as snp
from shared_numpy._pickling import by_reference, closures, pickler
from shared_numpy import context as context_module

METHODS = ["fork", "spawn", "forkserver"]

# A global of the functions here; in the workers the context's array of that name is.
D = None
offset = 1


def total(factor):
    return float(D.sum() * factor + offset)


def is_shared(array, writable):
    return by_reference.memory_of(array) is not None and array.flags.writeable == writable


def looks(array, part):
    return is_shared(D, False) and is_shared(array, False) and is_shared(part, False), part.sum()


def set_all(value):
    D[:] = value


def fail(value):
    raise ValueError(value)


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()
    yield
    eventually(lambda: counts() == before)


def context(mapping, method="fork", workers=2, **options):
    return snp.SharedContext(
        mapping, workers, mp_context=multiprocessing.get_context(method), **options
    )


@pytest.mark.parametrize("method", METHODS)
def test_names_are_globals(method):
    data = np.arange(1000.0)
    with context({"D": data}, method) as ctx:
        registered = ctx.register(total)
        futures = [registered(i) for i in range(7)]
        expected = [data.sum() * i + 1 for i in range(7)]
        assert ctx.evaluate() == expected and futures[2].result() == expected[2]
        assert ctx.evaluate() == []
        # Workers stay.
        pids = {ctx.submit(os.getpid).result() for _ in range(10)}
        registered(1)
        assert ctx.evaluate() == [expected[1]] and len(pids) <= 2
        assert list(ctx.map(total, range(7), chunksize=2)) == expected
        # What is captured, given, or a part of it goes by reference.
        assert ctx.submit(looks, data, data[10:20:3]).result() == (True, data[10:20:3].sum())
        assert ctx.submit(looks, ctx["D"], ctx["D"][::-1]).result()[0]
        # What the caller does later changes nothing.
        data[:] = 0
        assert ctx.submit(total, 1).result() == expected[1]
    assert D is None


def test_what_is_captured_goes_by_reference():
    data, other = np.arange(10.0**5), np.ones(10)
    scope = {"D": data}
    exec("def of_the_prompt(x):\n    return D.sum() * x\n", scope)
    with context({"D": data}) as ctx:

        def local(x, default=data[::2]):
            return data.sum() * x + default.sum() + other.sum()

        both = [local, types.FunctionType(scope["of_the_prompt"].__code__, scope, "<lambda>")]
        assert ctx.submit(local, 2).result() == data.sum() * 2 + data[::2].sum() + 10
        assert ctx.submit(both[1], 2).result() == data.sum() * 2
        for function in both:
            handles = []
            plain = ctx._executor._pool.settings.arguments
            try:
                assert len(closures.dumps(function, handles, plain)) < 3000
                assert handles
            finally:
                pickler.cancel(handles)


def test_writable():
    shared = snp.zeros(5)
    with context({"D": shared}, readonly=False) as ctx:
        ctx.submit(set_all, 4).result()
        assert (shared == 4).all() and (ctx["D"] == 4).all()
    with context({"D": shared}) as ctx:
        with pytest.raises(ValueError, match="read-only"):
            ctx.submit(set_all, 4).result()
        assert shared.flags.writeable


def test_an_exception_says_which_call_it_was():
    with context({"D": np.ones(3)}) as ctx:
        registered, bad = ctx.register(total), ctx.register(fail)
        registered(1)
        bad([5])
        registered(2)
        with pytest.raises(ValueError) as raised:
            ctx.evaluate()
        assert "call 2 of 3: fail([5])" in str(raised.value.__cause__)
        assert ctx.evaluate() == []
        registered(1)
        assert ctx.evaluate() == [4]


def test_progress(capsys, monkeypatch):
    with context({"D": np.ones(3)}) as ctx:
        registered = ctx.register(total)
        for i in range(3):
            registered(i)
        assert len(ctx.evaluate(progress=True)) == 3
        assert "3/3" in capsys.readouterr().err
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        registered(1)
        with pytest.raises(ImportError, match="tqdm"):
            ctx.evaluate(progress=True)
        # The calls are still there.
        assert ctx.evaluate() == [4]


def scaled(x):
    return sqrt(x) * exp(0)


class Scale:
    def method(self, x):
        return exp(x)


@pytest.mark.parametrize("name, meant", [
    ("exp", "ufunc 'exp'"), ("sqrt", "built-in function sqrt"), ("scaled", "function scaled"),
    ("Scale", "class"), ("np", "module 'numpy'"), ("max", "built-in function max"),
    ("snp", "module 'shared_numpy'"), ("int", "class 'int'"),
])  # fmt: skip
def test_names_of_what_is_called_are_refused(name, meant):
    with context({name: np.ones(3)}, workers=1) as ctx:
        for function in (
            scaled, functools.partial(scaled, 1), Scale().method, functools.lru_cache()(scaled)
        ):  # fmt: skip
            for give in (ctx.register, ctx.submit, lambda f: ctx.map(f, [1])):
                with pytest.raises(ValueError, match=repr(name) + ".*" + meant):
                    give(function)
        # Others are called, and what has the name goes on to be that.
        assert ctx.submit(os.getpid).result() > 0 and ctx.submit(abs, -1).result() == 1
    assert exp is np.exp and scaled(4) == 2


def test_names_that_only_a_worker_has_are_not_set_either(monkeypatch):
    with context({"D": np.ones(3)}, "fork", workers=1) as ctx:
        monkeypatch.setitem(globals(), "D", len)
        future = ctx._executor.submit(functools.partial(context_module.run, total), (1,), {})
        with pytest.raises(ValueError, match="'D'.*built-in function len"):
            future.result()


def test_misuse():
    for wrong in ([1, 2], len):
        with pytest.raises(TypeError, match="mapping must be a dict of names and arrays, not"):
            context(wrong)
    with pytest.raises(TypeError, match="D: only arrays"):
        context({"D": [1, 2]})
    with pytest.raises(ValueError, match="name of a variable"):
        context({"not a name": np.ones(2)})
    with pytest.raises(TypeError, match="object"):
        context({"D": np.array([None])})
    ctx = context({"D": np.ones(2)})
    ctx.close()
    ctx.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        ctx.submit(total, 1)


def test_the_arrays_are_there_once():
    data = np.ones(10**6)
    before = snp._core.Arena.default().stats()["block_bytes"]
    for workers in (1, 4):
        with context({"D": data}, workers=workers) as ctx:
            futures = [ctx.submit(total, i) for i in range(20)]
            assert [each.result() for each in futures] == [10**6 * i + 1 for i in range(20)]
            used = snp._core.Arena.default().stats()["block_bytes"] - before
            assert data.nbytes <= used < 1.05 * data.nbytes
        del ctx
        gc.collect()


# Managers of arrays.


def change(array, manager):
    array += 1
    manager.empty((2, 2), "i2")


@pytest.mark.parametrize("method", METHODS)
def test_arrays_of_a_manager(method):
    with snp.ArrayManager() as manager:
        a = manager.zeros((3, 4))
        b = manager.from_array(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
        assert b.flags.f_contiguous and (b == np.arange(6.0).reshape(2, 3)).all()
        child = multiprocessing.get_context(method).Process(target=change, args=(a, manager))
        child.start()
        child.join()
        assert child.exitcode == 0 and (a == 1).all()
        listed = {each.shape: each for each in manager.list()}
        assert set(listed) == {(3, 4), (2, 3), (2, 2)} and listed[2, 3].order == "F"
        name = listed[3, 4].name
        assert (snp.attach(name) == 1).all()
    # Views stay valid; the names are gone.
    a[0, 0] = 5
    assert a.sum() == 16
    with pytest.raises(FileNotFoundError):
        snp.attach(name)
    assert not [each for each in snp.list_named() if each.name in {n.name for n in listed.values()}]
    with pytest.raises((OSError, multiprocessing.ProcessError)):
        manager.zeros(3)


def test_a_manager_that_was_not_started():
    with pytest.raises((OSError, ValueError, multiprocessing.ProcessError)):
        snp.ArrayManager().zeros(3)


# Pools of others.


def fill_row(array, row):
    array[row] = row
    return type(array).__name__, by_reference.memory_of(array) is not None


def test_joblib():
    joblib = pytest.importorskip("joblib")
    from shared_numpy.integrations import joblib as integration

    integration.register()
    integration.register()
    shared = snp.zeros((4, 1000))
    found = joblib.Parallel(n_jobs=2)(joblib.delayed(fill_row)(shared, i) for i in range(4))
    assert found == [("ndarray", True)] * 4
    assert (shared == np.arange(4)[:, None]).all()
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


def test_loky():
    loky = pytest.importorskip("loky")
    from shared_numpy.integrations import loky as integration

    integration.register()
    shared = snp.zeros((4, 1000))
    with loky.ProcessPoolExecutor(2) as pool:
        futures = [pool.submit(fill_row, shared, i) for i in range(4)]
        assert [future.result() for future in futures] == [("ndarray", True)] * 4
    assert (shared == np.arange(4)[:, None]).all()
