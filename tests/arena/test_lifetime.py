"""Memory lives as long as something refers to it, and no longer.

What holds: an array can be read as long as one has it, whatever was closed, dropped or
ended before; a handle is good for one, and later for as long as somebody has what it
stands for; when a program ends, however it does, its arenas are gone and it has said
nothing.
"""

import gc
import os
import shutil
import subprocess
import sys
import threading
import weakref
from contextlib import suppress

import numpy as np
import pytest
from conftest import complete, exists, left_of, maker_of, names_now, other_users, run_command, run_python

import shared_numpy as snp
from shared_numpy._core import LOCK_SUFFIX, Arena, receive


def counts():
    gc.collect()
    Arena.default().reap()
    stats = Arena.default().stats()
    return stats["blocks"], stats["handles"]


@pytest.fixture(autouse=True)
def nothing_stays():
    before, descriptors = counts(), len(os.listdir("/proc/self/fd"))
    yield
    assert counts() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_view_outlives_all_it_came_through():
    q = snp.Queue()
    a = snp.array(np.arange(100.0))
    q.put({"deep": [a[10:20]]})
    view = q.get()["deep"][0]
    a.close()
    a.unlink()
    q.close()
    del a, q
    gc.collect()
    assert (view == np.arange(10, 20)).all()
    flat = view.base.base if view.base is not None else view
    del view
    gc.collect()
    assert flat is not None


def test_arrays_outlive_the_arena_s_object():
    arena = Arena.create()
    name = arena.name
    a = arena.empty(10)
    a[:] = 3
    view = a[::-1]
    arena.close()
    del arena, a
    gc.collect()
    assert (view == 3).all() and exists(name)
    del view
    gc.collect()
    assert not exists(name) and not exists(name + LOCK_SUFFIX)


def test_cycles_and_weak_references():
    class Node:
        pass

    gone = []
    for make in (lambda: snp.ones(3), lambda: snp.ones(3)[1:], lambda: snp.ones(3).view(Sub)):
        node = Node()
        node.array, node.me = make(), node
        if isinstance(node.array, Sub):
            node.array.node = node
        reference = weakref.ref(node.array, gone.append)
        assert reference() is node.array
        del node
        gc.collect()
        assert reference() is None
    assert len(gone) == 3


class Sub(snp.ndarray):
    pass


def test_threads_make_and_drop():
    def work(seed):
        rng = np.random.RandomState(seed)
        kept = []
        for _ in range(300):
            kept.append(snp.full(rng.randint(1, 3000), seed))
            if rng.randint(2):
                each = kept.pop(rng.randint(len(kept)))
                assert (each == seed).all()
                q.put(each)
                back = q.get()
                assert (back == back[0]).all()

    q = snp.SimpleQueue()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del q


START = """
import gc, multiprocessing, os, signal, sys, threading, time, weakref
import numpy as np
import shared_numpy as snp
from multiprocessing.reduction import ForkingPickler
from shared_numpy._core import Arena
"""

# What a program has when it ends.
ENDS = {
    "arrays": "a = snp.ones(3); b = a[1:]; c = np.asarray(b)",
    "a cycle": "class C: pass\nc = C(); c.me = c; c.a = snp.ones(3)",
    "a queue with messages": "q = snp.Queue(); q.put([snp.ones(3), np.zeros(10**5)])",
    "a queue with messages, and a token": (
        "q = snp.Queue(); q.put([snp.ones(3), np.zeros(10**5)]); snp.receive(snp.send(1))\n"
        "s = snp.SimpleQueue(); s.put(snp.ones(3))"
    ),
    "a queue with more than the pipe holds": (
        "q = snp.Queue(); q.cancel_join_thread()\nfor i in range(500): q.put(snp.ones(3))"
    ),
    "messages in queues of multiprocessing": (
        "q = multiprocessing.Queue(); q.put(snp.ones(3)); time.sleep(0.2)"
    ),
    "a thread that waits": (
        "q = snp.Queue()\n"
        "threading.Thread(target=q.get, daemon=True).start(); time.sleep(0.1)"
    ),
    "a thread at work": (
        "q = snp.Queue()\n"
        "def work():\n"
        "    while True: q.put([snp.ones(3), np.zeros(5000)]); q.get()\n"
        "threading.Thread(target=work, daemon=True).start(); time.sleep(0.1)"
    ),
    "threads at work": (
        "q = snp.Queue()\n"
        "def work():\n"
        "    while True: q.put([snp.ones(3), np.zeros(5000)]); q.get()\n"
        "for _ in range(4): threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.1)"
    ),
    "something that uses them late": (
        "class Late:\n"
        "    def __del__(self): self.a[0] = 5; assert self.a[0] + self.a[1] == 6\n"
        "late = Late(); late.a = snp.ones(3)"
    ),
    "a function that runs at the end": (
        "import atexit\na = snp.ones(3)\natexit.register(lambda: a.sum() + snp.ones(2).sum())"
    ),
    "an exception": "a = snp.ones(3); sys.stderr = open(os.devnull, 'w'); raise SystemExit(0)",
    "a finalizer": "a = snp.ones(3); weakref.finalize(a, print, end='')",
    "an array of another arena": "a = Arena.create().empty(5)",
}


@pytest.mark.parametrize("what", sorted(ENDS))
def test_the_end_of_a_program(what):
    before = names_now()
    code = START + "print(Arena.default().name, flush=True)\n" + ENDS[what]
    process = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    output, errors = complete(process)
    assert (process.returncode, errors) == (0, "")
    name = output.split()[0]
    # (The process's number is a part of the names that it chooses.)
    assert maker_of(name) == process.pid
    left = set(left_of(process.pid, before))
    if "at work" in what:
        # What they sent at the very end waits ten minutes for a receiver, as it should.
        for each in left & {name, name + LOCK_SUFFIX}:
            os.unlink("/dev/shm/" + each)
            left.remove(each)
    assert not left


LATE = START + """
import atexit

def late(q):
    def work():
        time.sleep(0.2)
        q.put(("array", np.ones(10**5), snp.full(3, 7)))
        snp.ones(10)
    q.put(("small", 1))
    threading.Thread(target=work).start()

def worker():
    jobs, done = [], threading.Event()
    def work():
        while not done.is_set():
            jobs.append(snp.ones(10).sum())
    thread = threading.Thread(target=work, daemon=True)
    def finish():
        done.set()
        thread.join()
    atexit.register(finish)
    Arena.default()
    thread.start()

if __name__ == "__main__":
    method, kind = sys.argv[1:]
    multiprocessing.set_start_method(method)
    q = getattr(snp, kind)()
    process = multiprocessing.Process(target=late, args=(q,))
    process.start()
    assert q.get()[0] == "small"
    name, plain, shared = q.get()
    assert name == "array" and plain.sum() == 10**5 and shared.sum() == 21
    process.join(20)
    assert process.exitcode == 0
    del plain, shared
    # What runs late in this one, too.
    worker()
"""


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_threads_that_go_on_when_the_target_has_returned(tmp_path, method, kind):
    """Before 3.13 a process of `multiprocessing` waits for them after its finalizers."""
    if sys.version_info < (3, 7) and method == "fork":
        pytest.skip("forked children of 3.6 end without their threads")
    script = tmp_path / "script.py"
    script.write_text(LATE)
    process = run_command([sys.executable, str(script), method, kind])
    assert process.returncode == 0, process.stderr


HANDLES = START + """
def send(connection, how):
    a = snp.full(3, 7)
    connection.send_bytes(ForkingPickler.dumps(a))
    connection.recv()
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)

def receive(connection):
    data = connection.recv_bytes()
    kept = None
    while True:
        order = connection.recv()
        if order == "load":
            try:
                kept = ForkingPickler.loads(data)
                connection.send(kept.tolist())
            except snp.StaleHandleError:
                connection.send("stale")
        elif order == "drop":
            kept = None
            gc.collect()
            connection.send("dropped")
        else:
            break

def ask(connection, order):
    connection.send(order)
    return connection.recv()

if __name__ == "__main__":
    method, how = sys.argv[1:]
    multiprocessing.set_start_method(method)
    Arena.default()
    ours, theirs = multiprocessing.Pipe()
    sender = multiprocessing.Process(target=send, args=(theirs, how))
    sender.start()
    data = ours.recv_bytes()
    receivers = []
    for _ in range(3):
        mine, its = multiprocessing.Pipe()
        process = multiprocessing.Process(target=receive, args=(its,), daemon=True)
        process.start()
        mine.send_bytes(data)
        receivers.append((mine, process))
    connections = [mine for mine, _ in receivers]
    if how != "alive":
        ours.send("end")
        sender.join()
    # The first has it for good, the others while somebody has; twice is like once.
    for connection in connections + connections[:1]:
        assert ask(connection, "load") == [7, 7, 7]
    if how == "alive":
        ours.send("end")
        sender.join()
    assert ask(connections[0], "drop") == "dropped"
    assert ask(connections[1], "drop") == "dropped"
    assert ask(connections[0], "load") == [7, 7, 7]
    receivers[0][1].kill() if hasattr(receivers[0][1], "kill") else receivers[0][1].terminate()
    receivers[0][1].join()
    assert ask(connections[2], "drop") == "dropped"
    # Nobody has it now, in whatever order they went.
    deadline = time.monotonic() + 20
    while Arena.default().stats()["blocks"]:
        assert time.monotonic() < deadline
        Arena.default().reap()  # A death may be told before it comes.
    for connection in connections[1:]:
        assert ask(connection, "load") == "stale"
    try:
        ForkingPickler.loads(data)
        raise AssertionError("it came back")
    except snp.StaleHandleError:
        pass
    for connection, process in receivers[1:]:
        connection.send("end")
        process.join()
    stats = Arena.default().stats()
    assert (stats["blocks"], stats["handles"]) == (0, 0), stats
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("how", ["alive", "exited", "killed"])
def test_a_handle_in_three_processes(tmp_path, method, how):
    script = tmp_path / "script.py"
    script.write_text(HANDLES)
    process = run_command([sys.executable, str(script), method, how])
    assert (process.returncode, process.stderr) == (0, "")


def test_many_arrays_take_no_descriptors():
    before = len(os.listdir("/proc/self/fd"))
    arrays = [snp.empty(100) for _ in range(20000)]
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert len({snp.name_of(a) for a in arrays[:100]}) == 100
    del arrays


def in_a_fork(work):
    """Run `work` in a forked child; fail unless it is true there."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 0


def received(array):
    q = snp.Queue()
    q.put(array)
    return q.get()


LAYOUTS = {
    "in order": lambda: np.arange(5000.0).reshape(50, 100),
    "in the other": lambda: np.asfortranarray(np.arange(5000.0).reshape(50, 100)),
    "neither": lambda: np.arange(20000.0).reshape(10, 50, 40).transpose(1, 0, 2)[:, :, ::-1],
    "large": lambda: np.arange(1000000.0).reshape(1000, 1000),
}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_receiver_s_own_array_is_no_child_s(layout):
    """A plain array is like memory of one's own also when the process forks."""
    a = received(LAYOUTS[layout]())
    expected = a.copy()
    read, write = os.pipe()

    def child():
        # What the parent writes is not seen, nor the other way round.
        os.read(read, 1)
        same = (a == expected).all()
        a[...] = 7
        in_a_fork(lambda: (a == 7).all() and not a.fill(8))
        return same and (a == 7).all()

    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if child() else 1)
        finally:
            os._exit(2)
    a[1, 1] = -5
    os.write(write, b"x")
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 0
    expected[1, 1] = -5
    assert (a == expected).all()
    in_a_fork(lambda: (a == expected).all())
    os.close(read)
    os.close(write)


def test_memory_that_was_one_s_own_can_be_shared_again():
    again = 0
    for _ in range(30):
        if again == 3:
            break
        a = received(np.arange(10000.0))
        in_a_fork(lambda: not a.fill(3))
        a[0] = 9
        Arena.default().reap()  # The child has gone.
        # Its place is used again, in this process and seen by others. (Not where its segment has
        # gone meanwhile, in which nothing else lay.)
        address = a.__array_interface__["data"][0]
        del a
        gc.collect()
        shared = []
        for _ in range(Arena.default().stats()["free_bytes"] // 80000 + 1):
            shared.append(snp.zeros(10000))
            place = shared[-1].__array_interface__["data"][0]
            if place <= address < place + 80000:
                again += 1
                break
        in_a_fork(lambda: [each.fill(5) for each in shared])
        assert all((each == 5).all() for each in shared)
        del shared
    assert again == 3, "its place is not used again"


def test_what_is_one_s_own_is_not_sent_by_reference():
    a = received(np.arange(10000.0))
    block = snp.arrays.block_of(a)
    for send in (block.sending, lambda: block.arena.send(block)):
        with pytest.raises(ValueError, match="own copy"):
            send()


def test_to_own_a_block_twice_is_like_once():
    block = snp.arrays.block_of(snp.zeros(10000))
    pages = -block.address % 4096
    handles = [Arena.default().send(block) for _ in range(2)]
    del block
    first = receive(handles[0])
    first.private = True
    array = first.array(40960, "u1", None, pages)
    in_a_fork(lambda: not array.fill(1))
    second = receive(handles[1])
    second.private = True
    array[:] = 3
    del first, array
    again = second.array(40960, "u1", None, pages)
    in_a_fork(lambda: not again.fill(1))
    assert (again == 3).all()
    del second, again
    Arena.default().reap()
    shared = [snp.zeros(10000) for _ in range(120)]
    in_a_fork(lambda: [each.fill(5) for each in shared])
    assert all((each == 5).all() for each in shared)


def test_a_child_gives_back_what_was_its_parent_s_own():
    a = received(np.arange(10000.0))

    def child():
        nonlocal a
        a[:] = 1
        del a
        gc.collect()
        b = snp.zeros(20000)
        return not b.any()

    in_a_fork(child)
    assert (a == np.arange(10000.0)).all()
    Arena.default().reap()


SECOND = """
import sys
try:
    import _interpreters as interpreters
    second = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    second = interpreters.create(**({"isolated": False} if sys.version_info >= (3, 9) else {}))
if sys.argv[1] == "both":
    import shared_numpy as snp
    assert snp.zeros(3).sum() == 0
interpreters.run_string(second, sys.argv[2])
interpreters.destroy(second)
"""
IN_THE_SECOND = """
import sys
for _ in range(2):
    try:
        import shared_numpy as snp
        snp.zeros(3)
    except ImportError as error:
        print(error)
assert not [name for name in sys.modules if name.startswith("shared_numpy")]
"""


@pytest.mark.skipif(sys.version_info < (3, 8), reason="they cannot be told apart there")
@pytest.mark.parametrize("which", ["second", "both"])
def test_other_interpreters_of_the_process_are_refused(which):
    said = run_python(SECOND, which, IN_THE_SECOND).splitlines()
    assert len(said) == 2 and all("WSGIApplicationGroup" in line for line in said)


def test_free_threaded_builds_are_refused():
    said = run_python(
        "import sys; sys.abiflags = 't'\n"
        "try: import shared_numpy\n"
        "except ImportError as error: print(error)\n"
        "assert not [name for name in sys.modules if name.startswith('shared_numpy')]"
    )
    assert sys.executable in said and "free-threaded" in said and "use the ordinary build" in said


CHANGED = START + """
import multiprocessing.popen_spawn_posix
from shared_numpy import executor
before, queue = snp.ones(5000000), snp.Queue()
first = Arena.default().name
os.setgid(65534)
os.setuid(65534)
# Those that have the arena go on with it.
queue.put(before[:5])
assert queue.get().sum() == 5
# A new process could not open it, and is not even started.
process = multiprocessing.get_context("spawn").Process(target=print, args=(before,))
try:
    process.start()
except snp.ForeignHandleError as error:
    assert "changed its user to 65534" in str(error), error
else:
    raise AssertionError("it was started")
after = [snp.ones(1000000), snp.Queue()] + [snp.ones(10) for _ in range(300)]
second = Arena.default().name
assert all(snp.name_of(each).startswith(second) for each in (after[0], after[-1]))
print(first, second)
"""


@other_users
def test_a_program_that_changes_its_user():
    first, second = run_python(CHANGED).split()
    assert not exists(second) and not exists(second + LOCK_SUFFIX)
    # The program cannot remove these names; there is no memory behind them.
    assert remove_names(first) < 1 << 18


def remove_names(arena):
    """Remove an arena's names, which any program's sweep may do; return what memory it had."""
    memory = 0
    for each in (arena, arena + LOCK_SUFFIX):
        with suppress(FileNotFoundError):
            memory += os.stat("/dev/shm/" + each).st_blocks * 512
            os.unlink("/dev/shm/" + each)
    return memory


CHROOT = START + """
from shared_numpy import handles
array, queue = snp.ones(5000000), snp.Queue()
name = Arena.default().name
os.chroot(sys.argv[1])
os.chdir("/")
more = snp.ones(5000000)
queue.put(more[:5])
assert queue.get().sum() == 5
print(name)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its root directory")
def test_a_program_that_changes_its_root(tmp_path):
    """It goes on with what it has, and gives it back at its end."""
    assert remove_names(run_python(CHROOT, str(tmp_path)).strip()) < 1 << 20


HIDE_PROC = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs /proc && exec "$@"', "sh"]
WITHOUT_PROC = """
import multiprocessing, os, sys
import numpy as np
import shared_numpy as snp
from shared_numpy._core import Arena

def work(queue, array):
    array[0] = 9
    queue.put((snp.ones(5), np.ones(100000)))

if __name__ == "__main__":
    assert not os.path.exists("/proc/self")
    array, queue = snp.ones(1000), snp.Queue()
    for method in ("fork", "spawn"):
        array[0] = 1
        process = multiprocessing.get_context(method).Process(target=work, args=(queue, array))
        process.start()
        shared, moved = queue.get(timeout=30)
        process.join()
        assert array[0] == 9 and shared.sum() == 5 and moved.sum() == 100000
    with snp.ProcessPoolExecutor(1) as pool:
        assert pool.submit(np.sum, array).result(timeout=30) == 1008
    del array, shared, moved
    arena = Arena.default()
    arena.reap()
    assert arena.stats()["blocks"] <= 1, arena.stats()  # The queue's.
    named = snp.create(sys.argv[1], 3, fill=7)
    assert snp.attach(sys.argv[1]).sum() == 21
    snp.create(sys.argv[1], 4, replace=True)
    assert snp.attach(sys.argv[1]).shape == (4,)
    snp.delete(sys.argv[1])
"""


def test_where_no_proc_is_mounted(tmp_path, name):
    if shutil.which("unshare") is None:
        pytest.skip("there is no program unshare")
    if subprocess.call(HIDE_PROC + ["true"], stderr=subprocess.DEVNULL) != 0:
        pytest.skip("this user may not mount")
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_PROC)
    before = names_now()
    process = subprocess.Popen(
        HIDE_PROC + [sys.executable, str(script), name],
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    errors = complete(process)[1]
    assert (process.returncode, errors) == (0, "")
    assert left_of(process.pid, before) == []
