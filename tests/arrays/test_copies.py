"""`warn_on_copy`: a shared array that is pickled by value is told, at the user's line.

What holds: nothing is told unless it was asked for, nor of what goes by reference or is no
shared array; what is told names the nearest line outside of installed packages.
"""

import pickle
import threading
import types
import warnings
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from conftest import counts, eventually, run_python

import shared_numpy as snp
from shared_numpy._pickling import copy_warnings


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()
    yield
    assert counts() == before


@pytest.fixture
def told():
    """Warnings, while they are on."""
    snp.warn_on_copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught
    snp.warn_on_copy(False)


def line_of(code, text):
    return next(n for n, line in enumerate(code.split("\n"), 1) if text in line)


def mine(text):
    with open(__file__, encoding="utf-8") as file:
        return __file__, line_of(file.read(), text)


def test_off_by_default():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pickle.dumps(snp.zeros(3))
        snp.warn_on_copy()
        snp.warn_on_copy(False)
        pickle.dumps(snp.zeros(3))
    assert not caught


def test_the_line_is_told(told):
    a = snp.zeros((2, 3), "f4")
    pickle.dumps({"a": [a]})  # Here.
    [warning] = told
    assert warning.category is snp.CopyWarning
    assert (warning.filename, warning.lineno) == mine("# Here.")
    for part in ("(2, 3)", "float32", "24 bytes", "by value", "register()", "send()", "joblib's default"):
        assert part in str(warning.message)
    assert "thread" not in str(warning.message)


def test_what_goes_by_reference_or_is_not_shared_is_not_told(told):
    a = snp.zeros(10000)
    ForkingPickler.loads(ForkingPickler.dumps([a, a[::2]]))
    q = snp.Queue()
    q.put([a, {"b": a[1:]}])
    assert q.get()[0].is_shared()
    snp.receive(snp.send((a, object)))
    for other in (np.zeros(3), a.copy(), a + 1, snp.ndarray(3, "u1", bytearray(3))):
        pickle.dumps(other)
    assert not told
    pickle.dumps(a[::2])
    assert len(told) == 1


def installed(tmp_path, code):
    """A module of a package that is installed."""
    path = tmp_path / "lib" / "site-packages" / "distributor.py"
    path.parent.mkdir(parents=True)
    path.write_text(code)
    module = types.ModuleType("distributor")
    exec(compile(code, str(path), "exec"), module.__dict__)
    return module, str(path)


DISTRIBUTOR = """
import pickle, threading
def submit(*things):
    return _submit(things)
def _submit(things):
    return pickle.dumps(things)  # Deep inside.
def submit_in_a_thread(*things):
    thread = threading.Thread(target=_submit, args=(things,), name="feeder")
    thread.start()
    thread.join()
"""


def test_the_user_s_line_is_told_and_no_package_s(told, tmp_path):
    package, path = installed(tmp_path, DISTRIBUTOR)
    package.submit(1, snp.zeros(3))  # By the user.
    package.submit_in_a_thread(1, snp.zeros(3))  # The user waits.
    direct, threaded = told
    assert (direct.filename, direct.lineno) == mine("# By the user.")
    # There is none in the package's thread, for which the main thread waits.
    assert (threaded.filename, threaded.lineno) == mine("# The user waits.")
    place = "by the thread 'feeder' at {}:{}".format(path, line_of(DISTRIBUTOR, "# Deep inside."))
    assert place in str(threaded.message)


def test_in_the_standard_library_s_threads(told):
    thread = threading.Thread(target=pickle.dumps, args=(snp.zeros(3),))
    thread.start()
    eventually(lambda: told)
    thread.join()
    assert [each.filename for each in told] == [__file__]


def test_where_no_line_is_the_user_s(told, monkeypatch):
    monkeypatch.setattr(copy_warnings, "_is_user_s", lambda name: False)
    pickle.dumps(snp.zeros(3))
    assert len(told) == 1


def test_filters_are_those_of_warnings():
    snp.warn_on_copy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", snp.CopyWarning)
            with pytest.raises(snp.CopyWarning, match="by value"):
                pickle.dumps(snp.zeros(3))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                pickle.dumps(snp.zeros(3))
            pickle.dumps(snp.zeros(3))
        assert len(caught) == 2  # Once for a line.
    finally:
        snp.warn_on_copy(False)


@pytest.mark.parametrize("name", ["cloudpickle", "dill"])
def test_other_picklers(told, name):
    pickler = pytest.importorskip(name)
    a = snp.zeros(3)
    assert pickle.loads(pickler.dumps(lambda: a))().tolist() == [0, 0, 0]  # By another.
    assert {(each.filename, each.lineno) for each in told} == {mine("# By another.")}


POOL = """
import sys, warnings
from importlib import import_module
import shared_numpy as snp
reduction = import_module(sys.argv[2] + ".backend.reduction")
integration = import_module("shared_numpy.integrations." + sys.argv[1])
snp.warn_on_copy()
a = snp.zeros(3)
class Later(snp.ndarray):
    pass
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    reduction.dumps([a])
    print(len(told), told[0].category.__name__)
    integration.register()
    integration.register()
    reduction.dumps([a, a.view(Later)])
    print(len(told))
    integration.unregister()
    integration.unregister()
    reduction.dumps([a])
    print(len(told))
    class Latest(snp.ndarray):
        pass
    reduction.dumps([a.view(Latest)])
    print(len(told))
"""


@pytest.mark.parametrize("package, loky", [("joblib", "joblib.externals.loky"), ("loky", "loky")])
def test_pools_of_other_packages(package, loky):
    """Their pickler takes arrays by value, unless it was told of them."""
    pytest.importorskip(package)
    assert run_python(POOL, package, loky) == "1 CopyWarning\n1\n2\n3\n"
