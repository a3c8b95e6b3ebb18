"""The package on kernels and machines unlike the one that it is tested on.

Libraries of ``tests/shims`` change what the system does: programs do there what they do here.
"""

import errno
import fcntl
import json
import mmap
import os
import sys

import pytest
from conftest import ROOT, exists, run_command, run_python, shimmed

from shared_numpy import _core
from shared_numpy._core import LOCK_SUFFIX
from shared_numpy._channels.packet_pipe import Pipe

PROGRAMS = os.path.join(ROOT, "tests", "array_programs.py")


@pytest.fixture(scope="module")
def large_pages(tmp_path_factory):
    return shimmed("large_pages", tmp_path_factory.mktemp("shim"))


def test_the_page_is_the_system_s(large_pages):
    code = "import mmap; from shared_numpy import _core; print(_core.PAGE_SIZE, mmap.PAGESIZE)"
    assert run_python(code, env=large_pages).split() == ["65536"] * 2
    own, python_s = map(int, run_python(code).split())
    assert own == python_s


@pytest.mark.parametrize(
    "channel, method", [("queue", "fork"), ("executor", "spawn"), ("pool", "forkserver")]
)
def test_channels_where_pages_are_large(channel, method, large_pages):
    command = [sys.executable, PROGRAMS, channel, method, "50", "7"]
    process = run_command(command, env=large_pages)
    assert (process.returncode, process.stderr) == (0, ""), process
    name = process.stdout.split()[-1]
    assert not exists(name) and not exists(name + LOCK_SUFFIX)


PRIVATE = """
import os
import numpy as np
import shared_numpy as snp
from shared_numpy.executor import ProcessPoolExecutor

def work(index):
    return np.full(index * 5000 + 20000, index, "u1")

if __name__ == "__main__":
    with ProcessPoolExecutor(2, results="in_place") as pool:
        received = list(pool.map(work, range(40)))
    shared = [snp.full(len(array), 100 + index, "u1") for index, array in enumerate(received)]
    pid = os.fork()
    if pid == 0:
        for array in received + shared:
            array += 1
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(all((array == index).all() for index, array in enumerate(received)))
    print(all((array == 101 + index).all() for index, array in enumerate(shared)))
"""


def test_private_copies_where_pages_are_large(large_pages, tmp_path):
    """A child's writes reach what is shared, and nothing of what is private."""
    script = tmp_path / "script.py"
    script.write_text(PRIVATE)
    # (A thread of the pool may still be ending, of which 3.12 and later warn at a fork.)
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(script)]
    process = run_command(command, env=large_pages)
    assert (process.returncode, process.stdout, process.stderr) == (0, "True\nTrue\n", ""), process


def test_a_pipe_holds_as_many_packets_where_pages_are_large(monkeypatch):
    """A packet takes a page, however short it is."""
    F_GETPIPE_SZ = 1032
    for page in (4096, 16384):
        monkeypatch.setattr(_core, "PAGE_SIZE", page)
        assert fcntl.fcntl(Pipe()._writer, F_GETPIPE_SZ) == 64 * page


# Linux 3.10 is the oldest kernel for which the wheels are made (manylinux2014); some
# sandboxes have not more.


@pytest.fixture(scope="module")
def old_kernel(tmp_path_factory):
    return shimmed("old_kernel", tmp_path_factory.mktemp("shim"))


def test_channels_on_an_old_kernel(old_kernel):
    for channel, method in [("our_queue", "spawn"), ("executor", "spawn"), ("pipe", "spawn")]:
        command = [sys.executable, PROGRAMS, channel, method, "50", "7"]
        process = run_command(command, env=old_kernel)
        assert (process.returncode, process.stderr) == (0, ""), process
        name = process.stdout.split()[-1]
        assert not exists(name) and not exists(name + LOCK_SUFFIX)


PINNED = """
import gc, os
import shared_numpy as snp
from shared_numpy._core import Arena

array = snp.full(100000, 65, "u1")
ready, go = os.pipe(), os.pipe()
pid = os.fork()
if pid == 0:
    os.read(ready[0], 1)
    os._exit(0 if (array == 65).all() else 1)
del array
gc.collect()
Arena.default().reap()
others = [snp.full(100000, 66, "u1") for _ in range(20)]
os.write(ready[1], b"x")
print(os.waitpid(pid, 0)[1], Arena.default().check())
Arena.default().reap()
print(len(others), Arena.default().stats()["blocks"], end="")
"""


def test_a_forked_child_s_array_stays_on_an_old_kernel(old_kernel):
    """And its memory is free when the child is gone."""
    assert run_python(PINNED, env=old_kernel).split("\n") == ["0 []", "20 20"]


NAMED = """
import os, sys
import numpy as np
import shared_numpy as snp
from shared_numpy import named

name = sys.argv[1]
made = snp.create(name, 3, "i8", fill=[1, 2, 3])
assert snp.attach(name).tolist() == [1, 2, 3]
assert snp.create(name, 3, "i8", exist_ok=True) is not None
for options in ({}, {"exist_ok": True}):
    try:
        snp.create(name, 4, "i8", **options)
    except FileExistsError:
        pass
    else:
        raise AssertionError(options)
try:
    snp.create(name, 4, replace=True)
except OSError as error:
    print(error)
# Whoever is killed before the array has its name leaves a file, which the next one removes.
# (Not those of other programs, nor they this one.)
named._MAKING = ".snp-test-%x-" % os.getpid()
pid = os.fork()
if pid == 0:
    named._link = lambda file, name: os.kill(os.getpid(), 9)
    snp.create(name + "-2", 4)
os.waitpid(pid, 0)
left = [each for each in os.listdir("/dev/shm") if each.startswith(named._MAKING)]
assert left and not [each for each in snp.list_named() if each.name in left]
snp.create(name + "-2", 5)
assert not set(left) & set(os.listdir("/dev/shm"))
snp.delete(name)
snp.delete(name + "-2")
"""


def test_named_arrays_on_an_old_kernel(old_kernel, new_name):
    told = run_python(NAMED, new_name(), env=old_kernel)
    assert "only Linux 3.15 and later replace an array in one step: delete it first" in told


# What a system has, and what can be done without some of it.


MACHINE = "import json, shared_numpy as snp; print(json.dumps(snp.machine()))"


def test_the_machine_is_told(large_pages, old_kernel):
    here, large, old = [
        json.loads(run_python(MACHINE, env=env)) for env in (None, large_pages, old_kernel)
    ]
    assert here["page_size"] == mmap.PAGESIZE and here["copy"] in ("memcpy", "rep movsb")
    assert here["byte_locks"] is True and here["futex"] is True
    assert large["page_size"] == 65536
    assert {key: value for key, value in large.items() if key != "page_size"} == {
        key: value for key, value in here.items() if key != "page_size"
    }
    lacking = dict(ofd_locks=False, o_tmpfile=False, rename_exchange=False, getrandom=False)
    # Without a file that is nobody's these two cannot be tried.
    assert old == dict(here, fallocate=None, punch_hole=None, **lacking)


@pytest.fixture(scope="module")
def bare_system(tmp_path_factory):
    return shimmed("bare_system", tmp_path_factory.mktemp("shim"))


REFUSED = """
import os, sys
from shared_numpy import _core

before = set(os.listdir("/dev/shm"))
try:
    _core.Arena.create(name=sys.argv[1])
except OSError as error:
    print(error.errno, type(error).__name__, error.strerror)
print(sorted(name for name in os.listdir("/dev/shm") if name.startswith(sys.argv[1])))
"""


@pytest.mark.parametrize(
    "lacking, number, named",
    [
        ("locks", errno.ENOLCK, "locks of bytes of files"),
        ("reserving", errno.EOPNOTSUPP, "memory that is taken before it is used"),
        ("mappings", errno.ENODEV, "mappings of files that processes share"),
    ],
)
def test_what_cannot_be_safe_is_refused_by_name(bare_system, new_name, lacking, number, named):
    said, left = run_python(
        REFUSED, new_name(), env=dict(bare_system, LACKS=lacking)
    ).splitlines()
    assert said.startswith("{} OSError arrays in shared memory need {}".format(number, named))
    assert os.strerror(number) in said and left == "[]"


def test_arrays_where_processes_cannot_sleep_on_memory(bare_system):
    env = dict(bare_system, LACKS="sleeping")
    assert json.loads(run_python(MACHINE, env=env))["futex"] is False
    command = [sys.executable, PROGRAMS, "pipe", "spawn", "50", "7"]
    process = run_command(command, env=env)
    assert (process.returncode, process.stderr) == (0, ""), process
