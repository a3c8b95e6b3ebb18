"""One tracker serves a process tree, and removes what the tree leaves.

Properties, under fork, spawn and forkserver:

* All processes of a tree use one tracker, on 3.6 and 3.7 also those below a
  process that never uses the package.
* What one process makes is not removed because that process ends.
* After an orderly end nothing is said on stderr and nothing is left.
* After SIGKILL of all processes but the tracker, nothing is left shortly after.
* A killed tracker is replaced.

The programs are in `tree_programs.py`. On 3.8 and later the tracker is the
standard library's, which forked children start for themselves if none runs:
there the programs start it first.
"""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import (
    ROOT,
    complete,
    eventually,
    exists,
    is_running,
    needs_arenas,
    run_command,
    run_python,
    run_script,
)

from shared_numpy import _core, resource_tracker

PROGRAMS = os.path.join(ROOT, "tests", "tree_programs.py")
METHODS = ["fork", "spawn", "forkserver"]
OURS = sys.version_info < (3, 8)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def prefix(new_name):
    return new_name() + "_"


def command(program, method, prefix):
    return [sys.executable, PROGRAMS, program, method, prefix]


def run(program, method, prefix):
    """Run a program to its end; return what it printed, and stderr."""
    process = run_command(command(program, method, prefix))
    left = [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]
    for name in left:
        os.unlink("/dev/shm/" + name)
    assert process.returncode == 0, process
    assert left == []
    return process.stdout.split(), process.stderr


@pytest.mark.parametrize(
    "program, expected",
    [
        ("attach", ["6"]),
        ("child_makes", ["42", "42"]),
        ("nested", ["1"]),
        ("pool", ["True"]),
        ("executor", ["True"]),
        ("semaphores", ["done"]),
        ("list", ["2"]),
        ("kill_child", ["kept"]),
    ],
)
def test_tree(program, expected, method, prefix):
    assert run(program, method, prefix) == (expected, "")


def test_what_is_left_is_removed(method, prefix):
    untracked = prefix + "b"
    errors = run_command(command("leak", method, prefix)).stderr
    try:
        assert not exists(prefix + "a")
        assert exists(untracked)
        assert "There appear to be 1 leaked shared_memory objects" in errors
        assert "Errno" not in errors and "Traceback" not in errors
    finally:
        os.unlink("/dev/shm/" + untracked)


def start(program, method, prefix, lines):
    """Start a program; return its process and the lines that it prints first."""
    process = subprocess.Popen(
        command(program, method, prefix),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    return process, [process.stdout.readline() for _ in range(lines)]


def kill(process, pids):
    """Kill a tree; its fork server, if any, ends with it."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def disappear(names, seconds=10):
    """Wait for segments to go; return those that stay."""
    end = time.monotonic() + seconds
    while any(map(exists, names)) and time.monotonic() < end:
        time.sleep(0.005)
    return [name for name in names if exists(name)]


def test_kill_of_the_whole_tree(method, prefix):
    process, (pids, names) = start("kill_tree", method, prefix, 2)
    names = names.split()
    assert all(map(exists, names))
    kill(process, map(int, pids.split()))
    assert disappear(names) == []
    # The tracker holds stderr; it ends when it has said what it did.
    errors = complete(process)[1]
    assert "There appear to be 7 leaked shared_memory objects" in errors
    assert "Traceback" not in errors


def test_kill_of_the_parent_alone(method, prefix):
    """The children go on with what they have; the last one's end cleans up."""
    process, (pids, names) = start("kill_tree", method, prefix, 2)
    pids, names = list(map(int, pids.split())), names.split()
    kill(process, pids[:1])
    time.sleep(0.3)
    if method != "forkserver":  # Its children end with their client.
        assert all(map(exists, names))
    for pid in pids[1:]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    assert disappear(names) == []
    complete(process)


def test_kill_between_making_and_registering(method, prefix):
    """Kill trees in the middle of making segments, at random moments."""
    random.seed(method)
    rounds = 8
    for _ in range(rounds):
        process, (pids,) = start("churn", method, prefix, 1)
        time.sleep(random.uniform(0.01, 0.1))
        kill(process, map(int, pids.split()))
        errors = complete(process)[1]
        assert "Traceback" not in errors
        left = [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]
        assert disappear(left) == []


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="3.14's own tracker loses the message that starts it"
)
@pytest.mark.parametrize("method", METHODS)
def test_killed_tracker(method, prefix):
    output, errors = run("kill_tracker", method, prefix)
    assert output == ["1", "True"]
    assert "Traceback" not in errors


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_the_tracker_ignores_signals(interrupt, prefix):
    run_python(
        """
import os, sys, time, warnings
from shared_numpy import resource_tracker
from shared_numpy.shared_memory import SharedMemory
warnings.simplefilter("error")
resource_tracker.ensure_running()
pid = resource_tracker._resource_tracker._pid
os.kill(pid, int(sys.argv[1]))  # At once: it may not even have started.
time.sleep(0.2)
shm = SharedMemory(sys.argv[2] + "a", create=True, size=1)
shm.close()
shm.unlink()
assert resource_tracker._resource_tracker._pid == pid
""",
        str(int(interrupt)),
        prefix,
    )


def test_eight_writers():
    """Messages of processes that write at once arrive whole."""
    run_python(
        """
import os
from shared_numpy import resource_tracker
resource_tracker.ensure_running()
children = []
for writer in range(8):
    pid = os.fork()
    if pid == 0:
        for number in range(3000):
            name = "/%d_%d_%s" % (writer, number, "x" * (number % 200))
            resource_tracker.register(name, "shared_memory")
            resource_tracker.unregister(name, "shared_memory")
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
assert resource_tracker._resource_tracker._check_alive()
"""
    )


@pytest.mark.parametrize("name", ["/a:b", "/a\nb", "/a\0b", "/\u00e9", "/a\udc80"])
@pytest.mark.skipif(
    resource_tracker._ANY_NAME, reason="this version's tracker carries any name"
)
def test_names_that_break_the_protocol_are_refused(name):
    for send in (resource_tracker.register, resource_tracker.unregister):
        with pytest.raises(ValueError):
            send(name, "shared_memory")


def test_too_long_names_are_refused():
    with pytest.raises(ValueError):
        resource_tracker.register("/" + "x" * 600, "shared_memory")


MODULE_LEVEL = """
import multiprocessing, sys
from shared_numpy.shared_memory import SharedMemory
if __name__ == "__mp_main__":
    # A spawned child imports this file anew, before it runs the target.
    attached = SharedMemory(sys.argv[2])
def target():
    attached.buf[0] = 7
    attached.close()
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    shm = SharedMemory(sys.argv[2], create=True, size=10)
    process = multiprocessing.Process(target=target)
    process.start()
    process.join()
    print(shm.buf[0], process.exitcode)
    shm.close()
    shm.unlink()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_attaching_at_module_level(method, name, tmp_path):
    if method == "forkserver" and sys.version_info >= (3, 14):
        pytest.skip("3.14's fork server imports the main module with a tracker of its own")
    process = run_script(tmp_path, MODULE_LEVEL, method, name)
    assert process.stderr == ""
    assert process.stdout.split() == ["7", "0"]


LATE = """
import multiprocessing, sys, time
method, name = sys.argv[1:3]

def early(connection):
    # Started before the parent knew the package.
    from shared_numpy.shared_memory import SharedMemory
    connection.recv()
    shm = SharedMemory(name, track=False)
    shm.buf[0] = 1
    shm.close()

def later():
    from shared_numpy.shared_memory import SharedMemory
    shm = SharedMemory(name)
    shm.buf[1] = 2
    shm.close()

if __name__ == "__main__":
    multiprocessing.set_start_method(method)
    lock = multiprocessing.Lock()  # Has the standard library's tracker started.
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.Process(target=early, args=(receiver,))
    child.start()
    from shared_numpy.shared_memory import SharedMemory
    shm = SharedMemory(name, create=True, size=10)
    sender.send("go")
    child.join()
    other = multiprocessing.Process(target=later)
    other.start()
    other.join()
    time.sleep(0.3)
    print(shm.buf[0], shm.buf[1], child.exitcode, other.exitcode)
    shm.close()
    shm.unlink()
    del lock
"""


def test_a_child_started_before_the_import(method, name, tmp_path):
    process = run_script(tmp_path, LATE, method, name)
    assert process.stderr == ""
    assert process.stdout.split() == ["1", "2", "0", "0"]


UNAWARE = """
import multiprocessing, os, sys, time
method, name = sys.argv[1:3]

def leaf(connection):
    from shared_numpy import resource_tracker
    from shared_numpy.shared_memory import SharedMemory
    SharedMemory(name, create=True, size=10).close()
    connection.send(os.fstat(resource_tracker.getfd()).st_ino)

def middle(depth, connection):
    # Knows nothing of the package, but uses a tracker.
    lock = multiprocessing.Lock()
    with lock:
        pass
    target, args = (middle, (depth - 1, connection)) if depth else (leaf, (connection,))
    child = multiprocessing.Process(target=target, args=args)
    child.start()
    child.join()
    assert child.exitcode == 0

if __name__ == "__main__":
    multiprocessing.set_start_method(method)
    from shared_numpy import resource_tracker
    from shared_numpy.shared_memory import SharedMemory
    if sys.version_info >= (3, 8):
        resource_tracker.ensure_running()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.Process(target=middle, args=(2, sender))
    child.start()
    child.join()
    print(receiver.recv() == os.fstat(resource_tracker.getfd()).st_ino)
    time.sleep(0.3)
    shm = SharedMemory(name)
    shm.close()
    shm.unlink()
"""


def test_children_that_never_import_the_package(method, name, tmp_path):
    """They pass the tracker on to their own children."""
    process = run_script(tmp_path, UNAWARE, method, name)
    assert process.stderr == ""
    assert process.stdout.split() == ["True"]


NEVER = """
import multiprocessing, sys
method, name = sys.argv[1:3]

def make():
    from shared_numpy.shared_memory import SharedMemory
    SharedMemory(name, create=True, size=10).close()

if __name__ == "__main__":
    multiprocessing.set_start_method(method)
    child = multiprocessing.Process(target=make)
    child.start()
    child.join()
    print(child.exitcode)
"""


@pytest.mark.skipif(not OURS, reason="there the interpreter itself has the tracker")
def test_a_parent_that_never_imports(method, name, tmp_path):
    """The limit: the child's tracker is its own, and cleans up at its end."""
    process = run_script(tmp_path, NEVER, method, name)
    assert process.stdout.split() == ["0"]
    assert "leaked shared_memory objects" in process.stderr
    assert "Traceback" not in process.stderr
    assert disappear([name]) == []


# What programs do so that the tracker leaves segments of others alone, and what is
# seen of it with the standard library of 3.8 and later.
WORKAROUNDS = {
    "a subclass": """
class Untracked(SharedMemory):
    def __init__(self, *args, **kwargs):
        self._track = False
        super().__init__(*args, **kwargs)
Untracked(sys.argv[1], create=True, size=10)
""",
    "an attribute of the class": """
class Untracked(SharedMemory):
    _track = False
Untracked(sys.argv[1], create=True, size=10)
""",
    "unregister": """
from multiprocessing import resource_tracker
shm = SharedMemory(sys.argv[1], create=True, size=10)
resource_tracker.unregister(shm._name, "shared_memory")
""",
    "unregister after attaching": """
from multiprocessing import resource_tracker
SharedMemory(sys.argv[1], create=True, size=10, track=False)
shm = SharedMemory(sys.argv[1])
resource_tracker.unregister(shm._name, "shared_memory")
""",
    "patched functions": """
from multiprocessing import resource_tracker
real = resource_tracker.register
def register(name, rtype):
    if rtype != "shared_memory":
        return real(name, rtype)
resource_tracker.register = register
del resource_tracker._CLEANUP_FUNCS["shared_memory"]
SharedMemory(sys.argv[1], create=True, size=10)
""",
}


@pytest.mark.parametrize("how", sorted(WORKAROUNDS))
def test_what_others_do_against_the_tracker(how, name):
    try:
        run_python(
            "import os, sys\nfrom shared_numpy import backport\nbackport.install()\n"
            "from shared_numpy.shared_memory import SharedMemory\n" + WORKAROUNDS[how],
            name,
        )
        assert exists(name)
    finally:
        if exists(name):
            os.unlink("/dev/shm/" + name)


def test_a_patched_register_is_asked_for_automatic_names():
    """Nothing else tells the tracker of them."""
    run_python(
        """
import os
from shared_numpy import backport
backport.install()
from multiprocessing import resource_tracker
from shared_numpy.shared_memory import SharedMemory
resource_tracker.ensure_running()
asked = []
def register(name, rtype):
    asked.append((name, os.path.exists("/dev/shm" + name)))
resource_tracker.register = register
shm = SharedMemory(create=True, size=10)
assert asked == [(shm._name, False)], asked
os.unlink("/dev/shm" + shm._name)
"""
    )


def test_a_fork_while_another_thread_talks_to_the_tracker():
    """The lock that it holds is not the child's."""
    run_python(
        """
import os, signal, threading, warnings
from shared_numpy import resource_tracker
from shared_numpy.shared_memory import SharedMemory
warnings.simplefilter("ignore", DeprecationWarning)  # Of 3.12: it forks beside a thread.
resource_tracker.ensure_running()
tracker = resource_tracker._resource_tracker
parents = tracker._pid
held, done = threading.Event(), threading.Event()
def talk():
    with tracker._lock if hasattr(tracker, "_lock") else tracker._guard():
        held.set()
        done.wait()
thread = threading.Thread(target=talk)
thread.start()
held.wait()
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    shm = SharedMemory(create=True, size=10)
    shm.close()
    shm.unlink()
    os._exit(1 if tracker._pid == parents else 0)  # It may have one of its own.
status = os.waitpid(pid, 0)[1]
done.set()
thread.join()
assert status == 0, status
"""
    )


def test_a_forked_child_that_exits_says_nothing():
    """From 3.12.10 to 3.13.5 the interpreter waits for a tracker that is its own."""
    run_python(
        """
import os, sys
from shared_numpy import resource_tracker
resource_tracker.ensure_running()
pid = os.fork()
if pid == 0:
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    )


def test_a_daemon_that_closes_its_descriptors(name, tmp_path):
    """Neither the number nor the file that has it then is touched."""
    log = tmp_path / "log"
    run_python(
        """
import multiprocessing, os, sys, warnings
from shared_numpy import resource_tracker
from shared_numpy.shared_memory import SharedMemory
resource_tracker.ensure_running()
pid, fd = resource_tracker._resource_tracker._pid, resource_tracker.getfd()
os.closerange(3, 256)
logs = [os.open(sys.argv[2], os.O_RDWR | os.O_CREAT) for _ in range(5)]
assert fd in logs
warnings.simplefilter("error")
multiprocessing.Process()
shm = SharedMemory(sys.argv[1], create=True, size=10)
shm.close()
shm.unlink()
assert [os.fstat(fd).st_size for fd in logs] == [0] * 5
os.waitpid(pid, 0)
""",
        name,
        str(log),
    )


DAEMON = """
import os, sys, time
import shared_numpy as snp
from shared_numpy import resource_tracker
from shared_numpy._core import Arena

log, go, closes = sys.argv[1], sys.argv[2], sys.argv[3] == "closes"
array = snp.ones(1000)
tracker = resource_tracker._resource_tracker._pid
if os.fork():
    os._exit(0)
if closes:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 256)
else:
    os.closerange(0, 3)
os.open(log, os.O_RDWR | os.O_CREAT)
os.dup2(0, 1)
os.dup2(0, 2)
print(Arena.default().name, tracker, flush=True)
while not os.path.exists(go):
    time.sleep(0.01)
print(array.sum() + snp.ones(1000000).sum(), flush=True)
"""


@needs_arenas
@pytest.mark.parametrize("how", ["closes", "keeps"])
def test_a_daemon_keeps_its_arena(how, tmp_path):
    """Whether it closes all descriptors, or keeps them; and its end removes the arena."""
    log, go, said = tmp_path / "log", tmp_path / "go", tmp_path / "said"
    script = tmp_path / "script.py"
    script.write_text(DAEMON)
    names = []
    with said.open("w") as errors:
        # Not a pipe: the tracker has it as long as it runs.
        program = [sys.executable, str(script), str(log), str(go), how]
        process = subprocess.Popen(program, stderr=errors)
    try:
        assert process.wait(60) == 0
        eventually(lambda: log.exists() and log.read_text().endswith("\n"))
        arena, tracker = log.read_text().split()
        names = [arena, arena + _core.LOCK_SUFFIX]
        if how == "closes" or hasattr(resource_tracker.ResourceTracker, "_after_fork_in_child"):
            # No process has its channel.
            eventually(lambda: not is_running(tracker))
        assert all(map(exists, names))
    finally:
        go.write_text("")
    eventually(lambda: not any(map(exists, names)))
    assert log.read_text().split("\n")[1:] == ["1001000.0", ""]
    assert said.read_text() == ""


@needs_arenas
def test_a_program_that_executes_itself(tmp_path):
    """Its arena goes with the program before, on 3.6 and 3.7 without a word."""
    code = """
import os, sys
import shared_numpy as snp
from shared_numpy._core import Arena
array = snp.ones(1000)
os.write(1, Arena.default().name.encode() + b"\\n")
if len(sys.argv) < 3:
    os.execv(sys.executable, [sys.executable] + sys.argv + ["again"])
"""
    process = run_script(tmp_path, code, "first")
    assert process.returncode == 0
    first, second = process.stdout.split()
    assert first != second
    for arena in (first, second):
        assert not exists(arena) and not exists(arena + _core.LOCK_SUFFIX)
    if OURS:
        assert process.stderr == ""


@pytest.mark.skipif(not OURS, reason="3.8 and later have their own")
class TestTakeOver:
    """What the package changes in a process on 3.6 and 3.7."""

    def test_importing_starts_no_process_and_opens_nothing(self):
        run_python(
            """
import multiprocessing, os
before = sorted(os.listdir("/proc/self/fd"))
from shared_numpy import resource_tracker
assert sorted(os.listdir("/proc/self/fd")) == before
assert resource_tracker._resource_tracker._pid is None
assert not open("/proc/self/task/%d/children" % os.getpid()).read()
"""
        )

    def test_a_semaphore_goes_to_the_tracker_that_has_it(self):
        run_python(
            """
import multiprocessing
context = multiprocessing.get_context("spawn")
old = context.Lock()
from shared_numpy import resource_tracker
from shared_numpy._system import tracker_py37
new = context.Lock()
old_tracker = tracker_py37._semaphores.old
assert old_tracker._pid is not None
told = []
old_tracker.unregister = told.append
name = old._semlock.name
del old
assert told == [name], told
del new
assert told == [name]
type(old_tracker).unregister(old_tracker, name)
"""
        )

    def test_a_fork_while_another_thread_starts_the_tracker(self):
        run_python(
            """
import os
from shared_numpy import resource_tracker
tracker = resource_tracker._resource_tracker
with tracker._guard():  # As another thread would hold it.
    pid = os.fork()
    if pid == 0:
        tracker.ensure_running()
        os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
        )

    KEPT = """
import os, sys, time
from shared_numpy.shared_memory import SharedMemory
shm = SharedMemory(sys.argv[1], create=True, size=10)
time.sleep(0.5)
assert os.path.exists("/dev/shm/" + sys.argv[1])
shm.close()
shm.unlink()
"""

    def test_the_default_timeout_of_sockets_is_no_matter(self, name):
        run_python("import socket; socket.setdefaulttimeout(5)" + self.KEPT, name)

    @pytest.mark.parametrize("flags", [["-W", "error"], ["-E"], ["-I"], ["-S"]])
    def test_flags_of_the_interpreter(self, flags, name):
        site = os.path.dirname(os.path.dirname(resource_tracker.__file__))
        code = "import sys; sys.path.append({!r}); ".format(site)
        code += (
            "import os; from shared_numpy.shared_memory import SharedMemory; "
            "SharedMemory(sys.argv[1], create=True, size=9); os.kill(os.getpid(), 9)"
        )
        process = run_command([sys.executable] + flags + ["-c", code, name])
        assert "1 leaked" in process.stderr and "Traceback" not in process.stderr
        assert disappear([name]) == []

    @pytest.mark.parametrize("stream", [0, 2])
    def test_closed_standard_streams(self, stream):
        code = (
            "import os, sys; os.close({}); "
            "from shared_numpy.shared_memory import SharedMemory; "
            "shm = SharedMemory(create=True, size=9); "
            "os.write(1, shm.name.encode()); os.kill(os.getpid(), 9)"
        )
        process = run_command([sys.executable, "-c", code.format(stream)])
        assert disappear([process.stdout]) == []

    def test_the_tracker_is_known_to_frozen_programs(self):
        """PyInstaller tells by the first words of the last argument."""
        run_python(
            """
from shared_numpy import resource_tracker
from multiprocessing import util
seen = []
real = util.spawnv_passfds
util.spawnv_passfds = lambda path, args, fds: seen.append(args) or real(path, args, fds)
resource_tracker.ensure_running()
start = "from multiprocessing.semaphore_tracker import main"
assert seen[0][-2] == "-c" and seen[0][-1].startswith(start)
"""
        )

    def test_another_package_of_the_name_in_the_working_directory(self, name, tmp_path):
        (tmp_path / "shared_numpy").mkdir()
        (tmp_path / "shared_numpy" / "__init__.py").write_text("")
        (tmp_path / "elsewhere").mkdir()
        script = tmp_path / "elsewhere" / "script.py"
        script.write_text(self.KEPT)
        process = run_command([sys.executable, str(script), name], cwd=str(tmp_path))
        assert (process.returncode, process.stderr) == (0, "")

    def test_a_signal_handler_while_the_tracker_starts(self):
        run_python(
            """
import os, signal
from shared_numpy import resource_tracker
tracker = resource_tracker._resource_tracker
signal.signal(signal.SIGALRM, lambda *_: resource_tracker.ensure_running())
from multiprocessing import util
real = util.spawnv_passfds
def interrupted(*args):
    util.spawnv_passfds = real
    os.kill(os.getpid(), signal.SIGALRM)
    return real(*args)
util.spawnv_passfds = interrupted
resource_tracker.ensure_running()
assert tracker._check_alive()
tracker._stop()
assert tracker._exitcode == 0
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    pass
else:
    raise AssertionError("another tracker is left")
"""
        )

    def test_malformed_messages_are_survived(self):
        code = """
import os
from shared_numpy import resource_tracker
fd = resource_tracker.getfd()
for line in (b"\\n", b"NONSENSE\\n", b"REGISTER:/x:unknown\\n", b"\\xff:\\xff\\n", b"X:/y:semaphore\\n"):
    os.write(fd, line)
assert resource_tracker._resource_tracker._check_alive()
resource_tracker.register("/snptest_malformed", "dummy")
resource_tracker._resource_tracker._stop()
assert resource_tracker._resource_tracker._exitcode == 1
"""
        process = run_command([sys.executable, "-c", code])
        assert process.returncode == 0
        assert len(re.findall("^Traceback", process.stderr, re.MULTILINE)) == 5
        assert "1 leaked dummy objects" in process.stderr


def test_start_methods_are_complete():
    assert sorted(multiprocessing.get_all_start_methods()) == sorted(METHODS)
