"""Arenas that processes find by an identifier.

Properties: processes that know nothing but the identifier meet in one arena; it ends with the last
of them; what dead processes left is replaced by an empty arena; its root is the same block for all.
(`tests/crash/identified.rs` kills and stops processes at each system call of it.)
"""

import array
import json
import os
import pickle
import signal
import subprocess
import sys
import uuid

import numpy as np
import pytest
from cli.commands import asked, shared_numpy
from conftest import exists, run_python

import shared_numpy as snp
from shared_numpy import _core

PROGRAM = """
import os, sys
import shared_numpy as snp

identifier = bytes.fromhex(sys.argv[1])
arena = snp.Arena.attach_or_create(identifier, directory=sys.argv[2] or None)
block = arena.alloc(64)
block.array(8, "i8")[:] = os.getpid()
first = arena.publish_root(block)
del block
root = arena.root
print(arena.name, first, root.array(8, "i8")[0], flush=True)
"""
STAY = PROGRAM + "sys.stdin.read()\n"


@pytest.fixture
def identifier():
    made = uuid.uuid4().bytes
    yield made
    assert not exists(name_of(made)), "left behind"


def name_of(identifier):
    return "snp-id-" + identifier.hex()


class Process:
    """A process that has an arena until its input ends."""

    def __init__(self, identifier, directory=""):
        self.popen = subprocess.Popen(
            [sys.executable, "-c", STAY, identifier.hex(), directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )

    def told(self):
        name, first, value = self.popen.stdout.readline().split()
        return name, first == "True", int(value)

    def end(self):
        output, errors = self.popen.communicate(timeout=60)
        assert (self.popen.returncode, output, errors) == (0, "", "")

    def kill(self):
        self.popen.kill()
        self.popen.communicate(timeout=60)


def test_processes_meet(identifier):
    processes = [Process(identifier) for _ in range(4)]
    told = [process.told() for process in processes]
    assert {name for name, _, _ in told} == {name_of(identifier)}
    # One has published its block, and all read that.
    makers = [process.popen.pid for process, (_, first, _) in zip(processes, told) if first]
    assert len(makers) == 1
    assert {value for _, _, value in told} == set(makers)
    arena = snp.Arena.attach_or_create(identifier)
    assert arena.identifier == identifier
    assert arena.stats()["processes"] == 5
    for process in processes:
        process.end()
    assert arena.stats()["processes"] == 1
    # The root stays, and is no reference of this process's.
    assert arena.root.array(8, "i8")[0] == makers[0]
    assert arena.stats()["blocks"] == 1
    assert arena.check() == []
    arena.close()


def test_an_arena_ends_with_its_last_process(identifier):
    first = Process(identifier)
    first.told()
    assert exists(name_of(identifier))
    first.end()
    assert not exists(name_of(identifier))


def test_what_the_dead_left_is_replaced(identifier):
    dead = Process(identifier)
    dead.told()
    dead.kill()
    assert exists(name_of(identifier))
    arena = snp.Arena.attach_or_create(identifier)
    assert arena.root is None
    assert arena.stats()["blocks"] == 0
    arena.close()
    # And by the cleaning, like any arena.
    dead = Process(identifier)
    dead.told()
    dead.kill()
    snp.clean()
    assert not exists(name_of(identifier))


def test_a_killed_process_leaves_the_arena_to_the_others(identifier):
    first = Process(identifier)
    _, _, value = first.told()
    arena = snp.Arena.attach_or_create(identifier)
    first.kill()
    second = Process(identifier)
    assert second.told() == (arena.name, False, value)
    second.end()
    assert arena.root.array(8, "i8")[0] == value
    arena.close()


def test_a_forked_child_has_it(identifier):
    arena = snp.Arena.attach_or_create(identifier)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        again = snp.Arena.attach_or_create(identifier)
        os.write(write, json.dumps([again.name, again.stats()["processes"]]).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = json.loads(pipe.read().decode())
    assert os.waitpid(child, 0)[1] == 0
    assert told == [arena.name, 2]
    arena.close()


def test_the_last_of_forked_children_removes_it(identifier):
    code = PROGRAM + (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert arena.stats()['processes'] >= 1\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    run_python(code, identifier.hex(), "")
    assert not exists(name_of(identifier))


def test_another_folder(identifier, tmp_path_on_tmpfs):
    folder = tmp_path_on_tmpfs
    process = Process(identifier, folder)
    name, _, value = process.told()
    assert name == "{}/{}".format(folder, name_of(identifier))
    # In /dev/shm it is another one.
    with snp.Arena.attach_or_create(identifier) as here:
        assert here.root is None
        there = snp.Arena.attach_or_create(identifier, directory=folder)
        assert there.name == name
        assert there.root.array(8, "i8")[0] == value
        there.close()
    process.end()
    assert os.listdir(folder) == []


@pytest.fixture
def tmp_path_on_tmpfs():
    folder = "/dev/shm/snp-test-{:x}-{}".format(os.getpid(), uuid.uuid4().hex[:8])
    os.mkdir(folder)
    yield folder
    os.rmdir(folder)


def test_options_are_for_the_process_that_makes_it(identifier):
    arena = snp.Arena.attach_or_create(identifier, first="256K", processes=300)
    look = _core.look_at_arena("/dev/shm/" + arena.name)
    assert (look["places"], look["identifier"], look["root"]) == (300, identifier, None)
    again = snp.Arena.attach_or_create(identifier, processes=64)
    assert _core.look_at_arena("/dev/shm/" + again.name)["places"] == 300
    again.close()
    arena.close()


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda b: array.array("B", b)])
def test_an_identifier_is_anything_like_bytes(identifier, kind):
    with snp.Arena.attach_or_create(kind(identifier)) as arena:
        assert arena.identifier == identifier
    with snp.Arena.attach_or_create(np.frombuffer(identifier, "u4")) as arena:
        assert arena.identifier == identifier


@pytest.mark.parametrize(
    "wrong, error, words",
    [
        (b"short", ValueError, "16 bytes, not 5"),
        (bytes(17), ValueError, "16 bytes, not 17"),
        (bytes(16), ValueError, "zeros"),
        ("x" * 16, TypeError, "16 bytes, not of type str"),
        (None, TypeError, "16 bytes, not of type NoneType"),
    ],
)
def test_what_is_no_identifier_is_refused(wrong, error, words):
    with pytest.raises(error, match=words):
        snp.Arena.attach_or_create(wrong)


def test_other_arenas_have_no_identifier(identifier):
    with snp.Arena.create() as arena:
        assert arena.identifier is None
        assert arena.root is None
    # One that was made by the name that the identifier gives is not attached.
    with snp.Arena.create(name=name_of(identifier)):
        with pytest.raises(snp.ForeignHandleError, match="attach_or_create"):
            snp.Arena.attach_or_create(identifier)


def test_it_can_be_sent(identifier):
    with snp.Arena.attach_or_create(identifier) as arena:
        again = pickle.loads(pickle.dumps(arena))
        assert again.identifier == identifier
        again.close()
        handle = arena.send(arena.alloc(100))
        code = "import shared_numpy as snp; print(snp.Arena.receive({!r}).nbytes)"
        assert run_python(code.format(handle)).split() == ["128"]


def test_a_root_in_place_of_another(identifier):
    with snp.Arena.attach_or_create(identifier) as arena, snp.Arena.create() as other:
        first, second = arena.alloc(64), arena.alloc(5000)
        assert arena.publish_root(first)
        assert not arena.publish_root(second)
        # The same again is no other.
        assert arena.publish_root(first)
        assert arena.publish_root(second, replace=True)
        del first
        assert arena.stats()["blocks"] == 1
        assert arena.root.nbytes == second.nbytes
        with pytest.raises(snp.ForeignHandleError, match="another arena"):
            arena.publish_root(other.alloc(10))
        del second


def test_the_tracker_of_a_killed_program_leaves_it_to_others(identifier):
    # (A tracker that knew of it would remove the names when its program is gone.)
    code = (
        "import subprocess, sys, os, signal\n"
        "from shared_numpy import zeros\n"
        "a = zeros(10)\n" + PROGRAM + "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arena = snp.Arena.attach_or_create(identifier)
    killed = subprocess.run(
        [sys.executable, "-c", code, identifier.hex(), ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    other = Process(identifier)
    assert other.told()[0] == arena.name
    assert arena.stats()["processes"] == 2
    other.end()
    assert exists(name_of(identifier))
    arena.close()


def test_info_tells_of_both(identifier):
    with snp.Arena.attach_or_create(identifier) as arena:
        told = asked("info", arena.name)[1]["arena"]
        assert (told["identifier"], told["root"]) == (identifier.hex(), None)
        assert arena.publish_root(arena.alloc(64))
        told = asked("info", arena.name)[1]["arena"]
        assert told["root"] == told["largest"][0]["block"]
        text = shared_numpy("info", arena.name).stdout
        assert "found by {}\n".format(identifier.hex()) in text
        assert "root     block {}\n".format(told["root"]) in text
    with snp.Arena.create() as other:
        told = asked("info", other.name)[1]["arena"]
        assert (told["identifier"], told["root"]) == (None, None)
