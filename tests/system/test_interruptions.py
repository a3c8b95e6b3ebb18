"""Exceptions of signals' handlers: wherever they come, nothing is lost, left or kept.

What holds, before whatever instruction of this package's the exception is raised: what was
being put is in the queue or has ended, what was being taken out is there or is lost alone;
no place, lock, frame or worker is kept, and no memory is left.
"""

import gc
import multiprocessing
import opcode
import os
import queue
import sys
import time
from contextlib import suppress
from pickle import PicklingError

import numpy as np
import pytest
from conftest import counts, eventually

import shared_numpy as snp
from shared_numpy._channels import pipe_channel

HERE = os.path.dirname(snp.__file__)

# Before 3.10 an interpreter can look for signals before almost any instruction, in an exception's
# handler, too, and leave a `with` statement with its lock; later ones do where a function begins,
# after calls, and in loops.
LOOKS = sys.version_info < (3, 10)
LOOKED = ("RESUME", "CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE")


class Interruption(BaseException):
    pass


def interrupt(at, call):
    """Call something, and raise an exception in it at the `at`-th place where one may come.

    Returns whether there are so many.
    """
    places, before = [], {}

    def follow(frame, event, _):
        if event == "opcode":
            name = opcode.opname[frame.f_code.co_code[frame.f_lasti]]
            # (By number: who keeps a frame keeps all that is in it.)
            last, before[id(frame)] = before.get(id(frame), "RESUME"), name
            # (What is returned is the caller's, who loses it.)
            if name != "RETURN_VALUE" and (LOOKS or last.startswith(LOOKED)):
                places.append(frame.f_lasti)
                if len(places) == at + 1:
                    raise Interruption
        elif event == "exception":
            before[id(frame)] = ""  # (It goes to its handler without a look.)
        return follow

    def trace(frame, _event, _):
        if frame.f_code.co_filename.startswith(HERE):
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            before.pop(id(frame), None)
            return follow
        return None

    others = sys.gettrace()
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        call()
    except (Interruption, PicklingError, queue.Full, queue.Empty):
        pass
    finally:
        sys.settrace(others)
    return len(places) > at


def interrupt_everywhere(prepare, call, check, left=counts):
    """Interrupt `call(thing)` at one place after the other; each time `check(thing)`, and what
    is `left` must be as it was."""
    at, goes_on, before = 0, True, settled(left)
    while goes_on:
        thing = prepare()
        goes_on = interrupt(at, lambda: call(thing))
        check(thing)
        del thing
        await_as_before(left, before, at)
        at += 1
    assert at > 2


def settled(left):
    """Return what is left when that does not change any more."""
    before = None
    while before != left():
        before = left()
        time.sleep(0.05)
    return before


def await_as_before(left, before, *where):
    # (Threads and workers may be about to end.)
    eventually(lambda: left() == before, tell=lambda: where + (before, left()))


def with_children():
    return counts(), multiprocessing.active_children()


pytestmark = pytest.mark.skipif(
    not (3, 7) <= sys.version_info < (3, 13),
    reason="3.6 traces no instructions, and 3.13.0 those of some functions only",
)

PLAIN = np.zeros(3000)
SHARED = None
PLACES = 3


class Nameless:
    def __reduce__(self):
        raise PicklingError("not this one")


NAMELESS = Nameless()


@pytest.fixture(autouse=True, scope="module")
def shared():
    """An array that no other file's tests shall find."""
    global SHARED
    # There are thousands of collections: of what is made from now on.
    gc.collect()
    gc.freeze()
    SHARED = snp.ones(5)
    yield
    SHARED = None


# What is in the queue before, what is done, and how many things may be in it then.
CALLS = {
    "put": (0, lambda q: q.put([PLAIN, SHARED, b"x" * 100000], False), (0, 1)),
    "put, full": (PLACES, lambda q: q.put(PLAIN, False), (PLACES, PLACES)),
    "put, full, waits": (PLACES, lambda q: q.put(SHARED, True, 0.001), (PLACES, PLACES)),
    "put_many": (1, lambda q: q.put_many([PLAIN, 4, SHARED, PLAIN], False), (1, PLACES)),
    "put, what cannot be": (1, lambda q: q.put([PLAIN, SHARED, NAMELESS], False), (1, 1)),
    "put_many, one cannot be": (0, lambda q: q.put_many([PLAIN, [SHARED, NAMELESS]]), (0, 0)),
    "get": (2, lambda q: q.get(False), (1, 2)),
    "get, empty": (0, lambda q: q.get(False), (0, 0)),
    "get_many": (PLACES, lambda q: q.get_many(2), (1, PLACES)),
}


@pytest.mark.parametrize("call", [each for each in CALLS if "cannot" not in each or not LOOKS])
@pytest.mark.parametrize("transport", ["ring", pytest.param("pipe", marks=pytest.mark.slow)])
def test_queues(transport, call, monkeypatch):
    monkeypatch.setenv("SHARED_NUMPY_RING", "01"[transport == "ring"])
    first, call, (least, most) = CALLS[call]

    def prepare():
        q = snp.JoinableQueue(PLACES)
        for number in range(first):
            q.put(np.full(3000, number))
        return q

    def check(q):
        if LOOKS and isinstance(q._channel, pipe_channel.Channel):
            while q._channel.feeder.lock._is_owned():
                q._channel.feeder.lock.release()
        assert least <= q.qsize() <= most
        assert q.qsize() == len(drained(q))
        for number in range(PLACES):
            q.put(number, False)
        assert q.full()
        assert drained(q) == list(range(PLACES))
        q.close()

    interrupt_everywhere(prepare, call, check)


def drained(q):
    return until_empty(lambda: q.get(False))


def until_empty(take):
    """Return all that there is to take."""
    found = []
    with suppress(queue.Empty):
        while True:
            found.append(take())
    return found


def test_messages():
    sent = []

    def check(ref):
        if ref is not None:
            ref.cancel()
        for each in sent:
            each.cancel()
        del sent[:]

    things = [PLAIN, SHARED, b"x" * 100000]
    interrupt_everywhere(lambda: None, lambda _: sent.append(snp.send(things)), check)
    interrupt_everywhere(lambda: snp.send(things), snp.receive, check)
    if not LOOKS:
        interrupt_everywhere(lambda: None, lambda _: snp.send([PLAIN, NAMELESS]), check)


def test_arrays():
    for make in (lambda _: snp.array([[1.0, 2], [3, 4]]), lambda _: snp.array(PLAIN[::2])):
        interrupt_everywhere(lambda: None, make, lambda _: None)


def fill(ring, value=7):
    with ring.write(timeout=0) as frame:
        frame[...] = value


def look(ring):
    with ring.read(timeout=0) as frame:
        return set(frame)


def look_at_latest(ring):
    with ring.latest(timeout=0) as frame:
        return set(frame)


@pytest.mark.parametrize("call", [fill, look, look_at_latest])
def test_frames(call):
    def prepare():
        ring = snp.RingBuffer((10,), "f8", PLACES)
        fill(ring)
        return ring

    def check(ring):
        for value in until_empty(lambda: look(ring)):
            assert value in ({7}, {0})  # (A frame that was begun may be shown, never half.)
        for number in range(PLACES):
            fill(ring, number)
        assert until_empty(lambda: look(ring)) == [{number} for number in range(PLACES)]
        ring.close()

    interrupt_everywhere(prepare, call, check)


def double(x):
    return 2 * x


def use(_):
    with snp.ProcessPoolExecutor(1) as pool:
        assert pool.submit(double, 1).result() == 2


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: sys.settrace(None))


# (A finalizer's exception is told of and gone.)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(LOOKS, reason="an interrupted `with` statement may keep its lock")
def test_a_pool_from_its_beginning_to_its_end():
    def check(_):
        gc.collect()

    interrupt_everywhere(lambda: None, use, check, with_children)


@pytest.mark.skipif(LOOKS, reason="an interrupted `with` statement may keep its lock")
@pytest.mark.parametrize("call", [
    lambda pool: pool.submit(double, PLAIN).result(),
    lambda pool: list(pool.map(double, [1, SHARED, PLAIN])),
    lambda pool: pool.submit(double, 4).cancel(),
], ids=["submit", "map", "cancel"])  # fmt: skip
def test_pools(call):
    before = settled(with_children)
    with snp.ProcessPoolExecutor(1) as pool:

        def check(_):
            assert pool.submit(double, 21).result(20) == 42
            assert (pool.submit(double, PLAIN).result(20) == 0).all()

        # (What the pool has changes: a ring out of which calls were taken back has two parts.)
        interrupt_everywhere(lambda: pool, call, check, lambda: None)
    del pool, check
    await_as_before(with_children, before)


@pytest.mark.skipif(LOOKS, reason="an interrupted `with` statement may keep its lock")
def test_a_shutdown():
    def prepare():
        pool = snp.ProcessPoolExecutor(1)
        assert pool.submit(double, 1).result() == 2
        return pool

    interrupt_everywhere(
        prepare, lambda pool: pool.shutdown(), lambda pool: pool.shutdown(), with_children
    )  # fmt: skip
