"""Arenas and named arrays in another folder than /dev/shm.

What holds: `SHARED_NUMPY_DIR`, or an argument, says where they are made; it must be on a tmpfs.
A handle finds its arena there, whatever the receiver's environment says; one that leads to a file
of another file system or user is refused. Programs leave nothing there, and no tracker knows of it:
what all processes of a program have left by their deaths the next arena there removes, never an
array with a name.
"""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import eventually, exists, other_users, run_program, run_python
from multiprocessing.reduction import ForkingPickler

import shared_numpy as snp
from shared_numpy import _core, named
from shared_numpy._system import posixshmem
from shared_numpy._core import LOCK_SUFFIX, Arena


@pytest.fixture
def folder(new_name):
    """A folder on a tmpfs, and of a path of its own. After the test it must be empty."""
    path = "/dev/shm/" + new_name()
    os.mkdir(path)
    yield path
    left = os.listdir(path)
    shutil.rmtree(path)
    assert not left, "files were left behind"


@pytest.fixture
def chosen(folder, monkeypatch):
    """The same, as the environment has it."""
    monkeypatch.setenv("SHARED_NUMPY_DIR", folder)
    return folder


@pytest.fixture
def disk(tmp_path):
    """A folder that is on no tmpfs."""
    fd = os.open(str(tmp_path), os.O_RDONLY)
    try:
        if _core.is_on_tmpfs(fd):
            pytest.skip("temporary files are on a tmpfs here")
    finally:
        os.close(fd)
    return str(tmp_path)


def with_folder(path):
    return dict(os.environ, SHARED_NUMPY_DIR=path)


# Which folder.


def test_which_folders_may_be_chosen(folder, disk, monkeypatch):
    monkeypatch.delenv("SHARED_NUMPY_DIR", raising=False)
    assert _core.folder() is None
    for same in ("/dev/shm", "/dev/shm/", "/dev/shm//"):
        assert _core.folder(same) is None
    assert _core.folder(folder) == _core.folder(folder + "/") == folder
    assert _core.folder(_PathLike(folder)) == folder
    for wrong, why in [
        (disk, "not on a tmpfs"), ("shm", "begins with '/'"), ("", "begins with '/'"),
        (folder + "/../x", "no part"), ("//dev/shm/x", "no part"), ("/dev/./shm", "no part"),
        (folder + "-none", "No such file"), ("/" + "n" * 64, "64 bytes"), ("/", "no part"),
        ("/proc", "not on a tmpfs"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=why):
            _core.folder(wrong)
        with pytest.raises(ValueError, match=why):
            Arena.create(directory=wrong)
        with pytest.raises(ValueError, match=why):
            snp.create("x", 3, directory=wrong)
        if wrong:
            monkeypatch.setenv("SHARED_NUMPY_DIR", wrong)
            for call in (_core.folder, Arena.create, snp.list_named, _core.clean):
                with pytest.raises(ValueError, match="SHARED_NUMPY_DIR"):
                    call()
            monkeypatch.delenv("SHARED_NUMPY_DIR")
    with pytest.raises(TypeError):
        _core.folder(7)
    monkeypatch.setenv("SHARED_NUMPY_DIR", "")
    assert _core.folder() is None


class _PathLike:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


def test_a_wrong_variable_is_told_at_the_first_use(disk):
    code = "import shared_numpy as snp\ntry: snp.zeros(3)\nexcept ValueError as error: print(error)"
    told = run_python(code, env=with_folder(disk))
    assert "SHARED_NUMPY_DIR" in told and "not on a tmpfs" in told


# Arenas.

PROGRAM = """
from shared_numpy._system import process_tree

folder = os.environ["SHARED_NUMPY_DIR"]

def work(array):
    assert Arena.default().name.startswith(folder + "/")
    array += 1
    return array[::-1], np.full(100000, 7)

def told(name):
    raise AssertionError("a tracker was told of " + name)

process_tree.register = told

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    array = snp.ones((300, 400))
    assert Arena.default().name.startswith(folder + "/")
    assert os.path.exists(Arena.default().name)
    with multiprocessing.Pool(2) as pool:
        for _ in range(3):
            back, plain = pool.apply(work, (array,))
        pool.close()
        pool.join()
    assert (array == 4).all() and snp.name_of(back) == snp.name_of(array)
    with snp.ProcessPoolExecutor(2) as pool:
        back, plain = pool.submit(work, array).result()
        assert (back == 5).all() and (plain == 7).all()
    q = snp.Queue()
    q.put([array, np.zeros(100000)])
    assert q.get()[0][0, 0] == 5
    mine = "-%x-" % os.getpid()
    ours = [n for n in os.listdir("/dev/shm") if n.startswith("snp-") and mine in n]
    assert not ours, ours
    shm = snp.SharedMemory(create=True, size=100)
    assert os.path.exists("/dev/shm/" + shm.name)  # Where POSIX has it.
    shm.close()
    shm.unlink()
    del array, back, plain, q, pool
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_programs_in_another_folder(folder, tmp_path, method):
    run_program(tmp_path, PROGRAM, method, env=with_folder(folder))
    eventually(lambda: not os.listdir(folder))


def test_an_argument_says_where(folder):
    arena = Arena.create(directory=folder, name="mine")
    assert arena.name == folder + "/mine" and repr(arena) == '<Arena "{}/mine">'.format(folder)
    assert sorted(os.listdir(folder)) == ["mine", "mine" + LOCK_SUFFIX]
    assert not exists("mine")
    for again in (Arena.attach("mine", directory=folder), Arena.attach(folder + "/mine")):
        assert again.name == arena.name
    assert ForkingPickler.loads(ForkingPickler.dumps(arena)).name == arena.name
    with pytest.raises(FileNotFoundError):
        Arena.attach("mine")
    with pytest.raises(FileExistsError):
        Arena.create(directory=folder, name="mine")
    for name in (folder + "/mine", "a/b"):
        with pytest.raises(ValueError):
            Arena.create(name=name)
    block = arena.alloc(100)
    assert arena.find(block.name).nbytes == block.nbytes
    del block
    assert arena.check() == []
    arena.close()


def test_handles_are_longer_by_the_path(folder):
    name = "n" * 40
    arena = Arena.create(directory=folder, name=name)
    default = Arena.create()
    try:
        handle = arena.send(arena.alloc(100))
        assert len(handle) == 100 + len(folder)
        assert len(default.send(default.alloc(100))) <= 100
        assert _core.receive(handle).nbytes >= 100
    finally:
        for each in (arena, default):
            each.cancel_unreceived(0)
            each.close()


RECEIVER = """
import sys
from shared_numpy._core import receive
block = receive(bytes.fromhex(sys.argv[1]))
print(bytes(block.array(3, "u1")), block.arena.name, end="")
"""


def test_the_receiver_needs_no_variable(folder, monkeypatch):
    arena = Arena.create(directory=folder)
    array = arena.empty(3, "u1")
    array[:] = [65, 66, 67]
    environment = dict(os.environ)
    environment.pop("SHARED_NUMPY_DIR", None)
    handle = arena.send(array.base).hex()
    told = run_python(RECEIVER, handle, env=environment)
    assert told == "b'ABC' " + arena.name
    # As a reference over any other transport.
    monkeypatch.setenv("SHARED_NUMPY_DIR", folder)
    put = "import sys, shared_numpy as snp\nsys.stdout.buffer.write(bytes(snp.send(snp.ones(9))))\n"
    process = subprocess.Popen([sys.executable, "-c", put + "sys.stdout.flush()\nsys.stdin.read()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    token = os.read(process.stdout.fileno(), 1000)
    get = "import sys, shared_numpy as snp\nprint(snp.receive(bytes.fromhex(sys.argv[1])).sum(), end='')"
    assert len(token) <= 106 + len(folder)
    assert run_python(get, token.hex(), env=environment) == "9.0"
    process.communicate()
    del array
    arena.close()


def forged(handle, path):
    """Return a handle of an arena with the same facts elsewhere."""
    name = path.encode()[1:]
    start = bytearray(handle[:56])
    start[3] = len(name)
    number = 0x811C9DC5
    for byte in bytes(start) + name:
        number = (number ^ byte) * 0x01000193 & 0xFFFFFFFF
    return bytes(start) + struct.pack("<I", number) + name


def test_files_elsewhere_are_refused(folder, disk):
    arena = Arena.create(directory=folder, name="mine")
    block = arena.alloc(100)
    handle = arena.send(block)
    assert forged(handle, arena.name) == handle
    for path in (disk + "/mine", disk + "/mine" + LOCK_SUFFIX):
        with open(path, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(1 << 20)
    # (Another process has not the arena of this number yet.)
    code = RECEIVER.replace("block = receive", "receive")
    for where, error in [(disk, "ForeignHandleError.*tmpfs"), (folder + "-2", "StaleHandleError")]:
        told = subprocess.run(
            [sys.executable, "-c", code, forged(handle, where + "/mine").hex()],
            stderr=subprocess.PIPE, universal_newlines=True,
        )  # fmt: skip
        assert told.returncode and re.search(error, told.stderr), told
    with pytest.raises(snp.ForeignHandleError, match="tmpfs"):
        Arena.attach(disk + "/mine")
    assert arena.cancel(handle)
    del block
    arena.close()


@other_users
def test_another_user_s_arena_is_refused(folder):
    arena = Arena.create(directory=folder, name="mine")
    handle = arena.send(arena.alloc(100)).hex()
    os.chown(arena.name, 54321, -1)
    told = subprocess.run(
        [sys.executable, "-c", RECEIVER, handle], stderr=subprocess.PIPE, universal_newlines=True
    )
    assert "another user" in told.stderr
    os.chown(arena.name, 0, -1)
    arena.cancel_unreceived(0)
    arena.close()


def test_links_are_not_followed(folder, new_name):
    arena = Arena.create(name=new_name())
    for suffix in ("", LOCK_SUFFIX):
        os.symlink("/dev/shm/" + arena.name + suffix, folder + "/mine" + suffix)
    with pytest.raises(OSError):
        Arena.attach("mine", directory=folder)
    for suffix in ("", LOCK_SUFFIX):
        os.unlink(folder + "/mine" + suffix)
    arena.close()


def test_attaching_looks_there_and_in_dev_shm(chosen, new_name):
    name = new_name()
    here = Arena.create(name=name, directory="/dev/shm")
    assert here.name == name and Arena.attach(name).name == name
    there = Arena.create(name=name)
    assert there.name == chosen + "/" + name == Arena.attach(name).name
    assert Arena.attach(name, directory="/dev/shm").name == name
    there.close()
    assert Arena.attach(name).name == name
    here.close()


KILLED = """
import os, sys
import shared_numpy as snp
from shared_numpy._core import Arena
a, b = snp.ones(1000), snp.create("named", 3)
print(Arena.default().name, flush=True)
if os.fork() == 0:
    sys.stdin.read()
sys.stdin.read()
"""


def test_what_killed_programs_have_left_is_removed_and_no_named_array(folder, name):
    living = Arena.create(directory=folder, name="living")
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=with_folder(folder),
        preexec_fn=os.setsid, universal_newlines=True,
    )  # fmt: skip
    left = process.stdout.readline().strip()
    assert left.startswith(folder + "/") and left not in _core.clean(folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert os.path.exists(left)
    removed = []
    # (The child of the killed program ends a moment later.)
    eventually(lambda: removed.extend(_core.clean(folder)) or left in removed)
    assert not os.path.exists(left) and not os.path.exists(left + LOCK_SUFFIX)
    assert sorted(os.listdir(folder)) == ["living", "living" + LOCK_SUFFIX, "named"]
    living.close()
    assert snp.attach("named", directory=folder).shape == (3,)
    snp.delete("named", directory=folder)


def test_a_new_arena_removes_what_was_left(chosen):
    code = "import os, shared_numpy as snp; a = snp.ones(3); os.kill(os.getpid(), 9)"
    subprocess.call([sys.executable, "-c", code])
    assert len(os.listdir(chosen)) == 2
    arena = Arena.create()
    assert len(os.listdir(chosen)) == 2 and os.path.exists(arena.name)
    arena.close()


def test_posix_s_names_are_no_paths(folder):
    """Nobody opens files by the backport."""
    with pytest.raises(OSError):
        posixshmem.shm_open(folder + "/x", os.O_CREAT | os.O_RDWR, 0o600)
    snp.create("x", 3, directory=folder)
    for path in (folder + "/x", folder[len("/dev/shm") :] + "/x"):
        with pytest.raises((OSError, ValueError)):
            snp.SharedMemory(path)
    snp.delete("x", directory=folder)


# Named arrays.


def test_named_arrays_in_another_folder(folder):
    a = snp.create("weights", (2, 3), "f4", directory=folder, fill=7)
    assert os.listdir(folder) == ["weights"] and not exists("weights")
    named._mapped.clear()
    for call in (
        lambda: snp.attach("weights", directory=folder),
        lambda: snp.attach("shm://weights", True, folder),
        lambda: snp.attach("shm://{}/weights".format(folder)),
        lambda: snp.attach(snp.name_of(a)),
        lambda: snp.create("weights", (2, 3), "f4", directory=folder, exist_ok=True),
        lambda: np.load(folder + "/weights", mmap_mode="r"),
    ):
        assert (call() == 7).all()
    with pytest.raises(FileNotFoundError):
        snp.attach("weights")
    with pytest.raises(FileExistsError):
        snp.create("weights", 3, directory=folder)
    [found] = snp.list_named(folder)
    assert found.name == "shm://{}/weights".format(folder) and found.shape == (2, 3)
    assert found.name not in str(snp.list_named())
    named._mapped.clear()
    back, again = [ForkingPickler.loads(ForkingPickler.dumps(a[1:])) for _ in range(2)]
    assert back.base is again.base is not a.base and (again == 7).all()
    snp.create("weights", 5, directory=folder, replace=True)
    assert os.listdir(folder) == ["weights"]
    with pytest.raises(snp.StaleHandleError):
        ForkingPickler.dumps(a)
    assert named.take("weights", folder).shape == (5,)
    b = snp.create(found.name, 3)
    b.unlink()
    assert not os.listdir(folder)
    snp.create("weights", 5, directory=folder)
    snp.delete(found.name)
    with pytest.raises(ValueError, match="directory"):
        snp.create(found.name, 3, directory=folder)
    for wrong in ("a/b", "/weights", "shm://a/b", folder + "/", "shm://" + folder + "/.."):
        for call in (snp.attach, snp.delete, lambda name: snp.create(name, 3)):
            with pytest.raises(ValueError):
                call(wrong)


def test_the_variable_says_where_named_arrays_are(chosen, name, monkeypatch):
    here = snp.create(name, 3, directory="/dev/shm", fill=1)
    assert exists(name) and snp.attach(name)[0] == 1
    there = snp.create(name, 4, fill=2)
    assert os.listdir(chosen) == [name]
    assert snp.attach(name)[0] == 2 and snp.attach(name, directory="/dev/shm")[0] == 1
    # Each is told by the name that leads to it.
    found = {each.name: each.shape for each in snp.list_named() if name in each.name}
    assert found == {"shm://" + name: (4,), "shm:///dev/shm/" + name: (3,)}
    assert all(snp.attach(each).shape == shape for each, shape in found.items())
    # References lead to the same also where the variable is another.
    streams = [ForkingPickler.dumps(each) for each in (here, there)]
    monkeypatch.delenv("SHARED_NUMPY_DIR")
    named._mapped.clear()
    assert [ForkingPickler.loads(each)[0] for each in streams] == [1, 2]
    monkeypatch.setenv("SHARED_NUMPY_DIR", chosen)
    snp.delete(name)
    assert exists(name) and not os.listdir(chosen)
    snp.delete(name)
    assert not exists(name)
    with pytest.raises(FileNotFoundError):
        snp.delete(name)


def test_named_arrays_on_a_disk_are_refused(folder, disk):
    snp.create("weights", 3, directory=folder)
    shutil.copyfile(folder + "/weights", disk + "/weights")
    with pytest.raises(ValueError, match="tmpfs"):
        snp.attach(disk + "/weights")
    with pytest.raises(ValueError, match="tmpfs"):
        named.rebuild(
            snp.ndarray, disk + "/weights", b"", False, 0, np.dtype("f8"), (3,), (8,), None
        )
    snp.delete("weights", folder)


def test_what_a_killed_program_was_replacing_is_removed_there(folder):
    prefix = ".snp-test-replacing-%x-" % os.getpid()
    code = (
        "import os, sys, shared_numpy as snp\n"
        "from shared_numpy import named\n"
        "named._TEMPORARY = sys.argv[2]\n"
        "named._rename = lambda *_: os.kill(os.getpid(), 9)\n"
        "snp.create('weights', 3, directory=sys.argv[1])\n"
        "snp.create('weights', 4, directory=sys.argv[1], replace=True)\n"
    )
    assert subprocess.call([sys.executable, "-c", code, folder, prefix]) == -signal.SIGKILL
    assert len(os.listdir(folder)) == 2 and len(snp.list_named(folder)) == 2
    before, named._TEMPORARY = named._TEMPORARY, prefix
    try:
        assert len(snp.list_named(folder)) == 1
        snp.create("weights", 5, directory=folder, replace=True)
    finally:
        named._TEMPORARY = before
    assert os.listdir(folder) == ["weights"]
    snp.delete("weights", folder)


def test_array_managers_stay_where_their_server_looks(chosen):
    with snp.ArrayManager() as manager:
        a = manager.zeros((2, 3))
        assert exists(snp.name_of(a)) and [each.shape for each in manager.list()] == [(2, 3)]
        assert not os.listdir(chosen)
    assert not exists(snp.name_of(a))
