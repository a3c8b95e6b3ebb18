"""`ProcessPoolExecutor(results="in_place")`: what a function returns goes as it is.

What holds: whatever is returned arrives with its items, and the caller's changes to it
are seen by nobody in the worker: what anything there still refers to, or a process that
it has forked, arrives as a copy. All else lies where the function has made it. That is
seen without the code under test, by where in the arena's file an address is mapped.
"""

import functools
import multiprocessing
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from conftest import TESTS, counts, eventually, place_of, run_python
from small_shm import in_tmpfs

import shared_numpy as snp
from shared_numpy import _core
from shared_numpy.executor import ProcessPoolExecutor

METHODS = ["fork", "spawn", "forkserver"]
PLACES = np.lib.NumpyVersion(np.__version__) >= "1.22.0"
SIZE = 100000

placing = pytest.mark.skipif(not PLACES, reason="numpy before 1.22 places no arrays")


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()
    yield
    eventually(lambda: counts() == before, 45)


def pool(method="fork", **options):
    context = multiprocessing.get_context(method)
    return ProcessPoolExecutor(1, context, results="in_place", **options)


# What workers do; each notes where the items lie that it returns.

noted = []
kept = {}


def note(array):
    noted.append(place_of(array))
    return array


def last_noted():
    return noted[-1]


def new(start):
    return note(np.arange(start, start + SIZE))


def sums(start):
    base = np.arange(float(SIZE)) + start  # The first is a temporary of numpy's.
    return note(base)


def transposed(start):
    return note(np.arange(start, start + SIZE).reshape(100, -1).T)


def most_of_it(start):
    return note(np.arange(start, start + SIZE)[10:])


def in_containers(start):
    found = {"deep": [(1, np.arange(start, start + SIZE))]}
    note(found["deep"][0][1])
    return found


def grown(start):
    return note(np.fromiter(iter(range(start, start + SIZE)), "i8"))


def zeros(start):
    np.full(SIZE, 7)
    return note(np.zeros(SIZE, "i8"))


def resized(start):
    array = np.arange(start, start + SIZE // 8)
    array.resize(SIZE, refcheck=False)
    return note(array)


def argument(start, array):
    array += start
    return note(array)


def of_structures(start):
    array = np.zeros(SIZE, [("a", "u1"), ("b", "f4")])
    array["b"] = start
    return note(array)


def into_global(start):
    kept["array"] = np.arange(start, start + SIZE)
    return note(kept["array"])


def container_of_global(start):
    kept["list"] = [np.arange(start, start + SIZE)]
    note(kept["list"][0])
    return kept["list"]


def view_of_global(start):
    kept["array"] = np.arange(start, start + SIZE)
    return note(kept["array"][:])


def twice(start):
    array = np.arange(start, start + SIZE)
    note(array)
    return [array, array]


def two_views(start):
    array = np.arange(start, start + SIZE)
    return [note(array[: SIZE // 2]), array[SIZE // 2 :]]


def small_part(start):
    return note(np.arange(start, start + SIZE)[: SIZE // 3])


def by_weak_reference(start):
    array = np.arange(start, start + SIZE)
    kept["weak"] = weakref.ref(array)
    return note(array)


def by_memoryview(start):
    array = np.arange(start, start + SIZE)
    kept["buffer"] = memoryview(array)
    return note(array)


@functools.lru_cache(maxsize=None)
def cached(start):
    return note(np.arange(start, start + SIZE))


class Raised(Exception):
    pass


def by_traceback(start):
    array = np.arange(start, start + SIZE)
    try:
        raise Raised
    except Raised as error:
        kept["error"] = error
    return note(array)


def by_generator(start):
    def generate():
        array = np.arange(start, start + SIZE)
        while True:
            yield array

    kept["generator"] = generate()
    return note(next(kept["generator"]))


def in_thread(start):
    made = []
    thread = threading.Thread(target=lambda: made.append(np.arange(start, start + SIZE)))
    thread.start()
    thread.join()
    return note(made.pop())


def below_the_threshold(start):
    return note(np.arange(start, start + 100))


def repeated(start):
    array = np.arange(start, start + SIZE)
    return np.ndarray((2, SIZE), "i8", array, 0, (0, 8))


def beside_objects(start):
    array = np.zeros(SIZE, [("a", object), ("b", "i8", (3,))])
    array["b"] = np.arange(start, start + 3 * SIZE).reshape(-1, 3)
    return note(array["b"])


def after_a_fork(start):
    array = np.arange(start, start + SIZE)
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0,))
    process.start()
    process.join()
    return note(array)


def values(thing):
    """Return all items of what arrived."""
    if isinstance(thing, dict):
        return values(list(thing.values()))
    if isinstance(thing, (list, tuple)):
        return [each for part in thing for each in values(part)]
    return [thing]


@placing
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "function",
    [
        new, sums, transposed, most_of_it, in_containers, grown, zeros, resized, argument,
        of_structures,
    ],
)  # fmt: skip
def test_what_nobody_else_has_is_not_copied(function, method):
    arguments = (np.arange(SIZE),) if function is argument else ()
    with pool(method) as ex:
        for start in (0, 5):
            result = ex.submit(function, start, *arguments).result()
            expected = function(start, *[each.copy() for each in arguments])
            arrays = [each for each in values(result) if isinstance(each, np.ndarray)]
            for array, like in zip(arrays, values(expected)[-len(arrays) :]):
                np.testing.assert_array_equal(array, like)
                assert (array.strides, array.flags.writeable) == (like.strides, True)
                assert type(array) is np.ndarray
            assert place_of(arrays[-1]) == ex.submit(last_noted).result()
            arrays[-1][...] = 0


@pytest.mark.parametrize(
    "function",
    [
        into_global, container_of_global, view_of_global, twice, two_views, small_part,
        by_weak_reference, by_memoryview, cached, by_traceback, by_generator, in_thread,
        below_the_threshold, beside_objects, after_a_fork,
    ],
)  # fmt: skip
def test_what_somebody_may_have_is_copied(function):
    with pool() as ex:
        result = ex.submit(function, 5).result()
        array = values(result)[0]
        np.testing.assert_array_equal(array.ravel(), np.arange(5, 5 + array.size))
        # (What is no file's may have the same address in both processes.)
        place = place_of(array)
        assert place[1] == 0 or place != ex.submit(last_noted).result()


def test_what_is_repeated_is_expanded():
    with pool() as ex:
        result = ex.submit(repeated, 5).result()
        result[0] = 0
        np.testing.assert_array_equal(result[1], np.arange(5, 5 + SIZE))


def look():
    """Return a copy of what a global still has."""
    return kept["array"].copy(), np.frombuffer(kept["buffer"], "i8").copy()


def test_a_returned_global_buffer_stays_the_workers():
    with pool() as ex:
        results = [ex.submit(each, 3).result() for each in (into_global, by_memoryview)]
        for result in results:
            result[:] = -1
        for seen in ex.submit(look).result():
            np.testing.assert_array_equal(seen, np.arange(3, 3 + SIZE))


def forked(start, path):
    """Fork a child that looks at an array which is returned afterwards."""
    array = np.arange(start, start + SIZE)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            while not os.path.exists(path):
                time.sleep(0.01)
            os.write(writer, str(int(array.sum())).encode())
            array[:] = -2
            os.write(writer, b"!")
        finally:
            os._exit(0)
    os.close(writer)
    kept["pipe"], kept["child"] = reader, child
    return array


def childs_sum():
    seen = b""
    while not seen.endswith(b"!"):
        seen += os.read(kept["pipe"], 100)
    os.close(kept["pipe"])
    os.waitpid(kept["child"], 0)
    return int(seen[:-1])


@pytest.mark.parametrize("method", METHODS)
def test_a_forked_child_has_memory_of_its_own(method, tmp_path):
    path = str(tmp_path / "go")
    with pool(method) as ex:
        result = ex.submit(forked, 3, path).result()
        result[:] = -1
        open(path, "w").close()
        assert ex.submit(childs_sum).result() == np.arange(3, 3 + SIZE).sum()
        assert (result == -1).all()


def run_programs(start):
    array = np.arange(start, start + SIZE)
    for options in ({}, {"preexec_fn": os.getpid}, {"close_fds": False}):
        subprocess.check_call([sys.executable, "-c", ""], **options)
        array += 1
    return array


def test_subprocess():
    with pool() as ex:
        for start in range(3):
            result = ex.submit(run_programs, start).result()
            np.testing.assert_array_equal(result, np.arange(SIZE) + start + 3)


def pool_in_a_worker(start, method):
    before = np.arange(start, start + SIZE)
    with pool(method) as ex:
        after = list(ex.map(new, [start, start + 1]))
        after.append(ex.submit(argument, 1, before).result())
    after.append(before)
    return after


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_in_a_worker(method):
    with pool(method) as ex:
        result = ex.submit(pool_in_a_worker, 7, method).result()
    for array, start in zip(result, [7, 8, 8, 7]):
        np.testing.assert_array_equal(array, np.arange(start, start + SIZE))


def in_threads(rounds):
    """Make and free arrays in threads, also those of each other."""
    handed, errors = [np.full(SIZE, -1)], []

    def run(number):
        try:
            for _ in range(rounds):
                array = np.full(SIZE + number, number)
                handed.append(array)
                other = handed.pop(0)
                assert (other == other[0]).all()
                assert (array == number).all()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    run(9)
    for thread in threads:
        thread.join()
    assert not errors, errors
    return handed


def test_threads():
    with pool() as ex:
        result = ex.submit(in_threads, 100).result()
        assert [(array == array[0]).all() for array in result] == [True]


def many(count):
    arrays = [np.full(1 << 13, number) for number in range(count)]
    kept["blocks"] = _core.Arena.default().stats()["blocks"]
    return arrays


def blocks_then():
    return kept["blocks"]


def test_more_than_are_placed():
    with pool() as ex:
        for _ in range(2):
            result = ex.submit(many, 5000).result()
            assert [int(each[-1]) for each in result] == list(range(5000))
            assert all((each == each[0]).all() for each in result)
            # (A few are the pool's own.)
            most = 1 << 12 if PLACES else 0
            assert most <= ex.submit(blocks_then).result() <= most + 10
            del result


def fail_with(array):
    kept["array"] = array * 2
    raise ValueError(array * 3)


def test_exceptions_and_what_cannot_be_pickled():
    with pool() as ex:
        for _ in range(3):
            with pytest.raises(ValueError) as raised:
                ex.submit(fail_with, np.ones(SIZE)).result()
            assert (raised.value.args[0] == 3).all()
            with pytest.raises(Exception, match="lock"):
                ex.submit(with_lock).result()
        raised.value.__traceback__ = None
        del raised


def with_lock():
    return [np.ones(SIZE), threading.Lock()]


def test_without_room_memory_is_ordinary():
    code = """
import numpy as np
from shared_numpy import _core
assert _core.place_arrays(0) is {}
_core.Arena.default()
before = _core.Arena.default().stats()["blocks"]
small, large = np.zeros(100), np.zeros(100000)
blocks = _core.Arena.default().stats()["blocks"] - before
assert blocks == {}, blocks
large = [np.ones(1 << 22, "u1") for _ in range(30)]
assert all(each.all() for each in large)
del large
given = _core.given_away([np.zeros(100000)])
assert len(given) == {}
"""
    in_tmpfs(32 << 20, code.format(PLACES, int(PLACES), int(PLACES)))


@placing
def test_private_however_many_were_received_before():
    code = """
import os
import numpy as np
from shared_numpy import _core
def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    os.waitpid(pid, 0)
arena = _core.Arena.default()
received = [arena.alloc(3 * 4096) for _ in range(1 << 14)]
for block in received:
    block.private = True
child(list)
assert _core.place_arrays(0)
array = np.zeros(100000)
assert _core.given_away([np.zeros(100000)])
def write():
    array[:] = 7
child(write)
assert not array.any()
"""
    run_python(code)


def keep_much(count):
    kept["much"] = [np.ones(1 << 17) for _ in range(count)]
    return kept["much"][0]


def test_what_a_worker_keeps_leaves_room_for_what_is_sent():
    code = """
import sys
sys.path[:0] = {!r}
import numpy as np
from test_zero_copy import keep_much, pool
with pool() as ex:
    assert ex.submit(keep_much, 100).result().all()
    assert ex.submit(np.sum, np.ones(1 << 17)).result() == 1 << 17
"""
    in_tmpfs(64 << 20, code.format([os.path.dirname(os.path.abspath(__file__)), TESTS]))


def test_misuse():
    with pytest.raises(ValueError, match="'shared', 'copy', 'in_place', not 'shard'"):
        ProcessPoolExecutor(1, results="shard")
    with ProcessPoolExecutor(1, threshold=1 << 30, results="in_place") as ex:
        assert (ex.submit(new, 1).result() == np.arange(1, 1 + SIZE)).all()
    assert snp.ProcessPoolExecutor is ProcessPoolExecutor
