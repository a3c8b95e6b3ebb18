"""What `ls` tells of shared memory: kinds, users, states.

* Each thing is told once, with its kind, its size in memory, its users, and whether anybody uses it.
* What a process has is "in use", from wherever one looks; what only the dead had is "orphaned".
* What cannot be seen is "unknown": no state is guessed.
* To look changes nothing.

Everything lies in a folder of the test's own on /dev/shm, where no other program sweeps.
"""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from cli.commands import asked, shared_numpy
from conftest import (
    complete, eventually, maker_of, needs_arenas, other_users, run_command, run_python, shimmed,
)  # fmt: skip
from small_shm import namespace

from shared_numpy._command import files, main, names, survey, users

pytestmark = needs_arenas

# Names of ours, beside what other programs have in /dev/shm.
LOCK_SUFFIX = ".snp-lock"


class Place:
    """A folder of a test's own."""

    def __init__(self, path):
        self.path = path
        self.env = dict(os.environ, SHARED_NUMPY_DIR=path)
        self.running = []

    def start(self, code, wrapper=(), seen=True):
        """Start a program, which prints a line when it is ready and ends when its input does."""
        code = "import os, sys, time\nimport shared_numpy as snp\n" + code
        code += "\nprint(flush=True)\nsys.stdin.read()\n"
        process = subprocess.Popen(
            list(wrapper) + [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.env,
            universal_newlines=True,
            start_new_session=True,
        )
        self.running.append(process)
        assert process.stdout.readline() == "\n"
        return process

    def kill(self, process):
        """Kill a program and all its processes at once, its tracker with them."""
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def make(self, name, content=b"", age=0):
        """Make a file; return its path."""
        path = os.path.join(self.path, name)
        with open(path, "wb") as file:
            file.write(content)
        now = time.time()
        os.utime(path, (now - age, now - age))
        return path

    def items(self, *words, **options):
        """Return what `ls --json` tells of this folder, by the plain names."""
        code, told = asked("ls", *words, env=self.env, **options)
        assert code == 0
        return self.among(told)

    def among(self, told):
        inside = [item for item in told["items"] if item["path"].startswith(self.path + "/")]
        names = [os.path.basename(item["path"]) for item in inside]
        assert len(set(names)) == len(names), names
        return dict(zip(names, inside))

    def item(self, *words, **options):
        """Return the only thing that there is."""
        (item,) = self.items(*words, **options).values()
        return item

    def arena(self):
        """Return the path of the memory of the only arena."""
        (name,) = [n for n in os.listdir(self.path) if n + LOCK_SUFFIX in os.listdir(self.path)]
        return os.path.join(self.path, name)


@pytest.fixture
def place(new_name):
    folder = "/dev/shm/" + new_name()
    os.mkdir(folder)
    place = Place(folder)
    yield place
    for process in place.running:
        if process.poll() is None:
            place.kill(process)
    shutil.rmtree(folder)


def sees_all():
    return asked("ls")[1]["sees_all"]


def lists_all():
    """Tell whether all processes can be seen, if not what each of them has."""
    return "namespaces" not in (asked("ls")[1]["unseen"] or "")


def no_user(state):
    """Return the state of what has no user, where not all processes can be seen."""
    return state if sees_all() else "unknown"


def users_of(item):
    return [(user["pid"], user["alive"], user["elsewhere"]) for user in item["users"]]


MAKE = "a = snp.zeros((1000, 100)); b = snp.ones(10); handle = snp.send(a)"
# Without what would wait for a receiver when the program is dead.
KEEP = "a = snp.zeros((1000, 100)); b = snp.ones(10)"


# ---- arenas ---------------------------------------------------------------------------------


def test_an_arena_in_use(place):
    process = place.start(MAKE)
    item = place.item()
    status = os.stat(item["path"])
    assert (item["kind"], item["state"], item["damaged"]) == ("arena", "in use", False)
    assert (item["size"], item["apparent"]) == (512 * status.st_blocks, status.st_size)
    assert item["size"] >= 800000
    # (The handle has a block of its own for what it says of the array.)
    assert item["blocks"] >= 2 and item["handles"] >= 1
    assert users_of(item) == [(process.pid, True, False)]
    assert item["users"][0]["how"] == "member" and "-c" in item["users"][0]["command"]
    assert (item["maker"]["pid"], item["maker"]["alive"]) == (process.pid, True)
    assert maker_of(os.path.basename(item["path"])) == process.pid
    assert item["uid"] == os.geteuid() and 0 <= item["age"] < 600


def test_an_orphaned_arena(place):
    process = place.start(KEEP)
    place.kill(process)
    item = place.item()
    assert (item["state"], item["damaged"], item["note"]) == ("orphaned", False, "")
    assert users_of(item) == [(process.pid, False, False)] and item["blocks"] >= 2
    assert (item["maker"]["pid"], item["maker"]["alive"]) == (process.pid, False)
    row = [line for line in shared_numpy("ls", env=place.env).stdout.splitlines() if place.path in line]
    assert row[0].count("%d (dead)" % process.pid) == 2, row


@pytest.mark.parametrize("sees_all", [True, False])
def test_a_maker_whose_place_is_a_dead_one_s_is_dead(sees_all, place, monkeypatch):
    """The other processes of the arena live, and not all processes need be seen for that."""
    first = place.start(MAKE)
    # (It is stopped, so that it does not clear the dead one's place.)
    second = place.start("arena = snp.Arena.attach({!r})".format(os.path.basename(place.arena())))
    os.kill(second.pid, signal.SIGSTOP)
    monkeypatch.setenv("SHARED_NUMPY_DIR", place.path)
    look = users._core.list_processes
    monkeypatch.setattr(users._core, "list_processes", lambda devices: (look(devices)[0], sees_all))

    def found():
        (item,) = [item for item in survey.survey().items if place.path in item.path]
        return item

    assert found().maker.alive is True
    place.kill(first)
    item = found()
    assert {user.pid: user.alive for user in item.users} == {first.pid: False, second.pid: True}
    assert (item.maker.pid, item.maker.alive, item.state) == (first.pid, False, "in use")
    os.kill(second.pid, signal.SIGCONT)


def test_an_arena_that_waits_for_a_receiver_is_no_orphan_yet(place):
    """Its state is what `clean` does: after the time that is told it is orphaned, and goes."""
    code = "import shared_numpy as snp; a = snp.ones(1000); snp.send(a)"
    assert run_command([sys.executable, "-c", code], env=place.env).returncode == 0
    item = place.item()
    path, name = item["path"], item["name"]
    assert (item["state"], item["handles"] >= 1, item["maker"]["alive"]) == ("awaited", True, False)
    assert 0 < item["awaited_for"] <= 600
    for words in (["ls"], ["info", name]):
        said = " ".join(shared_numpy(*words, env=place.env).stdout.split())
        assert re.search(r"awaited \([0-9]+ (s|min) left\)", said), said
        assert re.search("waits for a receiver for [0-9]+ (s|min) more; then it is orphaned", said), said
    assert re.search("[0-9]+ awaited", shared_numpy("ls", "--kind", "arena", env=place.env).stdout)


def test_how_long_an_arena_waits(place, monkeypatch):
    """Whether it waits is the core's verdict, and how long follows from its handles' ages."""
    place.kill(place.start(MAKE))
    path = place.arena()
    with open(path, "r+b") as file:
        # (The number is that of the drawing in src/arena/format.rs.)
        file.seek(64)
        assert struct.unpack("=Q", file.read(8)) == (users.GRACE_OF_KILLED * 1000,)
        file.seek(64)
        file.write(struct.pack("=Q", 3600000))
    monkeypatch.setenv("SHARED_NUMPY_DIR", place.path)
    look = users._core.look_at_arena

    def found(*handles):
        told = [{"owner": owner, "age": age} for owner, age in handles]
        monkeypatch.setattr(
            users._core, "look_at_arena", lambda *words: dict(look(*words), handle_list=told)
        )
        (item,) = [item for item in survey.survey().items if place.path in item.path]
        return item.state, item.awaited_for

    assert found(("sender has left", 1000)) == ("awaited", 599)
    assert found(("sender", 1000)) == found(("sender was killed", 1000)) == ("awaited", 29)
    assert found(("sender", 1000), ("sender has left", 590000), ("message", 0)) == ("awaited", 29)
    assert found(("sender", 31000)) == found(("message", 0)) == found() == ("orphaned", None)
    with open(path, "r+b") as file:
        file.seek(64)
        file.write(struct.pack("=Q", 0))
    assert found(("sender has left", 1000)) == ("orphaned", None)

def test_members_that_died_are_told_beside_those_that_live(place):
    first = place.start(MAKE)
    code = "arena = snp.Arena.attach({!r})".format(os.path.basename(place.arena()))
    second = place.start(code)
    place.kill(second)
    found = {pid: alive for pid, alive, _ in users_of(place.item())}
    # (It is reaped by the first within a second.)
    assert found.pop(second.pid, False) is False
    assert found == {first.pid: True}


def test_a_forked_child_is_a_user(place):
    child = "pid = os.fork()\nif pid == 0: time.sleep(600)\nos.write(1, b'%d ' % pid)"
    process = place.start("a = snp.zeros(1000)\n" + child.replace("os.write(1, b'%d ' % pid)", ""))
    pids = {pid for pid, alive, _ in users_of(place.item()) if alive}
    assert process.pid in pids and len(pids) == 2
    place.kill(process)
    eventually(lambda: place.item()["state"] == "orphaned")


def test_a_process_that_closed_its_descriptors_is_a_user(place):
    process = place.start("a = snp.zeros(1000)\nos.closerange(3, 200)")
    item = place.item()
    assert item["state"] == "in use"
    assert (process.pid, True, False) in users_of(item)


@pytest.mark.parametrize("age", [0, 3600])
@pytest.mark.parametrize("memory", [None, b"", bytes(100000)], ids=["none", "empty", "zeros"])
def test_an_unfinished_arena(age, memory, place):
    place.make("snp-it-ff-00000000" + LOCK_SUFFIX, age=age)
    if memory is not None:
        place.make("snp-it-ff-00000000", memory, age)
    item = place.item()
    assert (item["kind"], item["damaged"]) == ("arena", False)
    assert item["name"] == place.path + "/snp-it-ff-00000000"
    assert ("being made" in item["note"], "was killed" in item["note"]) == (age == 0, age > 0)
    assert item["state"] in ("orphaned", no_user("orphaned"))


# The numbers are those of the drawing in src/arena/format.rs.
DAMAGE = {
    "shift": (36, b"\xff" * 4, "impossible sizes"),
    "data": (56, b"\0" * 8, "do not begin behind"),
    "size": (48, struct.pack("=Q", 1 << 46), "in one place and 70368744177664 in another"),
    "poisoned": (192, struct.pack("=I", 1), "contradiction"),
    "segment": (4096, b"\x09", "state 9"),
    "segment's size": (4104, struct.pack("=Q", 1 << 60), "in one place and"),
    "chunks": (208, struct.pack("=I", 1 << 30), "chunks"),
    "directory": (20484, struct.pack("=I", 7), ""),
    "slots": (228, struct.pack("=I", 1 << 30), "slots"),
    "slot": (53248, b"\x33", "slot 0 is in state 51"),
    "lock file": (80, b"\0" * 16, "lock file was replaced"),
}


@pytest.mark.parametrize("what", sorted(DAMAGE))
def test_a_damaged_arena(what, place):
    place.kill(place.start(KEEP))
    at, content, note = DAMAGE[what]
    path = place.arena()
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)
    item = place.item()
    if what == "directory":
        assert item["damaged"] is False  # Nothing of a chunk that the table has not.
        return
    assert item["damaged"] and re.search(note, item["note"]), item["note"]
    # (Where the lock file is another one its locks prove nothing.)
    assert item["kind"] == "arena"
    assert item["state"] == (no_user("orphaned") if what == "lock file" else "orphaned")


def test_an_arena_that_was_cut_is_damaged(place):
    place.kill(place.start(MAKE))
    os.truncate(place.arena(), 4096)
    item = place.item()
    assert item["damaged"] and "cut" in item["note"]


def test_random_bytes_in_the_tables_harm_nobody(place):
    place.kill(place.start(MAKE))
    path = place.arena()
    with open(path, "rb") as file:
        whole = file.read(200000)
    random = np.random.RandomState(int(os.environ.get("SNP_SEED", 0)) % (1 << 32))
    for _ in range(5):
        content = bytearray(whole)
        for at in random.randint(36, 100000, 3000):
            content[at] = random.randint(256)
        with open(path, "r+b") as file:
            file.write(content)
        assert place.item()["kind"] == "arena"


def test_an_arena_of_another_version(place):
    place.kill(place.start(KEEP))
    with open(place.arena(), "r+b") as file:
        file.seek(8)
        file.write(struct.pack("=I", 12345))
    item = place.item()
    assert "format 12345" in item["note"] and not item["damaged"]
    assert item["state"] == "orphaned"


def test_arenas_at_work_are_never_called_damaged(place):
    code = (
        "import threading\n"
        "first = snp.zeros(10)\n"
        "def work():\n"
        "    arrays = []\n"
        "    while True:\n"
        "        arrays.append(snp.empty(1 + len(arrays) * 37 % 5000, 'u1'))\n"
        "        snp.send(arrays[-1]).cancel()\n"
        "        if len(arrays) > 300: del arrays[:]\n"
        "[threading.Thread(target=work, daemon=True).start() for _ in range(2)]"
    )
    place.start(code)
    for _ in range(5):
        item = place.item()
        assert (item["damaged"], item["state"]) == (False, "in use"), item["note"]


def test_an_arena_that_is_made_and_removed_all_the_time_is_not_damaged(place):
    code = (
        "import threading\n"
        "def work():\n"
        "    while True:\n"
        "        with snp.Arena.create(name='again') as arena: arena.alloc(100)\n"
        "threading.Thread(target=work, daemon=True).start()"
    )
    place.start(code)
    for _ in range(5):
        for item in place.items().values():
            assert item["kind"] == "arena" and not item["damaged"], item["note"]
            assert "was killed" not in item["note"]


# ---- named arrays ---------------------------------------------------------------------------


def test_named_arrays(place):
    process = place.start("a = snp.create('weights', (30, 4), '<f4')")
    item = place.item()
    assert (item["kind"], item["state"], item["damaged"]) == ("named array", "in use", False)
    assert (item["dtype"], item["shape"], item["order"]) == ("float32", [30, 4], "C")
    assert users_of(item) == [(process.pid, True, False)]
    place.kill(process)
    item = place.item()
    assert (item["state"], item["users"]) == (no_user("unused"), [])


def test_a_damaged_named_array(place):
    place.kill(place.start("a = snp.create('weights', (30, 4))"))
    path = os.path.join(place.path, "weights")
    with open(path, "r+b") as file:
        file.seek(-30, os.SEEK_END)
        file.write(b"?")
    item = place.item()
    assert item["kind"] == "named array" and item["damaged"]
    assert "description is damaged" in item["note"]


def test_an_array_that_is_replaced_all_the_time_is_not_damaged(place):
    code = (
        "import threading\n"
        "def work():\n"
        "    shape = 1\n"
        "    while True:\n"
        "        snp.create('weights', shape * 1000, 'u1', replace=True)\n"
        "        shape = shape % 50 + 1\n"
        "snp.create('weights', 1, 'u1')\n"
        "threading.Thread(target=work, daemon=True).start()"
    )
    place.start(code)
    for _ in range(8):
        items = place.items()
        item = items.pop("weights")
        assert (item["damaged"], item["note"], item["dtype"]) == (False, "", "uint8")
        for other in items.values():
            assert other["kind"] == "named array" and not other["damaged"]


# ---- others' --------------------------------------------------------------------------------

FOREIGN = {
    "psm_0a1b2c3d": "segment",
    "sem.mp-abc123": "semaphore",
    "sem.other": "semaphore",
    "sem.loky-%d-abc": "joblib",
    "torch_%d_12_0": "torch",
    "joblib_memmapping_folder_%d_abc_def": "joblib",
    "something": "unknown",
    "snp-shorter": "unknown",
}


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_what_others_make(name, place):
    kind, has_number = FOREIGN[name], "%d" in name
    code = "names = [{!r} % os.getpid() if {} else {!r}]\n".format(name, has_number, name)
    code += "path = os.path.join({!r}, names[0])\n".format(place.path)
    if "folder" in name:
        code += "os.mkdir(path); path += '/a.pkl'\n"
    code += (
        "import mmap\n"
        "with open(path, 'w+b') as file:\n"
        "    file.write(bytes(10000)); file.flush()\n"
        "    mapped = mmap.mmap(file.fileno(), 0)"
    )
    process = place.start(code)
    item = place.item()
    assert (item["kind"], item["state"]) == (kind, "in use")
    assert item["size"] >= 10000 and item["size"] % 512 == 0
    assert users_of(item) == [(process.pid, True, False)]
    assert item["users"][0]["how"] == "mapped"
    if has_number:
        assert (item["maker"]["pid"], item["maker"]["alive"]) == (process.pid, True)
    else:
        assert item["maker"] is None
    place.kill(process)
    item = place.item()
    # A segment and a semaphore may be opened again by their names, which tell of no maker.
    left = "unused" if name in ("psm_0a1b2c3d", "sem.other") else "orphaned"
    left = "unknown" if kind == "unknown" else no_user(left)
    assert (item["state"], item["users"]) == (left, [])
    if has_number:
        assert item["maker"]["alive"] is (False if lists_all() else None)


@pytest.mark.parametrize(
    "name", ["joblib_memmapping_folder_%d_abc_def", "loky-%d-abc", "sem.loky-%d-abc", "torch_%d_12_0"]
)
def test_what_a_living_program_will_open_again_is_in_use(name, place):
    """Nobody has it mapped or open, and its name has the number of its maker, which lives."""
    code = "path = os.path.join({!r}, {!r} % os.getpid())\n".format(place.path, name)
    if name.startswith(("joblib", "loky")):
        code += "os.mkdir(path); path += '/a.pkl'\n"
    process = place.start(code + "with open(path, 'wb') as file: file.write(bytes(10000))")
    item = place.item()
    assert (item["maker"]["pid"], item["maker"]["alive"]) == (process.pid, True)
    assert (item["state"], item["users"]) == ("in use", [])
    told = shared_numpy("clean", "--force", item["path"], env=place.env)
    assert told.returncode == 5 and "process %d, which has made it, lives" % process.pid in told.stdout
    assert os.path.exists(item["path"])
    place.kill(process)
    assert place.item()["state"] == no_user("orphaned")


def test_a_number_that_is_another_processs_by_now_is_not_the_maker(place):
    """The file is older than the process that has the number."""
    process = place.start("")
    place.make("torch_%d_12_0" % process.pid, age=10 * 24 * 3600)
    path = os.path.join(place.path, "torch_%d_12_0" % process.pid)
    assert os.path.exists(path)
    assert place.item()["maker"]["alive"] is (False if lists_all() else None)


def test_managers(new_name):
    code = (
        "import sys\nfrom shared_numpy.managers import SharedMemoryManager\n"
        "if __name__ == '__main__':\n"
        "    with SharedMemoryManager() as manager:\n"
        "        print(manager.SharedMemory(1000).name, flush=True)\n"
        "        sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    name = process.stdout.readline().strip()
    items = {item["name"]: item for item in asked("ls", "--kind", "manager")[1]["items"]}
    number = name.split("-")[1]
    mine = {name: item["state"] for name, item in items.items() if number in name}
    assert mine == {name: "in use", "snpmgr-%s.snp-manager" % number: "in use"}
    complete(process)


CLOSED = """
import subprocess, sys
from shared_numpy._command import main
code = (
    "import sys; from shared_numpy.shared_memory import SharedMemory\\n"
    "shm = SharedMemory(create=True, size=10000); shm.close(); print(shm.name, flush=True)\\n"
    "sys.stdin.readline(); shm = SharedMemory(shm.name); shm.close(); shm.unlink()"
)
with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as maker:
    name = maker.stdout.readline().decode().strip()
    assert name.startswith("psm_")
    for words in (["ls", "--json"], ["doctor"], ["clean"]):
        print("----", name, flush=True)
        main.main(words)
    # It wants it still.
    maker.communicate(b"\\n")
assert maker.returncode == 0
"""


def test_a_segment_that_its_living_maker_has_closed_is_no_orphan():
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    mount = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    said = run_python(CLOSED, wrapper=namespace() + ["sh", "-c", mount, "sh"])
    parts = re.split("---- (.*)\n", said)[1:]
    name, listed, doctor, cleaned = parts[0], parts[1], parts[3], parts[5]
    told = json.loads(listed)
    (item,) = [item for item in told["items"] if item["name"] == name]
    assert (item["state"], item["users"]) == ("unused" if told["sees_all"] else "unknown", [])
    doctor = " ".join(doctor.split())
    assert "Killed programs left them" not in doctor
    assert not told["sees_all"] or "1 segment or semaphore of this user that no process has now" in doctor
    assert name not in cleaned


@pytest.mark.parametrize("keeps", ["open", "mapped"])
def test_files_without_a_name_are_told_with_their_holders(keeps, place):
    size = 3 << 20
    process = place.start(
        "import mmap\n"
        "path = {!r} + '/gone'\n"
        "file = open(path, 'w+b')\n"
        "file.write(bytes({})); file.flush()\n"
        "if {!r} == 'mapped': mapped = mmap.mmap(file.fileno(), 0); file.close()\n"
        "os.unlink(path)".format(place.path, size, keeps)
    )
    code, told = asked("ls", env=place.env)
    (file,) = [
        file for file in told["nameless"] if process.pid in [user["pid"] for user in file["users"]]
    ]
    # (What is only mapped may be asked for its size by root alone.)
    assert file["size"] == size or keeps == "mapped" and os.geteuid() and file["size"] is None
    assert [user["how"] for user in file["users"]] == [keeps]
    (space,) = [space for space in told["spaces"] if space["folder"] == file["folder"]]
    assert space["used"] >= size
    said = " ".join(shared_numpy("ls", env=place.env).stdout.split())
    assert "no name any more" in said and "In {} ".format(file["folder"]) in said
    place.kill(process)
    told = asked("ls", env=place.env)[1]
    assert process.pid not in [user["pid"] for file in told["nameless"] for user in file["users"]]


SUM = """
import json, os, subprocess, sys
command = [sys.executable, "-m", "shared_numpy"]
def asked(word):
    return json.loads(subprocess.Popen(command + [word, "--json"], stdout=subprocess.PIPE).communicate()[0].decode())
with open("/dev/shm/named", "wb") as file:
    file.write(bytes(5 << 20))
file = open("/dev/shm/gone", "wb")
file.write(bytes(7 << 20))
file.flush()
os.unlink("/dev/shm/gone")
told = asked("ls")
(space,) = told["spaces"]
assert space == {"folder": "/dev/shm", "used": 12 << 20, "named": 5 << 20}, space
(gone,) = told["nameless"]
assert gone["size"] == 7 << 20 and [user["pid"] for user in gone["users"]] == [os.getpid()]
def findings():
    return [each for each in asked("doctor")["findings"] if "no name any more" in each["title"]]
(finding,) = findings()
assert "1 file takes 7 MiB" in finding["title"] and str(os.getpid()) in finding["title"], finding
assert finding["level"] == "ok" and finding["topic"] == "leftovers"
file.close()
assert asked("ls")["nameless"] == [] and findings() == []
"""


def test_what_has_names_and_what_has_none_is_all_that_is_used():
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    mount = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    run_python(SUM, wrapper=namespace() + ["sh", "-c", mount, "sh"])


def test_files_of_a_dead_network_are_not_touched(place, tmp_path):
    """A process has files open there: to ask one for its status would take without end."""
    dead = tmp_path / "network"
    dead.mkdir()
    (dead / "file").write_text("x")
    place.make("torch_1_1_0", bytes(5000))
    process = place.start(
        "files = [open({!r}), open({!r}), open({!r})]".format(
            str(dead / "file"), os.path.join(place.path, "torch_1_1_0"), str(dead / "file")
        )
    )
    env = dict(shimmed("dead_network", tmp_path), DEAD=str(dead), SHARED_NUMPY_DIR=place.path)
    # The shim works.
    folder = "/proc/{}/fd/".format(process.pid)
    (there, _) = [fd for fd in os.listdir(folder) if os.readlink(folder + fd) == str(dead / "file")]
    look = "import os; os.stat({!r})".format(folder + there)
    assert run_command([sys.executable, "-c", look], env=env).returncode == 99
    told = run_command([sys.executable, "-m", "shared_numpy", "ls", "--json"], env=env)
    assert (told.returncode, told.stderr) == (0, "")
    item = place.among(json.loads(told.stdout))["torch_1_1_0"]
    assert users_of(item) == [(process.pid, True, False)]


def test_links_and_pipes_are_not_opened(place):
    os.mkfifo(os.path.join(place.path, "pipe"))
    os.symlink("/dev/zero", os.path.join(place.path, "link"))
    items = place.items()
    assert {item["kind"] for item in items.values()} == {"unknown"}
    assert all("not a file" in item["note"] for item in items.values())


@pytest.mark.parametrize("content", [b"snpARENA" + bytes(5000), b"x"], ids=["an arena's", "other"])
def test_names_that_are_no_text_harm_nobody(content, place):
    names = [b"bad\xff", b"bad\xff.snp-lock", b"lone\xfe.snp-lock"]
    for name in names:
        place.make(os.fsdecode(name), content)
    place.make(".snp-lock")
    good = place.make("torch_1_1_0", bytes(5000))
    items = place.items()
    assert sorted(items) == sorted(list(map(os.fsdecode, names)) + [".snp-lock", "torch_1_1_0"])
    assert {item["kind"] for item in items.values()} == {"unknown", "torch"}
    for words in (["ls"], ["info", good], ["clean", "--dry-run"], ["doctor"]):
        told = shared_numpy(*words, env=place.env)
        assert told.returncode in (0, 1) and told.stderr == "", (words, told)
    for name in names:
        path = os.path.join(place.path, os.fsdecode(name))
        told = shared_numpy("info", path, env=place.env)
        assert (told.returncode, told.stderr) == (0, "") and "unknown" in told.stdout
        told = shared_numpy("clean", "--force", path, env=place.env)
        assert (told.returncode, told.stderr) == (0, "")
        assert os.fsdecode(name) not in os.listdir(place.path)
    assert sorted(os.listdir(place.path)) == [".snp-lock", "torch_1_1_0"]


def test_a_folder_is_counted_once(place):
    """Whatever is in the folder that the environment says is told by itself, not as a part of the
    folder above, too."""
    place.make("something", bytes(100000))
    inner = os.path.join(place.path, "inner")
    os.mkdir(inner)
    with open(os.path.join(inner, "more"), "wb") as file:
        file.write(bytes(50000))
    told = asked("ls", env=place.env)[1]["items"]
    assert place.path not in [item["path"] for item in told]
    assert len([item for item in told if item["path"].endswith("/something")]) == 1
    # From outside the folder is one thing, with all that is in it.
    (whole,) = [item for item in asked("ls")[1]["items"] if item["path"] == place.path]
    assert 150000 <= whole["size"] < 300000
    # The folder that is surveyed is no part of the one that it lies in.
    (outer,) = [
        item
        for item in asked("ls", env=dict(os.environ, SHARED_NUMPY_DIR=inner))[1]["items"]
        if item["path"] == place.path
    ]
    assert 100000 <= outer["size"] < 150000


# ---- who looks, and from where --------------------------------------------------------------

LOOK = """
import json, os, sys
import shared_numpy
from shared_numpy._command import survey
survey.survey()
os.setgid({0})
os.setuid({0})
found = survey.survey(all_users={1})
print(json.dumps(dict(items=[item.as_dict() for item in found.items], unseen=found.unseen)))
"""


def look_as(uid, place, all_users=True):
    process = run_command([sys.executable, "-c", LOOK.format(uid, all_users)], env=place.env)
    assert (process.returncode, process.stderr) == (0, "")
    told = json.loads(process.stdout)
    return place.among(told), told["unseen"]


@other_users
def test_other_users_see_that_they_cannot_know(place):
    os.chmod(place.path, 0o755)
    process = place.start(MAKE + "\nc = snp.create('weights', 3)")
    place.make("torch_999999999_1_0", bytes(5000))  # (Of nobody who lives.)
    items, unseen = look_as(12345, place)
    assert unseen
    for item in items.values():
        assert item["state"] == "unknown" and not item["damaged"], item
        assert item["uid"] == 0 and item["size"] > 0
    kinds = sorted(item["kind"] for item in items.values())
    assert kinds == ["arena", "torch", "unknown"]  # (A named array is known by what is in it.)
    assert look_as(12345, place, all_users=False)[0] == {}
    place.kill(process)


@other_users
def test_other_users_things_are_told_when_asked_for(place):
    path = place.make("torch_1_1_0", bytes(5000))
    os.chown(path, 12345, 12345)
    assert place.items() == {}
    assert place.item("--all-users")["uid"] == 12345


def in_namespace(*words):
    return ["unshare", "--pid", "--fork", "--kill-child"] + list(words)


@pytest.fixture
def needs_namespaces():
    if os.geteuid() != 0:
        pytest.skip("only root may make namespaces of processes")
    if shutil.which("unshare") is None or run_command(in_namespace("true")).returncode:
        pytest.skip("this system lets nobody make namespaces of processes")


@pytest.mark.parametrize("own_proc", [True, False])
def test_two_namespaces_on_one_folder(own_proc, needs_namespaces, place):
    proc = ["--mount-proc"] if own_proc else []
    inner = place.start(KEEP, wrapper=in_namespace(*proc))
    path = place.arena()
    attach = "arena = snp.Arena.attach({!r})".format(os.path.basename(path))
    outer = place.start(attach)
    # From outside both are seen, each once.
    users = place.item()["users"]
    assert len(users) == 2 and all(user["alive"] and not user["elsewhere"] for user in users)
    assert outer.pid in [user["pid"] for user in users]
    # From a third namespace with its own /proc none is seen, and both are known to live.
    item = place.item(wrapper=in_namespace("--mount-proc"))
    assert item["state"] == "in use"
    assert [(alive, elsewhere) for _, alive, elsewhere in users_of(item)] == [(True, True)] * 2
    # Where /proc is the outer one's, each is seen, and once.
    item = place.item(wrapper=in_namespace())
    assert sorted(user["pid"] for user in item["users"]) == sorted(u["pid"] for u in users)
    # The dead are nowhere.
    place.kill(outer)
    for wrapper in ([], in_namespace("--mount-proc"), in_namespace()):
        item = place.item(wrapper=wrapper)
        dead = [user for user in item["users"] if user["pid"] == outer.pid]
        assert all(user["alive"] is False and not user["elsewhere"] for user in dead), item
        assert item["state"] == "in use"
    place.kill(inner)
    for wrapper in ([], in_namespace("--mount-proc"), in_namespace()):
        item = place.item(wrapper=wrapper)
        assert item["state"] == "orphaned", item
        assert not any(user["alive"] or user["elsewhere"] for user in item["users"])


def test_from_a_namespace_inside_what_is_not_seen_is_unknown(needs_namespaces, place):
    process = place.start("a = snp.create('weights', 3)")
    item = place.item(wrapper=in_namespace("--mount-proc"))
    assert (item["state"], item["users"]) == ("unknown", [])
    assert place.item()["state"] == "in use"
    place.kill(process)


def test_a_look_changes_nothing(place):
    process = place.start(MAKE + "\nb = snp.create('weights', 1000)")
    place.make("torch_1_1_0", bytes(5000))
    path = place.arena()

    def facts():
        # (What the process itself does once a second changes no storage.)
        names = sorted(os.listdir(place.path))
        status = [os.stat(os.path.join(place.path, name)) for name in names]
        return names, [(s.st_ino, s.st_size, s.st_blocks, s.st_mtime) for s in status]

    before = facts()
    for _ in range(3):
        place.items()
    assert facts() == before
    place.kill(process)
    with open(path, "rb") as file:
        content = file.read(100000)
    before = facts()
    place.items()
    with open(path, "rb") as file:
        assert file.read(100000) == content
    assert facts() == before


def test_a_process_that_looks_keeps_its_own_arena(place):
    code = (
        "a = snp.zeros(1000)\n"
        "from shared_numpy._command import survey\n"
        "for _ in range(2):\n"
        "    (item,) = [i for i in survey.survey().items if i.path.startswith({!r})]\n"
        "    assert item.state == 'in use' and [u.pid for u in item.users] == [os.getpid()]"
    ).format(place.path + "/")
    process = place.start(code)
    # Its locks are there still: another namespace knows it by these alone.
    item = place.item()
    assert item["state"] == "in use" and item["users"][0]["how"] == "member"
    from shared_numpy import _core

    look = _core.look_at_arena(item["path"])
    assert look["any_locked"] is True and [m["locked"] for m in look["members"]] == [True]
    assert process.poll() is None


def test_without_proc_nothing_is_guessed(place, monkeypatch):
    """Who made something, and before which start of the machine, is not known there."""

    def missing(*words):
        raise FileNotFoundError(2, "No such file or directory", "/proc")

    place.start(MAKE)
    place.make("torch_%d_1_0" % os.getpid(), bytes(5000))
    look = files._core.look_at_arena

    def look_without_boot(*words):
        return dict(look(*words), same_boot=False)

    monkeypatch.setenv("SHARED_NUMPY_DIR", place.path)
    monkeypatch.setattr(files._core, "look_at_arena", look_without_boot)
    note = "made before the machine was started"
    found = [item for item in survey.survey().items if item.kind == "arena" and place.path in item.path]
    assert len(found) == 1 and note in found[0].note
    monkeypatch.setattr(files, "_BOOT", "/proc/none")
    monkeypatch.setattr(users, "_uptime", missing)
    arena, other = [item for item in survey.survey().items if place.path in item.path]
    assert (arena.kind, arena.state, arena.note) == ("arena", "in use", "")
    assert other.maker.alive is None
    monkeypatch.setattr(users._core, "list_processes", missing)
    arena, other = [item for item in survey.survey().items if place.path in item.path]
    assert (arena.state, arena.note, other.state) == ("in use", "", "unknown")
    assert other.maker.alive is None


def test_locks_of_another_lock_file_prove_nothing(needs_namespaces, place):
    process = place.start(MAKE)
    lock = place.arena() + LOCK_SUFFIX
    os.rename(lock, lock + ".kept")
    place.make(os.path.basename(lock))
    os.chmod(lock, 0o600)
    name = os.path.basename(place.arena())
    look = lambda: place.items(wrapper=in_namespace("--mount-proc"))[name]
    # The lock on the memory itself proves something.
    item = look()
    assert item["damaged"] and item["state"] == "in use", item
    item = place.items()[name]
    assert item["state"] == "in use" and users_of(item) == [(process.pid, True, False)]
    place.kill(process)
    item = look()
    assert item["damaged"] and item["state"] == "unknown", item
    assert [user["alive"] for user in item["users"]] == [None]


# ---- the command ----------------------------------------------------------------------------


def test_the_table(place):
    process = place.start(MAKE + "\nb = snp.create('weights', (7, 9), 'i2')")
    told = shared_numpy("ls", env=place.env)
    assert (told.returncode, told.stderr) == (0, "")
    (line,) = [line for line in told.stdout.splitlines() if place.path + "/weights" in line]
    assert line.startswith("named array") and "7x9 int16" in line and "in use" in line
    assert str(process.pid) in line
    only = shared_numpy("ls", "--kind", "arena", env=place.env).stdout
    assert place.path in only and "weights" not in only


def test_a_wrong_folder_is_told(tmp_path):
    for folder in ("relative", str(tmp_path / "none"), "/proc"):
        process = shared_numpy("ls", env=dict(os.environ, SHARED_NUMPY_DIR=folder))
        assert (process.returncode, process.stdout) == (4, "")
        assert "SHARED_NUMPY_DIR" in process.stderr and folder in process.stderr


@pytest.mark.parametrize("words", [["ls"], ["info", "x"], ["map", "x"], ["clean"]])
def test_where_there_is_no_folder(words, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(names, "SHM", str(tmp_path / "none"))
    monkeypatch.delenv("SHARED_NUMPY_DIR", raising=False)
    assert main.main(words) == 4
    printed = capsys.readouterr()
    assert printed.out == "" and "there is no /dev/shm" in printed.err


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "1e12"])
def test_intervals_that_are_none(interval):
    told = shared_numpy("ls", "--watch", "--interval=" + interval)
    assert (told.returncode, told.stdout) == (2, "")
    assert "--interval" in told.stderr and "Traceback" not in told.stderr


def test_control_characters_of_a_name_are_shown_as_escapes(place):
    path = place.make("red\x1b[31m\nline" + LOCK_SUFFIX, age=3600)
    for words in (["ls"], ["info", path], ["doctor"], ["clean", "--dry-run", path]):
        told = shared_numpy(*words, env=place.env)
        assert "\x1b" not in told.stdout and told.stderr == "", (words, told)
        assert words == ["doctor"] or "red\\x1b[31m" in told.stdout
        assert words[0] not in ("info", "clean") or "31m\nline" not in told.stdout


def test_watching_ends_with_its_reader(place):
    place.make("torch_1_1_0")
    command = [sys.executable, "-m", "shared_numpy", "ls", "--watch", "--interval", "0.05"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=place.env
    )
    seen = 0
    while seen < 3:
        seen += b"torch_1_1_0" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0 and process.stderr.read() == b""
    process.stderr.close()
