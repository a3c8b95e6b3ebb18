"""Huge pages: where the file system grants them, they serve, and nothing else changes.

What holds, in a tmpfs mounted with each of the options that a kernel knows:

* where huge pages are granted a long array is mapped by them, in the process that made it and in
  others, and takes fewer faults than a tenth of its pages; elsewhere each page is of the common
  length;
* what is given back is free again, also from the middle of a huge page, and its neighbours keep
  their bytes;
* a full file system is an error, never a signal;
* `machine` says what is granted.

The tests mount a tmpfs in place of /dev/shm, in a mount namespace of their own. What is mapped they
ask the kernel.
"""

import subprocess

import pytest
from conftest import run_python
from small_shm import namespace

OPTIONS = ["never", "always", "within_size", "advise"]
GRANTED = OPTIONS[1:]
# How often a program is tried for which the kernel had no huge pages: its memory is in pieces then.
_ATTEMPTS = 5

START = """
import os, resource, sys
import numpy as np
import shared_numpy as snp
MIB = 1 << 20
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def mapped_huge():
    with open("/proc/self/smaps") as maps:
        lines = [line.split() for line in maps if line.startswith("ShmemPmdMapped")]
    return sum(int(words[1]) << 10 for words in lines)
def refused():
    # How often the kernel has had no huge page where one was asked for.
    with open("/proc/vmstat") as counts:
        return sum(int(line.split()[1]) for line in counts if line.startswith("thp_file_fallback "))
def goes_on_with_huge_pages():
    if refused() != refused_before:
        print("refused")
        sys.exit()
refused_before = refused()
def used():
    files = (os.path.join("/dev/shm", name) for name in os.listdir("/dev/shm"))
    return sum(os.stat(file).st_blocks * 512 for file in files)
"""


def has_huge_pages():
    """Tell whether this kernel gives huge pages of 2 MiB to a tmpfs that is mounted with them."""
    folder = "/sys/kernel/mm/transparent_hugepage/"
    try:
        with open(folder + "hpage_pmd_size") as file:
            size = int(file.read())
        with open(folder + "shmem_enabled") as file:
            chosen = file.read()
    except OSError:
        return False
    if size != 2 << 20 or "[deny]" in chosen or "[force]" in chosen or namespace() is None:
        return False
    mount = namespace() + ["sh", "-c", "mount -t tmpfs -o huge=advise tmpfs /dev/shm"]
    return subprocess.call(mount, stderr=subprocess.DEVNULL) == 0


pytestmark = pytest.mark.skipif(
    not has_huge_pages(), reason="no huge pages of 2 MiB here, or this user may not mount them"
)


def run_in(option, code, size=0):
    """Run `code` where /dev/shm has huge pages by this option, and room for `size` bytes."""
    mount = 'mount -t tmpfs -o huge=%s,size=%d tmpfs /dev/shm && exec "$@"' % (option, size)
    for _ in range(_ATTEMPTS):
        said = run_python(START + code, wrapper=namespace() + ["sh", "-c", mount, "sh"])
        if said != "refused\n":
            return
    pytest.skip("the kernel had no free memory for huge pages, {} times".format(_ATTEMPTS))


@pytest.mark.parametrize("option", OPTIONS)
def test_machine_says_what_is_granted(option):
    run_in(option, "assert snp.machine()['huge_pages'] == %r" % option)


@pytest.mark.parametrize("option", GRANTED)
def test_a_long_array_is_mapped_by_huge_pages(option):
    run_in(
        option,
        """
before = faults()
a = snp.zeros(64 * MIB, "u1")
assert not a.any()
a[:] = 3
goes_on_with_huge_pages()
assert faults() - before < a.nbytes // 4096 // 10, faults() - before
assert mapped_huge() >= a.nbytes - 4 * MIB, mapped_huge()
pipe = os.pipe()
child = os.fork()
if not child:
    try:
        before = faults()
        assert (a == 3).all()
        assert faults() - before < a.nbytes // 4096 // 10, faults() - before
        assert mapped_huge() >= a.nbytes - 4 * MIB, mapped_huge()
        a[5] = 7
        os.write(pipe[1], b"right")
    finally:
        os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert os.read(pipe[0], 9) == b"right"
assert a[5] == 7
""",
    )


@pytest.mark.parametrize("option", GRANTED)
def test_another_process_maps_it_so_as_well(option):
    run_in(
        option,
        """
import subprocess
a = snp.zeros(64 * MIB, "u1")
a[:] = 3
goes_on_with_huge_pages()
other = subprocess.run([sys.executable, "-c", '''
import resource, sys
import shared_numpy as snp
handle = sys.stdin.buffer.read()
a = snp.receive(handle)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
assert (a == 3).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''], input=snp.send(a), stdout=subprocess.PIPE)
assert other.returncode == 0
# (A comparison makes an array of its own, whose pages are private.)
private = a.nbytes // 4096
assert int(other.stdout) < private + private // 10, other.stdout
""",
    )


def test_elsewhere_pages_are_of_the_common_length():
    run_in(
        "never",
        """
before = faults()
a = snp.zeros(16 * MIB, "u1")
a[:] = 3
assert faults() - before >= a.nbytes // 4096 // 2, faults() - before
assert mapped_huge() == 0
""",
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_given_back_is_free_and_its_neighbours_stay(option):
    run_in(
        option,
        """
whole = used()
arrays = [snp.full(3 * MIB // 4, number, "u1") for number in range(64)]
full = used()
assert full - whole >= 47 * MIB, (whole, full)
del arrays[::2]
snp.trim()
left = used()
assert left - whole <= 32 * MIB, (whole, full, left)
for number, array in zip(range(1, 64, 2), arrays):
    assert (array == number).all()
again = [snp.full(3 * MIB // 4, 100 + number, "u1") for number in range(32)]
for number, array in enumerate(again):
    assert (array == 100 + number).all()
for number, array in zip(range(1, 64, 2), arrays):
    assert (array == number).all()
del arrays, again, array
snp.trim()
assert used() - whole <= 4 * MIB, (whole, used())
""",
    )


@pytest.mark.parametrize("option", OPTIONS)
def test_a_full_file_system_is_an_error(option):
    run_in(
        option,
        """
a = snp.zeros(40 * MIB, "u1")
try:
    snp.zeros(40 * MIB, "u1")
except snp.ArenaFullError as error:
    assert "/dev/shm has" in str(error), error
else:
    raise AssertionError("64 MiB held 80")
a[:] = 1
b = snp.zeros(16 * MIB, "u1")
b[:] = 2
assert (a == 1).all() and (b == 2).all()
del a, b
c = snp.zeros(40 * MIB, "u1")
c[:] = 3
arrays = []
try:
    for _ in range(200):
        arrays.append(snp.full(MIB, 4, "u1"))
except snp.ArenaFullError:
    pass
else:
    raise AssertionError("64 MiB held 240")
assert len(arrays) >= 16, len(arrays)
assert (c == 3).all() and all((array == 4).all() for array in arrays)
""",
        size=64 << 20,
    )


@pytest.mark.parametrize("option", GRANTED)
def test_arrays_that_are_copied_on_write_are_private(option):
    run_in(
        option,
        """
def write(a):
    a[::4096] += 1
    return int(a[::4096].sum())
if __name__ == "__main__":
    whole = np.ones(512 * MIB, "u1")
    with snp.ProcessPoolExecutor(1) as pool:
        assert pool.submit(write, whole).result() == 2 * len(whole) // 4096
        assert pool.submit(write, whole).result() == 2 * len(whole) // 4096
    assert (whole[::4096] == 1).all()
""",
    )
