"""Every public name, as programs use it: type checkers pass it, and it runs."""

import os
import pickle
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Callable, Iterator, List, Optional

import numpy as np
import shared_numpy as snp
from shared_numpy import backport, compat, errors, integrations, managers, resource_tracker
from shared_numpy import shared_memory
from shared_numpy.integrations import multiprocessing as plain_arrays

if TYPE_CHECKING:
    from typing_extensions import assert_type
else:

    def assert_type(value: Any, _: Any) -> Any:
        return value


class Image:
    def __init__(self, pixels: snp.ndarray) -> None:
        self.pixels = pixels


def scale(a: "np.ndarray[Any, np.dtype[np.float32]]", by: float) -> "np.ndarray[Any, np.dtype[np.float32]]":
    return a * np.float32(by)


def constructors() -> None:
    if TYPE_CHECKING:
        assert_type(snp.zeros(3), snp.ndarray[Any, np.dtype[np.float64]])
        assert_type(snp.ones((2, 2), np.float32), snp.ndarray[Any, np.dtype[np.float32]])
        assert_type(snp.empty(3, np.dtype(np.int8)), snp.ndarray[Any, np.dtype[np.int8]])
        assert_type(snp.full(3, 7, np.int64), snp.ndarray[Any, np.dtype[np.int64]])
        assert_type(snp.array([1, 2], np.uint8), snp.ndarray[Any, np.dtype[np.uint8]])
    plain = np.ones(3, np.float32)
    for like in (snp.zeros_like(plain), snp.ones_like(plain), snp.empty_like(plain)):
        assert like.dtype == np.float32
    a = snp.full_like(plain, 5)
    same = snp.asarray(a)
    copies = [snp.from_array(plain), snp.share(plain), snp.array(plain)]
    assert all(snp.is_shared(each) for each in copies) and same is a
    assert a.is_shared() and not a.closed and a.readonly().shape == (3,)
    assert a.copy_local().dtype == np.float32
    assert snp.name_of(a) is not None and snp.name_of(plain) is None
    with snp.ndarray((2, 2), np.float32) as b:
        b[...] = 0
    b.unlink()
    b.close()


def names(prefix: str) -> None:
    a = snp.create(prefix, (2, 3), np.float32, fill=1, exist_ok=False)
    b = snp.attach(prefix, readonly=True)
    assert a.sum() == b.sum() == 6
    assert [each.shape for each in snp.list_named() if each.name.endswith(prefix)] == [(2, 3)]
    snp.delete(prefix)
    assert os.path.isdir(snp.get_include())


def channels() -> None:
    queue: "snp.Queue[int]" = snp.Queue(maxsize=3)
    queue.put(3)
    assert_type(queue.get(timeout=5), int)
    queue.put_many([1, 2])
    assert_type(queue.get_many(5), List[int])
    queue.close()
    simple = snp.SimpleQueue[str]()
    simple.put("x")
    assert_type(simple.get(), str)
    joinable = snp.JoinableQueue[Any]()
    joinable.put(None)
    joinable.get()
    joinable.task_done()
    joinable.join()
    ring = snp.RingBuffer((2, 2), np.float32, slots=2, when_full="drop_oldest")
    with ring.write(timeout=1) as frame:
        frame[...] = 7
    with ring.read() as seen:
        assert seen.sum() == 28 and seen.sequence == seen.skipped == 0 and seen.time > 0
    ring.close()
    handle: snp.Handle = snp.send({"a": snp.ones(3)})
    assert snp.receive(handle)["a"].sum() == 3 and not handle.cancel()
    snp.register_type(Image, attribute="pixels")
    plain_arrays.register(threshold=1 << 20)
    plain_arrays.unregister()


def pools() -> None:
    data = np.ones(3, np.float32)
    with snp.ProcessPoolExecutor(1, results="copy") as pool:
        future = pool.submit(scale, data, 2.0)
        if TYPE_CHECKING:
            assert_type(future, Future[np.ndarray[Any, np.dtype[np.float32]]])
        assert future.result().sum() == 6
        lengths: Iterator[int] = pool.map(len, [[1], [1, 2]])
        assert list(lengths) == [1, 2]
    with snp.SharedContext({"data": data}, max_workers=1, readonly=True) as context:
        enqueue: Callable[[int], "Future[int]"] = context.register(abs)
        enqueue(-3)
        assert context.evaluate() == [3] and context["data"].shape == (3,)


def memory() -> None:
    with snp.SharedMemoryManager() as manager:
        block = manager.SharedMemory(size=10)
        assert block.size == 10
    with snp.ArrayManager() as arrays:
        assert arrays.from_array(np.ones(3)).shape == (3,) and arrays.zeros((2, 3)).sum() == 0
    segment = snp.SharedMemory(create=True, size=10)
    segment.buf[0] = 1
    segment.close()
    segment.unlink()
    things = snp.ShareableList([1, "x", None])
    assert things[1] == "x"
    things.shm.close()
    things.shm.unlink()
    arena = snp.Arena.default()
    made: snp.Block = arena.alloc(100)
    again = snp.Arena.receive(arena.send(made))
    assert again.nbytes == made.nbytes
    with snp.Arena.attach_or_create(b"0123456789abcdef", first="64K") as met:
        assert met.publish_root(met.alloc(10)), met.identifier
        root: Optional[snp.Block] = met.root
        assert root is not None
        del root
    snp.trim()
    snp.clean()
    assert snp.machine()["page_size"] > 0
    assert [finding.title for finding in snp.diagnose()]
    assert snp.stats()["blocks"] >= 0
    with snp.trace_blocks(frames=2) as trace:
        assert [place.nbytes for place in trace.places()] == []
    snp.warn_on_copy()
    snp.warn_on_copy(False)
    try:
        snp.Arena.receive(b"")
    except (
        snp.StaleHandleError, snp.ForeignHandleError, snp.ArenaBusyError, snp.ArenaFullError,
        snp.ArenaCorruptedError, ValueError,
    ):  # fmt: skip
        pass
    assert issubclass(snp.CopyWarning, Warning) and errors.CopyWarning is snp.CopyWarning
    assert pickle.loads(pickle.dumps(snp)) is snp
    assert managers.SharedMemoryManager is snp.SharedMemoryManager
    assert shared_memory.SharedMemory is snp.SharedMemory
    backport.uninstall()
    resource_tracker.ensure_running()
    assert compat.__name__ and integrations.__name__ and snp.__version__


if __name__ == "__main__":
    constructors()
    names("snptest-typing-{}".format(os.getpid()))
    channels()
    pools()
    memory()
    print("right")
