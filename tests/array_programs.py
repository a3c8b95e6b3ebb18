"""Programs that send arrays through the channels of `multiprocessing`.

    python tests/array_programs.py CHANNEL METHOD COUNT SEED

Each sends many arrays of all kinds to a worker, which looks at them as numpy sees
a copy, changes those that it may and sends them back.
"""

import concurrent.futures
import gc
import io
import multiprocessing
import pickle
import queue
import sys

import numpy as np

import shared_numpy as snp
from shared_numpy import arrays
from shared_numpy._core import Arena

DTYPES = ["?", "i1", "<i2", ">i4", "u8", "f2", "<f4", ">f8", "g", "F", "c16", "S3", "<U2"]
DTYPES += ["M8[us]", ">m8[D]", "V5"]
DTYPES = [np.dtype(each) for each in DTYPES]
DTYPES += [
    np.dtype([("a", "u1"), ("b", ">f4", (2,)), ("c", "S3")]),
    np.dtype([("a", "u1"), ("b", "f8")], align=True),
    np.dtype([(("a title", "a"), "i4"), ("n", [("x", "<f2"), ("y", "M8[s]")])]),
]


class Frame(snp.ndarray):
    """A subclass with an attribute."""


def layout(random, array):
    """Return some view of an array."""
    for _ in range(random.randint(3)):
        kind = random.randint(7)
        if kind == 0:
            array = array.T
        elif kind == 1 and array.ndim:
            array = array[::-1]
        elif kind == 2 and array.ndim:
            array = array[random.randint(3) :]
        elif kind == 3 and array.ndim:
            array = array[..., :: random.randint(1, 3)]
        elif kind == 4:
            array = array[np.newaxis]
        elif kind == 5 and array.ndim > 1:
            array = array[:, 0:0] if random.randint(8) == 0 else array[:, 1:]
        elif kind == 6:
            array = np.lib.stride_tricks.as_strided(
                array, (2,) + array.shape, (0,) + array.strides, subok=True
            )
    return array


def make(random):
    """Return any shared array, and a plain copy of it to compare with."""
    dtype = DTYPES[random.randint(len(DTYPES))]
    shape = tuple(random.randint(0, 5, random.randint(0, 4)))
    array = snp.empty(shape, dtype, "CF"[random.randint(2)])
    size = int(np.prod(shape)) * dtype.itemsize
    # Any bytes but those that are no text.
    fill = random.randint(0, 256 if dtype.kind not in "SU" else 1, size).astype("u1")
    arrays.block_of(array).array(size, "u1")[...] = fill
    if random.randint(5) == 0:
        array = array.view(Frame)
        array.exposure = int(random.randint(100))
    array = layout(random, array)
    if random.randint(4) == 0:
        array = array[...]
        array.flags.writeable = False
    return array


def facts(array):
    """What must arrive as it was sent."""
    names = ("c_contiguous", "f_contiguous", "writeable", "aligned")
    flags = tuple(getattr(array.flags, name) for name in names)
    fields = array.dtype.names or [Ellipsis]
    values = tuple(np.asarray(array)[field].tobytes() for field in fields)
    strides = array.strides if array.size else None
    kind = type(array).__name__
    return kind, array.dtype, array.shape, strides, flags, values, getattr(array, "exposure", None)


def touch(array):
    """Change the first byte of the first item, if there is one that may."""
    if array.size and array.flags.writeable:
        first = array.__array_interface__["data"][0]
        byte = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * 1).from_address(first))
        byte[0] ^= 1


def work(message):
    """Look at a message of arrays, change them, and return what was seen."""
    seen = [facts(array) for array in message["arrays"]]
    for array in message["arrays"]:
        assert array.is_shared()
        touch(array)
    return seen, message["arrays"]


def batches(count, seed):
    random = np.random.RandomState(seed)
    while count > 0:
        yield [make(random) for _ in range(min(count, 50))]
        count -= 50


def check(sent, before, answer):
    """Compare what came back; the arrays alias those that were sent."""
    seen, back = answer
    assert len(seen) == len(before)
    for expected, found in zip(before, seen):
        assert found == expected, (found, expected)
    for one, other in zip(sent, back):
        assert facts(one) == facts(other)
        touch(one)
        assert facts(one) == facts(other)


def rounds(count, seed, exchange):
    for sent in batches(count, seed):
        before = [facts(array) for array in sent]
        check(sent, before, exchange({"arrays": sent, "more": [(1, "x")]}))


def serve(receive, send):
    while True:
        message = receive()
        if message is None:
            break
        send(work(message))


def serve_pipe(connection):
    serve(connection.recv, connection.send)


def serve_queues(source, target):
    serve(source.get, target.put)


def channel_pipe(count, seed):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve_pipe, args=(theirs,))
    process.start()
    rounds(count, seed, lambda message: (ours.send(message), ours.recv())[1])
    ours.send(None)
    process.join()
    assert process.exitcode == 0


def with_queues(make_queue, count, seed):
    source, target = make_queue(), make_queue()
    process = multiprocessing.Process(target=serve_queues, args=(source, target))
    process.start()
    rounds(count, seed, lambda message: (source.put(message), target.get())[1])
    source.put(None)
    process.join()
    assert process.exitcode == 0


def channel_queue(count, seed):
    with_queues(multiprocessing.Queue, count, seed)


def channel_simple_queue(count, seed):
    with_queues(multiprocessing.SimpleQueue, count, seed)


def channel_joinable_queue(count, seed):
    with_queues(multiprocessing.JoinableQueue, count, seed)


def channel_pool(count, seed):
    with multiprocessing.Pool(1) as pool:
        rounds(count, seed, lambda message: pool.apply(work, (message,)))
        random = np.random.RandomState(seed)
        sent = [make(random) for _ in range(20)]
        messages = [{"arrays": [array]} for array in sent]
        for way in (pool.map, pool.imap, pool.imap_unordered):
            assert len(list(way(work, messages))) == 20
        assert len(pool.starmap(work, [(message,) for message in messages])) == 20
        pool.close()
        pool.join()


def channel_executor(count, seed):
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        rounds(count, seed, lambda message: executor.submit(work, message).result())


def answer(connection, message):
    connection.send(work(message))


def channel_arguments(count, seed):
    """Process arguments: under fork they are inherited, not sent."""
    ours, theirs = multiprocessing.Pipe()

    def exchange(message):
        process = multiprocessing.Process(target=answer, args=(theirs, message))
        process.start()
        result = ours.recv()
        process.join()
        assert process.exitcode == 0
        return result

    rounds(count, seed, exchange)


def channel_manager(count, seed):
    with multiprocessing.Manager() as manager:
        box = manager.Queue()

        def exchange(message):
            box.put(message)
            return work(box.get())

        rounds(count, seed, exchange)
        assert box.empty()
        del box
    gc.collect()


def channel_dropped(count, seed):
    """Messages that nobody receives end with the program."""
    random = np.random.RandomState(seed)
    reader, writer = multiprocessing.Pipe()
    for _ in range(min(count, 50)):
        writer.send(make(random))
    assert Arena.default().stats()["handles"] == 50
    print("arena", Arena.default().name)
    sys.exit()


def channel_by_value(count, seed):
    """A plain pickle holds all of it, and loads as a plain array."""
    random = np.random.RandomState(seed)
    for _ in range(count):
        array = make(random)
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            file = io.BytesIO()
            pickle.Pickler(file, protocol).dump(array)
            again = pickle.loads(file.getvalue())
            # As numpy's own, whose bytes are native after the older protocols.
            numpys = pickle.loads(pickle.dumps(np.array(array), protocol))
            assert type(again) is np.ndarray and again.dtype == numpys.dtype
            assert facts(again)[5] == facts(numpys)[5] and again.shape == array.shape


if __name__ == "__main__":
    channel, method, count, seed = sys.argv[1:5]
    multiprocessing.set_start_method(method)
    try:
        globals()["channel_" + channel](int(count), int(seed))
    except queue.Empty:
        raise AssertionError("nothing came")
    gc.collect()
    arena = Arena.default()
    arena.reap()
    stats = arena.stats()
    assert (stats["blocks"], stats["handles"]) == (0, 0), stats
    assert arena.check() == []
    print("arena", arena.name)
