"""Shared memory that runs out is an error, not the end of the process.

The tests mount a small tmpfs in place of /dev/shm, in a mount namespace of
their own.
"""

import os
import signal

from small_shm import in_tmpfs

from shared_numpy.shared_memory import SharedMemory


def test_what_cannot_fit_is_refused():
    in_tmpfs(
        8 << 20,
        """
text = refused(8 * MIB + 1)
for part in ("8,388,609", "8,388,608", "--shm-size"):
    assert part in text, text
refused(1 << 40)
whole = SharedMemory("whole", create=True, size=8 * MIB)
assert written(whole) == 0
assert "0 bytes" in refused(1)
done(whole)
again = SharedMemory("again", create=True, size=8 * MIB)
done(again)
""",
    )


def test_sparse_segments_are_not_counted_and_end_in_sigbus():
    """What `reserve=False` means, and why it is not the default."""
    in_tmpfs(
        8 << 20,
        """
large = SharedMemory("large", create=True, size=64 * MIB, reserve=False)
assert used() == 0
assert written(large) == signal.SIGBUS
done(large)
""",
    )


def test_reserved_memory_is_there():
    in_tmpfs(
        8 << 20,
        """
refused(8 * MIB + 1, reserve=True)
first = SharedMemory("first", create=True, size=6 * MIB, reserve=True)
assert used() == 6 * MIB and first.size == 6 * MIB
refused(3 * MIB)
refused(3 * MIB, reserve=True)
sparse = SharedMemory("sparse", create=True, size=64 * MIB, reserve=False)
assert written(sparse) == signal.SIGBUS  # It took all that was left,
assert written(first) == 0               # and the first does not care.
done(first, sparse)
odd = SharedMemory("odd", create=True, size=MIB + 1, reserve=True)
assert odd.size == MIB + 1 and used() == MIB + 4096
done(odd)
""",
    )


def test_two_that_fit_alone():
    """Sparse memory is promised twice; reserved memory is not."""
    in_tmpfs(
        8 << 20,
        """
one = SharedMemory("one", create=True, size=6 * MIB)
two = SharedMemory("two", create=True, size=6 * MIB)
done(one, two)
one = SharedMemory("one", create=True, size=6 * MIB, reserve=True)
refused(6 * MIB, reserve=True)
done(one)
""",
    )


def test_a_race_for_the_last_memory():
    """The check passes, the memory is gone before it is taken."""
    in_tmpfs(
        8 << 20,
        """
from shared_numpy import _core
_core.room = lambda fd: None
refused(9 * MIB, reserve=True)
""",
    )


def test_attaching_can_reserve_too():
    in_tmpfs(
        8 << 20,
        """
sparse = SharedMemory("sparse", create=True, size=4 * MIB, reserve=False)
sparse.buf[:3] = b"abc"
other = SharedMemory("sparse", reserve=True)
assert used() == 4 * MIB and bytes(sparse.buf[:3]) == b"abc"
assert written(sparse) == 0
other.close()
done(sparse)
large = SharedMemory("large", create=True, size=64 * MIB, reserve=False)
large.buf[0] = 1
try:
    SharedMemory("large", reserve=True)
except OSError as error:
    assert error.errno == errno.ENOSPC and "8,384,512 bytes" in str(error), error
assert used() == 4096  # Nothing was taken.
assert os.listdir("/dev/shm") == ["large"]
done(large)
""",
    )


def test_no_limit():
    in_tmpfs(
        0,
        """
assert os.statvfs("/dev/shm").f_blocks == 0
shm = SharedMemory("any", create=True, size=64 * MIB)
done(shm)
""",
    )


def test_lists_do_not_fit_either():
    in_tmpfs(
        1 << 20,
        """
try:
    ShareableList(["x" * (2 * MIB)])
except OSError as error:
    assert error.errno == errno.ENOSPC
assert os.listdir("/dev/shm") == []
""",
    )


def test_pages_are_taken(name):
    """Asked of the system: the blocks of the file."""
    shm = SharedMemory(name, create=True, size=1000000, reserve=True)
    assert os.stat("/dev/shm/" + name).st_blocks * 512 >= 1000000
    shm.close()
    shm.unlink()
    shm = SharedMemory(name, create=True, size=1000000, reserve=False)
    assert os.stat("/dev/shm/" + name).st_blocks == 0
    shm.close()
    shm.unlink()


def test_a_fast_timer_does_not_stop_it(name):
    """Each signal costs the kernel's work on one chunk, not on all of them."""
    ticks = []
    previous = signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.004, 0.004)
        shm = SharedMemory(name, create=True, size=128 << 20, reserve=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert ticks
    assert os.stat("/dev/shm/" + name).st_blocks * 512 == 128 << 20
    shm.close()
    shm.unlink()

