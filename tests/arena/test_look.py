"""What is seen of an arena from outside is what its own processes say of it.

* A look needs no place in the arena, and tells the same numbers as `stats`.
* Every block is told once, where it lies, with those that hold it.
* A process that has the arena may look, too, and keeps it.
* Which processes have which files is told as `/proc` shows it.
"""

import os
import subprocess
import sys

import pytest
from conftest import needs_arenas, run_python

from shared_numpy import _core
from shared_numpy._core import LOCK_SUFFIX, Arena

pytestmark = needs_arenas

NUMBERS = ["blocks", "block_bytes", "table_bytes", "free_bytes", "warm_bytes", "handles"]


@pytest.fixture
def arena(new_name):
    with Arena.create(name=new_name()) as arena:
        yield arena


def look(arena, tables=False):
    return _core.look_at_arena("/dev/shm/" + arena.name, tables)


def test_the_numbers_are_those_of_the_arena(arena):
    # (More than the first chunk of each table has rows for.)
    blocks = [arena.alloc(64 + 64 * (n % 7)) for n in range(9000)]
    handles = [arena.send(block) for block in blocks[:9000:2]]
    del blocks[100:200]
    # (Those that this process would use again are free from here on.)
    stats = arena.stats()
    seen = look(arena)
    assert {name: seen[name] for name in NUMBERS} == {name: stats[name] for name in NUMBERS}
    assert stats["table_bytes"] > 0 and seen["handles"] == len(handles)
    assert (seen["kind"], seen["odd"], seen["poisoned"]) == ("arena", [], False)
    assert (seen["same_lock_file"], seen["same_boot"], seen["uid"]) == (True, True, os.geteuid())
    for handle in handles:
        assert arena.cancel(handle)


def test_each_block_lies_where_it_is_told(arena):
    block = arena.alloc(100000)
    array = block.array((100000,), "u1")
    array[:] = 77
    handle = arena.send(block)
    seen = look(arena, tables=True)
    live = [each for each in seen["block_list"] if each["state"] == "live"]
    assert len(live) == 1 and live[0]["bytes"] >= 100000
    (member,) = seen["members"]
    assert live[0]["holders"] == [member["slot"]] and member["pid"] == os.getpid()
    with open("/dev/shm/" + arena.name, "rb") as file:
        file.seek(live[0]["place"])
        assert file.read(100000) == b"\x4d" * 100000
    (one,) = seen["handle_list"]
    assert (one["block"], one["owner"]) == (live[0]["id"], "sender")
    assert one["number"] == member["slot"] and 0 <= one["age"] < 600000
    # All memory of the segments is a block, free, or the tables'.
    pieces = sorted((b["segment"], b["offset"], b["bytes"]) for b in seen["block_list"])
    reached = {number: 64 for number, _ in seen["segments"]}
    reached[0] = seen["data"]
    for segment, offset, size in pieces:
        assert offset == reached[segment]
        reached[segment] += size
    assert reached == {number: size // 64 * 64 for number, size in seen["segments"]}
    del array
    assert arena.cancel(handle)


def test_one_who_looks_keeps_its_arena_and_others_see_its_lock(arena):
    code = (
        "import sys; from shared_numpy import _core; look = _core.look_at_arena(sys.argv[1]);"
        "mine = [m['locked'] for m in look['members'] if m['pid'] == int(sys.argv[2])];"
        "print(look['ours'], look['any_locked'], mine)"
    )
    path = "/dev/shm/" + arena.name
    for _ in range(2):
        assert look(arena)["ours"] is True
        assert run_python(code, path, str(os.getpid())) == "False True [True]\n"


def test_what_is_no_arena(new_name, tmp_path):
    path = "/dev/shm/" + new_name()
    for content, kind in (b"", "unfinished"), (bytes(10000), "unfinished"), (b"text" * 99, "other"):
        with open(path, "wb") as file:
            file.write(content)
        seen = _core.look_at_arena(path)
        assert (seen["kind"], seen["members"], seen["any_locked"]) == (kind, [], None)
    os.unlink(path)
    with pytest.raises(FileNotFoundError):
        _core.look_at_arena(path)


def test_processes_have_files(arena):
    path = "/dev/shm/" + arena.name
    files = [os.stat(path), os.stat(path + LOCK_SUFFIX)]
    code = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        found, complete = _core.list_processes([files[0].st_dev])
        child.stdin.close()
        child.wait()
    assert isinstance(complete, bool)
    by_number = {process["pid"]: process for process in found}
    mine, its = by_number[os.getpid()], by_number[child.pid]
    mapped = {(each[0], each[1]): each[2] for each in mine["files"]}
    assert mapped[files[0].st_dev, files[0].st_ino] is True
    assert mapped[files[1].st_dev, files[1].st_ino] is False
    # Open, and with a name; its size in memory was so at that moment.
    ((*file, mapped, deleted, size),) = its["files"]
    assert file == [files[0].st_dev, files[0].st_ino]
    assert (mapped, deleted) == (False, False) and size == files[0].st_blocks * 512
    assert mine["own_pid"] == os.getpid() and mine["uid"] == os.getuid()
    assert its["readable"] and path in its["command"] and its["started"] >= mine["started"]
    assert _core.list_processes([])[0][0]["files"] == []


WITHOUT_ITS_FIRST_THREAD = """
import ctypes, mmap, os, sys, threading
fd = os.open(sys.argv[1], os.O_RDWR)
mapped = mmap.mmap(fd, 4096)
os.close(fd)
libc = ctypes.CDLL(None)
def wait_and_end():
    with open("/proc/self/stat") as file:
        while file.read().rsplit(")")[1].split()[0] != "Z":
            file.seek(0)
    print("alone", flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=wait_and_end).start()
libc.pthread_exit(None)
"""


def test_a_process_goes_on_without_its_first_thread(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(bytes(4096))
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_ITS_FIRST_THREAD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline() == b"alone\n"
        file = path.stat()
        found, _ = _core.list_processes([file.st_dev])
        (seen,) = [each for each in found if each["own_pid"] == process.pid]
        assert (file.st_dev, file.st_ino, True) in [tuple(each[:3]) for each in seen["files"]], seen
        assert seen["readable"]
    finally:
        process.communicate()
    assert process.returncode == 0
