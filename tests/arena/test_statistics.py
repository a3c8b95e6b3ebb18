"""The counters of ``arena.stats()`` and `snp.stats`.

1. `snp.stats` has the keys of ``Arena.default().stats()``, and its docstring names each.
2. Growing, giving back, refusing and reaping are counted in the arena, for all its processes.
3. Messages and their bytes are counted by channel, in the process that puts or takes them, once.
4. Waits are counted by whether the thread slept; a wait for a lock of the arena, too.
5. A forked child begins with zeros, and counts for itself; so does a process that is spawned.
"""

import gc
import os
import pickle
import re
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import eventually, needs_arenas, run_program, run_python

import shared_numpy as snp

pytestmark = needs_arenas

TRAFFIC = [
    channel + way
    for channel, ways in (("ring", ("sent", "received")), ("pipe", ("sent", "received")),
                          ("frames", ("written", "read")))
    for way in ("_%s" % ways[0], "_%s_bytes" % ways[0], "_%s" % ways[1], "_%s_bytes" % ways[1])
]  # fmt: skip
PRIVATE = ["lock_waits", "longest_lock_wait", "spins", "sleeps"] + TRAFFIC


def test_keys_are_documented():
    keys = set(snp.stats())
    assert keys == set(snp.Arena.default().stats())
    assert set(PRIVATE) <= keys
    named = set(re.findall(r"``([a-z_]+)``", snp.Arena.stats.__doc__))
    assert keys - named == set()
    with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "finding-leaks.md")) as page:
        text = page.read()
    assert {key for key in keys if "`%s`" % key not in text} == set()


def difference(before, keys):
    now = snp.stats()
    return {key: now[key] - before[key] for key in keys}


def test_growth_and_returns_are_the_arena_s():
    with snp.Arena.create(name="snp-test-%d-grows" % os.getpid()) as arena:
        before = arena.stats()
        assert (before["grows"], before["returns"], before["returned_bytes"]) == (0, 0, 0)
        big = arena.empty(1 << 20, "u1")
        small = arena.empty(1 << 16, "u1")
        grown = arena.stats()
        assert grown["grows"] == grown["segments"] - 1 >= 1
        # Another array keeps its segment, so that pages go back and not the segment.
        del big
        gc.collect()
        snp.trim()
        after = arena.stats()
        assert after["grows"] == grown["grows"]
        if after["segments"] == grown["segments"]:
            assert after["returns"] >= 1
            assert after["returned_bytes"] > 0
        assert (after["returns"] == 0) == (after["returned_bytes"] == 0)
        del small


def test_returns_are_counted_once_for_a_trim():
    with snp.Arena.create(name="snp-test-%d-returns" % os.getpid(), first="4M") as arena:
        for number in (1, 2):
            arena.empty(1 << 20, "u1")[:] = 1
            gc.collect()
            arena.stats()  # (The block cache is empty after it.)
            snp.trim()
            assert arena.stats()["returns"] == number


def test_a_queue_s_messages_are_counted_by_their_bytes():
    queue = snp.Queue()
    before = snp.stats()
    messages = [b"x" * length for length in (10, 1000, 10000)]
    for message in messages:
        queue.put(message)
    queue.put_many(messages)
    sent = difference(before, TRAFFIC)
    assert sent["ring_sent"] == 6
    # The pickles are the messages, and some bytes around each.
    assert 2 * 11010 <= sent["ring_sent_bytes"] < 2 * 11010 + 6 * 1000
    assert (sent["ring_received"], sent["ring_received_bytes"]) == (0, 0)
    assert queue.get() == messages[0]
    assert queue.get_many(9) == messages[1:] + messages
    got = difference(before, TRAFFIC)
    assert got["ring_received"] == 6
    assert got["ring_received_bytes"] == got["ring_sent_bytes"] == sent["ring_sent_bytes"]
    assert {key for key, count in got.items() if count and not key.startswith("ring")} == set()


def test_an_array_that_goes_by_reference_is_not_counted():
    queue = snp.Queue()
    array = snp.zeros(1 << 20)
    before = snp.stats()
    queue.put(array)
    assert 0 < difference(before, ["ring_sent_bytes"])["ring_sent_bytes"] < 1000
    assert queue.get().shape == array.shape


def test_what_is_not_put_is_not_counted():
    queue = snp.Queue(maxsize=1)
    queue.put(1)
    before = snp.stats()
    with pytest.raises(Exception) as info:
        queue.put(2, timeout=0.01)
    assert type(info.value).__name__ == "Full"
    assert queue.put_many([3, 4], block=False) == 0
    assert difference(before, TRAFFIC) == dict.fromkeys(TRAFFIC, 0)
    queue.get()


def test_pipes_are_counted_apart(monkeypatch):
    monkeypatch.setenv("SHARED_NUMPY_RING", "0")
    queue = snp.Queue()
    before = snp.stats()
    short, long = [1, 2, 3], np.arange(100000.0)
    queue.put(short)
    queue.put([long])
    sent = difference(before, TRAFFIC)
    assert sent["pipe_sent"] == 2 and sent["ring_sent"] == 0
    assert queue.get(timeout=20) == short
    assert (queue.get(timeout=20)[0] == long).all()
    got = difference(before, TRAFFIC)
    assert got["pipe_received"] == 2
    assert got["pipe_received_bytes"] == got["pipe_sent_bytes"] > len(pickle.dumps(short))
    queue.close()
    queue.join_thread()


def test_frames_are_counted():
    ring = snp.RingBuffer(slots=3, shape=(1000,), dtype="f8")
    before = snp.stats()
    for number in range(2):
        with ring.write() as frame:
            frame[:] = number
    got = difference(before, TRAFFIC)
    assert (got["frames_written"], got["frames_read"]) == (2, 0)
    assert 2 * 8000 <= got["frames_written_bytes"] < 2 * 8064 + 1
    with ring.read() as frame:
        assert frame[0] == 0
    got = difference(before, TRAFFIC)
    assert (got["frames_written"], got["frames_read"]) == (2, 1)
    assert got["frames_read_bytes"] == got["frames_written_bytes"] // 2
    ring.close()


def test_waits_are_counted_by_whether_the_thread_slept():
    queue = snp.Queue()
    queue.spin = False
    before = snp.stats()
    with pytest.raises(Exception):
        queue.get(timeout=0.05)
    got = difference(before, ["spins", "sleeps"])
    assert got["sleeps"] == 1
    queue.put(1)
    queue.get()
    # Nobody has waited.
    assert difference(before, ["spins", "sleeps"]) == got


@contextmanager
def held_lock(arena):
    """The lock of an arena is a living process's, as its table says; yields a function that frees it
    so many seconds after a thread waits for it."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        with open("/dev/shm/" + arena.name, "r+b", buffering=0) as file:

            def rows():
                return np.frombuffer(os.pread(file.fileno(), 256 * 64, 53248), "<u8").reshape(256, 8)

            def slots():
                return list(np.nonzero((rows() == pid).any(axis=1))[0])

            # (The child writes its number there when it runs.)
            eventually(slots)
            (slot,) = slots()
            word = 1 << 30 | (int(rows()[slot, 0]) >> 8 & 0xFFFFF) << 10 | int(slot)
            os.pwrite(file.fileno(), word.to_bytes(4, "little"), 128)

            def release(seconds):
                # (The highest bit: somebody sleeps.)
                eventually(lambda: os.pread(file.fileno(), 4, 128)[3] & 0x80)
                time.sleep(seconds)
                os.pwrite(file.fileno(), bytes(4), 128)

            yield release
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_waits_for_a_lock_are_counted_and_the_longest_is_told_in_microseconds():
    with snp.Arena.create(name="snp-test-%d-waits" % os.getpid()) as arena:
        before = snp.stats()
        arena.check()
        assert difference(before, ["lock_waits"]) == {"lock_waits": 0}
        with held_lock(arena) as release:
            thread = threading.Thread(target=release, args=(0.2,))
            start = time.monotonic()
            thread.start()
            arena.check()
            waited = (time.monotonic() - start) * 1e6
            thread.join()
        after = snp.stats()
        assert after["lock_waits"] - before["lock_waits"] == 1
        # (Another test of this process may have waited for longer.)
        longest = max(waited, before["longest_lock_wait"])
        assert 100000 < after["longest_lock_wait"] <= longest
        # It is the longest of all.
        with held_lock(arena) as release:
            thread = threading.Thread(target=release, args=(0,))
            thread.start()
            arena.check()
            thread.join()
        assert snp.stats()["longest_lock_wait"] >= after["longest_lock_wait"]


FORKED = """
keys = {keys!r}
if __name__ == "__main__":
    q = snp.Queue()
    for _ in range(3):
        q.put(b"abc")
        q.get()
    mine = snp.stats()
    assert mine["ring_sent"] == mine["ring_received"] == 3
    pid = os.fork()
    if pid == 0:
        assert {{key: snp.stats()[key] for key in keys}} == dict.fromkeys(keys, 0)
        q.put(b"from the child")
        assert snp.stats()["ring_sent"] == 1
        os._exit(7)
    _, status = os.waitpid(pid, 0)
    assert os.WEXITSTATUS(status) == 7, status
    assert snp.stats()["ring_sent"] == 3
    # What lies in the arena is the same for both.
    assert snp.stats()["allocated"] >= mine["allocated"] > 0
    q.get()
"""


def test_a_forked_child_begins_with_zeros(tmp_path):
    run_program(tmp_path, FORKED.format(keys=TRAFFIC + ["spins", "sleeps"]))


def test_threads_count_together():
    queues = [snp.Queue() for _ in range(4)]
    before = snp.stats()

    def work(queue):
        for number in range(500):
            queue.put(number)
            assert queue.get() == number

    threads = [threading.Thread(target=work, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    got = difference(before, ["ring_sent", "ring_received"])
    assert got == {"ring_sent": 2000, "ring_received": 2000}


def test_a_process_without_an_arena_gets_one():
    output = run_python(
        "import shared_numpy as snp\n"
        "print(snp.stats()['processes'], snp.stats()['blocks'])"
    )
    assert output == "1 0\n"


def test_reaped_processes_and_recoveries_are_the_arena_s():
    with snp.Arena.create(name="snp-test-%d-reaped" % os.getpid()) as arena:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        arena.reap()
        stats = arena.stats()
        assert (stats["reaped_processes"], stats["recoveries"]) == (1, 0)
