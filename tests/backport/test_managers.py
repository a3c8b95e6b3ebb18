"""`SharedMemoryManager` on every version.

Properties: blocks live until the manager ends and not longer, whoever made them;
misuse gets 3.8's errors; Ctrl-C does not end the server. What is left where program and
server were killed together goes with the next program; what a living manager has made, and
what was made by name, does not.
"""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import (
    complete,
    eventually,
    exists,
    is_running,
    needs_arenas,
    run_command,
    run_python,
)
from interpreters import find

from shared_numpy.managers import SharedMemoryManager, SharedMemoryServer
from shared_numpy.shared_memory import ShareableList, SharedMemory

METHODS = ["fork", "spawn", "forkserver"]


def test_blocks_go_with_the_manager():
    with SharedMemoryManager() as manager:
        shm = manager.SharedMemory(size=100)
        sl = manager.ShareableList([1, "two", None])
        assert type(shm) is SharedMemory and type(sl) is ShareableList
        assert shm.size == 100 and list(sl) == [1, "two", None]
        shm.buf[0] = 3
        names = [shm.name, sl.shm.name]
        assert all(map(exists, names))
        assert shm.buf[0] == 3
    assert not any(map(exists, names))
    assert shm.buf[0] == 3  # Its user still has it mapped.
    shm.close()
    sl.shm.close()


def test_blocks_that_their_user_unlinked_are_no_problem():
    with SharedMemoryManager() as manager:
        shm = manager.SharedMemory(10)
        shm.close()
        shm.unlink()
        other = manager.SharedMemory(10)
        other.close()
    assert not exists(other.name)


def test_a_broken_block_does_not_keep_the_others():
    manager = SharedMemoryManager()
    manager.start()
    blocks = [manager.SharedMemory(10) for _ in range(3)]
    os.truncate("/dev/shm/" + blocks[2].name, 0)
    manager.shutdown()
    assert manager._process.exitcode == 0
    assert not any(exists(shm.name) for shm in blocks)
    for shm in blocks:
        shm.close()


def test_failures_make_nothing(monkeypatch):
    from shared_numpy import managers, shared_memory

    with SharedMemoryManager() as manager:
        for call, error in [
            (lambda: manager.SharedMemory(0), ValueError),
            (lambda: manager.SharedMemory(-1), ValueError),
            (lambda: manager.SharedMemory("x"), TypeError),
            (lambda: manager.ShareableList([[]]), KeyError),
        ]:
            with pytest.raises(error):
                call()

        def fail(*arguments):
            raise OSError("the server is gone")

        monkeypatch.setattr(managers, "dispatch", fail)
        names = manager._new_name
        made = []
        monkeypatch.setattr(manager, "_new_name", lambda: made.append(names()) or made[-1])
        with pytest.raises(OSError):
            manager.SharedMemory(10)
        with pytest.raises(OSError):
            manager.ShareableList([1])
        assert len(made) == 2 and not any(map(exists, made))
        monkeypatch.undo()


# The same rows are run on 3.8's own class: (what is done, error, its text).
MISUSE = """
import itertools
import multiprocessing
results = []
def row(call):
    try:
        call()
    except Exception as error:
        results.append((type(error).__name__, str(error)))
    else:
        results.append(None)
manager = SharedMemoryManager()
row(lambda: manager.SharedMemory(10))
row(lambda: manager.ShareableList([1]))
manager.start()
row(manager.start)
row(manager.get_server)
manager.shutdown()
row(manager.start)
row(manager.get_server)
row(manager.__enter__)
other = SharedMemoryManager()
row(other.__enter__)
row(other.__enter__)
other.shutdown()
server = SharedMemoryManager().get_server()
results.append(type(server).__name__)
server.listener.close()
print(results)
"""


def test_misuse_is_told_as_in_38():
    theirs = sys.executable if sys.version_info >= (3, 8) else find(8)
    if theirs is None:
        pytest.skip("no CPython 3.8 to compare with")
    ours = run_python("from shared_numpy.managers import SharedMemoryManager" + MISUSE)
    code = "from multiprocessing.managers import SharedMemoryManager" + MISUSE
    expected = run_command([theirs, "-c", code]).stdout
    assert "ProcessError" in expected and "ValueError" in expected
    assert ours == expected


def test_the_server_survives_ctrl_c():
    manager = SharedMemoryManager()
    manager.start()
    shm = manager.SharedMemory(10)
    os.kill(manager._process.pid, signal.SIGINT)
    time.sleep(0.2)
    other = manager.SharedMemory(10)
    manager.shutdown()
    for each in (shm, other):
        assert not exists(each.name)
        each.close()


def test_ctrl_c_in_the_terminal_loses_nothing():
    """SIGINT goes to the whole process group; the parent ends by it."""
    code = """
import sys, time
from shared_numpy.managers import SharedMemoryManager
try:
    with SharedMemoryManager() as manager:
        shm = manager.SharedMemory(10)
        print(shm.name, flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        start_new_session=True,
    )
    name = process.stdout.readline().strip()
    assert exists(name)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = complete(process)
    assert (output, errors) == ("interrupted\n", "")
    assert not exists(name)


class Counter:
    """A registered type: it lives in the server."""

    def __init__(self, start=0, step=1):
        self.value, self.step = start, step

    def add(self):
        self.value += self.step
        return self.value


class Manager(SharedMemoryManager):
    pass


Manager.register("Counter", Counter)


def test_registered_types_work():
    with Manager() as manager:
        counter = manager.Counter(5, step=2)
        assert [counter.add(), counter.add()] == [7, 9]
        shm = manager.SharedMemory(10)
        shm.close()
    assert not exists(shm.name)


def by_inheritance(manager, connection):
    shm = manager.SharedMemory(10)
    shm.buf[0] = 11
    connection.send(shm.name)
    shm.close()


def by_connecting(address, connection):
    manager = Manager(address)
    manager.connect()
    shm = manager.SharedMemory(10)
    shm.buf[0] = 11
    connection.send(shm.name)
    connection.send(manager.Counter(1).add())
    shm.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["by_inheritance", "by_connecting"])
def test_children_use_it(method, how):
    context = multiprocessing.get_context(method)
    with Manager(ctx=context) as manager:
        reader, writer = context.Pipe(duplex=False)
        if how == "by_inheritance":
            target, argument = by_inheritance, manager
        else:
            target, argument = by_connecting, manager.address
        child = context.Process(target=target, args=(argument, writer))
        child.start()
        name = reader.recv()
        child.join()
        assert child.exitcode == 0
        shm = SharedMemory(name)
        assert shm.buf[0] == 11
        shm.close()
        if how == "by_connecting":
            assert reader.recv() == 2
    assert not exists(name)


def test_segments_are_listed_and_released():
    """What the server offers beside, called as the manager itself does."""
    from multiprocessing.managers import RemoteError, dispatch

    with SharedMemoryManager() as manager:
        one, two = manager.SharedMemory(10), manager.SharedMemory(10)
        with manager._connection() as connection:
            assert dispatch(connection, None, "list_segments") == [one.name, two.name]
        with manager._connection() as connection:
            dispatch(connection, None, "release_segment", (one.name,))
        assert not exists(one.name) and exists(two.name)
        with manager._connection() as connection:
            assert dispatch(connection, None, "list_segments") == [two.name]
        with manager._connection() as connection, pytest.raises(RemoteError) as raised:
            dispatch(connection, None, "release_segment", (one.name,))
        assert "ValueError: this manager has no block " + repr(one.name) in str(raised.value)
        one.close()
        two.close()
    assert not exists(two.name)


def test_the_server_class():
    assert SharedMemoryManager._Server is SharedMemoryServer
    assert {"track_segment", "release_segment", "list_segments"} <= set(
        SharedMemoryServer.public
    )


# The server is killed; before, `end` is done.
KILLED_SERVER = """
import os, signal
from shared_numpy.managers import SharedMemoryManager
manager = SharedMemoryManager()
manager.start()
shm = manager.SharedMemory(10)
print(shm.name)
shm.close()
{end}
os.kill(manager._process.pid, signal.SIGKILL)
manager._process.join()
"""


def test_a_killed_server_leaves_nothing_at_the_end():
    process = run_command([sys.executable, "-c", KILLED_SERVER.format(end="")])
    assert process.returncode == 0
    assert "1 leaked shared_memory objects" in process.stderr
    assert not exists(process.stdout.strip())


KILLED = """
import multiprocessing, os, sys, time
import shared_numpy as snp

method, kind, how, log = sys.argv[1:]

def work(manager, parent, log, connection):
    connection.send(os.getpid())
    while os.getppid() == parent:
        time.sleep(0.01)
    use(manager, log)

def use(manager, log):
    manager.connect()
    manager.SharedMemory(10)
    with open(log, "a") as file:
        file.write("used\\n")
    time.sleep(600)

if __name__ == "__main__":
    context = multiprocessing.get_context(method)
    manager = getattr(snp, kind)(ctx=context)
    manager.start()
    if kind == "ArrayManager":
        manager.zeros(10)
        name = manager.list()[0].name[len("shm://"):]
    else:
        shm = manager.SharedMemory(10)
        name = shm.name
    child = 0
    if how == "a child lives":
        reader, writer = context.Pipe(duplex=False)
        arguments = manager, os.getpid(), log, writer
        context.Process(target=work, args=arguments, daemon=True).start()
        child = reader.recv()
    elif how == "a daemon":
        server = manager._process.pid
        if os.fork():
            os._exit(0)
        os.setsid()
        os.closerange(0, 256)
        os.open(log, os.O_RDWR | os.O_CREAT)
        os.dup2(0, 1)
        os.dup2(0, 2)
        print(server, os.getpid(), name, flush=True)
        use(manager, log)
    print(manager._process.pid, child, name, flush=True)
    time.sleep(600)
"""


def start_to_kill(folder, *arguments, **options):
    """Start a program with a manager; return its process, and what it prints."""
    script, log = folder / "script.py", folder / "log"
    script.write_text(KILLED)
    with (folder / "said").open("w") as errors:
        program = [sys.executable, str(script)] + list(arguments) + [str(log)]
        process = subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=errors, universal_newlines=True, **options
        )
    if arguments[-1] == "a daemon":
        assert process.wait(60) == 0
        eventually(lambda: log.exists() and log.read_text().endswith("\n"))
        words = log.read_text().split("\n")[0].split()
    else:
        words = process.stdout.readline().split()
    process.stdout.close()
    return process, int(words[0]), int(words[1]), words[2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind", ["SharedMemoryManager", pytest.param("ArrayManager", marks=needs_arenas)]
)
def test_the_server_of_a_killed_program_ends(tmp_path, method, kind):
    process, server, _, segment = start_to_kill(tmp_path, method, kind, "nothing more")
    assert is_running(server) and exists(segment)
    process.kill()
    process.wait()
    eventually(lambda: not is_running(server) and not exists(segment))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_that_has_the_manager_keeps_the_server(tmp_path, method):
    arguments = method, "SharedMemoryManager", "a child lives"
    process, server, child, segment = start_to_kill(tmp_path, *arguments)
    process.kill()
    process.wait()
    log = tmp_path / "log"
    eventually(lambda: log.exists() and log.read_text().endswith("used\n"))
    assert is_running(server) and exists(segment)
    os.kill(child, signal.SIGKILL)
    eventually(lambda: not is_running(server) and not exists(segment))


def test_a_daemon_keeps_the_server(tmp_path):
    """It has closed all its descriptors."""
    arguments = "fork", "SharedMemoryManager", "a daemon"
    process, server, daemon, segment = start_to_kill(tmp_path, *arguments)
    eventually(lambda: (tmp_path / "log").read_text().endswith("used\n"))
    assert is_running(server) and exists(segment)
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not is_running(server) and not exists(segment))


def file_of(segment):
    """Return the name of the file on which the manager's program holds a lock."""
    return segment.rpartition("-")[0] + ".snp-manager"


# What a program may begin with, each alone.
FIRST = {
    "a segment": "from shared_numpy.shared_memory import SharedMemory as Made\n"
    "made = Made(create=True, size=10); made.close(); made.unlink()",
    "a manager": "from shared_numpy.managers import SharedMemoryManager as Made\n"
    "if __name__ == '__main__':\n    Made().__enter__().shutdown()",
    "an array": "import shared_numpy as snp\nmade = snp.zeros(3)",
    "a named array": "import shared_numpy as snp, sys\n"
    "snp.create(sys.argv[1], 3); snp.delete(sys.argv[1])",
    "cleaning": "from shared_numpy import _core\n_core.clean()",
}


@pytest.mark.parametrize(
    "first",
    ["a segment", "a manager"]
    + [
        pytest.param(each, marks=needs_arenas)
        for each in ("an array", "a named array", "cleaning")
    ],
)
@pytest.mark.parametrize(
    "kind", ["SharedMemoryManager", pytest.param("ArrayManager", marks=needs_arenas)]
)
def test_what_is_left_of_a_killed_program_and_its_server_goes_with_the_next(
    tmp_path, new_name, first, kind
):
    arguments = tmp_path, "fork", kind, "nothing more"
    process, server, _, segment = start_to_kill(*arguments, start_new_session=True)
    file = file_of(segment)
    assert exists(segment) and exists(file)
    try:
        # While it lives, all stays.
        run_python(FIRST[first], new_name())
        assert exists(segment) and exists(file)
    finally:
        # With it go the server and the resource tracker.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    eventually(lambda: not is_running(server))
    run_python(FIRST[first], new_name())
    # (Another program may just be at it, or have done it.)
    eventually(lambda: not exists(segment) and not exists(file))


@needs_arenas
def test_named_arrays_stay_when_all_are_killed(new_name):
    import shared_numpy as snp

    names = [new_name(), "snpmgr-" + new_name(), "snpmgr-%016x-%s" % (1, new_name())]
    code = """
import os, signal, sys
import shared_numpy as snp

for name in sys.argv[1:]:
    snp.create(name, 10)
os.killpg(0, signal.SIGKILL)
"""
    command = [sys.executable, "-c", code] + names
    assert run_command(command, start_new_session=True).returncode == -signal.SIGKILL
    try:
        for first in FIRST.values():
            run_python(first, new_name())
        assert all(map(exists, names))
    finally:
        for name in names:
            snp.delete(name)


def test_files_that_no_manager_has_made_are_left(new_name):
    """And names that a manager's file could have keep nothing from being swept."""
    number = new_name()
    folder, link = ["/dev/shm/snpmgr-%s%d.snp-manager" % (number, n) for n in range(2)]
    os.mkdir(folder)
    os.symlink("/dev/shm/" + number, link)
    kept = "/dev/shm/snpmgr-%s0-kept" % number
    open(kept, "w").close()
    try:
        run_python(FIRST["a segment"])
        assert os.path.isdir(folder) and os.path.islink(link) and os.path.exists(kept)
    finally:
        os.rmdir(folder)
        os.remove(link)
        os.remove(kept)


WITHOUT_DESCRIPTORS = """
import os, resource, subprocess, sys
from shared_numpy._system import leftovers
leftovers._FOLDER = sys.argv[1]
leftovers.clean()  # imports what it needs
files = [os.path.join(sys.argv[1], "snpmgr-0" + end) for end in (".snp-manager", "-1", "-2")]
for file in files:
    open(file, "w").close()
user = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
user = subprocess.Popen(
    [sys.executable, "-c", user, files[1]],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
assert user.stdout.readline() == b"\\n"
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

def clean_with_ever_more_descriptors():
    taken, steps = [], 0
    while True:
        try:
            taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    while taken and all(map(os.path.exists, files)):
        os.close(taken.pop())
        steps += 1
        removed = leftovers.clean()
        left = list(map(os.path.exists, files))
        assert len(removed) == 2 and not any(left) or not removed and all(left), (left, removed)
    for fd in taken:
        os.close(fd)
    return steps

assert clean_with_ever_more_descriptors() > 20
user.communicate()
assert 1 < clean_with_ever_more_descriptors() < 20
"""


def test_a_manager_is_cleaned_as_a_whole_or_not_at_all(tmp_path):
    """Also where there are hardly any descriptors to look at the blocks and their users."""
    run_python(WITHOUT_DESCRIPTORS, str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


def test_a_managers_file_goes_with_it():
    with SharedMemoryManager() as manager:
        shm = manager.SharedMemory(10)
        assert exists(file_of(shm.name))
        shm.close()
    assert not exists(shm.name) and not exists(file_of(shm.name))


def test_a_managers_file_goes_though_its_server_was_killed():
    code = KILLED_SERVER.format(end="shm.unlink()")
    assert not exists(file_of(run_python(code).strip()))
