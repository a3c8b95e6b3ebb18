"""Arenas in process trees: made, inherited, killed, and gone afterwards.

Each test runs a program of `arena_programs.py`, which checks itself. It must end
with 0 and say nothing on its standard error (no warning of a tracker), and no
arena that it met may be there when it is over.
"""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from conftest import MORE, ROOT, complete, exists, run_python

from shared_numpy import _core
from shared_numpy._core import LOCK_SUFFIX, Arena

METHODS = ["fork", "spawn", "forkserver"]
PROGRAMS = os.path.join(ROOT, "tests", "arena_programs.py")


def start(program, method, *arguments):
    # Since 3.12 a fork beside threads is warned of, and done all the same.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", PROGRAMS, program, method]
    command += list(map(str, arguments))
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True
    )


def left(names, seconds=0):
    """Return what is left of arenas, after so many seconds at most."""
    objects = [name + suffix for name in names for suffix in ("", LOCK_SUFFIX)]
    end = time.monotonic() + seconds
    while any(map(exists, objects)) and time.monotonic() < end:
        time.sleep(0.02)
    return list(filter(exists, objects))


def arenas(output):
    lines = [line.split() for line in output.splitlines()]
    return {line[1] for line in lines if line[0] == "arena"}


def run(program, method, *arguments, **options):
    """Run a program to its end; return what it printed."""
    process = start(program, method, *arguments)
    output, errors = complete(process, **options)
    assert (process.returncode, errors) == (0, ""), (output, errors)
    names = arenas(output)
    assert names
    # A tracker of the tree may outlive it for a moment.
    assert left(names, seconds=1) == []
    return output


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "program",
    [
        "executor", "inherited", "nested", "sent_down", "shutdown", "strangers",
        ("without_work", 5), ("workers", 12 * MORE),
    ],
    ids=str,
)  # fmt: skip
def test_any_start_method(program, method):
    program = program if isinstance(program, tuple) else (program,)
    run(program[0], method, *program[1:], timeout=120 + 10 * MORE)


@pytest.mark.parametrize(
    "program", [("daemon",), ("ends",), ("threads_and_forks",), ("forks", 300 * MORE)], ids=str
)
def test_forks(program):
    run(program[0], "fork", *program[1:], timeout=120 + 10 * MORE)


def test_shutdown_is_quiet_again_and_again():
    """Threads meet the interpreter's end at another point each time."""
    for _ in range(10):
        run("shutdown", "fork")


@pytest.mark.slow
def test_storm():
    seed = int(os.environ.get("SNP_SEED", random.randrange(1 << 30)))
    print("SNP_SEED=%d" % seed)
    output = run("storm", "fork", 300 * MORE, seed, timeout=300 + 100 * MORE)
    received = int(output.split("received ")[1].split()[0])
    assert received > 300


def killed(method, signal_tracker):
    """Start a tree, kill all its processes at once, return its arenas."""
    process = start("kill_tree", method)
    names, tracker, pids = set(), None, []
    for line in process.stdout:
        words = line.split()
        names |= arenas(line)
        if words[0] == "tracker":
            tracker = int(words[1])
        if words[0] == "pids":
            pids = [int(word) for word in words[1:]]
            break
    assert names and len(pids) == 3
    assert left(names)
    if signal_tracker:
        os.kill(tracker, signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    complete(process)
    return names


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_tree_leaves_nothing(method):
    names = killed(method, signal_tracker=False)
    assert left(names, seconds=10) == []


def test_what_is_left_without_a_tracker_is_swept():
    names = killed("fork", signal_tracker=True)
    # Handles of killed senders have half a minute.
    time.sleep(0.5)
    assert left(names)
    assert not set(_core.clean()) & names
    for name in names:
        with Arena.attach(name) as arena:
            arena.cancel_unreceived(0)
    assert left(names) == []


def test_the_first_arena_of_a_process_sweeps(new_name):
    """A process that makes an arena removes what killed ones left."""
    code = (
        "import os, signal; from shared_numpy._system import process_tree; from shared_numpy._core import Arena;"
        "process_tree.registrar = lambda start: 0;"
        "arena = Arena.create(name={!r}); kept = arena.empty(1000000);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    # (Another program may start beside this one, and remove it at once.)
    for _ in range(20):
        name = new_name()
        assert subprocess.call([sys.executable, "-c", code.format(name)]) == -signal.SIGKILL
        if exists(name):
            break
    else:
        raise AssertionError("no killed process has left its arena")
    run("workers", "fork", 1)
    assert left([name]) == []


def test_a_living_process_s_arena_is_not_swept(new_name):
    with Arena.create(name=new_name()) as arena:
        array = arena.empty(10)
        array[:] = 3
        code = "from shared_numpy import _core; print(_core.clean())"
        output = run_python(code)
        assert arena.name not in output
        assert exists(arena.name) and arena.name not in _core.clean()
        assert (array == 3).all()
        del array


def test_one_that_attaches_destroys_nothing(new_name):
    """A program's end, and its tracker's, leave another program's arena alone."""
    with Arena.create(name=new_name()) as arena:
        array = arena.empty(1000)
        array[:] = 3
        code = (
            "import sys; from shared_numpy._core import Arena, receive;"
            "block = receive(bytes.fromhex(sys.argv[1]));"
            "default = Arena.default(); print(default.name, end='');"
            "block.array(1000)[:] = 4; kept = default.empty(100)"
        )
        # It met this arena before it allocated.
        assert run_python(code, arena.send(array.base).hex()) == arena.name
        time.sleep(0.3)
        assert exists(arena.name) and (array == 4).all()
        del array
        arena.reap()
        assert arena.stats()["blocks"] == 0
