"""Segments and lists cross between the package and the standard library.

The other side is the standard library of the running version, and of 3.8 for
3.6 and 3.7, in a process of its own.
"""

import itertools
import os
import sys

import pytest
from interpreters import find
from oracle import Machine, Process

from shared_numpy import shared_memory

ITEMS = [1, -(2 ** 63), 2.5, True, None, "text", b"bytes", "", b"", "x" * 100]
serial = itertools.count()


@pytest.fixture(scope="module")
def process():
    executable = sys.executable if sys.version_info >= (3, 8) else find(8)
    if executable is None:
        pytest.skip("no CPython 3.8 to cross over to")
    process = Process(executable)
    yield process
    process.stop()


@pytest.fixture(params=["ours to theirs", "theirs to ours"])
def sides(request, process):
    """A maker and a user of the same segments: machines of both kinds."""
    prefix = "snpcross_%d_%d_" % (os.getpid(), next(serial))
    ours = Machine(shared_memory, prefix)
    process.start(prefix)
    yield (ours, process) if request.param == "ours to theirs" else (process, ours)
    process.finish()
    ours.finish()


def run(machine, *operation):
    outcome = machine.run([operation])[0][0]
    assert outcome[0] == "value", outcome
    return outcome[1]


def test_segment(sides):
    maker, user = sides
    run(maker, "create", "a", "n0", 5000)
    run(maker, "fill", "a", b"written by the maker")
    assert run(user, "attach", "b", "n0") == 5000
    assert bytes(run(user, "get", "b", slice(0, 20))) == b"written by the maker"
    run(user, "put", "b", 4999, 77)
    run(user, "close", "b")
    assert run(maker, "get", "a", 4999) == 77
    run(maker, "close", "a")
    run(maker, "unlink", "a")


def test_list(sides):
    maker, user = sides
    run(maker, "new_list", "l", "n0", ITEMS)
    assert run(user, "attach_list", "m", "n0") == ITEMS
    changed = [None, "8 bytes!", False, 7, -0.5, b"bytes", "text", 0, "", "\u00e9" * 52]
    for position, value in enumerate(changed):
        run(user, "set_item", "m", position, value)
    run(user, "close_list", "m")
    about = run(maker, "about_list", "l")
    assert about[2:] == [len(ITEMS), changed]
    assert run(maker, "find", "l", 7) == [True, 1, 3]
    run(maker, "close_list", "l")
    run(maker, "unlink_list", "l")


@pytest.mark.parametrize("items", [[], [None], ["x" * 1000] * 50, list(range(1000))])
def test_more_lists(sides, items):
    maker, user = sides
    run(maker, "new_list", "l", "n1", items)
    assert run(user, "attach_list", "m", "n1") == items
    run(user, "close_list", "m")
    run(maker, "close_list", "l")
    run(maker, "unlink_list", "l")
