"""Programs that send arrays through channels.

    python tests/array_programs.py CHANNEL METHOD COUNT SEED

Each sends messages of arrays of all kinds, found by Hypothesis, to a worker, which
looks at them as numpy sees a copy, changes those that it may and sends them back.
"""

import concurrent.futures
import gc
import io
import multiprocessing
import pickle
import queue
import sys
import warnings

import numpy as np

import shared_numpy as snp
from shared_numpy import arrays
from shared_numpy._pickling import by_reference, moved
from shared_numpy._core import Arena
from shared_numpy.integrations import multiprocessing as plain_arrays

# numpy's own, of the fill values of masked records.
warnings.filterwarnings("ignore", "overflow encountered in cast", RuntimeWarning)

DTYPES = ["?", "i1", "<i2", ">i4", "u8", "f2", "<f4", ">f8", "g", "F", "c16", "G", "S3", "<U2"]
DTYPES += ["M8[us]", ">m8[D]", "V5"]
DTYPES = [np.dtype(each) for each in DTYPES]
RECORDS = [
    np.dtype([("a", "u1"), ("b", ">f4", (2,)), ("c", "S3")]),
    np.dtype([("a", "u1"), ("b", "f8")], align=True),
    np.dtype([(("a title", "a"), "i4"), ("n", [("x", "<f2"), ("y", "M8[s]")])]),
]


class Frame(snp.ndarray):
    """A subclass with an attribute."""


class Image(np.ndarray):
    """A subclass of numpy's, registered."""


class Pair:
    """What holds arrays, registered."""

    def __init__(self, first, second):
        self.first, self.second = first, second


def flatten(pair):
    return pair.first, pair.second


def unflatten(parts):
    return Pair(*parts)


snp.register_type(Image)
snp.register_type(Pair, flatten, unflatten)

KINDS = ["shared", "frame", "record", "matrix", "image", "masked", "pair", "plain", "large"]
VIEWS = ["T", "reverse", "rest", "step", "newaxis", "narrow", "empty", "repeat", "none"]


def view_of(array, way):
    """Return some view of an array."""
    if way == "T":
        return array.T
    if way == "newaxis":
        return array[np.newaxis]
    if way == "repeat":
        return np.lib.stride_tricks.as_strided(
            array, (2,) + array.shape, (0,) + array.strides, subok=True
        )
    if array.ndim == 0:
        return array
    views = {
        "reverse": np.s_[::-1],
        "rest": np.s_[1:],
        "step": np.s_[..., ::2],
        "narrow": np.s_[..., 1:],
        "empty": np.s_[..., 0:0],
    }
    return array[views[way]] if way in views else array


def make(recipe):
    """Return the thing of a recipe."""
    kind, dtype, shape, order, ways, readonly, fill = recipe
    if kind == "record" and dtype.names is None:
        dtype = RECORDS[0]
    if kind == "matrix":
        shape, ways = (shape + (2, 3))[:2], [way for way in ways if way == "T"]
    if kind == "large":
        shape = (moved.THRESHOLD,) + shape[:1]
    array = snp.empty(shape, dtype, order)
    size = int(np.prod(shape)) * dtype.itemsize
    # Any bytes but those that are no text.
    text = any(each.kind in "SU" for each in [dtype] + [f[0] for f in (dtype.fields or {}).values()])
    values = (np.arange(size) * 37 + fill) % 251 if not text else np.zeros(size)
    arrays.block_of(array).array(size, "u1")[...] = values
    if kind in ("plain", "large"):
        array = array.copy_local()
    elif kind == "frame":
        array = array.view(Frame)
        array.exposure = fill
    elif kind != "shared" and kind not in ("masked", "pair"):
        classes = {"record": np.recarray, "matrix": np.matrix, "image": Image}
        array = np.ndarray.view(array, classes[kind])
    for way in ways:
        array = view_of(array, way)
    if kind == "masked":
        mask = np.arange(array.size).reshape(array.shape) % 2 == 1
        given = fill if dtype.kind in "iufc" and fill < 128 else None
        array = np.ma.MaskedArray(array, False if dtype.names else mask, fill_value=given)
    if readonly:
        array = array[...]
        array.flags.writeable = False
    return Pair(array, array.copy_local()) if kind == "pair" else array


def parts_of(thing):
    """The arrays in a thing that must arrive as they are."""
    if isinstance(thing, Pair):
        return [thing.first, thing.second]
    if isinstance(thing, np.ma.MaskedArray):
        return [thing.data, np.ma.getmaskarray(thing)]
    return [thing]


def facts_of_array(array, exact):
    if not exact and by_reference.memory_of(array) is None:
        # Its bytes may be native afterwards, with the older protocols of pickling.
        array = pickle.loads(pickle.dumps(array, 2))
    fields = array.dtype.names or [Ellipsis]
    plain = np.asarray(array)
    values = tuple(plain[field].tobytes() for field in fields)
    kind = type(array).__name__, array.dtype, array.shape, values, getattr(array, "exposure", None)
    if by_reference.memory_of(array) is None:
        return kind + ((array.flags.writeable,) if exact else ())
    # What is shared lies as it did.
    names = ("c_contiguous", "f_contiguous", "writeable", "aligned")
    flags = tuple(getattr(array.flags, name) for name in names)
    return kind + (array.strides if array.size else None, flags)


def facts(thing, exact):
    """What must arrive as it was sent; exactly so by the package's own channels."""
    # (To ask for a fill value that was not given warns for some dtypes.)
    given = vars(thing)["_fill_value"] if isinstance(thing, np.ma.MaskedArray) else None
    extra = given if given is None else repr(given.tolist())
    return type(thing).__name__, extra, [facts_of_array(part, exact) for part in parts_of(thing)]


def touch(thing):
    """Change the first byte of the first item, if there is one that may."""
    array = parts_of(thing)[0]
    if array.size and array.flags.writeable:
        first = array.__array_interface__["data"][0]
        byte = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint8 * 1).from_address(first))
        byte[0] ^= 1


def is_shared(thing):
    return by_reference.memory_of(parts_of(thing)[0]) is not None


def work(message):
    """Look at a message, change what is in it, and return what was seen."""
    things, shared = message["things"], message["shared"]
    seen = [facts(thing, message["exact"]) for thing in things]
    assert [is_shared(thing) for thing in things] == shared
    for thing in things:
        touch(thing)
    return seen, things


def check(sent, answer):
    """Compare what came back; what is shared aliases what was sent."""
    before, things, exact = sent
    seen, back = answer
    assert len(seen) == len(before)
    for expected, found in zip(before, seen):
        assert found == expected, (found, expected)
    for expected, one, other in zip(before, things, back):
        if is_shared(one):
            assert facts(one, exact) == facts(other, exact), (facts(one, exact), facts(other, exact))
            touch(one)
            assert facts(one, exact) == facts(other, exact)
        else:
            # The receiver's own.
            assert facts(one, exact) == expected
            first = parts_of(one)[0]
            # (Where one item has many places here, it may have them there.)
            if exact and first.flags.writeable and 0 not in first.strides:
                touch(one)
                assert facts(one, exact) == facts(other, exact)


def prepared(recipes, exact=False):
    things = [make(recipe) for recipe in recipes]
    shared = [is_shared(thing) for thing in things]
    message = {"things": things, "shared": shared, "exact": exact, "more": "x"}
    return ([facts(thing, exact) for thing in things], things, exact), message


def each_of(count, seed, test):
    """Run a test on lists of recipes with `count` recipes in all, about."""
    # Workers import this file, too, and need none of it, which takes longer than all else.
    import hypothesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    recipe = st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(DTYPES + RECORDS),
        st.lists(st.integers(0, 4), max_size=4).map(tuple),
        st.sampled_from("CF"),
        st.lists(st.sampled_from(VIEWS), max_size=3),
        st.booleans(),
        st.integers(0, 255),
    )

    @hypothesis.seed(seed)
    @settings(
        max_examples=max(count // 2, 1),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(recipe, min_size=1, max_size=4))
    def run(recipes):
        test(recipes)

    run()


def rounds(count, seed, exchange, exact=False):
    """Send messages and compare what comes back."""

    def test(recipes):
        sent, message = prepared(recipes, exact)
        check(sent, exchange(message))

    each_of(count, seed, test)


def serve(receive, send):
    while True:
        message = receive()
        if message is None:
            break
        send(work(message))
        del message


def serve_pipe(connection):
    serve(connection.recv, connection.send)


def serve_queues(source, target):
    serve(source.get, target.put)


def channel_pipe(count, seed):
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve_pipe, args=(theirs,), daemon=True)
    process.start()
    rounds(count, seed, lambda message: (ours.send(message), ours.recv())[1])
    ours.send(None)
    process.join()
    assert process.exitcode == 0


def channel_sharing_pipe(count, seed):
    """Plain arrays move, too."""
    plain_arrays.register(64)
    # As the worker must have been told.
    large = np.arange(1000)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve_pipe, args=(theirs,), daemon=True)
    process.start()
    ours.send({"things": [large], "shared": [False], "exact": True})
    back = ours.recv()[1][0]
    assert type(back) is np.ndarray and back[0] == 1 and large[0] == 0
    assert arrays.block_of(back) is not None and not is_shared(back)
    del back
    rounds(count, seed, lambda message: (ours.send(message), ours.recv())[1], True)
    ours.send(None)
    process.join()
    assert process.exitcode == 0


def with_queues(make_queue, count, seed, exact=False):
    source, target = make_queue(), make_queue()
    process = multiprocessing.Process(target=serve_queues, args=(source, target), daemon=True)
    process.start()
    rounds(count, seed, lambda message: (source.put(message), target.get())[1], exact)
    source.put(None)
    process.join()
    assert process.exitcode == 0


def channel_queue(count, seed):
    with_queues(multiprocessing.Queue, count, seed)


def channel_simple_queue(count, seed):
    with_queues(multiprocessing.SimpleQueue, count, seed)


def channel_joinable_queue(count, seed):
    with_queues(multiprocessing.JoinableQueue, count, seed)


def channel_our_queue(count, seed):
    with_queues(snp.Queue, count, seed, True)


def channel_our_simple_queue(count, seed):
    with_queues(snp.SimpleQueue, count, seed, True)


def channel_our_joinable_queue(count, seed):
    with_queues(snp.JoinableQueue, count, seed, True)


def serve_tokens(connection):
    serve(
        lambda: snp.receive(connection.recv_bytes()),
        lambda answer: connection.send_bytes(bytes(snp.send(answer))),
    )


def channel_tokens(count, seed):
    """Anything by `put` and `get`, over what knows nothing of them."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve_tokens, args=(theirs,), daemon=True)
    process.start()

    def exchange(message):
        ours.send_bytes(bytes(snp.send(message)))
        return snp.receive(ours.recv_bytes())

    rounds(count, seed, exchange, True)
    ours.send_bytes(bytes(snp.send(None)))
    process.join()
    assert process.exitcode == 0


def channel_pool(count, seed):
    with multiprocessing.Pool(1) as pool:
        rounds(count, seed, lambda message: pool.apply(work, (message,)))
        messages = [prepared([recipe])[1] for recipe in examples(20, seed)]
        for way in (pool.map, pool.imap, pool.imap_unordered):
            assert len(list(way(work, messages))) == 20
        assert len(pool.starmap(work, [(message,) for message in messages])) == 20
        assert len(pool.map_async(work, messages).get()) == 20
        pool.close()
        pool.join()


def examples(count, seed):
    """Some recipes."""
    found = []
    each_of(4 * count, seed, found.extend)
    return found[-count:]


def channel_executor(count, seed):
    with concurrent.futures.ProcessPoolExecutor(1) as executor:
        rounds(count, seed, lambda message: executor.submit(work, message).result())


def answer(connection, message):
    connection.send(work(message))


def channel_arguments(count, seed):
    """Process arguments: under fork they are inherited, not sent."""
    ours, theirs = multiprocessing.Pipe()
    recipes = examples(count, seed)
    for start in range(0, count, 100):
        sent, message = prepared(recipes[start : start + 100])
        process = multiprocessing.Process(target=answer, args=(theirs, message), daemon=True)
        process.start()
        check(sent, ours.recv())
        process.join()
        assert process.exitcode == 0
        del sent, message, process


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
    reader, writer = multiprocessing.Pipe()
    for _ in range(50):
        writer.send(snp.ones(3))
    assert Arena.default().stats()["handles"] == 50
    print("arena", Arena.default().name)
    sys.exit()


def channel_by_value(count, seed):
    """A plain pickle holds all of it, and loads as a plain array."""

    def test(recipes):
        for kind, *rest in recipes:
            array = make(("shared",) + tuple(rest))
            for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
                file = io.BytesIO()
                pickle.Pickler(file, protocol).dump(array)
                again = pickle.loads(file.getvalue())
                # As numpy's own, whose bytes are native after the older protocols.
                numpys = pickle.loads(pickle.dumps(np.array(array), protocol))
                assert type(again) is np.ndarray and again.dtype == numpys.dtype
                assert facts_of_array(again, True)[:4] == facts_of_array(numpys, True)[:4]
                assert again.shape == array.shape

    each_of(count, seed, test)


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
