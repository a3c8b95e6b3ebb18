"""`shared_numpy.compat`: programs of other projects run with only the import changed.

What holds: the examples of their pages do what the pages say, with every start method,
and leave nothing behind; public names have the originals' signatures; what went wrong
there (said at each test) does not here.
"""

import collections
import copy
import gc
import inspect
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from concurrent import futures

import numpy as np
import pytest
from conftest import counts, eventually, left_of, names_now, run_command, run_python

import shared_numpy as snp
from shared_numpy import _core
from shared_numpy.compat import contextshare, jztools, npshmex, pyarraypool
from shared_numpy.shared_memory import SharedMemory

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(autouse=True)
def nothing_stays():
    # (Tests elsewhere may have started one.)
    pyarraypool.stop_pool()
    before = counts()
    yield
    pyarraypool.stop_pool()
    eventually(lambda: counts() == before, 45)


def stdlib_pool(method="fork", workers=1):
    """Return the standard library's executor; ours where that takes no context, or its
    workers keep what they have returned."""
    if sys.version_info >= (3, 8):
        return futures.ProcessPoolExecutor(workers, multiprocessing.get_context(method))
    return snp.ProcessPoolExecutor(workers, multiprocessing.get_context(method))


# The pages' examples, word for word but for the imports; what runs at once stands under
# the guard that `spawn` needs.

NPSHMEX = (
    """
import numpy as np
from shared_numpy.compat.npshmex import ProcessPoolExecutor

def add_one(x):
    return x + 1
""",
    """
ex = ProcessPoolExecutor()
big_data = np.ones(int(2e7))

f = ex.submit(add_one, big_data)
print(f.result()[0])           # 2.0
""",
    "2.0\n",
)

# (Its second example; "x" in the last line is a slip for what is called so before.)
BY_HAND = (
    """
from concurrent.futures import ProcessPoolExecutor
import shared_numpy.compat.sharedarray as SharedArray

def add_one(shm_key):
    x = SharedArray.attach(shm_key)
    x += 1
""",
    """
import os
shm_key = 'shm://test-of-doors-%d' % os.getpid()
ex = ProcessPoolExecutor()

big_data = SharedArray.create(shm_key, int(2e7))
big_data += 1

f = ex.submit(add_one, shm_key)
f.result()
SharedArray.delete(shm_key)
print(big_data[0])     # 2.0
""",
    "2.0\n",
)

PYARRAYPOOL = (
    """
import shared_numpy.compat.pyarraypool as pyarraypool
import multiprocessing
import numpy as np

def task(x, i, value):
    # Define a dummy task
    x[i, :, :] = value

def main():
    arr = np.random.random((100, 200, 500))
    I, J, K = arr.shape

    with multiprocessing.get_context("spawn").Pool(processes=8, initializer=pyarraypool.start_pool) as pool, \\
            pyarraypool.object_pool():
        # Transfer the array to shared memory
        shmarr = pyarraypool.make_transferable(arr)

        # Apply task to array
        pool.starmap(task, [
            (shmarr, i, i) for i in range(I)
        ])
        return shmarr
""",
    """
shmarr = main()
print((shmarr == np.arange(100)[:, None, None]).all())
""",
    "True\n",
)

CONTEXTSHARE = (
    """
import shared_numpy.compat.contextshare as shared
import numpy as np


def serial(sigmas):
    alphas = []
    for sigma in sigmas:
        K = np.exp(-0.5 * D / (sigma * sigma))
        alphas.append(np.linalg.solve(K, b))
    return alphas


def parallel(sigmas):
    with shared.SharedMemory({"D": D, "b": b}, nworkers=11) as sm:

        @sm.register
        def one_sigma(sigma):
            K = np.exp(-0.5 * D / (sigma * sigma))
            return np.linalg.solve(K, b)

        for sigma in sigmas:
            one_sigma(sigma)

        return sm.evaluate(progress=True)
""",
    """
N = 2000
D = np.random.random((N, N))
b = np.random.random(N)

sigmas = 2.0 ** np.arange(1, 12)

s = serial(sigmas)
p = parallel(sigmas)
print(len(p), all(np.allclose(x, y, rtol=1e-3) for x, y in zip(s, p)))
""",
    "11 True\n",
)

JZTOOLS = (
    """
from shared_numpy.compat.jztools import XSharedMemoryManager, xndarray
from concurrent.futures import ProcessPoolExecutor
import numpy as np
""",
    """
with XSharedMemoryManager() as smm:

  # Fill an xndarry with random data
  N = int(1e6)
  rng = np.random.default_rng(0)
  xarr = smm.empty(N)
  rng.random(N, out=xarr)

  # Take the mean of both halves in different processes
  futures = []
  with ProcessPoolExecutor() as pool:
    futures.append(pool.submit(np.mean, xarr[:N//2]))
    futures.append(pool.submit(np.mean, xarr[N//2:]))

  results = [x.result().item() for x in futures]
  print(results)
""",
    "[0.500112327474833",
)

PAGES = {
    "npshmex": NPSHMEX,
    "by hand": BY_HAND,
    "pyarraypool": PYARRAYPOOL,
    "contextshare": CONTEXTSHARE,
    "jztools": JZTOOLS,
}

GUARDED = """
{}

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
{}
    sys.stderr.close()  # (Where tqdm shows its bar.)
    print(os.getpid())
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("page", sorted(PAGES))
def test_examples(page, method, tmp_path):
    functions, main, expected = PAGES[page]
    if page == "contextshare":
        pytest.importorskip("cloudpickle")
        pytest.importorskip("tqdm")
        main = main.replace("N = 2000", "N = 300")  # (It takes a while.)
    functions = functions.replace('get_context("spawn")', "get_context({!r})".format(method))
    main = "".join("    " + line for line in main.splitlines(True))
    script = tmp_path / "script.py"
    start = "import multiprocessing, os, sys\n"
    script.write_text(start + GUARDED.format(functions, main))
    before = names_now()
    process = run_command([sys.executable, str(script), method], timeout=150)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr and "leaked" not in process.stderr
    assert process.stdout.startswith(expected)
    assert left_of(int(process.stdout.splitlines()[-1]), before) == []


# Signatures, as the originals have them.

SIGNATURES = [
    (npshmex.ProcessPoolExecutor.submit,
     "(self, f, *args, shm_input=True, shm_output=True, **kwargs)"),
    (npshmex.register_array_wrapper, "(cls, attrname)"),
    (npshmex.shm_put, "(arr, temp=False)"),
    (npshmex.shm_pop, "(key, keep=None)"),
    (npshmex.shm_del, "(key)"),
    (npshmex.is_shmkey, "(key)"),
    (npshmex.is_shmable, "(thing)"),
    (npshmex.unshm, "(x, keep=None)"),
    (npshmex.shm_clear, "(all=False)"),  # (It had no argument.)
    (pyarraypool.start_pool, "()"),
    (pyarraypool.stop_pool, "()"),
    (pyarraypool.object_pool, "()"),
    (pyarraypool.object_pool_context, "()"),
    (pyarraypool.make_transferable, "(arr, *, transfer_required=True)"),
    (pyarraypool.get_reusable_pool, "()"),
    (pyarraypool.configure_global_pool,
     "(*, link_path=None, slot_count=None, data_size=None, autostart=None)"),
    (pyarraypool.cleanup_shm, "()"),
    (pyarraypool.ShmObjectPool,
     "(*, slot_count=5000, data_size=524288000, path='pyarraypool.seg')"),
    (pyarraypool.ShmObjectPool.add_object, "(self, python_id, request_size)"),
    (pyarraypool.ShmObjectPool.attach_object, "(self, python_id)"),
    (pyarraypool.ShmObjectPool.detach_object, "(self, python_id)"),
    (pyarraypool.ShmObjectPool.set_object_releasable, "(self, python_id)"),
    (pyarraypool.ShmObjectPool.memview_of, "(self, python_id)"),
    (pyarraypool.ShmObjectPool.dump, "(self)"),
    (contextshare.SharedMemory, "(vars, nworkers)"),
    (contextshare.SharedMemory.register, "(self, func)"),
    (contextshare.SharedMemory.evaluate, "(self, progress=False)"),
    (jztools.InvalidAsXndarray, "(obj)"),
    (jztools.XSharedMemoryManager, "(*args, **kwargs)"),
    (jztools.XSharedMemoryManager.from_ndarray, "(self, arr, **kwargs)"),
    (jztools.XSharedMemoryManager.empty, "(self, *args, **kwargs)"),
    (jztools.xndarray.__new__,
     "(cls, sh_mem, manager, shape, dtype, offset, strides, scope='local', **kwargs)"),
    (jztools.xndarray.is_shared, "(self)"),
    (jztools.xndarray.release, "(self)"),
    (jztools.xndarray.as_ndarray, "(self)"),
    (jztools.xndarray.from_ndarray, "(manager, arr, **kwargs)"),
    (jztools.xndarray.empty, "(manager, shape, dtype=float, order='C', scope='local')"),
]  # fmt: skip


def described(function):
    """Return a signature without annotations."""
    found = inspect.signature(function)
    parameters = [each.replace(annotation=each.empty) for each in found.parameters.values()]
    text = str(found.replace(parameters=parameters, return_annotation=found.empty))
    return text.replace("<class 'float'>", "float")


@pytest.mark.parametrize("function, signature", SIGNATURES)
def test_signatures(function, signature):
    assert described(function) == signature


def test_names():
    for name in (
        "is_shared", "release", "as_ndarray", "scope", "shared_memory", "shared_memory_manager",
    ):  # fmt: skip
        assert hasattr(jztools.xndarray, name)
    assert issubclass(pyarraypool.PoolNotRunning, Exception)
    assert issubclass(pyarraypool.PoolAlreadyExists, Exception)
    assert issubclass(pyarraypool.ndarrayproxy, np.ndarray)
    assert issubclass(jztools.XSharedMemoryManager, snp.SharedMemoryManager)
    for module in (npshmex, pyarraypool, contextshare, jztools):
        assert all(hasattr(module, name) for name in module.__all__)
    # Programs for it use these by way of its star.
    assert {"np", "SharedArray", "pickle", "random", "string", "concurrent"} <= set(npshmex.__all__)
    run_python("from shared_numpy import *\nQueue, array, ndarray, from_array, SharedMemory")


# npshmex.


class Wrapper:
    def __init__(self, text, data):
        self.text, self.data = text, data


npshmex.register_array_wrapper(Wrapper, "data")


def square(x):
    return x**2


def square_in_dict(thing):
    assert thing["y"] == "something"
    return {"x": thing["x"] ** 2, "y": thing["y"]}


def square_wrapper(wrapper):
    wrapper.data = wrapper.data**2
    return wrapper


def same(x):
    return x


def write(x):
    x[...] = 9


def keys():
    """The keys that this process has made."""
    mine = "_P%X" % os.getpid()
    names = [each.name for each in snp.list_named()]
    return [name for name in names if npshmex.is_shmkey(name) and mine in name]


def test_npshmex_dicts_of_any_kind():
    found = collections.defaultdict(list, a=npshmex.shm_put(np.arange(3), temp=True), b=1)
    taken = npshmex.unshm(found)
    assert type(taken) is collections.defaultdict and taken["a"].sum() == 3 and taken["b"] == 1
    assert not keys()


@pytest.mark.parametrize("method", METHODS)
def test_npshmex_keys(method):
    with npshmex.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as ex:
        assert ex.submit(square, np.arange(10)).result().sum() == 285
        assert not keys()
        key = npshmex.shm_put(np.arange(10))
        assert npshmex.is_shmkey(key) and key.startswith("shm://npshmex")
        assert ex.submit(square, x=key).result().sum() == 285
        assert len(keys()) == 1
        # Who pops a key that stays has its memory.
        ex.submit(write, key).result()
        assert npshmex.shm_pop(key, keep=False).tolist() == [9] * 10
        assert not keys()
        result = ex.submit(square_in_dict, {"x": np.arange(10), "y": "something"}).result()
        assert result["x"].sum() == 285 and result["y"] == "something"
        temporary = npshmex.shm_put(np.arange(5), temp=True)
        assert ex.submit(same, temporary).result().tolist() == [0, 1, 2, 3, 4]
        assert not keys()
        kept = npshmex.shm_put(np.arange(5), temp=True)
        assert npshmex.shm_pop(kept, keep=True).sum() == 10
        assert ex.submit(same, kept, shm_input=False, shm_output=False).result() == kept
        assert npshmex.unshm({"a": kept, "b": 3})["a"].sum() == 10
        with pytest.raises(FileNotFoundError):
            npshmex.shm_pop(kept)
        wrapper = ex.submit(square_wrapper, Wrapper(42, np.arange(10))).result()
        assert wrapper.text == 42 and wrapper.data.sum() == 285


def test_npshmex_keeps_mask_byte_order_and_memory_order():
    """There: the mask was lost, big-endian and Fortran-order arrays came otherwise."""
    record = np.zeros(3, [(("title", "a"), "f8"), ("b", ">i2", (2, 2))])
    record["a"] = 42
    masked = np.ma.array(np.arange(6).reshape(2, 3), mask=[[0, 1, 0], [1, 0, 0]], fill_value=7)
    for thing in (
        np.arange(6).astype(">i4"), np.asfortranarray(np.arange(6.0).reshape(2, 3)), record,
        masked, np.matrix([[1, 2]]), np.array(5), np.zeros((0, 3)), np.arange(10)[::3],
    ):  # fmt: skip
        key = npshmex.shm_put(thing, temp=True)
        found = npshmex.shm_pop(key)
        assert type(found) is type(thing) and found.dtype == thing.dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(thing))
        if thing.flags.f_contiguous != thing.flags.c_contiguous:
            assert found.flags.f_contiguous == thing.flags.f_contiguous
    assert found is not thing and not keys()
    key = npshmex.shm_put(masked)
    found = npshmex.shm_pop(key)
    assert (found.mask == masked.mask).all() and found.fill_value == 7
    npshmex.shm_del(key)
    assert not keys()


def are_shared(things):
    """Tell of arrays in a list in a dict whether they lie in the arena."""
    return [type(each.base) is _core.Block for each in things["list"]]


def test_npshmex_arrays_at_any_depth_go_through_shared_memory():
    """There: nested lists and dicts that were given were pickled, with all their items."""
    masked = np.ma.masked_less(np.arange(10000.0), 3)
    with npshmex.ProcessPoolExecutor(1) as ex:
        thing = {"list": [np.ones(10000), np.asfortranarray(np.ones((100, 100))).T]}
        assert ex.submit(are_shared, thing).result() == [True, True]
        result = ex.submit(same, [[masked], thing]).result()
        assert (result[0][0].mask == masked.mask).all()
        assert are_shared(result[1]) == [True, True]
        big_endian = ex.submit(same, {"x": np.arange(5000, dtype=">i4")}).result()["x"]
        assert big_endian.dtype == ">i4" and big_endian[4999] == 4999


def test_npshmex_changes_nothing_of_the_callers():
    """There: a wrapper's array was replaced by its key, a dict's values were."""
    wrapper, thing = Wrapper(1, np.arange(5)), {"x": np.arange(3), "y": "something"}
    data, x = wrapper.data, thing["x"]
    with npshmex.ProcessPoolExecutor(1) as ex:
        ex.submit(square_wrapper, wrapper).result()
        ex.submit(square_in_dict, thing).result()
        key = npshmex.shm_put(wrapper)
        assert npshmex.shm_pop(key, keep=False).data.tolist() == [0, 1, 2, 3, 4]
    assert wrapper.data is data and thing["x"] is x and not keys()
    keyed = {"a": npshmex.shm_put(data, temp=True)}
    before = dict(keyed)
    npshmex.unshm(keyed)
    assert keyed == before


def test_npshmex_leaves_the_standard_library_alone():
    """There: `concurrent.futures._base.Future` was replaced for everyone."""
    run_python(
        "import concurrent.futures._base as base\n"
        "before = base.Future, base.Future.set_result\n"
        "import shared_numpy.compat.npshmex\n"
        "assert before == (base.Future, base.Future.set_result)\n"
    )


def test_npshmex_cancelled_and_failed_tasks_leave_nothing():
    """There: their arguments stayed in /dev/shm."""
    before = names_now()
    with npshmex.ProcessPoolExecutor(1) as ex:
        futures = [ex.submit(same, np.ones(10000) * i) for i in range(50)]
        cancelled = [future.cancel() for future in reversed(futures)]
        failing = [ex.submit(square, np.array(["x"] * 5000)) for _ in range(5)]
        assert any(cancelled)
        for future in failing:
            with pytest.raises(TypeError):
                future.result()
    assert not keys()
    left = names_now() - before
    assert not [each for each in left if each.startswith("npshmex") and "P%X" % os.getpid() in each]


LEAVE = """
import os, sys
import numpy as np
from shared_numpy.compat import npshmex
print(npshmex.shm_put(np.arange(5)))
print(npshmex.shm_put(np.ma.masked_less(np.arange(5), 2)))
"""


def test_npshmex_clears_what_nobody_holds():
    """There: `shm_clear` wiped segments that were in use."""
    held = npshmex.shm_put(np.arange(5))
    left = run_python(LEAVE).split()
    mapped = npshmex.shm_pop(run_python(LEAVE).split()[0])
    npshmex.shm_clear()
    assert npshmex.shm_pop(held).sum() == mapped.sum() == 10
    for key in left:
        with pytest.raises(FileNotFoundError):
            npshmex.shm_pop(key)
    assert sum(each.name[6:] in open("/proc/self/maps").read() for each in snp.list_named()) >= 1
    npshmex.shm_del(held)
    del mapped
    gc.collect()
    npshmex.shm_clear()
    assert not keys()


def test_npshmex_misuse():
    with pytest.raises(ValueError, match="neither an array"):
        npshmex.shm_put([1, 2])
    for function in (npshmex.shm_pop, npshmex.shm_del):
        with pytest.raises(ValueError, match="no key"):
            function("shm://other")
        with pytest.raises(FileNotFoundError):
            function("shm://npshmex_data_PFFFFFFFF0000000000000000_")
    assert npshmex.unshm(3) == 3 and not npshmex.is_shmkey(None)
    assert npshmex.is_shmable(np.zeros(1)) and npshmex.is_shmable(Wrapper(1, 2))
    assert not npshmex.is_shmable([1])


# pyarraypool.


def add_one(array, index):
    array[index] += 1


def attach(number):
    view = pyarraypool.get_reusable_pool().attach_object(number)
    view[0] = 9
    return bytes(view[:3])


def attach_and_die(number):
    pyarraypool.get_reusable_pool().attach_object(number)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("method", METHODS)
def test_pyarraypool_arrays(method):
    with pyarraypool.object_pool_context():
        array = np.arange(50)
        proxy = pyarraypool.make_transferable(array)
        assert type(proxy) is pyarraypool.ndarrayproxy and proxy.python_id != 0
        assert (proxy == array).all() and len(proxy) == 50 and proxy.max() == 49
        with multiprocessing.get_context(method).Pool(2, pyarraypool.start_pool) as pool:
            pool.starmap(add_one, [(proxy, i) for i in range(proxy.size)])
        assert (proxy == array + 1).all()
        again = pyarraypool.make_transferable(array)
        assert (again == array).all() and again.python_id != proxy.python_id
        assert pyarraypool.make_transferable(proxy) is proxy
        # A plain pickle goes by reference, too.
        stream = pickle.dumps(proxy)
        assert len(stream) < 500
        other = pickle.loads(stream)
        other[0] = 77
        assert proxy[0] == 77 and (pickle.loads(stream) == proxy).all()
        assert type(proxy + 1) is np.ndarray and proxy.copy().python_id == 0
        pyarraypool.make_transferable(array, transfer_required=False)


def test_pyarraypool_slices_are_sent():
    """There: ValueError, "Cannot transfer none registered object"."""
    proxy = pyarraypool.make_transferable(np.arange(1000).reshape(100, 10))
    for part in (proxy[0, :], proxy[::-3, 2:], proxy.T):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)), part)
        pickle.loads(pickle.dumps(part))[...] = 5
        assert (part == 5).all()


def test_pyarraypool_identity_is_the_memorys():
    """There: an array that got the `id` of a dead one was taken for it: its data came."""
    for value in range(200):
        array = np.full(100, value)
        assert (pyarraypool.make_transferable(array) == value).all()
        del array


def found_and_kept(number, replaced):
    """Find an array by its number and look at it when its owner has made another."""
    view = pyarraypool.get_reusable_pool().attach_object(number)
    first = bytes(view[:8])
    open(replaced + ".found", "w").close()
    while not os.path.exists(replaced):
        time.sleep(0.01)
    return first, bytes(view[:8])


def test_pyarraypool_found_memory_is_not_used_again(tmp_path):
    pyarraypool.configure_global_pool(link_path=tmp_path / "pool.seg")
    replaced = str(tmp_path / "replaced")
    context, path = multiprocessing.get_context("fork"), str(tmp_path / "pool.seg")
    with context.Pool(1, configure, (path,)) as pool:
        proxy = pyarraypool.make_transferable(np.full(10, 1.0))
        number = proxy.python_id
        result = pool.apply_async(found_and_kept, (number, replaced))
        while not os.path.exists(replaced + ".found"):
            time.sleep(0.01)
        del proxy
        proxy = pyarraypool.make_transferable(np.full(10, 2.0))
        assert proxy.python_id != number
        open(replaced, "w").close()
        assert result.get(20) == (np.ones(1).tobytes(),) * 2
        del proxy
        part = pyarraypool.make_transferable(np.arange(100.0))[3:10]
        whole, number = part.base, part.python_id
        del part
        assert pyarraypool.get_reusable_pool().memview_of(number).nbytes == 800
        del whole
        gc.collect()
        assert pyarraypool.get_reusable_pool().memview_of(number) is None


ADD = """
import sys
from shared_numpy.compat import pyarraypool
pyarraypool.configure_global_pool(link_path=sys.argv[1])
pyarraypool.get_reusable_pool().add_object(5, 100)
from shared_numpy._core import Arena
print(Arena.default().name)
"""


def test_pyarraypool_what_was_never_transferred_ends_with_the_program(tmp_path):
    pyarraypool.configure_global_pool(link_path=tmp_path / "pool.seg")
    arena = run_python(ADD, str(tmp_path / "pool.seg")).strip()
    assert not os.path.exists("/dev/shm/" + arena)
    pool = pyarraypool.get_reusable_pool()
    assert pool.memview_of(5) is None and "5: 100 bytes" in pool.dump()
    pyarraypool.cleanup_shm()
    assert pool.dump() == ""


def test_pyarraypool_layouts():
    """There: items were not aligned; strided arrays came in C order."""
    fortran = np.asfortranarray(np.ones((3, 4)))
    for array in (fortran, np.array(3.5), np.zeros((0, 2)), np.arange(9)[::2]):
        proxy = pyarraypool.make_transferable(array)
        assert proxy.flags.aligned and proxy.flags.f_contiguous >= array.flags.f_contiguous
        np.testing.assert_array_equal(proxy, array)
    large = [pyarraypool.make_transferable(np.ones(3)) for _ in range(20000)]
    assert sum(each[0] for each in large) == 20000  # (There: 10,000 slots.)


def test_pyarraypool_grows(tmp_path):
    """There: memory for all arrays was set at the start, 512 MB if nothing was said."""
    pyarraypool.configure_global_pool(link_path=tmp_path / "x", data_size="1M", slot_count=1)
    arrays = [pyarraypool.make_transferable(np.full(1 << 20, i)) for i in range(3)]
    assert [each[-1] for each in arrays] == [0, 1, 2]


@pytest.mark.parametrize("method", METHODS)
def test_pyarraypool_objects(method, tmp_path):
    pyarraypool.configure_global_pool(link_path=tmp_path / "pool.seg", autostart=True)
    pool = pyarraypool.get_reusable_pool()
    view = pool.add_object(7, 100)
    assert view.nbytes == 100 and pool.memview_of(8) is None
    view[:3] = b"abc"
    with pytest.raises(ValueError, match="7 already"):
        pool.add_object(7, 10)
    context, path = multiprocessing.get_context(method), str(tmp_path / "pool.seg")
    with context.Pool(1, configure, (path,)) as workers:
        assert workers.apply(attach, (7,)) == b"\tbc"
        proxy = pyarraypool.make_transferable(np.full(10, 3, "u1"))
        assert workers.apply(attach, (proxy.python_id,)) == b"\t\3\3"
        workers.terminate()
        workers.join()
    assert proxy[0] == 9 and "7: 100 bytes" in pool.dump()
    pool.detach_object(7)
    with pytest.raises(KeyError):
        pool.detach_object(7)
    # Views that were handed out stay good; the object is gone when they are.
    assert bytes(view[:3]) == b"\tbc"
    del view
    gc.collect()
    pyarraypool.stop_pool()
    pool = pyarraypool.get_reusable_pool()
    assert pool.memview_of(7) is None
    with pytest.raises(KeyError):
        pool.attach_object(7)
    pool.add_object(9, 10).release()
    pool.detach_object(9)
    assert pool.memview_of(9) is not None  # It waits for its transfer ...
    pool.set_object_releasable(9)
    assert pool.memview_of(9) is None  # ... no more.
    del proxy
    assert pool.dump() == ""


def configure(path):
    pyarraypool.configure_global_pool(link_path=path)
    pyarraypool.start_pool()


def test_pyarraypool_a_killed_worker_keeps_nothing(tmp_path):
    """There: its references stayed, and if it held the spinlock all others hung."""
    pyarraypool.configure_global_pool(link_path=tmp_path / "pool.seg", autostart=True)
    pool = pyarraypool.get_reusable_pool()
    pool.add_object(1, 1000)
    process = multiprocessing.get_context("fork").Process(target=attach_and_die, args=(1,))
    process.start()
    process.join()
    pool.detach_object(1)
    assert pool.memview_of(1) is None
    pyarraypool.cleanup_shm()
    assert pool.dump() == ""


def test_pyarraypool_lifecycle(tmp_path):
    pyarraypool.configure_global_pool(link_path=str(tmp_path / "x"), autostart=False)
    try:
        for _ in range(3):
            with pytest.raises(pyarraypool.PoolNotRunning):
                pyarraypool.get_reusable_pool()
            with pytest.raises(pyarraypool.PoolNotRunning):
                pyarraypool.make_transferable(np.ones(1))
            with pyarraypool.object_pool():
                pyarraypool.get_reusable_pool()
                with pytest.raises(pyarraypool.PoolAlreadyExists):
                    with pyarraypool.object_pool_context():
                        pass
                pyarraypool.get_reusable_pool()
        with pytest.raises(ZeroDivisionError):
            with pyarraypool.object_pool():
                1 / 0
        with pytest.raises(pyarraypool.PoolNotRunning):
            pyarraypool.get_reusable_pool()
    finally:
        pyarraypool.configure_global_pool(autostart=True)


def test_pyarraypool_sizes():
    parse = pyarraypool._parse_datasize_to_bytes
    for value, expected in [
        ("1G", 1 << 30), ("2.4G", int(2.4 * (1 << 30))), ("5M", 5 << 20), ("1K", 1024),
        ("1.5K", 1536), (1.5, 1), (256, 256), ("512M", 512 << 20),
    ]:  # fmt: skip
        assert parse(value) == expected
    for value in (-5, 0, "0", "0.8", "0G"):
        with pytest.raises(ValueError, match="pool size cannot be null or less"):
            pyarraypool.configure_global_pool(data_size=value)
    for value in ("Awesome", "FewG"):
        with pytest.raises(ValueError):
            pyarraypool.configure_global_pool(data_size=value)


# contextshare.


def scaled(factor):
    return float((D * factor).sum())  # noqa: F821 (of the context)


def pickled_size(thing):
    return len(pickle.dumps(thing))


def test_contextshare():
    """There: arrays were pickled with the function, since the names were never set; each
    `evaluate` made a new pool, and the second one left a segment."""
    before = names_now()
    # (The first context that is asked for sets it, in whichever test.)
    method = multiprocessing.get_start_method()
    with contextshare.SharedMemory({"D": np.ones(1000000)}, 2) as sm:
        enqueue = sm.register(scaled)
        pids = sm.register(os.getpid)
        for _ in range(3):
            assert [enqueue(factor) for factor in (1, 2, 3)] == [None] * 3
            assert sm.evaluate() == [1e6, 2e6, 3e6]
        for _ in range(10):
            pids()
        workers = set(sm.evaluate())
        pids()
        assert set(sm.evaluate()) <= workers | {next(iter(workers))} and len(workers) <= 2
        assert sm.evaluate() == []
    assert multiprocessing.get_start_method(allow_none=True) == method
    mine = [each for each in names_now() - before if "%x" % os.getpid() in each]
    assert not [each for each in mine if not each.startswith("snp-")]


def first_of_d():
    return float(D[0])  # noqa: F821 (of the context)


def block_of(array):
    while type(array) is not _core.Block:
        array = array.base
    return array.name


def place_of_d():
    return block_of(D)  # noqa: F821 (of the context)


def test_contextshare_names_are_of_one_shared_array():
    """There: the names were not set, and each function had a copy in its pickle."""
    captured = np.ones(1000000)

    def total():
        return captured.sum(), block_of(captured)

    pytest.importorskip("cloudpickle")
    with contextshare.SharedMemory({"D": np.ones(1000), "captured": captured}, 2) as sm:
        for _ in range(4):
            sm.register(place_of_d)()
        assert len(set(sm.evaluate())) == 1
        for _ in range(4):
            sm.register(total)()
        ((result, place),) = set(sm.evaluate())
        assert result == 1000000 and place


def test_contextshare_takes_the_arrays_when_it_is_entered():
    data = np.zeros(5)
    sm = contextshare.SharedMemory({"D": data}, 1)
    sm.register(first_of_d)()
    for value in (7, 8):
        data[:] = value
        with sm:
            sm.register(first_of_d)()
            assert set(sm.evaluate()) == {float(value)}
    with pytest.raises(RuntimeError, match="with statement"):
        sm.evaluate()


def test_contextshare_sets_no_start_method():
    """There: importing it set "forkserver" for the whole program."""
    run_python(
        "import multiprocessing\n"
        "import shared_numpy.compat.contextshare\n"
        "assert multiprocessing.get_start_method(allow_none=True) is None\n"
    )


def test_contextshare_without_cloudpickle(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    with contextshare.SharedMemory({"D": np.ones(3)}, 1) as sm:
        sm.register(lambda: 1)()
        with pytest.raises(pickle.PicklingError, match="pip install cloudpickle"):
            sm.evaluate()
    with pytest.raises(TypeError, match="only arrays"):
        with contextshare.SharedMemory({"x": [1]}, 1):
            pass


# jztools.


def make(smm, shape, value, scope="remote"):
    array = smm.empty(shape, scope=scope)
    array[...] = value
    return array


def only_its_name(smm, size):
    array = smm.empty(size, scope=None)
    array[:] = size
    return array.shared_memory.name


def specs(array):
    return array.shared_memory.name, array.shape, array.sum().item(), array.scope


def keep_for_good(array):
    array.scope = None


def pickle_again(array):
    return pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(array[3:])))).tolist()


@pytest.fixture
def smm():
    with jztools.XSharedMemoryManager() as manager:
        yield manager


def names(*arrays):
    return {array.shared_memory.name for array in arrays}


def await_tracked(manager, expected):
    """Wait until exactly these segments are tracked, as they must be before long.

    The standard library's workers, and its thread here, let go of what they were given
    and returned a moment after the result has been set.
    """
    tracked = manager._list_tracked_segments
    eventually(lambda: set(tracked()) == expected, tell=lambda: (tracked(), expected))
    assert len(tracked()) == len(expected)


def test_jztools_what_is_tracked(smm):
    x, y, z = smm.empty(10), smm.empty(10), smm.empty(10)
    smm.empty(10)
    assert set(smm._list_tracked_segments()) == names(x, y, z)
    del x
    assert set(smm.list_tracked_segments()) == names(y, z)
    z.release()
    assert set(smm._list_tracked_segments()) == names(y)
    z[:] = 3  # (There: a crash.)
    with pytest.raises(ValueError, match="unlinked"):
        pickle.dumps(z)
    for _ in range(10):
        y = smm.empty(10)
        assert set(smm._list_tracked_segments()) == names(y)


@pytest.mark.parametrize("method", METHODS)
def test_jztools_scopes(smm, method):
    """There: what a child made with the scope 'local' was gone, and broke the pool."""
    with stdlib_pool(method, 2) as ex:
        for scope, arrives in (("local", None), ("remote", "local"), (None, None)):
            x = ex.submit(make, smm, 10, 1, scope).result()
            assert type(x) is jztools.xndarray and (x == 1).all() and x.scope == arrives
            await_tracked(smm, names(x))
            x.release()
        name = ex.submit(only_its_name, smm, 7).result()
        y = jztools.xndarray(name, smm, 7, float, 0, None)
        assert (y == 7).all() and y.scope == "local"
        del x, y
        gc.collect()
        await_tracked(smm, {name})
        y = jztools.xndarray(name, smm, 7, float, 0, None)
        y.release()
        del y
        await_tracked(smm, set())
        z = smm.empty(5, scope="remote")
        z[:] = 4
        name = z.shared_memory.name
        ex.submit(keep_for_good, z).result()
        del z
        gc.collect()
        await_tracked(smm, {name})
        z = jztools.xndarray(name, smm, 5, float, 0, None, scope=None)
        z.scope = "local"
        assert (z == 4).all()
        del z
        await_tracked(smm, set())
        # A slice keeps the memory, and nothing more.
        part = ex.submit(make, smm, 10, 1).result()[3:]
        part = ex.submit(np.asanyarray, part).result()
        assert (part == 1).all()
        del part
        gc.collect()
        await_tracked(smm, set())


def test_jztools_slices_copies_and_results(smm):
    x = smm.from_ndarray(np.arange(1000.0))
    for key in (slice(5, 100, 3), None, slice(None, -10, -3), ...):
        part = x[key]
        np.testing.assert_array_equal(part, np.arange(1000.0)[key])
        assert part.is_shared() and part.shared_memory is x.shared_memory
        assert part.shared_memory_manager is smm
        function, arguments = part.__reduce__()[:2]
        np.testing.assert_array_equal(function(*arguments), part)
    for key in ([0, 1, 2], x > 500):
        part = x[key]
        assert type(part) is jztools.xndarray and not part.is_shared()
        assert part.shared_memory is part.shared_memory_manager is part.scope is None
        for copied in (pickle.loads(pickle.dumps(part)), part.copy(), copy.deepcopy(part)):
            np.testing.assert_array_equal(copied, np.arange(1000.0)[key])
            assert not np.shares_memory(copied, part)
        assert type(part + 1) is np.ndarray
    assert type(x[3]) is np.float64
    for result in (x + 1, 2 * x, np.add(x, x), np.stack([x, x])):
        assert type(result) is np.ndarray
    assert type(x.sum()) is np.float64
    out = smm.empty(1000)
    assert np.add(x, 1, out=out) is out and out.is_shared()
    for made in (x.copy(), copy.copy(x), copy.deepcopy(x), x[::2].copy()):
        assert type(made) is jztools.xndarray and made.is_shared()
        assert made.shared_memory.name != x.shared_memory.name
    assert type(x.as_ndarray()) is np.ndarray and not np.shares_memory(x.as_ndarray(), x)
    wide = smm.empty((100, 1, 20, 1, 3))
    squeezed = np.squeeze(wide)
    assert type(squeezed) is jztools.xndarray and squeezed.shape == (100, 20, 3)
    segment = x.shared_memory
    assert segment.size >= x.nbytes == 8000 and segment.buf[:8] == x[:1].tobytes()


@pytest.mark.parametrize("method", METHODS)
def test_jztools_memory_is_told_in_children(smm, method):
    x = smm.from_ndarray(np.arange(100.0))
    with stdlib_pool(method) as ex:
        for last in (1, 25, 100):
            name, shape, total, scope = ex.submit(specs, x[:last]).result()
            assert (name, shape, total) == (x.shared_memory.name, (last,), x[:last].sum())
            assert scope is None
        assert ex.submit(pickle_again, x[5:]).result() == list(range(8, 100))


def test_jztools_pickles_are_small_and_by_reference(smm):
    arrays = [smm.from_ndarray(np.random.rand(size)) for size in (10, 1000, 1000000)]
    arrays.append(arrays[-1][-10000:])
    streams = [pickle.dumps(each) for each in arrays]
    assert max(map(len, streams)) <= 300
    loaded = [pickle.loads(each) for each in streams]
    for x in arrays:
        x[-1] = 0
    for x, y in zip(arrays, loaded):
        np.testing.assert_array_equal(x, y)
    record = smm.from_ndarray(np.zeros(1000, [("a", int), ("m", "f4", (3, 2)), ("d", "M8[m]")]))
    things = {"full": record, "a": record["a"], "m": record["m"], "d": record["d"]}
    stream = pickle.dumps(things)
    assert len(stream) <= 300 * len(things)
    again = pickle.loads(stream)
    record["d"][0] = 7
    assert all((again[name] == things[name]).all() for name in things)


def test_jztools_slices_that_were_unpickled_are_pickled_again(smm):
    """There: the second pickling took the slice's place for the array's: wrong data."""
    x = smm.from_ndarray(np.arange(100.0))
    once = pickle.loads(pickle.dumps(x[10:90:2]))
    twice = pickle.loads(pickle.dumps(once[5:]))
    np.testing.assert_array_equal(twice, np.arange(100.0)[10:90:2][5:])
    twice[0] = -1
    assert x[20] == -1


def test_jztools_orders_and_dimensions(smm):
    """There: Fortran order was lost, and arrays of no dimensions failed."""
    for array in (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array(3.5), np.zeros((0, 4))):
        x = smm.from_ndarray(array)
        y = pickle.loads(pickle.dumps(x))
        np.testing.assert_array_equal(y, array)
        assert x.strides == y.strides
        assert x.flags.f_contiguous == y.flags.f_contiguous == array.flags.f_contiguous
    assert smm.empty((2, 3), order="F").flags.f_contiguous
    assert smm.empty(5, "i2").dtype == np.int16


def test_jztools_shared_memory_is_passed_in(smm):
    segment = smm.SharedMemory(80)
    x = jztools.xndarray(segment, smm, 10, float, 0, None)
    x[:] = 3
    assert x.is_shared() and x.shared_memory is segment
    y = pickle.loads(pickle.dumps(x[2:]))
    y[0] = 9
    assert x[2] == 9 and y.shared_memory.name == segment.name
    by_name = jztools.xndarray(segment.name, smm, 4, float, 16, None)
    assert by_name[0] == 9 and segment.name in smm.list_tracked_segments()
    assert (x + 1).shape == (10,) and not x[[1]].is_shared()
    x.release()
    assert segment.name not in smm.list_tracked_segments()
    empty = jztools.xndarray(None, smm, 0, float, 0, None)
    assert not empty.is_shared() and empty.shared_memory is None


def look_twice(name, smm, folder):
    found = jztools.xndarray(name, smm, 3, float, 0, None)
    first = found.tolist()
    open(os.path.join(folder, "found"), "w").close()
    while not os.path.exists(os.path.join(folder, "replaced")):
        time.sleep(0.01)
    return first, found.tolist()


def test_jztools_found_memory_is_not_used_again(smm, tmp_path):
    x = smm.from_ndarray(np.ones(3))
    (name,) = smm.list_tracked_segments()
    with stdlib_pool() as ex:
        future = ex.submit(look_twice, name, smm, str(tmp_path))
        while not (tmp_path / "found").exists():
            time.sleep(0.01)
        del x
        x = smm.from_ndarray(np.full(3, 2.0))
        assert x.shared_memory.name != name
        (tmp_path / "replaced").write_text("")
        assert future.result() == ([1, 1, 1], [1, 1, 1])


def test_jztools_managers_connect(smm):
    other = jztools.XSharedMemoryManager(smm.address)
    other.connect()
    x = other.empty(4)
    assert other.list_tracked_segments() == smm.list_tracked_segments() == [x.shared_memory.name]


def test_jztools_a_manager_that_was_killed():
    with jztools.XSharedMemoryManager() as manager:
        x = manager.empty(4, scope=None)
        x[:] = 5
        manager._process.kill() if hasattr(manager._process, "kill") else os.kill(
            manager._process.pid, signal.SIGKILL
        )
        manager._process.join()
        for call in (manager.list_tracked_segments, lambda: manager.empty(3, scope=None)):
            with pytest.raises(multiprocessing.ProcessError, match="server"):
                call()
        x.scope = "local"
        x.release()
        assert (x == 5).all()


def test_jztools_ends(capfd):
    with jztools.XSharedMemoryManager() as manager:
        x = manager.empty(5)
        x[:] = 4
        pinned = manager.empty(5, scope=None)
        arena = x.shared_memory.name.split("/")[0]
        names = [each for each in os.listdir("/dev/shm") if arena in each]
        assert names
    assert (x == 4).all() and pinned.size == 5
    assert not [each for each in names if os.path.exists("/dev/shm/" + each)]
    with pytest.raises(multiprocessing.ProcessError):
        manager.empty(5)
    x.release()
    del x, pinned
    with pytest.raises(multiprocessing.ProcessError):
        jztools.XSharedMemoryManager().empty(3)
    assert capfd.readouterr().err == ""


def test_jztools_misuse(smm):
    x = smm.empty(3)
    with pytest.raises(ValueError, match="'local', 'remote' or None"):
        x.scope = "global"
    with pytest.raises(ValueError, match="scope"):
        smm.empty(3, scope=1)
    with pytest.raises(ValueError, match="needs memory"):
        jztools.xndarray(None, smm, 3, float, 0, None)
    with pytest.raises(TypeError, match="sh_mem"):
        jztools.xndarray(3, smm, 3, float, 0, None)
    with pytest.raises(ValueError):
        jztools.xndarray(x.shared_memory, smm, 3000, float, 0, None)
    with pytest.raises(snp.StaleHandleError):
        jztools.xndarray(x.shared_memory.name[:-1] + "9", smm, 3, float, 0, None)
    with pytest.raises(FileNotFoundError):
        jztools.xndarray("no-such-segment-%d" % os.getpid(), smm, 3, float, 0, None)
    assert "`int`" in str(jztools.InvalidAsXndarray(3))
    threads = [threading.Thread(target=smm.empty, args=(5,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = SharedMemory(create=True, size=64)
    y = jztools.xndarray(own, smm, 8, float, 0, None, scope=None)
    y[:] = 1
    assert (pickle.loads(pickle.dumps(y)) == 1).all()
    del y
    own.close()
    own.unlink()
