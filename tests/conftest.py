"""What all tests share: names of their own, and a look at what is left."""

import gc
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import supervisor

TESTS = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(TESTS)
sys.path.insert(0, os.path.join(ROOT, "dev"))

from shared_numpy import _core, shared_memory  # noqa: E402

needs_arenas = pytest.mark.skipif(
    not hasattr(_core, "Arena"), reason="arrays in shared memory need 64-bit Linux"
)

# How many times as much as in the gate the tests of processes do, in `make test-full`.
MORE = supervisor.FACTOR

_serial = itertools.count()


def pytest_configure():
    # Programs of tests must be quiet, and their assertions must count.
    for name in ("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONVERBOSE", "PYTHONOPTIMIZE"):
        os.environ.pop(name, None)
    # Workers under spawn import this file, too, and need none of it, which takes longest.
    from hypothesis import settings

    # The gate runs the same examples every time; elsewhere each run tries new ones.
    settings.register_profile("gate", derandomize=True, database=None)
    if os.environ.get("CI"):
        settings.load_profile("gate")


def pytest_collection_finish():
    # The tests ask for hundreds of collections. What was there before the first (the
    # modules, pytest's and Hypothesis's objects) is no test's, and a collection that
    # goes through all of it again takes 40 ms. (3.6 cannot leave it out.)
    if hasattr(gc, "freeze"):
        gc.collect()
        gc.freeze()


def exists(name):
    """Tell whether a segment of that name exists, without the code under test."""
    return os.path.exists("/dev/shm/" + name)


def names_now():
    """Return the names that there are in /dev/shm: what `left_of` takes for not new."""
    return set(os.listdir("/dev/shm"))


def left_of(pid, before):
    """Return the names that a process has chosen and left in /dev/shm.

    They carry its number; an earlier process may have had the same, and have left some too.
    """
    return sorted(name for name in names_now() - before if maker_of(name) == pid)


def maker_of(name):
    """Return the number of the process that has chosen a name for an arena; None for other names."""
    found = re.match(r"snp-[A-Za-z0-9_.]+-([0-9a-f]+)-[0-9a-f]{8}(\.snp-lock)?\Z", name)
    return found and int(found.group(1), 16)


@pytest.fixture
def new_name():
    """A function that returns names that nobody else uses.

    After the test none of them may exist.
    """
    names = []

    def make():
        names.append("snptest_%d_%d" % (os.getpid(), next(_serial)))
        return names[-1]

    yield make
    left = [name for name in names if exists(name)]
    for name in left:
        os.unlink("/dev/shm/" + name)
    assert not left, "segments were left behind"


@pytest.fixture
def name(new_name):
    """A name that nobody else uses; after the test it must not exist."""
    return new_name()


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch):
    """After each test no segment with an automatic name of this process is left."""
    made = []
    original = shared_memory._make_filename

    def recording():
        made.append(original())
        return made[-1]

    monkeypatch.setattr(shared_memory, "_make_filename", recording)
    yield
    left = [path for path in made if exists(path[1:])]
    for path in left:
        os.unlink("/dev/shm" + path)
    assert not left, "segments were left behind"


def counts():
    """The blocks and handles that there are in the default arena, which must be sound."""
    from shared_numpy._core import Arena

    gc.collect()
    arena = Arena.default()
    arena.reap()
    assert arena.check() == []
    stats = arena.stats()
    return stats["blocks"], stats["handles"]


def eventually(condition, seconds=20, tell=None):
    """Wait until something holds; fail with what `tell()` returns."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, tell() if tell else condition
        time.sleep(0.01)


def why_no_other_users():
    """Return why a test cannot be another user, or give files to one; None if it can."""
    if os.geteuid() != 0:
        return "only root can be other users, and give files to them"
    try:
        with open("/proc/self/uid_map") as file:
            users = sum(int(line.split()[2]) for line in file)
    except OSError:
        return None
    return None if users > 65534 else "this namespace of users has not all users"


# For tests that are other users, or have their files.
other_users = pytest.mark.skipif(why_no_other_users() is not None, reason=str(why_no_other_users()))


def is_running(pid):
    """Tell whether a process lives; one that nobody has waited for does not."""
    try:
        with open("/proc/{}/stat".format(pid)) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def place_of(array):
    """Return the file and the place in it where an array's items are mapped from."""
    address = array.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        for line in maps:
            area, _, offset, device, inode = line.split()[:5]
            first, last = (int(each, 16) for each in area.split("-"))
            if first <= address < last:
                return device, int(inode), int(offset, 16) + address - first
    raise AssertionError("not mapped")


@pytest.fixture
def quick_switches():
    """Threads take turns at nearly every instruction, so that races are met."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Alarm(BaseException):
    """What `alarm` raises."""


@pytest.fixture
def alarm():
    """A function that calls another, and interrupts it by an exception after some time.

    ``alarm(seconds, call)`` tells whether `call` came to its end. The exception is
    raised once at most, and never later: another thread may be the one that the signal
    is given to, and this one learns of it when it has taken the alarm back.
    """
    armed = []

    def ring(*arguments):
        if armed:
            armed.clear()
            raise Alarm

    def run(seconds, call):
        ended = False
        try:
            try:
                armed.append(True)
                signal.setitimer(signal.ITIMER_REAL, seconds)
                call()
                ended = True
            finally:
                armed.clear()
        except Alarm:
            pass
        signal.setitimer(signal.ITIMER_REAL, 0)
        return ended

    before = signal.signal(signal.SIGALRM, ring)
    yield run
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def complete(process, timeout=120):
    """Wait for a program's end; return its output and errors.

    After `timeout` seconds its processes are killed, and the error tells what it has said.
    """
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        supervisor.kill_tree(process.pid)
    try:
        said = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        said = "(What it has said is not known: another process keeps its pipes.)"
    raise AssertionError("no end after {} s: {}".format(timeout, said))


def run_command(command, timeout=120, **options):
    """Run a program; return the completed process with its output as text."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    with subprocess.Popen(command, universal_newlines=True, **options) as process:
        output = complete(process, timeout)
    return subprocess.CompletedProcess(command, process.returncode, *output)


def run_python(code, *arguments, wrapper=(), **options):
    """Run `code` in a new interpreter; fail unless it exits with 0 and quietly.

    Returns what it printed.
    """
    process = run_command(list(wrapper) + [sys.executable, "-c", code] + list(arguments), **options)
    assert (process.returncode, process.stderr) == (0, ""), process
    return process.stdout


def run_script(folder, code, *arguments, **options):
    """Run `code` from a file, so that spawned children can import it.

    Returns the completed process with its output as text.
    """
    script = folder / "script.py"
    script.write_text(code)
    return run_command([sys.executable, str(script)] + list(arguments), **options)


def shimmed(name, folder):
    """Return the environment for programs under a library of ``tests/shims``, which changes
    what the system does; it is compiled into `folder`."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler for what changes the system")
    source = os.path.join(ROOT, "tests", "shims", name + ".c")
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "shim.so"), source, "-ldl", "-lrt"]
    subprocess.check_call(command)
    # (A folder's name may have spaces, at which LD_PRELOAD is split.)
    folders = [str(folder)] + os.environ.get("LD_LIBRARY_PATH", "").split(":")
    folders = ":".join(filter(None, folders))
    return dict(os.environ, LD_PRELOAD="shim.so", LD_LIBRARY_PATH=folders)


# How programs of tests begin, and how their main part ends: nothing is left in the arena.
BEGIN = """
import gc, os, queue, signal, sys, time
import multiprocessing
import numpy as np
import shared_numpy as snp
from shared_numpy._core import Arena
"""
NOTHING_LEFT = """
    gc.collect()
    arena = Arena.default()
    deadline = time.monotonic() + 20
    while True:
        arena.reap()
        stats = arena.stats()
        if (stats["blocks"], stats["handles"]) == (0, 0):
            break
        assert time.monotonic() < deadline, stats
        time.sleep(0.01)
    assert arena.check() == []
"""


def run_program(folder, code, *arguments, **options):
    """Run `BEGIN` and `code` from a file; it must end well and quietly. Return what it prints."""
    process = run_script(folder, BEGIN + code, *arguments, **options)
    assert (process.returncode, process.stderr) == (0, ""), process.stderr
    return process.stdout
