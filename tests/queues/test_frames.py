"""`RingBuffer`: a frame that is seen is whole and stays so, whoever dies.

What holds: each reader sees the frames in the order in which they were written, and those
that it does not see are counted; a frame that somebody looks at or fills is filled by nobody
else, for as long as there is a view of it in any process; with ``when_full="wait"`` none is lost;
a killed writer has not written, and a killed reader keeps nobody waiting.
"""

import contextlib
import copy
import gc
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import weakref
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from conftest import NOTHING_LEFT, counts, run_program

import shared_numpy as snp
from shared_numpy import _core, ring_buffer

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()  # What a failed test keeps, others need not answer for.
    yield
    assert counts() == before


def fill(ring, *values, **options):
    """Write a frame of each value; return their numbers."""
    numbers = []
    for value in values:
        writing = ring.write(options.get("timeout", 1))
        with writing as frame:
            frame[...] = value
        numbers.append(writing.sequence)
    return numbers


def seen(ring, count):
    """Read so many frames; return (value, sequence, skipped) of each."""
    found = []
    for _ in range(count):
        with ring.read(1) as frame:
            assert (frame == frame.flat[0]).all()
            found.append((frame.flat[0].item(), frame.sequence, frame.skipped))
    return found


def test_frames_are_seen_in_order():
    ring = snp.RingBuffer((3, 4), "i4", slots=3)
    assert fill(ring, 10, 11) == [0, 1] and ring.written == 2
    assert seen(ring, 2) == [(10, 0, 0), (11, 1, 0)]
    for i in range(10):
        assert fill(ring, i) == [i + 2]
        assert seen(ring, 1) == [(i, i + 2, 0)]
    text = "no new frame came within 0.01 s: the ring has had 12 so far"
    with pytest.raises(queue.Empty, match=text):
        with ring.read(0.01):
            pass
    with pytest.raises(queue.Empty, match="no new frame came: the ring has had 0 so far"):
        with snp.RingBuffer(2).latest(0):
            pass
    assert repr(ring) == "<RingBuffer of 3 frames of shape (3, 4), int32, when_full='wait'>"


def test_to_join_is_done_once():
    ring = snp.RingBuffer(2, slots=2)
    for _ in range(100):  # (There are 64 places.)
        ring.join()
    fill(ring, 7)
    ring.join()
    assert seen(ring, 1) == [(7, 0, 0)]
    ring.close()
    with pytest.raises(ValueError, match="this RingBuffer is closed in this process"):
        ring.join()


def test_a_ring_without_room_tells_its_size():
    with pytest.raises(snp.ArenaFullError) as raised:
        snp.RingBuffer(1 << 50, "u1", slots=4)
    text = "a ring of 4 slots of {:,} bytes is {:,} bytes: ".format(1 << 50, 1 << 52)
    assert text in str(raised.value)
    assert raised.value.asked == 1 << 52 and "--shm-size" in str(raised.value)


def test_writers_wait_for_readers():
    ring = snp.RingBuffer(2, slots=2)
    fill(ring, 0, 1)
    with pytest.raises(queue.Full, match="be filled within 0.01 s: "):
        fill(ring, 2, timeout=0.01)
    assert seen(ring, 1) == [(0, 0, 0)]
    fill(ring, 2)
    with pytest.raises(queue.Full):
        fill(ring, 3, timeout=0)
    assert seen(ring, 2) == [(1, 1, 0), (2, 2, 0)]


def test_a_full_ring_says_what_its_slots_are_for():
    ring = snp.RingBuffer(2, slots=3)
    fill(ring, 0, 1, 2)
    kept = []
    with ring.read(0) as frame:
        kept.append(frame[:])
    with pytest.raises(queue.Full, match="be filled: .* 3 slots 1 is held .* and 2 wait to be"):
        fill(ring, 3, timeout=0)
    with ring.read(0) as frame:
        with pytest.raises(queue.Full, match="3 slots 2 are held .* and 1 waits to be read"):
            fill(ring, 3, timeout=0)
    fill(ring, 3, timeout=0)
    del kept
    with ring.read(0) as one, ring.read(0) as other:
        fill(ring, 4, timeout=0)
    assert seen(ring, 1) == [(4, 4, 0)]


def rest(opened):
    """What a reader that is a ring's second opening finds: (sequence, skipped) of each."""
    found = []
    while True:
        view = opened.read(0)
        if view is None:
            return found
        found.append((view[1], view[3]))


@pytest.mark.parametrize("when_full", ["wait", "drop_oldest"])
def test_a_late_reader_sees_no_gap(when_full):
    """A frame that somebody has kept stays for long. A new reader does not begin with it, but
    where all that follow are there."""
    ring = snp.RingBuffer(2, "i8", slots=4, when_full=when_full)
    fill(ring, 0)
    with ring.read(0) as frame:
        kept = frame[:]
    for i in range(1, 10):
        fill(ring, i, timeout=0)
        assert seen(ring, 1) == [(i, i, 0)]
    assert rest(_core.Frames.open(ring._frames.block)) == [(7, 0), (8, 0), (9, 0)]
    del frame, kept
    assert rest(_core.Frames.open(ring._frames.block))[-3:] == [(7, 0), (8, 0), (9, 0)]


def test_a_late_child_counts_what_it_has_missed():
    ring = snp.RingBuffer(2, "i8", slots=4)
    fill(ring, 0, 1)
    assert seen(ring, 1) == [(0, 0, 0)]
    (receive, go), (told, tell) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(receive, 1)
        os.write(tell, repr([seen(ring, 1)[0][1:] for _ in range(3)]).encode())
        os._exit(0)
    with ring.read(0) as frame:
        kept = frame[:]
    for i in range(2, 10):
        fill(ring, i, timeout=0)
        assert seen(ring, 1) == [(i, i, 0)]
    os.write(go, b"x")
    found = os.read(told, 1000).decode()
    os.waitpid(pid, 0)
    for fd in (receive, go, told, tell):
        os.close(fd)
    assert found == "[(7, 6), (8, 0), (9, 0)]"
    del frame, kept


def test_overwriting_takes_the_oldest_and_counts_what_was_missed():
    ring = snp.RingBuffer((), "i8", slots=3, when_full="drop_oldest")
    fill(ring, *range(10))
    assert seen(ring, 3) == [(7, 7, 0), (8, 8, 0), (9, 9, 0)]
    fill(ring, *range(10, 14))
    with ring.latest() as frame:
        assert (frame[()], frame.sequence, frame.skipped) == (13, 13, 3)
    with ring.latest() as frame:
        assert (frame[()], frame.skipped) == (13, 0)
    with pytest.raises(queue.Empty):
        with ring.read(0):
            pass


def test_what_is_looked_at_is_not_overwritten():
    ring = snp.RingBuffer(4, "i8", slots=3, when_full="drop_oldest")
    fill(ring, 0, 1)
    with ring.read() as frame:
        fill(ring, *range(2, 20))
        assert (frame == 0).all()
        with ring.latest() as newest:
            assert (newest == 19).all()
            with ring.write() as blank:
                with pytest.raises(queue.Full):
                    fill(ring, 20, timeout=0.01)
                blank[:] = 21
        assert (frame == 0).all()
    assert seen(ring, 1) == [(21, 20, 0)]


@pytest.mark.parametrize(
    "view",
    [
        lambda frame: frame[1:],
        lambda frame: frame,
        lambda frame: [frame],
        np.asarray,
        memoryview,
        lambda frame: np.asarray(frame)[::2].T,
        lambda frame: frame.view(np.ndarray),
        lambda frame: np.frombuffer(frame, "i8"),
        lambda frame: np.lib.stride_tricks.as_strided(frame, (2,), (16,)),
        lambda frame: snp.send(frame),
        lambda frame: iter(frame),
        lambda frame: frame.reshape(2, 2).flat,
    ],
)
def test_views_keep_a_frame(view):
    ring = snp.RingBuffer(4, "i8", slots=2, when_full="drop_oldest")
    fill(ring, 5, 6)
    with ring.read() as frame:
        kept = view(frame)
    del frame
    fill(ring, *range(20))
    if isinstance(kept, snp.Handle):
        kept = snp.receive(kept)
    for each in kept if isinstance(kept, list) else [kept]:
        assert set(np.array(list(each)).ravel().tolist()) == {5}
    del kept, each
    gc.collect()
    fill(ring, 1, 2)
    with ring.read() as one:
        with ring.read() as other:
            with pytest.raises(queue.Full):
                fill(ring, 3, timeout=0)
            assert (one[0], other[0]) == (1, 2)


def test_the_slot_is_free_when_the_block_is_over():
    ring = snp.RingBuffer((2, 2), "i8", slots=1, when_full="drop_oldest")
    for i in range(5):
        with ring.write(0) as frame:
            frame[:] = i
        assert frame.shape == (0,) and frame.sequence == i
        with ring.read(0) as frame:
            assert (frame == i).all()
            with pytest.raises(ValueError, match="read-only"):
                frame[0, 0] = 1
        assert frame.shape == (0,) and frame.sequence == i


class Holder:
    """An object with an attribute."""


def test_a_frame_that_is_moved_in_its_block_stays_whole():
    ring = snp.RingBuffer(4, "i8", slots=8)
    fill(ring, *range(8))
    kept, holder, table = [], Holder(), {}
    with ring.read(0) as frame:
        kept.append(frame)
        del frame
    with ring.read(0) as frame:
        kept.append(frame)
        frame = None
    with ring.read(0) as holder.frame:
        pass
    with ring.read(0) as table["frame"]:
        pass
    with contextlib.ExitStack() as stack:
        kept.append(stack.enter_context(ring.read(0)))
    passed = queue.Queue()
    with ring.read(0) as frame:
        passed.put(frame)
        del frame
    for_cycle = [[]]
    with ring.read(0) as for_cycle[0]:
        for_cycle.append(for_cycle)
    with ring.read(0) as holder.last:
        pass
    whole = kept[:2] + [holder.frame, table["frame"], kept[2], passed.get()]
    whole += [for_cycle[0], holder.last]
    for number, frame in enumerate(whole):
        assert type(frame) is snp.ndarray and frame.sequence == number
        assert (frame == number).all() and frame.shape == (4,)
    with pytest.raises(queue.Full, match="8 slots 8 are held .* and 0 wait to be read"):
        fill(ring, 9, timeout=0)
    del whole, frame, kept, for_cycle, holder, table
    gc.collect()
    with ring.write(0) as frame:
        frame[:] = 9
        kept = [frame]
        del frame
    assert (kept[0] == 9).all() and not kept[0].flags.writeable


def local(ring):
    with ring.read(0) as frame:
        pass
    return frame


def free(ring):
    frame = None

    def inner():
        nonlocal frame
        with ring.read(0) as frame:
            pass

    inner()
    return frame


def shared_with_a_closure(ring):
    with ring.read(0) as frame:
        pass
    return (lambda: frame)()


def globally(ring):
    global of_the_module
    with ring.read(0) as of_the_module:
        pass
    try:
        return of_the_module
    finally:
        del of_the_module


def in_a_class(ring):
    class Body:
        with ring.read(0) as frame:
            pass

    return Body.frame


def at_top_level(ring):
    names = {"ring": ring}
    exec("with ring.read(0) as frame:\n    pass", names)
    return names["frame"]


def in_two_namespaces(ring):
    names = {}
    exec("with ring.read(0) as frame:\n    pass", {"ring": ring}, names)
    return names["frame"]


def in_a_generator(ring):
    def body():
        with ring.read(0) as frame:
            yield
        yield frame

    steps = body()
    next(steps)
    return next(steps)


def in_an_exit_stack(ring):
    with contextlib.ExitStack() as stack:
        frame = stack.enter_context(ring.read(0))
        assert frame.size == 4
    return frame


def by_hand(ring):
    reading = ring.read(0)
    frame = reading.__enter__()
    reading.__exit__(None, None, None)
    return frame


def with_an_error(ring):
    try:
        with ring.read(0) as frame:
            raise KeyError
    except KeyError:
        return frame


@pytest.mark.parametrize(
    "end",
    [
        local, free, shared_with_a_closure, globally, in_a_class, at_top_level,
        in_two_namespaces, in_a_generator, in_an_exit_stack, by_hand, with_an_error,
    ],
)  # fmt: skip
def test_a_frame_that_only_a_variable_refers_to_is_over(end):
    ring = snp.RingBuffer(4, "i8", slots=1)
    fill(ring, 5)
    frame = end(ring)
    assert frame.shape == (0,) and "frame 0 of a RingBuffer, after its with block" in repr(frame)
    fill(ring, 6, timeout=0)


def test_nothing_else_is_kept_by_the_end_of_a_block():
    """Up to 3.12 the interpreter keeps a copy of the variables that it was asked for."""
    ring = snp.RingBuffer(4, "i8", slots=1)

    def use():
        large = np.zeros(10)
        seen = weakref.ref(large)
        with ring.read(0) as frame:
            pass
        del large
        return seen() is None and frame.size == 0

    def use_locals():
        large = np.zeros(10)
        mine = locals()
        with ring.read(0) as frame:
            pass
        # What the program has asked for is left to it.
        return mine["large"] is large and frame.size == 0

    for each in (use, use_locals):
        fill(ring, 5)
        assert each()


def over():
    """A frame after its block."""
    ring = snp.RingBuffer((2, 2), "f8", slots=2)
    fill(ring, 5)
    with ring.read(0) as frame:
        pass
    return frame


USES = {
    "item": lambda f: f[0],
    "slice": lambda f: f[:],
    "all": lambda f: f[...],
    "assignment": lambda f: f.__setitem__(0, 1),
    "iteration": iter,
    "length": len,
    "list": list,
    "unpacking": lambda f: [*f],
    "membership": lambda f: 1 in f,
    "truth": bool,
    "int": int,
    "float": float,
    "complex": complex,
    "sum": lambda f: f + 1,
    "sum, from the right": lambda f: 1 + f,
    "sum of arrays": lambda f: np.ones(2) + f,
    "in place": lambda f: f.__iadd__(1),
    "matrix product": lambda f: f @ f,
    "negative": lambda f: -f,
    "equal": lambda f: f == 1,
    "not equal": lambda f: f != 1,
    "less": lambda f: f < 1,
    "equal, from the right": lambda f: np.ones(1) == f,
    "ufunc": np.sin,
    "out": lambda f: np.add(np.ones(2), 1, out=f),
    "reduction": np.add.reduce,
    "mean": lambda f: f.mean(),
    "numpy's mean": np.mean,
    "numpy's nanmax": np.nanmax,
    "concatenate": lambda f: np.concatenate([np.ones(2), f]),
    "stack": lambda f: np.stack([f, f]),
    "array_equal": lambda f: np.array_equal(f, []),
    "copyto": lambda f: np.copyto(np.ones(2), f),
    "transposed": lambda f: f.T,
    "real": lambda f: f.real,
    "flat": lambda f: f.flat,
    "data": lambda f: f.data,
    "interface": lambda f: f.__array_interface__,
    "array": lambda f: f.__array__(),
    "copy": lambda f: f.copy(),
    "view": lambda f: f.view(np.ndarray),
    "reshape": lambda f: f.reshape(-1),
    "bytes": lambda f: f.tobytes(),
    "tolist": lambda f: f.tolist(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "a channel's pickle": ForkingPickler.dumps,
    "put": snp.send,
    "a queue": lambda f: snp.SimpleQueue().put({"frame": [f]}),
    "is_shared": lambda f: f.is_shared(),
    "readonly": lambda f: f.readonly(),
    "copy_local": lambda f: f.copy_local(),
    "squeeze": np.squeeze,
    "unlink": lambda f: f.unlink(),
    "with": lambda f: f.__enter__(),
    "snp.array": snp.array,
    "snp.asarray": snp.asarray,
    "snp.from_array": snp.from_array,
    "snp.zeros_like": snp.zeros_like,
}


@pytest.mark.parametrize("use", sorted(USES))
def test_a_use_after_the_block_says_so(use):
    with pytest.raises(ValueError, match="frame 0 of a RingBuffer, after its with block"):
        USES[use](over())


def test_what_is_left_after_the_block():
    frame = over()
    assert isinstance(frame, snp.ndarray) and frame.closed and frame.time > 0
    assert (frame.sequence, frame.skipped, frame.dtype, frame.ndim) == (0, 0, np.dtype("f8"), 1)
    frame.close()
    frame.close()
    assert "after its with block" in "{} {!r} {:}".format(frame, frame, frame)
    # Numpy asks no class for these.
    assert np.asarray(frame).shape == np.array(frame).shape == memoryview(frame).shape == (0,)
    with snp.RingBuffer(3).write(0) as blank:
        blank[:] = 1
    assert blank.sequence == 0 and not blank.size
    # Every method and attribute of a later numpy refuses, too.
    for name in set(dir(np.ndarray)) - ring_buffer._STAYS - {"__repr__", "__str__"}:
        with pytest.raises(ValueError, match="after its with block"):
            found = getattr(frame, name)
            found()


def test_an_exception_drops_the_frame():
    ring = snp.RingBuffer(3, slots=1)
    for _ in range(3):
        with pytest.raises(KeyError):
            with ring.write(0) as frame:
                frame[:] = 1
                raise KeyError
        del frame
        gc.collect()
    assert ring.written == 0
    fill(ring, 7)
    with pytest.raises(KeyError):
        with ring.read() as frame:
            raise KeyError
    del frame
    with pytest.raises(queue.Empty):  # It was read all the same.
        with ring.read(0):
            pass


@pytest.mark.parametrize(
    "shape, dtype",
    [
        ((), "f8"),
        (5, [("a", "i4"), ("b", "f8", (2,))]),
        ((0, 3), "u1"),
        ((2, 3), ">f4"),
        (4, "M8[s]"),
        (3, "S5"),
        ((2,), ("i2", (3,))),
    ],
)
def test_any_shape_and_dtype(shape, dtype):
    ring = snp.RingBuffer(shape, dtype, slots=2)
    like = np.zeros(shape, dtype)
    if like.size:
        like.view("u1" if like.ndim else like.dtype).flat[0:1] = 1
    with ring.write() as frame:
        assert type(frame) is snp.ndarray and frame.is_shared()
        assert (frame.shape, frame.dtype) == (like.shape, like.dtype)
        frame[...] = like
    with ring.read() as frame:
        assert (frame.shape, frame.dtype) == (like.shape, like.dtype)
        assert frame.tobytes() == like.tobytes() and frame.flags.writeable is False
    assert (ring.shape, ring.dtype) == (like.shape, like.dtype)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ((3, object), TypeError),
        ((3, [("a", "O")]), TypeError),
        ((-1,), ValueError),
        ((3, "f8", 0), ValueError),
        ((3, "f8", 257), ValueError),
        (("x",), TypeError),
        ((3, "nothing"), TypeError),
        ((2**62,), snp.ArenaFullError),
        (((1,) * 65,), ValueError),
        (((2,) * 33 + (0,) * 32,), ValueError),
        (((2**62, 2**62, 0),), ValueError),
        ((1, "u1", 4, "wait", -1), ValueError),
        ((1, "u1", 4, "wait", 65), ValueError),
        ((1, "u1", 4, "wait", 0.5), TypeError),
        (((2**40, 2**40),), (OverflowError, ValueError, snp.ArenaFullError)),
    ],
)
def test_what_cannot_be(arguments, error):
    with pytest.raises(error):
        snp.RingBuffer(*arguments)


def test_a_manager_is_no_frame():
    """Forgotten ``with``: the error tells of it, and no frame is taken."""
    ring = snp.RingBuffer((2, 2), "u1")
    fill(ring, 5)
    uses = [lambda it: it[0, 0], np.asarray, np.mean, len, list]
    for name in ("read", "latest", "write"):
        for use in uses + [lambda it: it.__setitem__(0, 1)]:
            with pytest.raises(TypeError, match=r"use it as `with ring.%s\(\) as frame:`" % name):
                use(getattr(ring, name)())
        with pytest.raises(AttributeError, match=r"'mean'.* `with ring.%s\(\) as frame:`" % name):
            getattr(ring, name)().mean()
    assert seen(ring, 1) == [(5, 0, 0)]


def test_the_first_writer_waits_for_readers():
    ring = snp.RingBuffer(2, "i8", slots=2, readers=2)
    with pytest.raises(queue.Full, match="be filled: the ring waits for 2 readers, and 0 are there"):
        fill(ring, 0, timeout=0)
    ring.join()
    ring.join()
    with pytest.raises(queue.Full, match=r"2 readers, and 1 is there; .* with ring.join\(\)"):
        fill(ring, 0, timeout=0)
    other = _core.Frames.open(ring._frames.block)
    assert other.missing_readers() == (1, 2)
    assert other.read(0) is None  # The first read makes it a reader, too.
    fill(ring, 0, 1, timeout=0)
    assert other.missing_readers() is None
    assert seen(ring, 2) == [(0, 0, 0), (1, 1, 0)]
    with pytest.raises(queue.Full, match="2 slots 0 are held .* and 2 wait to be read"):
        fill(ring, 2, timeout=0)
    assert rest(other) == [(0, 0), (1, 0)]
    # Nobody waits for readers to come again.
    other.close()
    fill(ring, 2, 3, timeout=0)
    assert seen(ring, 2) == [(2, 2, 0), (3, 3, 0)]


def test_a_join_ends_the_wait():
    for when_full in ("wait", "drop_oldest"):
        ring = snp.RingBuffer(2, "i8", slots=2, when_full=when_full, readers=1)
        writer = threading.Thread(target=fill, args=(ring, 5), kwargs={"timeout": 60})
        writer.start()
        ring.join()
        writer.join()
        assert seen(ring, 1) == [(5, 0, 0)]


def test_readers_that_die_before_the_start_do_not_count():
    ring = snp.RingBuffer(2, "i8", slots=2, readers=1)
    pid = os.fork()
    if pid == 0:
        ring.join()
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    with pytest.raises(queue.Full, match="for 1 reader, and 0 are"):
        fill(ring, 0, timeout=0)
    ring.join()
    fill(ring, 0, timeout=0)
    assert seen(ring, 1) == [(0, 0, 0)]


def test_who_has_joined_counts_all_that_is_lost():
    """What comes after `join` is the reader's, and that of the children that it forks."""
    ring = snp.RingBuffer(2, "i8", slots=3, when_full="drop_oldest")
    fill(ring, 0)
    ring.join()
    (receive, go), (told, tell) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(receive, 1)
        os.write(tell, repr(seen(ring, 1)).encode())
        os._exit(0)
    fill(ring, *range(1, 10))
    late = _core.Frames.open(ring._frames.block)
    assert rest(late)[0] == (7, 0)
    assert seen(ring, 1) == [(7, 7, 7)]
    os.write(go, b"x")
    assert os.read(told, 1000).decode() == "[(7, 7, 7)]"
    os.waitpid(pid, 0)
    for fd in (receive, go, told, tell):
        os.close(fd)


def test_what_is_closed():
    ring = snp.RingBuffer(3)
    fill(ring, 1)
    with ring.read() as frame:
        ring.close()
        ring.close()
        assert (frame == 1).all()
    for call in (ring.read, ring.latest, ring.write, ring.join, lambda: ring.written):
        with pytest.raises(ValueError, match="^this RingBuffer is closed in this process$"):
            call()
    other = snp.RingBuffer(3)
    with pytest.raises(ValueError, match="closed"):
        with other.write() as frame:
            other.close()
    with pytest.raises(RuntimeError, match="inheritance"):
        pickle.dumps(snp.RingBuffer(1))


def test_closing_while_others_wait():
    for wait in ("read", "write"):
        ring = snp.RingBuffer(3, slots=1)
        if wait == "write":
            fill(ring, 1)
        errors = []

        def use():
            try:
                with getattr(ring, wait)():
                    errors.append("it has a frame")
            except ValueError as error:
                errors.append(str(error))

        thread = threading.Thread(target=use)
        thread.start()
        time.sleep(0.02)
        start = time.monotonic()
        ring.close()
        thread.join()
        assert "closed" in errors[0] and time.monotonic() - start < 5
    del ring


def test_waits_end():
    ring = snp.RingBuffer(3, slots=1)
    threading.Timer(0.1, fill, (ring, 1)).start()
    assert seen(ring, 1)[0][0] == 1
    fill(ring, 2)
    timer = threading.Timer(0.1, seen, (ring, 1))
    timer.start()
    fill(ring, 3, timeout=20)
    timer.join()
    # What is let go of by a view's end wakes a writer, too, a moment later.
    with ring.read() as frame:
        kept = [frame[:]]
    del frame
    timer = threading.Timer(0.1, kept.clear)
    timer.start()
    fill(ring, 4, timeout=20)
    timer.join()


def test_one_block_for_each_frame():
    ring = snp.RingBuffer(3)
    writing = ring.write()
    with writing:
        with pytest.raises(RuntimeError, match="one"):
            writing.__enter__()
    ring.spin = False
    assert ring.spin is False


def test_interruptions(alarm):
    """Nothing is lost but what was being read or written, and no frame is held."""
    ring = snp.RingBuffer(200, "i8", slots=3)
    rng = np.random.RandomState(3)
    read, written = [], []

    def write():
        writing = ring.write(0)
        try:
            with writing as frame:
                frame[:] = len(written)
        except queue.Full:
            pass
        finally:
            if writing.sequence is not None:
                written.append(writing.sequence)

    def look():
        try:
            with ring.read(0) as frame:
                read.append((frame.sequence, frame.skipped))
        except queue.Empty:
            pass

    for _ in range(400):
        for call in (write, look):
            alarm(rng.randint(1, 200) * 1e-6, call)
    gc.collect()
    numbers = [number for number, _ in read]
    assert numbers == sorted(set(numbers)) and not any(skipped for _, skipped in read)
    while True:
        try:
            with ring.read(0):
                pass
        except queue.Empty:
            break
    fill(ring, 1, 2, 3)


# Processes.

END = "    del ring" + NOTHING_LEFT

STREAM = """
def write(ring, count):
    for i in range(count):
        with ring.write() as frame:
            frame[:] = i

def read(ring, count, results):
    last = -1
    while last < count - 1:
        with ring.read(timeout=30) as frame:
            first = frame.flat[0]
            assert (frame == first).all(), "torn"
            assert frame.sequence > last
            assert last < 0 or frame.skipped == frame.sequence - last - 1
            assert abs(time.monotonic() - frame.time) < 60
            last = frame.sequence
            results.put((int(first), int(frame.sequence), frame.skipped))

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    for when_full in ("wait", "drop_oldest"):
        ring = snp.RingBuffer((50, 100), "i8", slots=4, when_full=when_full)
        results = [snp.Queue(), snp.Queue()]
        readers = [
            multiprocessing.Process(target=read, args=(ring, 300, each), daemon=True)
            for each in results
        ]
        for process in readers:
            process.start()
        writer = multiprocessing.Process(
            target=write, args=(ring, 299 + (when_full == "drop_oldest")), daemon=True
        )
        if when_full == "wait":
            # (So that both begin with the first one.)
            with ring.write() as frame:
                frame[:] = 0
            firsts = [each.get(timeout=30) for each in results]
            assert firsts == [(0, 0, 0), (0, 0, 0)], firsts
        writer.start()
        for process in readers + [writer]:
            process.join(30)
            assert process.exitcode == 0
        for each in results:
            seen = each.get_many(1000)
            assert seen[-1][1] == 299 and [n for _, n, _ in seen] == sorted({n for _, n, _ in seen})
            if when_full == "wait":
                assert len(seen) == 299 and all(value == n - 1 for value, n, _ in seen)
            else:
                # (From where it began on.)
                assert sum(skipped + 1 for _, _, skipped in seen[1:]) == 299 - seen[0][1]
        del ring, results, readers, writer, each, process
        ring = None
"""


@pytest.mark.parametrize("method", METHODS)
def test_streams(tmp_path, method):
    run_program(tmp_path, STREAM + END, method)


STORM = """
def write(ring, who):
    i = 0
    while True:
        with ring.write() as frame:
            frame[:] = 0  # Torn, if anybody sees it.
            frame[:] = [who, i, who * 1000003 + i] * (frame.size // 3)
        i += 1

def read(ring, newest):
    last = -1
    while True:
        with (ring.latest() if newest else ring.read()) as frame:
            who, i, check = frame[:3].tolist()
            assert check == who * 1000003 + i, "torn"
            assert (frame.reshape(-1, 3) == [who, i, check]).all(), "torn"
            assert frame.sequence >= last + (not newest)
            last = frame.sequence
            frame = frame[:10]  # A view that goes late.

if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    rng = np.random.RandomState(int(sys.argv[1]))
    for when_full in ("wait", "drop_oldest"):
        ring = snp.RingBuffer(3000, "i8", slots=3, when_full=when_full)
        kinds = [(write, 1), (write, 2), (read, False), (read, False), (read, True)]
        def start(which):
            target, argument = kinds[which]
            process = multiprocessing.Process(target=target, args=(ring, argument), daemon=True)
            process.start()
            return process
        workers = [start(which) for which in range(len(kinds))]
        for _ in range(int(sys.argv[2])):
            time.sleep(rng.random_sample() * 0.02)
            which = rng.randint(len(kinds))
            assert workers[which].exitcode is None
            if rng.randint(4) == 0:
                os.kill(workers[which].pid, signal.SIGSTOP)
                time.sleep(rng.random_sample() * 0.03)
                os.kill(workers[which].pid, signal.SIGCONT)
                continue
            os.kill(workers[which].pid, signal.SIGKILL)
            workers[which].join()
            workers[which] = start(which)
        # It still goes on.
        before, end = ring.written, time.monotonic() + 20
        while ring.written < before + 10:
            assert time.monotonic() < end
        for process in workers:
            assert process.exitcode is None
            process.kill() if hasattr(process, "kill") else os.kill(process.pid, signal.SIGKILL)
            process.join()
        with ring.write(timeout=20) as frame:
            frame[:] = 1
        del frame, workers, process
        ring = None
"""


def test_kills_under_load(tmp_path):
    seed = int(os.environ.get("SNP_SEED", "5"))
    run_program(tmp_path, STORM + END, str(seed), "60", timeout=100)


FORK = """
if __name__ == "__main__":
    ring = snp.RingBuffer(2, "i8", slots=4)
    for i in range(2):
        with ring.write() as frame:
            frame[:] = i
    with ring.read() as frame:
        assert frame[0] == 0
        pid = os.fork()
        if pid == 0:
            # The child looks at it, too, and goes on where its parent is.
            time.sleep(0.2)
            assert (frame == 0).all()
            with ring.read(timeout=10) as other:
                assert other[0] == 1 and other.skipped == 0
            os._exit(0)
    del frame
    with ring.read() as frame:
        assert frame[0] == 1
    del frame
    for i in range(2, 4):
        with ring.write(timeout=0) as frame:
            frame[:] = i
    _, status = os.waitpid(pid, 0)
    assert status == 0
    # The child is forgotten.
    for i in range(2, 20):
        with ring.read(timeout=0) as frame:
            assert frame[0] == i
        with ring.write(timeout=20) as frame:
            frame[:] = i + 2
    del frame
"""


def test_a_fork_while_a_frame_is_looked_at(tmp_path):
    run_program(tmp_path, FORK + END, "fork")


def test_a_ring_of_frames_is_no_ring_of_messages():
    ring = snp.RingBuffer(3)
    with pytest.raises(ValueError, match="no such ring"):
        _core.Ring.open(ring._frames.block)
    q = snp.Queue()
    with pytest.raises(ValueError, match="no such ring"):
        _core.Frames.open(q._channel.block)
    with pytest.raises(ValueError, match="written before"):
        block, index = ring._frames.blank(0)
        ring._frames.write(block, index)
        ring._frames.write(block, index)
    del block


def test_many_readers():
    """Rows of readers that are gone are used again."""
    ring = snp.RingBuffer(1, slots=2, when_full="drop_oldest")
    pids = []
    for _ in range(70):
        pid = os.fork()
        if pid == 0:
            with ring.latest(10):
                os._exit(0)
        pids.append(pid)
        if len(pids) == 10:
            fill(ring, 1, timeout=20)
            for each in pids:
                assert os.waitpid(each, 0)[1] == 0
            pids = []
    fill(ring, 1, 1, timeout=20)
