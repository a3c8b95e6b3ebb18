"""Room: what is given back before anything says that shared memory is full, and what it says.

What holds:

* memory that nobody has can be had by everything that lies in shared memory, whichever program
  of the same user had it;
* new programs take little;
* what the memory limit of a control group does not leave is refused before a page is touched;
* an error tells what was asked for, what there is, who has it and what helps.

The tests mount a small tmpfs in place of /dev/shm, in a mount namespace of their own.
"""

import pytest
from conftest import run_python
from small_shm import in_tmpfs, namespace

SMALL = 64 << 20

START = """
import gc, subprocess, sys
import shared_numpy as snp
from shared_numpy._core import Arena
def taken(make):
    try:
        made = make()
    except OSError as error:
        return str(error)
    return made
class Program:
    def __init__(self, code, at_end=""):
        lines = ["import shared_numpy as snp, sys", code, "print('ready', flush=True)"]
        lines += ["sys.stdin.read()", at_end]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.process = subprocess.Popen([sys.executable, "-c", "\\n".join(lines)], **pipes)
        assert self.process.stdout.readline() == b"ready\\n"
    def end(self):
        self.process.communicate()
        assert self.process.returncode == 0
"""


@pytest.mark.parametrize(
    "make",
    [
        "snp.zeros(62 * MIB, 'u1')",
        "SharedMemory(create=True, size=62 * MIB)",
        "SharedMemory(create=True, size=62 * MIB, reserve=True)",
        "snp.create('whole', 62 * MIB, 'u1')",
        "Arena.create(first=62 * MIB)",
    ],
)
def test_what_another_program_has_freed_can_be_had(make):
    in_tmpfs(
        SMALL,
        START
        + """
other = Program("a = [snp.ones(3 << 20, 'u1') for _ in range(4)]; del a")
# It keeps some pages for its own next arrays.
assert used() > 2 * MIB, used()
made = taken(lambda: {0})
assert not isinstance(made, str), made
if hasattr(made, "unlink"):
    made.unlink()
other.end()
""".format(make),
    )


def test_what_is_in_use_stays():
    in_tmpfs(
        SMALL,
        START
        + """
code = "a = snp.full(20 << 20, 7, 'u1'); b = snp.ones(3 << 20, 'u1'); del b"
other = Program(code, "assert a.min() == 7")
mine = snp.full(20 << 20, 8, "u1")
text = taken(lambda: snp.zeros(30 * MIB, "u1"))
assert "no room" in text, text
a = snp.zeros(20 * MIB, "u1")
a[:] = 9
assert mine.min() == 8
other.end()
""",
    )


def test_what_was_freed_in_pieces_can_be_had_in_one():
    in_tmpfs(
        SMALL,
        START
        + """
for size in (MIB, 100000, 3000):
    pieces = []
    while True:
        piece = taken(lambda: snp.ones(size, "u1"))
        if isinstance(piece, str):
            break
        pieces.append(piece)
    assert len(pieces) * size > 55 * MIB, len(pieces)
    del pieces[:], piece
    gc.collect()
    whole = taken(lambda: snp.ones(55 * MIB, "u1"))
    assert not isinstance(whole, str), whole
    del whole
assert Arena.default().check() == []
""",
    )


def test_hundreds_of_programs():
    in_tmpfs(
        SMALL,
        START
        + """
others = [Program("a = snp.zeros(3)") for _ in range(4)]
assert used() <= 5 * 16 * max(4096, os.sysconf("SC_PAGE_SIZE")), used()
for other in others:
    other.end()
""",
    )


def test_what_the_error_says():
    in_tmpfs(
        SMALL,
        START
        + """
a = snp.ones(10 * MIB, "u1")
try:
    snp.zeros(60 * MIB, "u1")
except snp.ArenaFullError as error:
    full = error
text = str(full)
name = Arena.default().name
parts = ["for {:,} bytes: ".format(60 * MIB), "of {:,} bytes free".format(64 * MIB), name, "in use"]
for part in parts + ["--shm-size", "SHARED_NUMPY_ARENA"]:
    assert part in text, (part, text)
assert full.asked == 60 * MIB and 52 * MIB < full.left < 54 * MIB
""",
    )


LIMITED = """
def limit(left):
    most, used = 1 << 40, (1 << 40) - left
    version2 = {"max": most, "current": used, "swap.max": 0}
    version1 = {"limit_in_bytes": most, "usage_in_bytes": used, "memsw.limit_in_bytes": most}
    for folder, files in (("", version2), ("memory/", version1)):
        os.makedirs("/sys/fs/cgroup/" + folder, exist_ok=True)
        for name in files:
            with open("/sys/fs/cgroup/" + folder + "memory." + name, "w") as file:
                file.write("%d\\n" % files[name])
"""


def test_what_a_control_group_may_not_have_is_refused():
    mount = 'mount -t tmpfs tmpfs /sys/fs/cgroup && mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    if namespace() is None:
        pytest.skip("this user may not mount")
    run_python(
        START
        + LIMITED
        + """
import errno, os
from shared_numpy.shared_memory import SharedMemory
MIB = 1 << 20
def used():
    system = os.statvfs("/dev/shm")
    return (system.f_blocks - system.f_bfree) * system.f_frsize
limit(20 * MIB)
a = snp.zeros(3)
before = used()
for make in (
    lambda: snp.zeros(30 * MIB, "u1"),
    lambda: snp.create("large", 30 * MIB, "u1"),
    lambda: SharedMemory(create=True, size=30 * MIB, reserve=True),
):
    text = taken(make)
    assert isinstance(text, str) and "control group" in text, text
    assert used() <= before + 4096, "pages were touched"
b = snp.zeros(10 * MIB, "u1")
# What is not touched yet is as anywhere else.
large = SharedMemory(create=True, size=30 * MIB)
large.close()
large.unlink()
# Free memory is no more than a share of what is left.
del b
limit(4 * MIB)
c = snp.zeros(3 * MIB, "u1")
del c
assert Arena.default().stats()["warm_bytes"] < 4 * MIB
""",
        wrapper=namespace() + ["sh", "-c", mount, "sh"],
    )


def test_without_a_folder():
    if namespace() is None:
        pytest.skip("this user may not mount")
    run_python(
        START
        + """
from shared_numpy.shared_memory import SharedMemory
for make in (
    lambda: snp.zeros(3),
    lambda: snp.create("some", 3),
    lambda: SharedMemory(create=True, size=3),
):
    text = taken(make)
    assert isinstance(text, str) and "there is no /dev/shm" in text and "mount" in text, text
""",
        wrapper=namespace() + ["sh", "-c", 'mount -t tmpfs tmpfs /dev && exec "$@"', "sh"],
    )


def test_a_ring_that_is_too_large_says_what_all_slots_take():
    """And what was free before; nothing of it is kept."""
    in_tmpfs(
        SMALL,
        START
        + """
snp.RingBuffer(3).close()
before, size = used(), 1080 * 1920 * 3
try:
    snp.RingBuffer((1080, 1920, 3), "u1", slots=30)
except snp.ArenaFullError as error:
    asked, left, text = error.asked, error.left, str(error)
assert "a ring of 30 slots of 6,220,800 bytes is 186,624,000 bytes: " in text, text
assert "no room in shared memory for 186,624,000 bytes: {:,} are free".format(left) in text, text
assert asked == 30 * size and 60 * MIB < left <= 64 * MIB, (asked, left)
settles(lambda: used() == before)
ring = snp.RingBuffer((1080, 1920, 3), "u1", slots=left // size)
""",
    )


def test_more_than_there_can_be_is_refused_with_what_is_free():
    in_tmpfs(
        SMALL,
        START
        + """
snp.zeros(3)
for asked in (40 << 30, 1 << 47, 1 << 50, (1 << 63) - 1):
    try:
        snp.empty(asked, "u1")
    except snp.ArenaFullError as error:
        assert error.asked == asked, (asked, error.asked)
        assert 50 * MIB < error.left <= 64 * MIB, (asked, error.left)
    else:
        raise AssertionError(asked)
""",
    )
