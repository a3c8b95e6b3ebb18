"""`_core.Ring`: what queues and executors are made of, and what they do not show.

What holds: a message is withdrawn from anywhere and the others stay as they are; errors say
what is in; what a ring was let go of in one thread or process others go on with; a ring whose
memory was overwritten raises and crashes nobody.
"""

import ctypes
import os
import queue
import signal
import threading
import time

import numpy as np
import pytest
from conftest import counts, run_python

import shared_numpy as snp
from shared_numpy import _core
from shared_numpy._pickling import by_reference


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()  # What a failed test keeps, others need not answer for.
    yield
    assert counts() == before


def stream(number, size=40):
    return bytes(size) + number.to_bytes(8, "little")


def numbers(ring):
    found = ring.get_many(1000, 0)
    streams = [each if type(each) is bytes else each[0] for each in found]
    return [int.from_bytes(bytes(each[-8:]), "little") for each in streams]


@pytest.mark.parametrize("sizes", [[40], [40, 20000], [3000], [0, 16000, 70000]])
@pytest.mark.parametrize("behind", [0, 1, 4, 8, 9])
def test_withdrawing(sizes, behind):
    ring = _core.Ring.create(0, 1 << 14, 1 << 24)
    for i in range(4):  # So that it goes around.
        ring.put(stream(i), [])
    for i in range(10):
        ring.put(stream(i, sizes[i % len(sizes)]), [])
        if i < 4:
            ring.get(0)
    number = 9 - behind
    for wrong in (stream(number + 1)[-8:], b"x" * 100000):
        assert ring.withdraw(behind, wrong) is None
    assert ring.withdraw(10, b"") is None
    message = ring.withdraw(behind, stream(number)[-8:])
    assert message.end(8) == stream(number)[-8:]
    assert len(ring) == 9
    other = _core.Ring.create()
    assert other.put_unopened(message) and numbers(other) == [number]
    with pytest.raises(ValueError, match="was put"):
        message.end(8)
    assert numbers(ring) == [i for i in range(10) if i != number]
    ring.put(stream(5), [])
    assert numbers(ring) == [5]


def test_a_message_that_is_withdrawn_ends_with_its_arrays():
    ring = _core.Ring.create()
    before = counts()
    for i in range(3):
        handles = [bytes(by_reference.send(block).handle) for block in [snp.ones(2).base.base]]
        ring.put(stream(i), handles)
        assert not handles
    middle = ring.withdraw(1, stream(1)[-8:])
    # (The others lie in another body now.)
    assert counts() == (before[0] + 7, before[1] + 6)
    del middle
    assert counts() == (before[0] + 5, before[1] + 5)
    assert numbers(ring) == [0, 2]


def test_put_many_tells_what_failed():
    q = snp.Queue(3)
    assert q.put_many(range(2)) == 2
    assert q.put_many([2, snp.ones(2), np.ones(10**5)], block=False) == 1
    assert q.put_many([3], timeout=0.01) == 0
    assert q.get_many(10) == [0, 1, 2]
    # Handles of another arena, too, end where there was no room.
    other = _core.Arena.create()
    there = other.empty(5)
    assert q.put_many([1, 2, there, there, there[1:]], block=False) == 3
    with pytest.raises(queue.Full):
        q.put(there, block=False)
    assert q.get_many(2) == [1, 2] and (q.get() == there).all()
    assert other.stats()["handles"] == 0
    del there, other
    with pytest.raises(queue.Empty):
        q.get_many(10, block=False)
    with pytest.raises(ValueError, match="most"):
        q.get_many(0)
    with pytest.raises(Exception, match="pickle|local"):
        q.put_many([1, snp.ones(2), lambda: 0])
    assert q.empty()
    threading.Timer(0.1, q.close).start()
    with pytest.raises(ValueError, match="closed"):
        q.put_many(range(4))


def broken():
    raise KeyError("broken")


class Broken:
    def __reduce__(self):
        return broken, ()


def test_what_cannot_be_unpickled_is_lost_alone():
    q = snp.Queue()
    # (An array can be received once.)
    things = [np.ones(10**5), 1, [np.ones(10**5), Broken()], 3, Broken()]
    q.put_many(things)
    with pytest.raises(KeyError):
        q.get_many(10)
    assert q.qsize() == 4 and not q.empty()
    assert (q.get(False) == things[0]).all()
    with pytest.raises(KeyError):
        q.get_many(10)
    q.put(5)
    assert q.qsize() == 3 and q.get_many(10) == [1, 3]
    assert q.get_many(10) == [5] and q.empty()
    q.put(Broken())
    with pytest.raises(KeyError):
        q.get()
    assert q.qsize() == 0


def test_a_child_that_closes_what_a_thread_of_its_parent_waits_for():
    q = snp.Queue()
    thread = threading.Thread(target=lambda: pytest.raises(ValueError, q.get))
    thread.start()
    time.sleep(0.05)
    block = q._channel.block
    pid = os.fork()
    if pid == 0:
        q.close()
        del block
        # Nobody else has it here.
        time.sleep(0.2)
        os._exit(0)
    time.sleep(0.1)
    q.close()
    thread.join()
    held = counts()[0]
    del block
    assert counts()[0] == held - 1
    assert os.waitpid(pid, 0)[1] == 0


def test_a_fork_by_a_signal_handler_while_its_thread_waits():
    run_python(
        """
import os, signal, sys, threading, time
import shared_numpy as snp
q = snp.Queue()
def handler(*arguments):
    pid = os.fork()
    if pid == 0:
        q.put("child")
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
signal.signal(signal.SIGALRM, handler)
signal.alarm(1)
assert q.get() == "child" and q.empty()
""",
        timeout=30,
    )


@pytest.mark.parametrize("wait", ["get", "put", "join", "poll"])
def test_signals_end_waits(wait):
    class Bell(Exception):
        pass

    def ring_bell(*arguments):
        raise Bell

    q = snp.JoinableQueue(1)
    if wait != "get" and wait != "poll":
        q.put(0)
    calls = {"get": q.get, "put": lambda: q.put(1), "join": q.join, "poll": q._channel.poll}
    before = signal.signal(signal.SIGALRM, ring_bell)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        start = time.monotonic()
        with pytest.raises(Bell):
            calls[wait]()
        assert time.monotonic() - start < 5
    finally:
        signal.signal(signal.SIGALRM, before)
    assert q.qsize() == (wait in ("put", "join"))


def test_odd_timeouts():
    ring = _core.Ring.create()
    for timeout in (0, -1, -float("inf"), 1e-9):
        assert ring.get(timeout) is None
    ring.put(b"x", [], float("inf"))
    assert ring.get(1e300) == b"x"
    with pytest.raises(ValueError, match="nan"):
        ring.get(float("nan"))
    for wrong in [(0, 5000, 8192), (0, 2048, 4096), (0, 8192, 4096), (0, 4096, 1 << 40)]:
        with pytest.raises(ValueError, match="power of two"):
            _core.Ring.create(*wrong)


def test_a_ring_that_was_overwritten_raises():
    rng = np.random.RandomState(4)
    raised = 0
    for _ in range(300):
        ring = _core.Ring.create(0, 4096, 1 << 20)
        for i in range(5):
            ring.put(stream(i), [])
        # (The lock's owner is left alone: whoever holds it would be waited for.)
        word = rng.choice([i for i in range(0, 640, 4) if i not in (64, 68)])
        address = ring.block.address + int(word)
        number = int(rng.choice([0, 1, 2**31, 2**32 - 1, rng.randint(2**31)]))
        ctypes.c_uint32.from_address(address).value = number
        try:
            for _ in range(3):
                ring.get(0)
                ring.put(stream(1), [], 0)
                len(ring)
        except (snp.ArenaCorruptedError, snp.ArenaFullError, snp.StaleHandleError, ValueError):
            raised += 1
        ctypes.memset(ring.block.address + 64, 0, 1)
    assert raised > 5


def test_spinning_can_be_turned_off():
    for q in (snp.Queue(), snp.SimpleQueue(), snp.JoinableQueue()):
        assert q.spin is True
        q.spin = False
        assert q.spin is False
    assert _core.can_sleep() is True


def test_an_idle_consumer_uses_no_processor():
    q = snp.Queue()
    used = []

    def wait():
        start = time.thread_time() if hasattr(time, "thread_time") else None
        q.get()
        if start is not None:
            used.append(time.thread_time() - start)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(1)
    q.put(1)
    thread.join()
    assert all(seconds < 0.05 for seconds in used)
