"""`ProcessPoolExecutor`: every call is done once or says why not, and nothing stays.

What holds: a future yields what the function returns, or raises what it raised; what the
caller gave is not changed, but for shared arrays; a killed worker is named, and what it
did is done again if that was asked for; after a pool there are no processes,
descriptors, blocks or handles that were not there before. CPython's own tests of
executors are run by `cpython_tests`.
"""

import collections
import functools
import gc
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, TimeoutError, as_completed, wait
from contextlib import suppress

from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from conftest import complete, counts, eventually, place_of, run_command, run_python, run_script

import shared_numpy as snp
from shared_numpy import _core
from shared_numpy._pickling import by_reference, closures, moved, pickler
from shared_numpy._pool import light_future, scheduler, supervisor
from shared_numpy._pool.task import SENT
from shared_numpy._core import Arena
from shared_numpy.executor import BrokenProcessPool, ProcessPoolExecutor

METHODS = ["fork", "spawn", "forkserver"]
Pair = collections.namedtuple("Pair", "left right")


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()
    yield
    # What a killed worker was about to send would be freed half a minute later.
    arena = Arena.default()
    eventually(lambda: counts()[1] - before[1] <= 3 * arena.stats()["orphans"])
    if arena.stats()["orphans"]:
        arena.cancel_unreceived(0)
    eventually(lambda: counts() == before)
    assert not [each for each in multiprocessing.active_children() if each.name != "Manager"]


def pool(workers=2, method="fork", **options):
    return ProcessPoolExecutor(workers, multiprocessing.get_context(method), **options)


# What workers do.


def same(thing):
    return thing


def add_one(array):
    return array + 1


def fill(array, value):
    array[...] = value
    return os.getpid()


def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    time.sleep(10)


def until(path):
    """Wait until there is a file."""
    eventually(lambda: os.path.exists(path), 60)


def mark_and_sleep(path):
    open(path, "w").close()
    time.sleep(60)


def die_at_first(path, times, result):
    """Die as many times as there are no marks in a file, then return the sum."""
    with open(path, "a") as file:
        file.write("x")
    if os.path.getsize(path) <= times:
        die()
    return result.sum()


def is_moved(array):
    return by_reference._base_of(array) is not None, array.flags.writeable, type(array).__name__


class Mixed:
    def __init__(self, array):
        self.array, self.text = array, "text"


def test_arrays_at_any_depth_in_both_directions():
    rng = np.random.RandomState(0)
    big = rng.rand(300, 100)
    record = np.zeros(3000, [("a", "i4"), ("b", "S3")])
    record["b"] = b"xy"
    things = {
        "list": [big, [big[::2], (big.T, 1)]],
        "pair": Pair(big, {"deep": {"er": np.asfortranarray(big)}}),
        "set": {1, 2.5, frozenset([b"x"])},
        "record": record,
        "masked": np.ma.masked_less(big, 0.5),
        "scalar": np.float32(2),
        "empty": np.zeros((0, 3)),
        "objects": np.array([None, [1], "x"], dtype=object),
        "big endian": big.astype(">f8"),
    }
    with pool() as ex:
        back = ex.submit(same, things).result()
    assert (back["list"][0] == big).all() and (back["list"][1][0] == big[::2]).all()
    assert (back["list"][1][1][0] == big.T).all()
    assert type(back["pair"]) is Pair and back["pair"].right["deep"]["er"].flags.f_contiguous
    assert back["set"] == things["set"] and (back["record"] == record).all()
    assert back["record"].dtype == record.dtype
    assert (back["masked"] == things["masked"]).all() and back["masked"].mask.any()
    assert back["scalar"] == 2 and back["empty"].shape == (0, 3)
    assert back["objects"].tolist() == [None, [1], "x"]
    assert back["big endian"].dtype == ">f8"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_shared_and_what_is_private(method):
    plain, shared = np.zeros(10**5), snp.zeros(10**5)
    mixed = Mixed(plain)
    with pool(1, method) as ex:
        ex.submit(fill, plain, 5).result()
        ex.submit(fill, mixed.array, 5).result()
        ex.submit(fill, shared, 7).result()
        back = ex.submit(same, [shared[::-1], mixed]).result()
        again = ex.submit(add_one, plain).result()
    assert (plain == 0).all() and mixed.array is plain and (shared == 7).all()
    back[0][0] = 8
    assert shared[-1] == 8 and type(back[0]) is snp.ndarray and (back[1].array == 0).all()
    assert type(again) is np.ndarray and again.flags.writeable and (again == 1).all()
    again[0] = 3


def test_results_stay_in_shared_memory_until_the_last_view_is_gone():
    with pool(1) as ex:
        ex.submit(same, 1).result()
        before = counts()
        result = ex.submit(add_one, np.zeros(10**5)).result()
        # (The worker lets go of the message a moment after it has sent it.)
        eventually(lambda: counts() == (before[0] + 1, 0))
        part = result[5:]
        del result
        assert counts() == (before[0] + 1, 0)
        del part
        assert counts() == before


def test_results_can_be_copied():
    with pool(1, results="copy") as ex:
        ex.submit(same, 1).result()
        before = counts()
        result = ex.submit(same, {"a": np.ones((400, 100)), "b": [np.arange(10)]}).result()
        eventually(lambda: counts() == before)
    assert result["a"].flags.owndata and (result["a"] == 1).all()


def test_the_threshold():
    with pool(1, threshold=1000) as ex:
        assert ex.submit(is_moved, np.zeros(10)).result()[0] is False
        assert ex.submit(is_moved, np.zeros(200)).result() == (True, True, "ndarray")
    for never in (10**9, 10**30):
        with pool(1, threshold=never) as ex:
            assert ex.submit(is_moved, np.zeros(10**5)).result()[0] is False


def test_results_outlive_the_pool():
    with pool() as ex:
        results = list(ex.map(add_one, [np.full(10**5, i) for i in range(6)]))
    del ex
    assert [each[-1] for each in results] == [1, 2, 3, 4, 5, 6]


class Unpicklable:
    def __reduce__(self):
        raise ValueError("not me")


class Unloadable:
    def __reduce__(self):
        return divmod, (1, 0)


class Twofold(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def raising(error):
    raise error


def raise_twofold():
    raise Twofold(1, 2)


def raise_unpicklable():
    error = RuntimeError("with a lock")
    error.lock = threading.Lock()
    raise error


def make_unpicklable():
    return Unpicklable()


def make_unloadable():
    return Unloadable()


def test_errors_are_those_of_the_call():
    before = counts()
    with pool() as ex:
        with pytest.raises(KeyError) as raised:
            ex.submit(raising, KeyError("k")).result()
        assert "raise error" in str(raised.value.__cause__)
        for call, error in (
            ((same, Unpicklable()), ValueError),
            ((same, [np.zeros(10**5), snp.ones(3), Unpicklable()]), ValueError),
            ((same, Unloadable()), ZeroDivisionError),
            ((make_unpicklable,), ValueError),
            ((make_unloadable,), ZeroDivisionError),
            ((raise_twofold,), TypeError),
            ((raise_unpicklable,), pickle.PicklingError),
            ((same, 1, 2), TypeError),
            ((raising, SystemExit(3)), SystemExit),
        ):
            future = ex.submit(*call)
            assert isinstance(future.exception(), error), (call, future.exception())
        assert "raise error" in str(ex.submit(raising, OSError()).exception().__cause__)
        assert "Twofold" in str(ex.submit(raise_twofold).exception().__cause__)
        # The same workers go on.
        assert ex.submit(same, 1).result() == 1 and len(ex._processes) == 2
        assert counts()[1] == 0
    assert counts() == before


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_worker_is_named_and_breaks_the_pool(method, tmp_path):
    fds = descriptors()
    ex = pool(2, method)
    marks = [str(tmp_path / str(i)) for i in range(3)]
    kept = [ex.submit(mark_and_sleep, mark) for mark in marks]
    future = ex.submit(same, np.zeros(10**5))
    victim = ex.submit(die)
    pids = list(ex._processes)
    # (A fork server of 3.6 does not tell the signal.)
    fate = "(killed by SIGKILL|exit code 255)"
    eventually(lambda: sum(os.path.exists(mark) for mark in marks) == 2)
    os.kill(pids[0], signal.SIGKILL)
    for each in kept + [future, victim]:
        with pytest.raises(BrokenProcessPool, match=fate) as raised:
            each.result(timeout=30)
        assert "terminated abruptly with exit code" in raised.value.__cause__.tb
    with pytest.raises(BrokenProcessPool, match=fate + " while it ran mark_and_sleep"):
        ex.submit(same, 1)
    ex.shutdown()
    assert not any(os.path.exists("/proc/{}/exe".format(pid)) for pid in pids)
    del ex
    gc.collect()
    if method == "fork":
        assert descriptors() == fds


def test_the_function_is_named_that_was_given():
    with pool(1) as ex:
        future = ex.submit(functools.partial(_call_it, die))
        with pytest.raises(BrokenProcessPool, match="while it ran die"):
            future.result()


def _call_it(function):
    return function()


def test_retries(tmp_path):
    path = str(tmp_path / "marks")
    with pool(2, retries=2) as ex:
        others = [ex.submit(add_one, np.full(10**4, i)) for i in range(50)]
        future = ex.submit(die_at_first, path, 2, np.ones(10**5))
        assert future.result(timeout=60) == 10**5
        assert [each.result()[0] for each in others] == list(range(1, 51))
        assert os.path.getsize(path) == 3
        with pytest.raises(BrokenProcessPool, match="SIGTERM while it ran die"):
            ex.submit(die, signal.SIGTERM).result(timeout=60)


def switches(pids):
    """Return how often the threads of some processes have gone to sleep, or were interrupted."""
    found = 0
    for pid in pids:
        for thread in os.listdir("/proc/{}/task".format(pid)):
            with open("/proc/{}/task/{}/status".format(pid, thread)) as file:
                found += sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)
    return found


def test_an_idle_pool_sleeps():
    with pool(8) as executor:
        list(executor.map(abs, range(50)))
        time.sleep(2)  # The sleeps grow meanwhile.
        workers = list(executor._processes)
        before, start = switches(workers), time.monotonic()
        time.sleep(4)
        seconds = time.monotonic() - start
        # One wake-up a second each; they were twenty.
        assert switches(workers) - before <= 8 * 2 * (seconds + 1)


@pytest.mark.parametrize("has_epoll", [True, False])
def test_a_death_is_noticed_as_the_kernel_tells_it(has_epoll, monkeypatch):
    # Not by the look at all processes now and then.
    monkeypatch.setattr(supervisor, "_POLL_PROCESSES", 3600.0)
    if has_epoll:
        monkeypatch.setattr(supervisor, "_POLL_SENTINELS", 3600.0)
    else:
        monkeypatch.delattr(select, "epoll")
    threads, before = threading.active_count(), descriptors()
    for _ in range(3):
        with pool(2) as executor:
            assert executor.submit(abs, -1).result() == 1
            os.kill(list(executor._processes)[0], signal.SIGKILL)
            eventually(lambda: executor._broken)
            with pytest.raises(BrokenProcessPool):
                executor.submit(abs, -1)
    assert threading.active_count() == threads
    assert descriptors() == before


def test_an_idle_worker_is_replaced():
    with pool(1, retries=1) as ex:
        first = ex.submit(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        eventually(lambda: first not in ex._processes)
        assert ex.submit(os.getpid).result(timeout=60) != first


def test_short_calls_do_not_wait_behind_a_long_one(tmp_path):
    end = tmp_path / "end"
    with pool(2) as ex:
        list(ex.map(same, range(500)))
        long = ex.submit(until, str(end))
        short = [ex.submit(same, i) for i in range(200)]
        assert not wait(short, timeout=20).not_done
        assert not long.done()
        end.touch()


def test_cancelling(tmp_path):
    end = tmp_path / "end"
    with pool(1) as ex:
        ex.submit(same, 0).result()
        first = ex.submit(until, str(end))
        futures = [ex.submit(same, np.zeros(10**5)) for _ in range(10)]
        cancelled = [each for each in futures if each.cancel()]
        assert len(cancelled) == 10
        end.touch()
        assert set(wait(futures).done) == set(futures)
        with pytest.raises(CancelledError):
            cancelled[0].result()
        assert first.result() is None


def test_shutdown_cancels_if_asked(tmp_path):
    ex, end = pool(1), tmp_path / "end"
    futures = [ex.submit(until, str(end)) for _ in range(20)]
    threading.Timer(0.2, end.touch).start()
    ex.shutdown(cancel_futures=True)
    assert sum(each.cancelled() for each in futures) >= 16
    assert all(each.done() for each in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(same, 1)


def test_shutdown_without_waiting_and_dropped_executors():
    for drop in (False, True):
        ex = pool(2)
        futures = [ex.submit(add_one, np.full(10**4, i)) for i in range(40)]
        thread = ex._executor_manager_thread
        if drop:
            del ex
            gc.collect()
        else:
            ex.shutdown(wait=False)
        assert [each.result()[0] for each in futures] == list(range(1, 41))
        thread.join(20)
        assert not thread.is_alive()
        futures = None


def test_one_that_was_never_used():
    fds = descriptors()
    with pool():
        pass
    ex = pool()
    ex.shutdown()
    ex.shutdown()
    del ex
    gc.collect()
    assert descriptors() == fds


def test_threads_and_callbacks():
    done = []
    with pool() as ex:

        def work(number):
            for i in range(50):
                assert ex.submit(add_one, np.full(3000, number)).result()[7] == number + 1

        def again(future):
            if future.result() < 20:
                ex.submit(same, future.result() + 1).add_done_callback(again)
            else:
                done.append(future.result())

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        ex.submit(same, 0).add_done_callback(again)
        for thread in threads:
            thread.join()
        eventually(lambda: done == [20])
        # One that ends the pool.
        ex.submit(same, 1).add_done_callback(lambda future: ex.shutdown())


def nested(value):
    with ProcessPoolExecutor(1) as ex:
        return ex.submit(add_one, value).result()


def test_a_pool_in_a_worker():
    with pool(1) as ex:
        assert (ex.submit(nested, np.ones(10**5)).result() == 2).all()


def run_in_child(ex, answers):
    try:
        ex.submit(same, 1)
    except RuntimeError as error:
        answers.put(str(error))
    ex.shutdown()


def test_it_belongs_to_its_process():
    with pool(1) as ex:
        assert ex.submit(same, 1).result() == 1
        answers = multiprocessing.get_context("fork").SimpleQueue()
        child = multiprocessing.get_context("fork").Process(
            target=run_in_child, args=(ex, answers)
        )
        child.start()
        assert "process that made it" in answers.get()
        child.join()
        assert ex.submit(same, 2).result() == 2


_state = None


def set_state(value):
    global _state
    _state = value


def get_state():
    return _state


ON_STDIN = """
import multiprocessing
import shared_numpy as snp

if __name__ == "__main__":
    pool = snp.ProcessPoolExecutor(1, "METHOD")
    try:
        pool.submit(abs, -1).result()
    except Exception as error:
        print(type(error).__name__, error)
    pool.shutdown()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_that_cannot_import_the_main_module(method, tmp_path):
    """A program on stdin: its workers fail before their first call, and print why."""
    (tmp_path / "code").write_text(ON_STDIN.replace("METHOD", method))
    with open(str(tmp_path / "code")) as stdin:
        process = run_command([sys.executable, "-"], stdin=stdin)
    assert process.stdout.startswith("BrokenProcessPool the worker with pid")
    for part in ("before its first call", "on stderr", "not stdin", 'if __name__ == "__main__":'):
        assert part in process.stdout
    # (A fork server of 3.6 imports no main module that is not there, and the worker then fails.)
    assert "<stdin>" in process.stderr


def test_a_worker_that_exits_in_its_initializer():
    """Nothing is said of the main module, which a forked worker has."""
    with pool(1, initializer=os._exit, initargs=(3,)) as ex:
        with pytest.raises(BrokenProcessPool) as raised:
            ex.submit(same, 1).result()
    assert "ended with exit code 3 before its first call; its own error is on" in str(raised.value)
    assert "main module" not in str(raised.value)
    with pool(1, initializer=die) as ex:
        with pytest.raises(BrokenProcessPool, match="SIGKILL before its first call$"):
            ex.submit(same, 1).result()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_initializers(method):
    with pool(2, method, initializer=set_state, initargs=(snp.ones(3),)) as ex:
        assert [each.sum() for each in (ex.submit(get_state).result() for _ in range(4))] == [3] * 4
    ex = pool(2, method, initializer=raising, initargs=(ValueError("no"),))
    with pytest.raises(BrokenProcessPool, match="initializer.*no"):
        ex.submit(same, 1).result()
    ex.shutdown()


def test_workers_that_end_after_some_calls():
    with pool(2, "spawn", max_tasks_per_child=3) as ex:
        pids = [each.result() for each in [ex.submit(os.getpid) for _ in range(12)]]
    uses = collections.Counter(pids)
    assert len(uses) >= 4 and max(uses.values()) <= 3


# map.


def slow(value):
    time.sleep(0.2)
    return value


def test_map():
    with pool() as ex:
        assert list(ex.map(pow, range(10), range(10))) == list(map(pow, range(10), range(10)))
        assert list(ex.map(pow, range(10), range(10), chunksize=4)) == [n**n for n in range(10)]
        assert list(ex.map(same, [])) == []
        with pytest.raises(TimeoutError):
            list(ex.map(slow, range(9), timeout=0.3))
        for options, error in (
            ({"chunksize": 0}, ValueError),
            ({"chunksize": 1.5}, TypeError),
            ({"buffersize": 0}, ValueError),
            ({"buffersize": -1}, ValueError),
            ({"buffersize": 2.0}, TypeError),
            ({"buffersize": "x"}, TypeError),
        ):
            with pytest.raises(error, match=list(options)[0]):
                ex.map(same, [1], **options)
        taken = []
        results = ex.map(same, (taken.append(i) or i for i in range(100)), buffersize=5)
        assert len(taken) == 5 and next(results) == 0 and len(taken) == 6
        # Nobody wants the others.
        results.close()


def test_progress(capsys, monkeypatch):
    with pool(1) as ex:
        assert list(ex.map(same, range(5), progress=True)) == list(range(5))
        assert "5/5" in capsys.readouterr().err
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        with pytest.raises(ImportError, match="pip install tqdm"):
            ex.map(same, [1], progress=True)


# Functions without a name.


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_closures(method):
    cell, shared = np.ones(10**5), snp.zeros(4)

    def closure(factor, default=cell[::2]):
        shared[:] = factor
        return factor * cell.sum() + default.sum()

    with pool(1, method) as ex:
        assert ex.submit(lambda x: x + 1, 1).result() == 2
        assert ex.submit(closure, 2).result() == 250000
        assert (shared == 2).all()
        assert ex.submit(functools.partial(closure, 3)).result() == 350000
        inner = ex.submit(lambda: (lambda y: cell[0] + y)).result()
        assert inner(4) == 5
        assert list(ex.map(lambda pair: pair[0](pair[1]), [(lambda z: -z, 5)])) == [-5]
    handles = []
    try:
        # The arrays in it are not.
        assert len(closures.dumps(closure, handles)) < 5000 and len(handles) == 3
    finally:
        pickler.cancel(handles)


LATE = """
import shared_numpy as snp

if __name__ == "__main__":
    pool = snp.ProcessPoolExecutor(1, "METHOD")
    pool.submit(abs, -1).result()

    def late():
        pass

    try:
        pool.submit(late).result()
    except Exception as error:
        print(type(error).__name__, error)
    pool.shutdown()
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("is_file", [True, False])
def test_a_function_that_the_worker_does_not_have(method, is_file, tmp_path):
    """The error says where to define it; cloudpickle helps only where there is no file."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "cloudpickle.py").write_text("raise ImportError")
    code = LATE.replace("METHOD", method)
    path = os.pathsep.join(filter(None, [str(blocked), os.environ.get("PYTHONPATH")]))
    env = dict(os.environ, PYTHONPATH=path)
    if is_file:
        process = run_script(tmp_path, code, env=env)
    else:
        process = run_command([sys.executable, "-c", code], env=env)
    assert process.stdout.startswith("AttributeError ")
    assert "'late'" in process.stdout and "at the top level of a file, not behind" in process.stdout
    assert ("pip install cloudpickle" in process.stdout) is not is_file


def test_without_cloudpickle(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with pool(1) as ex:
        for call in ((lambda: 1,), (same, [lambda: 1])):
            with pytest.raises(pickle.PicklingError, match="pip install cloudpickle"):
                ex.submit(*call).result()
        with pytest.raises(ValueError, match="not me"):
            ex.submit(same, Unpicklable()).result()


# Classes that hold arrays.


class Image:
    def __init__(self, pixels):
        self.pixels, self.exposure = pixels, 3

    def __reduce__(self):
        return Image, (self.pixels.tolist(),)


def moved_of(image):
    return is_moved(image.pixels)[0], image.exposure, image


def test_a_wrapper_class():
    before = dict(ForkingPickler._extra_reducers)
    snp.register_type(Image, attribute="pixels")
    try:
        image = Image(np.arange(10.0**4))
        pixels = image.pixels
        with pool(1) as ex:
            moved, exposure, back = ex.submit(moved_of, image).result()
        assert moved and exposure == 3 and type(back) is Image and image.pixels is pixels
        assert (back.pixels == pixels).all()
    finally:
        ForkingPickler._extra_reducers.clear()
        ForkingPickler._extra_reducers.update(before)
    with pytest.raises(TypeError, match="attribute"):
        snp.register_type(Image, attribute="no name")


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": np.arange(10**4), "b": np.linspace(0, 1, 10**4)})
    handles = []
    try:
        assert len(closures.dumps(frame, handles)) < 5000 and len(handles) >= 1
    finally:
        pickler.cancel(handles)
    with pool(1) as ex:
        back = ex.submit(same, frame).result()
    pandas.testing.assert_frame_equal(back, frame)


# Places for the workers in the arena.

PLACES = """
import sys
import shared_numpy as snp
from shared_numpy import _core

def workers(number):
    with snp.ProcessPoolExecutor(number) as executor:
        return executor._max_workers, _core.places(0)

def refused(number):
    try:
        workers(number)
    except ValueError as error:
        return str(error)
"""


def places(code, said=None):
    """Run code in a program that has no arena yet, where the environment says how many places it is
    to have; return the lines that it prints."""
    settings = {key: text for key, text in os.environ.items() if key != "SHARED_NUMPY_ARENA"}
    if said is not None:
        settings["SHARED_NUMPY_ARENA"] = "processes={}".format(said)
    return run_python(PLACES + code, env=settings).splitlines()


@pytest.mark.parametrize(
    "workers, expected", [(1, 256), (192, 256), (193, 320), (300, 384), (960, 1024), (1023, 1024)]
)
def test_an_arena_that_is_not_there_yet_gets_places_for_the_workers(workers, expected):
    code = "print(*workers({}))\nprint(*workers(1))"
    # One that comes later finds the arena as it is.
    assert places(code.format(workers)) == [
        "{} {}".format(workers, expected), "1 {}".format(expected)
    ]  # fmt: skip


def test_the_environment_says_how_many_places_there_are():
    assert places("print(*workers(1))", 1024) == ["1 1024"]
    code = "print(*workers(99))\nprint(refused(100))"
    right, wrong = places(code, 100)
    assert right == "99 100"
    for part in ("max_workers=100", "need 101 places", "has 100", "processes=101", "at most 1024"):
        assert part in wrong
    # Before there is an arena.
    code = "print(refused(300)[:15], _core.places(0))\nimport os\nprint(os.environ['X'])"
    assert places("print(refused(300)[:15])", 256) == ["max_workers=300"]


def test_more_workers_than_the_arena_that_is_there_has_places_for():
    code = "kept = snp.zeros(3)\nprint(refused(256))\nprint(*workers(255))"
    wrong, right = places(code)
    assert "SHARED_NUMPY_ARENA=processes=257" in wrong
    assert right == "255 256"
    # By default there are no more than that.
    code = "os.sched_getaffinity = lambda pid: range(5000)\nprint(*workers(None))"
    assert places("import os\nkept = snp.zeros(3)\n" + code) == ["255 256"]
    assert places("import os\n" + code) == ["1023 1024"]


def test_a_context_asks_for_places_before_it_makes_an_arena():
    code = """
import numpy as np
with snp.SharedContext({"values": np.ones(3)}, max_workers=300):
    print(_core.places(0))
try:
    snp.SharedContext({"values": np.ones(3)}, max_workers=2000)
except ValueError as error:
    print(error)
"""
    right, wrong = places(code)
    assert right == "384"
    assert "2000" in wrong and "1023" in wrong


CHILD = """
import multiprocessing
import shared_numpy as snp

def work():
    for number in (255, 256):
        try:
            snp.ProcessPoolExecutor(number).shutdown()
        except ValueError as error:
            print(error)
        else:
            print(number)

if __name__ == "__main__":
    kept = snp.zeros(3)
    process = multiprocessing.get_context({method!r}).Process(target=work)
    process.start()
    process.join()
"""


@pytest.mark.parametrize("method", METHODS)
def test_a_child_counts_the_places_of_its_programs_arena(tmp_path, method):
    process = run_script(tmp_path, CHILD.format(method=method))
    assert (process.returncode, process.stderr) == (0, "")
    right, wrong = process.stdout.splitlines()
    assert right == "255" and "has 256" in wrong


def test_more_workers_than_an_arena_can_have():
    for number in (1024, 10**30):
        with pytest.raises(ValueError, match="max_workers .* at most 1023, not {}".format(number)):
            ProcessPoolExecutor(number)


MANY = """
import os
import numpy as np
import shared_numpy as snp

def work(array):
    return array + os.getpid()

if __name__ == "__main__":
    with snp.ProcessPoolExecutor(300, "fork") as executor:
        found = list(executor.map(work, [np.zeros(10000)] * 900))
        print(all((each == each[0]).all() for each in found), len(executor._processes))
        print(snp.Arena.default().stats()["processes"] > 256)
"""


@pytest.mark.slow
def test_three_hundred_workers(tmp_path):
    process = run_script(tmp_path, MANY)
    assert (process.returncode, process.stderr, process.stdout) == (0, "", "True 300\nTrue\n")


# Misuse, and no room.


def test_misuse():
    for options, error in (
        ({"max_workers": 0}, ValueError),
        ({"initializer": 5}, TypeError),
        ({"threshold": -1}, ValueError),
        ({"threshold": float("inf")}, TypeError),
        ({"retries": -1}, ValueError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": "x"}, TypeError),
        ({"max_workers": 1.5}, TypeError),
        ({"max_workers": "2"}, TypeError),
        ({"retries": 1.5}, TypeError),
        ({"retries": None}, TypeError),
        ({"mp_context": 5}, TypeError),
    ):
        with pytest.raises(error, match=list(options)[0]):
            ProcessPoolExecutor(**options)
    with pytest.raises(ValueError, match="no method"):
        ProcessPoolExecutor(mp_context="no method")
    with pytest.raises(ValueError, match="fork"):
        pool(1, "fork", max_tasks_per_child=1)


def test_start_methods_by_name():
    for method in METHODS:
        with ProcessPoolExecutor(np.int64(1), method) as ex:
            assert ex._mp_context.get_start_method() == method
    with pytest.raises(ValueError, match="fork"):
        ProcessPoolExecutor(1, "fork", max_tasks_per_child=1)


def test_without_room_calls_wait_for_those_that_are_done(monkeypatch):
    original, refused, busy = _core.terse, [], [True]

    def full(call, *arguments):
        if busy and call[0] is same and call[1] and type(call[1][0]) is np.ndarray:
            refused.append(1)
            raise snp.ArenaFullError("full")
        return original(call, *arguments)

    with pool(1) as ex:
        ex.submit(same, 1).result()
        running = ex.submit(time.sleep, 0.3)
        running.add_done_callback(lambda _: busy.clear())
        monkeypatch.setattr(_core, "terse", full)
        future = ex.submit(same, np.ones(10**5))
        later = [ex.submit(same, i) for i in range(3)]
        assert (future.result(timeout=20) == 1).all() and running.done()
        assert 0 < len(refused) < 20 and [each.result() for each in later] == [0, 1, 2]
        # When there is nothing to wait for it fails.
        busy.append(True)
        with pytest.raises(snp.ArenaFullError):
            ex.submit(same, np.ones(10**5)).result()


# The ends of programs.

START = """
import multiprocessing, os, signal, sys, threading, time
import numpy as np
import shared_numpy as snp
def late(n):
    time.sleep(n)
    print("done", flush=True)
    return np.ones(10**5)
def long(path):
    open(path, "w").close()
    time.sleep(60)
if __name__ == "__main__":
    method = sys.argv[1]
    ex = snp.ProcessPoolExecutor(2, multiprocessing.get_context(method))
"""


def gone(pids):
    return not any(os.path.exists("/proc/{}/exe".format(pid)) for pid in pids)


@pytest.mark.parametrize("method", METHODS)
def test_at_its_end_a_program_waits_for_its_calls(tmp_path, method):
    code = START + "    future = ex.submit(late, 0.5)\n    ex.submit(late, 0.5)\n"
    process = run_script(tmp_path, code, method)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.count("done") == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ring", ["0", "1"])
def test_the_workers_of_a_killed_program_end(tmp_path, method, ring):
    """Also before somebody waits for the program: here that is done when they have ended."""
    code = START + (
        "    print(*[ex.submit(os.getpid).result() for _ in range(20)], flush=True)\n"
        "    ex.submit(time.sleep, 0.5)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = dict(os.environ, SHARED_NUMPY_RING=ring)
    process = run_script(tmp_path, code, method, env=env)
    assert process.returncode == -signal.SIGKILL
    pids = set(process.stdout.split())
    assert pids
    eventually(lambda: gone(pids))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("busy", [False, True])
def test_ctrl_c(tmp_path, method, busy):
    """In the terminal: all processes get it. The program says so, and no other does."""
    script, mark = tmp_path / "script.py", tmp_path / "mark"
    code = START + (
        "    ex.submit(abs, 1).result()\n"
        "    futures = [ex.submit(long, sys.argv[2] + str(i)) for i in range(2 * %d)]\n"
        "    try:\n"
        "        print('ready', flush=True); time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', flush=True)\n"
        "    errors = [type(each.exception()).__name__ for each in futures]\n"
        "    ex.shutdown()\n"
        "    print(*errors)\n"
    )
    script.write_text(code % busy)
    process = subprocess.Popen(
        [sys.executable, str(script), method, str(mark)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        if busy:
            eventually(lambda: all(os.path.exists(str(mark) + str(i)) for i in range(2)))
        os.killpg(process.pid, signal.SIGINT)
        output, errors = complete(process)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert output.split() == ["interrupted"] + ["KeyboardInterrupt"] * 2 * busy


# At random.


def randomly(kind, array):
    if kind == "raise":
        raise RuntimeError("at random")
    if kind == "die":
        die()
    if kind == "sleep":
        time.sleep(0.002)
    return array * 2


def storm(number, seed, workers=3):
    rng = np.random.RandomState(seed)
    kinds = rng.choice(["raise", "sleep", "done"], number, p=[0.1, 0.1, 0.8])
    futures = []
    with pool(workers, retries=50) as ex:
        for i, kind in enumerate(kinds):
            array = np.full(rng.choice([10, 3000, 6000]), i % 1000)
            if rng.rand() < 0.2:
                array = snp.array(array)
            futures.append((i, str(kind), ex.submit(randomly, str(kind), array)))
            if rng.rand() < 0.05:
                futures[rng.randint(len(futures))][2].cancel()
            if i % 500 == 250:
                victims = list(ex._processes)
                # (One that was killed before may still be listed.)
                with suppress(ProcessLookupError):
                    os.kill(victims[rng.randint(len(victims))], signal.SIGKILL)
        for i, kind, future in futures:
            if future.cancelled():
                continue
            if kind == "raise":
                with pytest.raises(RuntimeError, match="at random"):
                    future.result(timeout=120)
            else:
                assert (future.result(timeout=120) == 2 * (i % 1000)).all()
    del futures[:]


def test_storm():
    fds = descriptors()
    storm(2000, 5)
    gc.collect()
    assert descriptors() == fds


@pytest.mark.slow
def test_storm_of_ten_thousand():
    fds = descriptors()
    storm(10000, 6)
    gc.collect()
    assert descriptors() == fds


def test_as_completed():
    with pool() as ex:
        futures = {ex.submit(add_one, np.full(10**4, i)): i for i in range(30)}
        for future in as_completed(futures):
            assert future.result()[0] == futures[future] + 1
        del future
        futures.clear()


def test_the_window_grows_for_short_calls_only():
    with pool(1) as ex:
        ex.submit(time.sleep, 0.01).result()
        assert [ex.submit(time.sleep, 0.05) for _ in range(20)]
        assert len(next(iter(ex._pool.scheduler.workers.values())).tasks) <= scheduler.LEAST
        ex.shutdown(cancel_futures=True)


# Huge arrays, which all workers have of one copy.


def meet(folder, number, array):
    """Look at the array while another worker does, too, and write to it."""
    place, seen = place_of(array), array.sum()
    open(os.path.join(folder, str(number)), "w").close()
    eventually(lambda: len(os.listdir(folder)) == 2)
    before = array.sum()
    array[:] = number
    return place, seen, before, (array == number).all(), array.flags.writeable


held = []


def keep_and_write(array):
    seen = array.copy("K")
    held.append(array)
    array[...] = -len(held)
    return seen


def all_held():
    return [(array == -number).all() for number, array in enumerate(held, 1)]


@pytest.fixture
def huge(monkeypatch):
    monkeypatch.setattr(moved, "HUGE", 1 << 20)


@pytest.mark.parametrize("method", METHODS)
def test_huge_arrays_are_copied_once_for_all_workers(method, tmp_path, huge):
    array = np.ones(1 << 18)
    with pool(2, method) as ex:
        futures = [ex.submit(meet, str(tmp_path), number, array) for number in (7, 8)]
        (place, *seen), (other, *alike) = [future.result() for future in futures]
        assert place == other
        assert seen == alike == [1 << 18, 1 << 18, True, True]
        assert (array == 1).all()


def test_a_huge_array_that_was_changed_is_another(huge):
    array = np.asfortranarray(np.arange(1 << 18).reshape(-1, 2))
    with pool(1) as ex:
        for position in (0, 1000, -1):
            array[position, 1] += 1
            futures = [ex.submit(keep_and_write, array) for _ in range(4)]
            for future in futures:
                seen = future.result()
                np.testing.assert_array_equal(seen, array)
                assert seen.flags.f_contiguous
            array.flags.writeable = False
            np.testing.assert_array_equal(ex.submit(same, array).result(), array)
            array.flags.writeable = True
        assert ex.submit(all_held).result() == [True] * 12


def test_huge_arrays_and_forks_and_kills(huge, tmp_path):
    array = np.arange(1 << 18)
    with pool(2, retries=2) as ex:
        sums = [ex.submit(die_at_first, str(tmp_path / "x"), 2, array) for _ in range(3)]
        assert [each.result() for each in sums] == [array.sum()] * 3
        results = list(ex.map(add_one, [array, array[::2], array.reshape(2, -1).T, array]))
        for result, like in zip(results, [array, array[::2], array.reshape(2, -1).T, array]):
            np.testing.assert_array_equal(result, like + 1)


def test_failures_keep_no_copy_of_a_huge_array(huge):
    array = np.ones(1 << 18)
    with pool(1) as ex:
        ex.submit(same, 1).result()
        before = counts()
        failed = ex.submit(same, (array, threading.Lock()))
        works = ex.submit(same, array[:2])
        with pytest.raises(Exception, match="lock"):
            failed.result()
        assert ex.submit(np.sum, array).result() == 1 << 18 and works.result().all()
        # (The failed future is kept, and its exception with it.)
        eventually(lambda: counts() == before)


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_is_started_late_holds_no_copy_of_a_huge_array(huge, method, tmp_path):
    array = np.ones(1 << 18)
    with pool(1, method, retries=1) as ex:
        ex.submit(same, 1).result()
        before = counts()
        assert ex.submit(die_at_first, str(tmp_path / "x"), 1, array).result() == 1 << 18
        eventually(lambda: counts() == before)


def test_copies_of_huge_arrays_go_with_the_last_call(huge):
    array = np.ones(1 << 18)
    with pool(2) as ex:
        ex.submit(same, 1).result()
        before = counts()
        assert ex.submit(np.sum, array).result() == 1 << 18
        eventually(lambda: counts() == before)


def test_a_worker_whose_start_is_interrupted_ends(monkeypatch):
    """By the exception of a signal's handler, between the fork and the note of it."""
    made, fork = [], multiprocessing.get_context("fork")
    start = fork.Process._Popen

    def interrupted(process):
        made.append(start(process))
        raise KeyboardInterrupt

    pool = snp.ProcessPoolExecutor(1, fork)
    monkeypatch.setattr(fork.Process, "_Popen", staticmethod(interrupted))
    with pytest.raises(KeyboardInterrupt):
        pool.submit(abs, -1)
    monkeypatch.undo()
    assert made[0].wait(20) == 0
    assert pool.submit(abs, -2).result(20) == 2
    pool.shutdown()


# Threads, and what is raised where nobody expects it.


def test_two_threads_cancel_the_same_futures(quick_switches):
    errors, both = [], threading.Barrier(2)

    def cancel(futures):
        both.wait()
        try:
            assert all([future.cancel() for future in futures])
        except BaseException as error:
            errors.append(error)

    with pool(1) as ex:
        ex.submit(time.sleep, 60)
        eventually(lambda: ex._pool.scheduler.workers)
        for _ in range(100):
            futures = [ex.submit(same, 1) for _ in range(20)]
            threads = [threading.Thread(target=cancel, args=(futures,)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not errors and set(wait(futures, 20).done) == set(futures)
        ex.kill_workers()


class Raises:
    """Raises something when it is pickled, or else when it is unpickled."""

    def __init__(self, kind, when):
        self.kind, self.when = kind, when

    def __reduce__(self):
        if self.when == "pickled":
            raise self.kind("now")
        return raising, (self.kind("now"),)


class RaisesAsError(Raises, Exception):
    def __init__(self, kind, when):
        super().__init__(kind, when)
        self.args = ()

    def __str__(self):
        raise self.kind("text")


def raise_it(kind, when):
    raise RaisesAsError(kind, when)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_pickling_raises_fails_that_call_alone(kind):
    with pool(1) as ex:
        first = ex.submit(os.getpid).result()
        for when in ("pickled", "unpickled"):
            for call in ((same, Raises(kind, when)), (Raises, kind, when)):
                error = ex.submit(*call).exception(20)
                assert type(error) is kind, call
                assert "raise self.kind" in str(error.__cause__) or when == "unpickled"
            error = ex.submit(raise_it, kind, when).exception(20)
            assert type(error) is (pickle.PicklingError if when == "pickled" else kind)
        assert ex.submit(os.getpid).result() == first


def test_the_cause_is_a_traceback_as_in_the_standard_library():
    remote = "_RemoteTraceback"
    with pool(1) as ex:
        for call in (same, Unpicklable()), (same, Unloadable()), (make_unloadable,):
            error = ex.submit(*call).exception()
            assert type(error.__cause__).__name__ == remote and "Error" in str(error.__cause__)
        error = ex.submit(same, Unpicklable()).exception()
        assert 'raise ValueError("not me")' in str(error.__cause__)
        ex.submit(die).exception()
        with pytest.raises(BrokenProcessPool) as raised:
            ex.submit(same, 1)
        assert raised.value.__cause__ is None
    with pool(1, initializer=raising, initargs=(ValueError("no"),)) as ex:
        error = ex.submit(same, 1).exception()
        assert type(error.__cause__).__name__ == remote and "raise error" in str(error.__cause__)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError])
def test_what_callbacks_raise_ends_no_pool(kind, caplog):
    told = []

    def fail(future):
        told.append("first")
        raise kind("in a callback")

    with pool(1) as ex:
        future = ex.submit(time.sleep, 0.2)
        future.add_done_callback(fail)
        future.add_done_callback(lambda _: told.append("second"))
        assert ex.submit(same, 1).result(20) == 1
        assert told == ["first", "second"] and "in a callback" in caplog.text


# Processes: they are started and waited for without the pool's lock, and never for ever.


def close_descriptors():
    os.closerange(3, 256)
    return os.getpid()


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_closes_its_descriptors_is_killed(method, monkeypatch):
    monkeypatch.setenv("SHARED_NUMPY_RING", "1")
    with pool(1, method, retries=1) as ex:
        pid = ex.submit(close_descriptors).result(20)
        if method == "forkserver" and sys.version_info >= (3, 7):
            return  # There it does not hold what tells of its end.
        eventually(lambda: gone([pid]) and pid not in ex._processes)
        assert ex.submit(os.getpid).result(20) != pid
    ex = pool(1, method)
    pid = ex.submit(close_descriptors).result(20)
    eventually(lambda: ex._broken)
    with pytest.raises(BrokenProcessPool, match="pid {} was killed.*descriptors".format(pid)):
        ex.submit(same, 1)
    ex.shutdown()
    assert gone([pid])


def test_sentinels_are_looked_at_whenever_processes_are(monkeypatch):
    monkeypatch.setenv("SHARED_NUMPY_RING", "1")
    # Each look is one at the processes: these tell nothing of one that lives on.
    monkeypatch.setattr(supervisor, "_POLL_PROCESSES", 0.0)
    with pool(1, "fork", retries=1) as ex:
        pid = ex.submit(close_descriptors).result(20)
        eventually(lambda: gone([pid]) and pid not in ex._processes)


@pytest.mark.parametrize("method", METHODS)
def test_a_worker_that_closes_the_pipe_for_its_answers_ends(method, monkeypatch, capfd):
    monkeypatch.setenv("SHARED_NUMPY_RING", "0")
    with pool(1, method) as ex:
        with pytest.raises(BrokenProcessPool):
            ex.submit(close_descriptors).result(20)


def test_processes_are_started_and_waited_for_without_the_lock(monkeypatch):
    pools, seen = [], []

    def watched(name, function):
        def call(*args, **kwargs):
            seen.append((name, pools[-1]._pool.scheduler.lock._is_owned()))
            return function(*args, **kwargs)

        return call

    Process = multiprocessing.get_context("fork").Process
    for name in ("start", "join"):
        monkeypatch.setattr(Process, name, watched(name, getattr(Process, name)))
    monkeypatch.setattr(time, "sleep", watched("sleep", time.sleep))
    for retries in (0, 3):
        pools.append(pool(2, retries=retries))
        with pools[-1] as ex:
            ex.submit(same, 1).result()
            os.kill(list(ex._processes)[0], signal.SIGKILL)
            eventually(lambda: ex._broken or "start" in [name for name, _ in seen[2:]])
            if retries:
                assert ex.submit(same, 1).result(20) == 1
    assert {"start", "join", "sleep"} == {name for name, _ in seen}
    assert not any(is_owned for _, is_owned in seen)


@pytest.fixture
def hanging(monkeypatch):
    """What begins when a process is to be started, which goes on when the second event is set;
    and the processes that were started."""
    Process = multiprocessing.get_context("fork").Process
    start, hangs, goes_on, started = Process.start, threading.Event(), threading.Event(), []

    def start_late(process):
        hangs.set()
        assert goes_on.wait(60)
        start(process)
        started.append(process)

    monkeypatch.setattr(Process, "start", start_late)
    yield hangs, goes_on, started
    goes_on.set()


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_a_start_that_hangs_keeps_nobody_waiting(hanging):
    hangs, goes_on, _ = hanging
    ex, futures = pool(1), []
    thread = in_thread(lambda: futures.append(ex.submit(same, 1)))
    hangs.wait()
    second, third = ex.submit(same, 2), ex.submit(same, 3)
    assert second.cancel()
    ex.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(same, 4)
    goes_on.set()
    thread.join(60)
    assert futures[0].result(20) == 1 and third.result(20) == 3
    ex.shutdown()


def test_a_join_that_hangs_keeps_nobody_waiting(monkeypatch):
    Process = multiprocessing.get_context("fork").Process
    join, hangs, goes_on = Process.join, threading.Event(), threading.Event()

    def join_late(process, timeout=None):
        hangs.set()
        assert goes_on.wait(60)
        join(process, timeout)

    monkeypatch.setattr(Process, "join", join_late)
    ex = pool(1, retries=1)
    try:
        ex.submit(same, 1).result(20)
        os.kill(list(ex._processes)[0], signal.SIGKILL)
        assert hangs.wait(20)
        futures, done = [], threading.Event()

        def use():
            futures.extend(ex.submit(same, number) for number in (2, 3))
            assert futures[0].cancel()
            ex.shutdown(wait=False)
            done.set()

        in_thread(use)
        assert done.wait(20)
    finally:
        goes_on.set()
    assert futures[1].result(20) == 3
    ex.shutdown()


def test_a_pool_that_breaks_waits_for_no_start_that_hangs(hanging, monkeypatch, capfd):
    hangs, goes_on, started = hanging
    monkeypatch.setattr(supervisor, "GRACE", 1.5)
    # As with other start methods: a worker is started when there is something for it to do.
    ex = pool(2)
    ex._pool.settings.starts_all = False
    goes_on.set()
    first = ex.submit(time.sleep, 60)
    eventually(lambda: first.running())
    goes_on.clear()
    hangs.clear()
    thread = in_thread(lambda: ex.submit(same, 1))
    hangs.wait()
    os.kill(started[0].pid, signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        first.result(20)
    ex.shutdown()
    goes_on.set()
    thread.join(60)
    # What has come late ends, and says nothing.
    assert len(started) == 2 and not any(process.is_alive() for process in started)
    assert capfd.readouterr().err == ""


def test_a_start_that_fails_leaves_the_calls_of_others(monkeypatch):
    Process = multiprocessing.get_context("fork").Process
    start, others, failed = Process.start, [], []

    def fail_once(process):
        if failed:
            return start(process)
        failed.append(True)
        in_thread(lambda: others.append(ex.submit(same, 5))).join()
        raise OSError("no processes")

    monkeypatch.setattr(Process, "start", fail_once)
    with pool(2) as ex:
        with pytest.raises(OSError, match="no processes"):
            ex.submit(same, 4)
        assert others[0].result(20) == 5 and ex.submit(same, 6).result(20) == 6


@pytest.mark.parametrize("ends", [False, True])
def test_a_handler_that_uses_a_pool_whose_workers_are_being_started(monkeypatch, ends):
    Process = multiprocessing.get_context("fork").Process
    start, futures = Process.start, []

    def start_and_use(process):
        if not futures:
            futures.append(ex.submit(same, 1))
            if ends:
                ex.shutdown()
        start(process)

    monkeypatch.setattr(Process, "start", start_and_use)
    with pool(2) as ex:
        futures.append(ex.submit(same, 2))
        for number, future in enumerate(futures, 1):
            if ends:
                with pytest.raises(RuntimeError, match="after shutdown"):
                    future.result(20)
            else:
                assert future.result(20) == number


def start_helper(folder, number):
    """In each worker: leave a process behind that keeps the sentinel open."""
    (folder / str(number)).touch()
    eventually(lambda: len(list(folder.iterdir())) == 3)
    pid = os.fork()
    if not pid:
        eventually(lambda: not folder.exists(), 60)
        os._exit(0)
    return pid


@pytest.mark.parametrize("breaks", [False, True])
def test_helpers_of_workers_keep_no_broken_pool(monkeypatch, tmp_path, breaks):
    monkeypatch.setattr(supervisor, "GRACE", 60)
    folder = tmp_path / "helpers"
    folder.mkdir()
    try:
        ex = pool(3)
        helpers = list(ex.map(start_helper, [folder] * 3, range(3), timeout=30))
        if breaks:
            with pytest.raises(BrokenProcessPool):
                ex.submit(die, signal.SIGKILL).result(20)
        thread = in_thread(ex.shutdown if breaks else ex.kill_workers)
        thread.join(20)
        assert not thread.is_alive() and not any(map(gone, zip(helpers)))
    finally:
        folder.rename(tmp_path / "end")
    thread.join()


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.3)


def test_a_broken_pool_ends_within_its_grace(monkeypatch):
    monkeypatch.setattr(supervisor, "GRACE", 2)
    waits, await_exits = [], supervisor.Supervisor.await_exits

    def recorded(self, workers, seconds):
        waits.append(seconds)
        return await_exits(self, workers, seconds)

    with pool(3) as ex:
        wait([ex.submit(ignore_sigterm) for _ in range(3)])
        workers = list(ex._processes.values())
        monkeypatch.setattr(supervisor.Supervisor, "await_exits", recorded)
        ex.terminate_workers()
    assert [each.exitcode for each in workers] == [-signal.SIGKILL] * 3
    assert sum(waits) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_with_retries_a_call_that_kills_its_workers_fails_alone(workers):
    with pool(workers, retries=1) as ex:
        for _ in range(2):
            bad = ex.submit(die)
            good = [ex.submit(same, i) for i in range(20)]
            with pytest.raises(BrokenProcessPool, match="SIGKILL while it ran die, 2 times"):
                bad.result(60)
            assert [each.result(60) for each in good] == list(range(20))
        assert not ex._broken


def fork_and(how):
    if os.fork() == 0:
        if how == "raise":
            sys.exit(0)
        return "child"
    return "parent"


class Forks:
    def __reduce__(self):
        return str, (fork_and("return"),)


def forks_in_pickling():
    return Forks()


def test_a_fork_that_comes_back_from_a_call_is_no_worker():
    def children(pid):
        with open("/proc/{0}/task/{0}/children".format(pid)) as file:
            return [each for each in file.read().split() if not gone([each])]

    with pool(1, initializer=fork_and, initargs=("return",)) as ex:
        pid = ex.submit(os.getpid).result(20)
        for _ in range(3):
            assert ex.submit(fork_and, "raise").result(20) == "parent"
            assert ex.submit(fork_and, "return").result(20) == "parent"
            assert ex.submit(forks_in_pickling).result(20) == "parent"
        assert ex.submit(os.getpid).result(20) == pid
        eventually(lambda: not children(pid))
        # In a callback, too, which the dispatcher's thread calls.
        forked, future = [], ex.submit(time.sleep, 0.2)
        future.add_done_callback(lambda _: forked.append(os.fork()))
        eventually(lambda: forked)
        assert os.waitpid(forked[0], 0)[1] == 0
        assert ex.submit(os.getpid).result(20) == pid


def test_a_forked_child_takes_no_call_back():
    with pool(1) as ex:
        first = ex.submit(time.sleep, 0.5)
        second = ex.submit(same, 2)
        eventually(lambda: second._task and second._task.state is SENT)
        child = os.fork()
        if not child:
            os._exit(int(second.cancel()))
        assert os.waitpid(child, 0)[1] == 1 << 8  # (In the child alone it is.)
        assert second.result(20) == 2 and first.result(20) is None


def test_what_is_waited_for_at_the_end_is_not_the_thread(monkeypatch):
    """Before 3.12 Ctrl-C in `Thread.join` leaves the lock of a thread that has ended locked."""
    with pool(1) as ex:
        ex.submit(same, 1).result()
        monkeypatch.setattr(ex._executor_manager_thread, "join", None)
        # Locks that Ctrl-C has left are given back.
        monkeypatch.setattr(light_future, "_LONGEST_HOLD", 1000)
        future = ex.submit(time.sleep, 0.2)
        future._condition.acquire()
        ex._pool.scheduler.lock.acquire()
    assert future.result() is None


HANGS = START + """
    from shared_numpy._pool import at_exit
    at_exit.STUCK = 0.5
    future = ex.submit(time.sleep, 0.3)
    if sys.argv[2] == "callback":
        future.add_done_callback(lambda _: time.sleep(600))
    else:
        ex.submit(keep_a_thread).result()
    print(*ex._processes)
"""
HANGS = HANGS.replace("if __name__", """
def keep_a_thread():
    threading.Thread(target=time.sleep, args=(600,)).start()
if __name__""")


@pytest.mark.parametrize("where", ["callback", "worker"])
def test_nothing_is_waited_for_for_ever_at_the_end(tmp_path, where):
    process = run_script(tmp_path, HANGS, "fork", where)
    assert process.returncode == 0
    assert ("given up at exit" in process.stderr) == (where == "callback")
    assert gone(process.stdout.split())


WITHOUT_POLL = """
import select
del select.poll, select.epoll
""" + START + """
    with snp.ProcessPoolExecutor(1, method, retries=1) as ex:
        first = ex.submit(os.getpid).result(30)
        os.kill(first, signal.SIGKILL)
        while first in ex._processes:
            time.sleep(0.01)
        print(ex.submit(os.getpid).result(30) != first)
"""


@pytest.mark.parametrize("ring", ["0", "1"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_where_select_has_no_poll(tmp_path, method, ring, monkeypatch):
    """As under eventlet, which takes away what it cannot make green."""
    monkeypatch.setenv("SHARED_NUMPY_RING", ring)
    process = run_script(tmp_path, WITHOUT_POLL, method)
    assert (process.returncode, process.stdout, process.stderr) == (0, "True\n", "")


def test_nothing_of_a_pool_waits_for_the_garbage_collector():
    """Neither a thread nor an object of it; from 3.8 on also where a call has failed. (Before that
    a future's exception refers to frames that refer to it.)"""
    run_python(
        """
import gc
import sys
import threading
import shared_numpy as snp

def use():
    with snp.ProcessPoolExecutor(2) as executor:
        assert list(executor.map(abs, [-1, 2])) == [1, 2]
        try:
            executor.submit(divmod, 1, sys.version_info < (3, 8)).result()
        except ZeroDivisionError:
            pass

use()
gc.collect()
gc.disable()
use()
assert list(threading._dangling) == [threading.main_thread()], list(threading._dangling)
left = [each for each in gc.get_objects() if type(each).__module__.startswith("shared_numpy._pool.")]
kinds = {type(each).__name__ for each in left}
assert not kinds & {"Supervisor", "ExitWatch", "Scheduler", "Worker", "Task"}, kinds
"""
    )
