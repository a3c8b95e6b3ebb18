"""``shared-numpy clean``: what the dead left goes, and nothing that anybody uses.

* Without names arenas of dead programs and what dead managers left go; everything else stays.
* "removed" means that all files of a thing are gone; what came back is what they took.
* Nothing that a process is seen to use goes, whatever is asked for, in whatever namespace.
* What is damaged goes by name and force, however it is damaged; before that all of it stays.
* Refusals say why and what to do, and end with the documented exit codes.

The programs here see a /dev/shm of their own, where no other program cleans.
"""

import argparse
import os
import sys

import pytest
from cli.commands import shared_numpy
from conftest import MORE, needs_arenas, other_users, run_python
from small_shm import namespace

from shared_numpy._command import clean, removal, survey

pytestmark = needs_arenas

PRELUDE = """
import json, os, random, re, shutil, signal, struct, subprocess, sys, time
SHM, LOCK = "/dev/shm/", ".snp-lock"
COMMAND = [sys.executable, "-m", "shared_numpy"]

def clean(*words, **options):
    process = subprocess.Popen(
        COMMAND + ["clean", "--json"] + list(words), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, **options
    )
    output, errors = process.communicate()
    assert "Traceback" not in errors and output, errors
    told = json.loads(output)
    for thing in told["items"]:
        # It says what has happened.
        there = [name for name in (thing["name"], thing["name"] + LOCK) if os.path.lexists(SHM + name)]
        assert (thing["action"] != "removed") == bool(there), (thing, there)
    return process.returncode, told

def actions(told):
    return {thing["name"]: thing["action"] for thing in told["items"]}

def reason(told):
    (thing,) = told["items"]
    return thing["reason"]

class Program:
    '''A program of its own session, which prints a line and goes on until its input ends.'''
    def __init__(self, code, wrapper=()):
        code = "import os, sys, time\\nimport shared_numpy as snp\\n" + code
        self.process = subprocess.Popen(
            list(wrapper) + [sys.executable, "-c", code + "\\nsys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True, start_new_session=True,
        )
        self.pid = self.process.pid
        self.said = self.process.stdout.readline().split()

    def end(self):
        errors = self.process.communicate()[1]
        assert (self.process.returncode, errors) == (0, ""), errors

    def kill(self):
        '''Kill it and all its processes at once, its tracker with them.'''
        os.killpg(self.pid, signal.SIGKILL)
        self.process.communicate()

ARENA = "a = snp.ones(100000); print(snp.Arena.default().name, flush=True)"

def dead_arena(code=ARENA):
    program = Program(code)
    program.kill()
    (name,) = program.said
    assert os.path.exists(SHM + name) and os.path.exists(SHM + name + LOCK)
    return name

def age(name, seconds=60):
    '''Make the files of a name older.'''
    for path in (SHM + name, SHM + name + LOCK):
        if os.path.exists(path):
            then = time.time() - seconds
            os.utime(path, (then, then))

def names():
    return set(os.listdir(SHM))

def write(name, data, at=0):
    with open(SHM + name, "r+b") as file:
        file.seek(at)
        file.write(data)

def make(name, data=b"x" * 5000):
    with open(SHM + name, "wb") as file:
        file.write(data)
    return name
"""


def inside(code, *arguments):
    """Run code after `PRELUDE` in a mount namespace with a /dev/shm of its own."""
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    mount = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    wrapper = namespace() + ["sh", "-c", mount, "sh"]
    return run_python(PRELUDE + code, *arguments, wrapper=wrapper)


MANAGER = """
from shared_numpy.managers import SharedMemoryManager
manager = SharedMemoryManager()
manager.start()
shm = manager.SharedMemory(10000)
print(shm.name, flush=True)
"""


def test_what_the_dead_left_goes_and_nothing_else():
    inside(
        "MANAGER = '''" + MANAGER + "'''" + """
# (Programs that start remove what is left, too: the living begin first.)
named = Program("a = snp.create('named', 1000); print(0, flush=True)")
named.kill()
living, dead = Program(ARENA), dead_arena()
managing = Program(MANAGER)
ended = Program(MANAGER)
ended.kill()
orphaned = ended.said[0]
others = {make("psm_0123abcd"), make("sem.mp-abc"), make("torch_1_2_3"), make("anything")}
before = names()
lost = sum(os.stat(SHM + name).st_blocks for name in (dead, orphaned)) * 512

code, told = clean("--dry-run")
assert code == 0 and names() == before
expected = dict.fromkeys([dead, orphaned], "would be removed")
found = actions(told)
(file,) = set(found) - set(expected)
assert re.match("snpmgr-[0-9a-f]+.snp-manager$", file)
expected[file] = "would be removed"
assert found == expected and lost <= told["bytes"] <= lost + 4096, (told, lost)

code, told = clean()
assert code == 0 and actions(told) == dict.fromkeys(expected, "removed")
assert lost <= told["bytes"] <= lost + 4096
assert before - names() == {dead, dead + LOCK, orphaned, file}
code, told = clean()
assert code == 0 and told["items"] == [] and told["bytes"] == 0
living.end()
managing.end()
assert names() == others | {"named"}
"""
    )


def test_what_waits_for_a_receiver_stays_unless_it_is_named():
    inside(
        """
# A program that has ended, and left an array for whoever has its handle.
code = "import shared_numpy as snp; a = snp.ones(1000); snp.send(a); print(snp.Arena.default().name)"
name = subprocess.check_output([sys.executable, "-c", code], universal_newlines=True).strip()
if os.path.exists(SHM + name):
    for words in (["--dry-run"], []):
        code, told = clean(*words)
        assert code == 0 and actions(told) == {name: "kept"}
        assert re.match("1 handle waits for a receiver, for [0-9]+ (s|min) more; ", reason(told)), told
        assert reason(told).endswith("`shared-numpy clean %s` removes it all the same" % name)
    code, told = clean(name)
    assert code == 0 and actions(told) == {name: "removed"}
    print("waited")
assert names() == set()
"""
    )


def test_an_arena_that_a_child_keeps_is_told_though_its_maker_is_dead():
    inside(
        """
# The child has the arena from the fork on, and outlives the program.
code = (
    "import os, signal\\nimport shared_numpy as snp\\na = snp.ones(1000)\\nready, write = os.pipe()\\n"
    "child = os.fork()\\n"
    "if child == 0:\\n    os.write(write, b'x')\\n    while True: signal.pause()\\n"
    "os.read(ready, 1)\\nprint(child, snp.Arena.default().name, flush=True)\\n"
    "os.kill(os.getpid(), signal.SIGKILL)"
)
maker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, universal_newlines=True)
child, name = maker.stdout.readline().split()
maker.wait()
living = Program(ARENA)
for words in (["--dry-run"], []):
    code, told = clean(*words)
    # (What a living maker has in use goes without saying.)
    assert code == 0 and actions(told) == {name: "kept"}, told
    assert reason(told) == "in use by process " + child
said = subprocess.check_output(COMMAND + ["clean"], universal_newlines=True).splitlines()
assert said[1].split()[0] == name and said[1].endswith("kept: in use by process " + child), said
assert said[2] == "0 removed, 0 B came back"
# An age that is asked for is one for this, too.
assert clean("--older-than", "1h") == (0, dict(told, items=[]))
os.kill(int(child), signal.SIGKILL)
living.end()
# (Its tracker removes the names; or `clean` does, if that was faster.)
while names():
    subprocess.check_call(COMMAND + ["clean"], stdout=subprocess.DEVNULL)
"""
    )


# What happens to a dead arena's files.
DAMAGES = {
    "header": "write(name, b'\\xee' * 4096)",
    "magic": "write(name, b'\\xee' * 8)",
    "lock file's number": "write(name, b'\\xee' * 16, 80)",
    "everything": "write(name, b'\\xee' * 1000000)",
    "tables": "write(name, b'\\xee' * 200000, 69632)",
    "zeros": "write(name, bytes(8192))",
    "empty": "os.truncate(SHM + name, 0)",
    "short": "os.truncate(SHM + name, 5000)",
    "no memory": "os.unlink(SHM + name)",
    "no lock file": "os.unlink(SHM + name + LOCK)",
    "another lock file": "os.unlink(SHM + name + LOCK); make(name + LOCK, b'')",
    "lock file written to": "write(name + LOCK, b'x')",
    "lock file's mode": "os.chmod(SHM + name + LOCK, 0o644)",
    "memory's mode": "os.chmod(SHM + name, 0o644)",
    "segment": "write(name, b'\\x12', 4096)",
}
# What goes without force: what is known to be an arena of this version and of its lock file, whose data
# are lost; and what was half made or half removed. Nobody knows what the rest is.
GOES = ("no memory", "segment", "short", "tables")


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_damaged_arenas_go_by_force(damage):
    inside(
        "STAYS = {}\n".format(damage not in GOES)
        + "DAMAGE = {!r}".format(
            DAMAGES[damage].replace("200000", "min(200000, os.path.getsize(SHM + name) - 69632)")
        )
        + """
# A program that starts removes what `clean` says that it would.
name = dead_arena()
exec(DAMAGE)
age(name)
before = names()
code, would = clean("--dry-run")
assert code == 0 and set(actions(would).values()) - {"kept"} == (set() if STAYS else {"would be removed"})
Program("print(snp.Arena.default().name, flush=True)").end()
assert names() == (before if STAYS else set()), names()
if STAYS:
    code, told = clean(name, "--force")
    assert code == 0 and names() == set(), told
name = dead_arena()
exec(DAMAGE)
age(name)
before = names()
# What would be done is what is done.
for words in ([], [name]):
    _, would = clean("--dry-run", *words)
    if names() == before:
        code, told = clean(*words)
        assert [action.replace("would be ", "") for action in actions(would).values()] == (
            list(actions(told).values())
        ), (would, told)
        assert [t["reason"] for t in would["items"]] == [t["reason"] for t in told["items"]]
        assert words or (names() == before) == STAYS
# Without a name, and when any program starts: all of it or nothing.
code, told = clean()
assert code == 0 and names() in (before, set()), names()
Program("print(snp.Arena.default().name, flush=True)").end()
assert names() in (before, set()), names()
if names():
    code, told = clean(name)
    if code:
        assert code == 5 and "--force" in reason(told), told
        assert names() == before
    else:
        assert names() == set()
if names():
    code, told = clean("--dry-run", name, "--force")
    assert code == 0 and actions(told) == {name: "would be removed"} and names() == before
    code, told = clean(name, "--force")
    assert code == 0, told
    assert actions(told) == {name: "removed"}
assert names() == set()
"""
    )


@pytest.mark.parametrize("damage", ["none", "header", "magic", "another lock file", "no lock file"])
def test_what_is_in_use_never_goes(damage):
    inside(
        """
program = Program(ARENA)
(name,) = program.said
"""
        + DAMAGES.get(damage, "")
        + """
age(name, 3600)
before = names()
for words in ([], [name], [name, "--force"], [SHM + name, "--force", "--older-than", "1s"]):
    code, told = clean(*words)
    assert names() == before
    if words:
        assert code == 5 and str(program.pid) in reason(told), told
program.kill()
code, told = clean(name, "--force")
assert code == 0 and names() == set(), told
"""
    )


def test_segments_go_by_name_if_nobody_has_them():
    inside(
        """
program = Program(
    "from shared_numpy.shared_memory import SharedMemory\\n"
    "shm = SharedMemory('segment', create=True, size=10000, track=False)\\n"
    "a = snp.create('named', 1000)\\n"
    "print(0, flush=True)"
)
file = open(SHM + make("open"))
for name in ("segment", "named", "open"):
    code, told = clean(name, "--force")
    assert code == 5 and "in use by process" in reason(told), told
assert names() == {"segment", "named", "open"}
program.kill()
file.close()
make("sem.mp-abc")
os.mkdir(SHM + "folder")
os.mkdir(SHM + "joblib_memmapping_folder_999999999_2")
make("joblib_memmapping_folder_999999999_2/data")
words = sorted(names())
code, told = clean("--force", *words)
assert code == 5 and names() == {"folder"}
assert [thing["reason"] for thing in told["items"] if thing["reason"]] == [
    "it is a folder: rm -r removes it"
]
"""
    )


def test_where_not_all_processes_are_seen_force_is_needed(tmp_path, monkeypatch):
    path = tmp_path / "segment"
    path.write_text("x")

    def remove(sees_all, **options):
        found = survey.Survey()
        found.sees_all, found.unseen = sees_all, "" if sees_all else "a reason"
        item = survey.Item(survey.SEGMENT, "segment", str(path), os.stat(str(path)))
        (outcome,) = removal.Removal(found, named=True, **options).remove(item)
        return outcome

    outcome = remove(False)
    assert (outcome.action, outcome.code) == ("kept", 5) and path.exists()
    assert "a reason" in outcome.reason and "--force" in outcome.reason
    assert remove(False, force=True, dry=True).action == "would be removed" and path.exists()
    assert remove(False, force=True).action == "removed" and not path.exists()
    path.write_text("x")
    assert remove(True).action == "removed" and not path.exists()


def test_another_file_that_got_the_name_stays(tmp_path):
    path = tmp_path / "segment"
    path.write_text("x")
    found = survey.Survey()
    found.sees_all = True
    item = survey.Item(survey.SEGMENT, "segment", str(path), os.stat(str(path)))
    (tmp_path / "other").write_text("y")
    os.replace(str(tmp_path / "other"), str(path))
    (outcome,) = removal.Removal(found, named=True, force=True).remove(item)
    assert (outcome.action, outcome.code) == ("kept", 5) and path.read_text() == "y"


def test_an_arena_that_a_program_removes_meanwhile_counts_as_removed(tmp_path):
    path = tmp_path / "arena"
    path.write_text("x")
    found = survey.Survey()
    found.sees_all = True
    item = survey.Item(survey.ARENA, str(path), str(path), os.stat(str(path)))
    path.unlink()
    for force in (False, True):
        (outcome,) = removal.Removal(found, named=True, force=force).remove(item)
        assert (outcome.action, outcome.code) == ("removed", 0)


@pytest.mark.parametrize("last", ["clean", "start"])
def test_a_dead_manager_s_segment_that_is_in_use_stays(last):
    inside(
        "START_LAST = {}\nMANAGER = '''{}'''".format(last == "start", MANAGER)
        + """
START = "a = snp.ones(10); print(0, flush=True)"
managing = Program(MANAGER)
(name,) = managing.said
user = Program(
    "from shared_numpy.shared_memory import SharedMemory\\n"
    "shm = SharedMemory(%r, track=False); print(0, flush=True)" % name
)
before = names()
for words in ([], [name], [name, "--force"]):
    code, told = clean(*words)
    assert names() == before and code == (5 if words else 0)
managing.kill()
assert names() == before
# Neither `clean` nor a program that starts takes the names.
for words in ([], [name], [name, "--force"], ["--dry-run"]):
    code, told = clean(*words)
    Program(START).end()
    assert names() == before and code == (5 if name in words else 0), told
    assert "removed" not in actions(told).values()
    assert name not in words or str(user.pid) in reason(told), told
user.process.communicate()
if START_LAST:
    Program(START).end()
    assert names() == set()
else:
    code, told = clean()
    assert code == 0 and names() == set() and len(told["items"]) == 2
"""
    )


def test_a_manager_s_segment_without_its_manager():
    inside(
        """
make("snpmgr-0123456789abcdef-0011223344556677")
code, told = clean()
assert code == 0 and told["items"] == [] and len(names()) == 1
code, told = clean(*names(), "--force")
assert code == 0 and names() == set()
"""
    )


def test_a_folder_with_a_dead_manager_s_name_stays():
    inside(
        "MANAGER = '''" + MANAGER + "'''" + """
managing = Program(MANAGER)
managing.kill()
(block,) = managing.said
folder = block.rpartition("-")[0] + "-1"
os.mkdir(SHM + folder)
code, would = clean("--dry-run")
found = actions(would)
assert code == 0 and found.pop(folder) == "kept" and set(found.values()) == {"would be removed"}
code, told = clean()
found = actions(told)
assert code == 0 and found.pop(folder) == "kept" and set(found.values()) == {"removed"}
assert names() == {folder}
"""
    )


@pytest.mark.parametrize("made", ["mkfifo(path)", "symlink('/etc/passwd', path)", "mkdir(path)"])
def test_what_is_no_manager_s_file(made):
    """It has the name of one, and nothing says that a manager lives."""
    inside(
        "path = '/dev/shm/snpmgr-0123456789abcdef.snp-manager'\nos." + made + """
(name,) = names()
for words in ([], ["--dry-run"]):
    code, told = clean(*words)
    assert code == 0 and told["items"] == [] and names() == {name}
is_folder = os.path.isdir(path) and not os.path.islink(path)
code, told = clean(name, "--force")
if is_folder:
    assert code == 5 and "it is a folder" in reason(told) and names() == {name}
else:
    assert code == 0 and actions(told) == {name: "removed"} and names() == set()
"""
    )


def test_names_and_exit_codes():
    inside(
        """
make("first"), make("second"), make("third")
code, told = clean("first", "--force", "shm://second", "none")
assert code == 3 and told["missing"] == ["none"]
assert actions(told) == {"first": "removed", "second": "removed"}
assert names() == {"third"}
# Younger than asked for is no error.
code, told = clean("third", "--older-than", "1h", "--force")
assert code == 0 and actions(told) == {"third": "kept"} and "ago" in reason(told)
# The same twice.
code, told = clean("--force", "third", "/dev/shm/third")
assert code == 0 and actions(told) == {"third": "removed"}
name = dead_arena()
code, told = clean("--older-than", "1h")
assert code == 0 and told["items"] == [] and name in names()
age(name, 7200)
code, told = clean("--older-than", "1h")
assert code == 0 and actions(told) == {name: "removed"} and names() == set()
"""
    )


def test_what_people_read():
    inside(
        """
name = dead_arena()
def run(*words):
    process = subprocess.run(COMMAND + ["clean"] + list(words), stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, universal_newlines=True)
    return process.returncode, process.stdout.splitlines(), process.stderr
code, lines, errors = run("--dry-run")
assert (code, errors) == (0, "") and lines[1].split()[:2] == [name, "arena"]
assert lines[1].endswith("would be removed")
assert lines[2].startswith("1 would be removed, ") and lines[2].endswith(" would come back")
code, lines, errors = run(name, "none")
assert code == 3 and errors == "shared-numpy: there is nothing of the name none\\n"
assert lines[1].endswith("  removed") and re.match(r"1 removed, [0-9.]+ [KM]iB came back$", lines[2])
assert run() == (0, ["0 removed, 0 B came back"], "")
"""
    )


def test_nobody_has_to_read_it():
    inside(
        """
made = {dead_arena() for _ in range(3)}
reader, writer = os.pipe()
os.close(reader)
process = subprocess.run(COMMAND + ["clean"], stdout=writer, stderr=subprocess.PIPE)
assert (process.returncode, process.stderr) == (0, b"")
assert names() == set()
"""
    )


def test_a_setting_that_cannot_be_used():
    process = shared_numpy("clean", env=dict(os.environ, SHARED_NUMPY_DIR="/proc"))
    assert (process.returncode, process.stdout) == (4, "")
    assert "SHARED_NUMPY_DIR" in process.stderr


def test_the_folder_of_the_environment():
    inside(
        """
os.mkdir(SHM + "mine")
environment = dict(os.environ, SHARED_NUMPY_DIR=SHM + "mine")
os.environ["SHARED_NUMPY_DIR"] = SHM + "mine"
program = Program("a = snp.ones(100000); b = snp.create('b', 3); print(snp.Arena.default().name, flush=True)")
(name,) = program.said
program.kill()
folder, plain = os.path.split(name)
assert folder == SHM + "mine" and sorted(os.listdir(folder)) == sorted([plain, plain + LOCK, "b"])
code, told = clean()
assert code == 0 and os.listdir(folder) == ["b"]
code, told = clean("b", "--force")
assert code == 0 and os.listdir(folder) == []
"""
    )


def test_a_name_means_what_info_shows():
    """The folder of the environment comes first, also for ``clean``; a path means itself."""
    inside(
        """
os.mkdir(SHM + "mine")
os.environ["SHARED_NUMPY_DIR"] = SHM + "mine"
def there():
    return [where for where in ("weights", "mine/weights") if os.path.exists(SHM + where)]
def info(name):
    return json.loads(subprocess.check_output(COMMAND + ["info", "--json", name]).decode())["path"]
for word, goes in (
    ("weights", "mine/weights"), ("shm://weights", "mine/weights"), (SHM + "weights", "weights"),
    (SHM + "mine/weights", "mine/weights"), (SHM + "mine/../mine/weights", "mine/weights"),
):
    make("weights"), make("mine/weights")
    assert info(word) == SHM + goes, (word, info(word))
    process = subprocess.run(COMMAND + ["clean", "--force", word], stdout=subprocess.DEVNULL)
    assert process.returncode == 0
    assert there() == [where for where in ("weights", "mine/weights") if where != goes], word
"""
    )


def test_the_name_of_a_lock_file_that_is_not_there_means_nothing_else():
    inside(
        """
make("x")
make(LOCK, b"")
code, told = clean("x" + LOCK, "--force")
assert code == 3 and told["items"] == [] and names() == {"x", LOCK}
code, told = clean("", "--force")
assert code == 3 and names() == {"x", LOCK}
code, told = clean(LOCK, "--force")
assert code == 0 and names() == {"x"}
name = dead_arena()
os.unlink(SHM + name)
age(name)
code, told = clean(name + LOCK, "--force")
assert code == 0 and names() == {"x"}
"""
    )


@pytest.mark.parametrize(
    "text, wanted", [("90", 90), ("1.5h", 5400), ("15m", 900), ("7 d", 604800), ("0", 0), ("2w", 1209600)]
)
def test_durations(text, wanted):
    assert clean.seconds(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "h", "-3", "nan", "inf", "1e9", "5y", "1h30m", "999999999d", "9" * 400, "٣s"]
)
def test_absurd_durations_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        clean.seconds(text)
    process = shared_numpy("clean", "--older-than=" + text)
    assert process.returncode == 2 and "--older-than" in process.stderr
    assert "Traceback" not in process.stderr


@other_users
def test_other_users():
    inside(
        """
# (The interpreter may lie where that user cannot read: so it starts as root, and imports all.)
imports = "import shared_numpy as snp, numpy, shared_numpy._core, shared_numpy.arrays"
code = "import os, sys, time\\n" + imports + "\\n"
code += "import multiprocessing.managers, shared_numpy.resource_tracker, shared_numpy.named\\n"
# The same holds for the tracker that the first arena starts.
code += "shared_numpy.resource_tracker.ensure_running()\\n"
code += "os.setgid(4711); os.setuid(4711)\\n" + ARENA
program = Program(code)
(name,) = program.said
assert os.stat(SHM + name).st_uid == 4711
before = names()
code, told = clean(name, "--force")
assert code == 5 and names() == before
program.kill()
# It is no orphan of root's, and root is told whose it is, and how it goes.
process = subprocess.run(COMMAND + ["clean"], stdout=subprocess.PIPE, universal_newlines=True)
assert process.returncode == 0 and names() == before
assert "4711" in process.stdout and "by name" in " ".join(process.stdout.split())
# Another user can do nothing.
mine = dead_arena()
code = "import os, sys\\n" + imports + "\\nimport shared_numpy._command.clean, runpy, json, pwd\\n"
code += "import shared_numpy._command.main as main\\nos.setgid(4712); os.setuid(4712)\\n"
code += "sys.exit(main.main(['clean', '--force', %r, %r]))" % (name, mine)
process = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, universal_newlines=True)
assert process.returncode == 6 and names() >= before, process
assert "it belongs to user 4711" in process.stdout and "it belongs to user 0" in process.stdout
code, told = clean(name, mine)
assert code == 0 and names() == set(), told
"""
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces of processes")
def test_two_namespaces_of_processes_on_one_folder():
    """As two containers with one /dev/shm: each sees its own processes only."""
    inside(
        """
apart = ["unshare", "-p", "-f", "--mount-proc", "--kill-child"]
if subprocess.call(apart + ["true"], stderr=subprocess.DEVNULL):
    print("no namespaces of processes")
    sys.exit()
there, here = Program(ARENA, apart), Program(ARENA)
segments = Program(
    "from shared_numpy.shared_memory import SharedMemory\\n"
    "shm = SharedMemory('theirs', create=True, size=10000, track=False); print(0, flush=True)", apart
)
before = names()
def clean_there(*words):
    global COMMAND
    usual, COMMAND = COMMAND, apart + COMMAND
    try:
        return clean(*words)
    finally:
        COMMAND = usual
for cleaning in (clean, clean_there):
    code, told = cleaning()
    assert code == 0 and names() == before
    for name in there.said + here.said:
        age(name, 3600)
        code, told = cleaning(name, "--force")
        assert code == 5 and names() == before, told
# What is not seen to be in use, and may be, needs force.
code, told = clean_there("theirs")
assert code == 5 and "--force" in reason(told) and names() == before
there.kill()
segments.kill()
code, told = clean_there()
assert code == 0 and actions(told) == dict.fromkeys(there.said, "removed")
here.kill()
code, told = clean_there()
assert code == 0 and actions(told) == dict.fromkeys(here.said, "removed")
code, told = clean("theirs", "--force")
assert code == 0 and names() == set()
"""
    )


STORM = """
import multiprocessing, os, signal, sys, time
import numpy as np
import shared_numpy as snp

def work(queue, back):
    while True:
        array = queue.get()
        assert (array == array[0]).all()
        back.put(array + 1)

if __name__ == "__main__":
    queue, back = snp.Queue(), snp.Queue()
    process = multiprocessing.Process(target=work, args=(queue, back), daemon=True)
    process.start()
    print(process.pid, flush=True)
    # Until it is killed: or it fails, if its memory is taken from it.
    for number in range(10**9):
        kept = snp.full(20000, number)
        queue.put(kept)
        answer = back.get(timeout=60)
        assert (answer == number + 1).all() and (kept == number).all()
        assert os.path.exists("/dev/shm/" + snp.Arena.default().name)
"""


@pytest.mark.slow
def test_beside_a_storm_of_kills_and_programs_that_start(tmp_path):
    """No program that lives loses anything, and in the end nothing is left."""
    (tmp_path / "program.py").write_text(STORM)
    inside(
        """
script, seconds, seed = sys.argv[1], float(sys.argv[2]), sys.argv[3]
chance = random.Random(seed)
programs, killed = [], 0
def start():
    program = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, start_new_session=True)
    programs.append(program)
def end(program):
    global killed
    assert program.poll() is None, program.communicate()
    os.killpg(program.pid, signal.SIGKILL)
    output, errors = program.communicate()
    assert b"Traceback" not in errors, errors
    killed += 1
    programs.remove(program)
cleaned = 0
deadline = time.monotonic() + seconds
while time.monotonic() < deadline or not cleaned:
    while len(programs) < 3:
        start()
    victim = chance.choice(programs)
    if chance.random() < 0.7:
        # In the middle of its work: or at any moment of its start.
        assert victim.stdout.readline()
    time.sleep(chance.random() * 0.1)
    end(victim)
    # (Programs that start clean, too: mostly this one is the first.)
    if chance.random() < 0.2:
        start()
    words = chance.choice([[], [], ["--force"] + sorted(names())])
    code, told = clean(*words)
    cleaned += list(actions(told).values()).count("removed")
    assert code in (0, 3, 5), told
for program in list(programs):
    end(program)
code, told = clean()
# (What was being made when its maker was killed is too young.)
for name in names():
    age(name.replace(LOCK, ""))
clean()
# (And a handle that was made when its sender was killed waits for a receiver.)
code, told = clean("--dry-run")
waiting = [each["name"] for each in told["items"] if "waits for a receiver" in each["reason"]]
if waiting:
    clean(*waiting)
assert names() == set(), (names(), told)
print(killed, "killed", cleaned, "cleaned")
""",
        str(tmp_path / "program.py"),
        str(6 * MORE),
        os.environ.get("SNP_SEED", "1"),
    )
