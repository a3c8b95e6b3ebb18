"""Memory comes back, and a program that ends normally leaves nothing and says nothing.

Properties:

* the last ``del`` of an array frees it when nobody else who holds it lives, however they ended,
  and its pages are the system's again when it returns;
* what a child held that dies later is found at a later call, within a second or so;
* `snp.trim` gives all free memory back;
* whatever daemon threads of a program wait for, and whatever its children do, it ends with 0, in
  silence, and leaves nothing in /dev/shm;
* an arena that others make and end is attached, or is not there;
* what was moved to a process is its own also against its children, at any number.
"""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time

import pytest
from conftest import BEGIN, eventually, left_of, names_now, run_program, run_python

HELD = """
import ctypes, subprocess
MIB = 1 << 20

def held():
    "How much memory the arena has, in bytes."
    return os.stat("/dev/shm/" + Arena.default().name).st_blocks * 512

def total(x): return float(x[-1])
def sleep(): time.sleep(60)

def forked(work):
    # Since 3.12 a fork beside threads is warned of, and done all the same.
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid
"""

DEAD = """
def end_in_peace(context, z):
    process = context.Process(target=total, args=(z,)); process.start(); process.join()
def ended_by(number):
    def end(context, z):
        process = context.Process(target=sleep); process.start()
        os.kill(process.pid, number); process.join()
    return end
def leave_at_once(context, z):
    os.waitpid(forked(lambda: None), 0)
def stay_unburied(context, z):
    pid = forked(lambda: None)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
def execute(context, z):
    libc = ctypes.CDLL(None)
    def run(): os.execv("/bin/sleep", ["sleep", "30"])
    pid = forked(run)
    while b"sleep" not in open("/proc/%d/cmdline" % pid, "rb").read(): time.sleep(0.001)
    children.append(pid)
def pool(context, z):
    with context.Pool(2) as pool: pool.map(total, [z] * 4)
WAYS = [end_in_peace, ended_by(15), ended_by(9), leave_at_once, stay_unburied, execute, pool]
children = []

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    for way in WAYS:
        z = snp.ones(2 << 20)
        assert held() >= 16 * MIB
        way(context, z)
        del z
        assert held() <= 9 * MIB, (way, held() / MIB)
    for pid in children: os.kill(pid, 9)
"""


def test_what_the_dead_held_is_back_at_the_last_reference(tmp_path):
    run_program(tmp_path, HELD + DEAD)


LATER = """
if __name__ == "__main__":
    z = snp.ones(2 << 20)
    pid = forked(sleep)
    del z
    assert held() >= 16 * MIB
    os.kill(pid, 9); os.waitpid(pid, 0)
    deadline = time.monotonic() + 20
    while held() > 9 * MIB:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        {call}
"""


@pytest.mark.parametrize("call", ["snp.ones(10)", "q.put(1); q.get()"])
def test_what_the_dead_held_is_found_by_a_later_call(tmp_path, call):
    run_program(tmp_path, HELD + "q = snp.Queue()\n" + LATER.format(call=call))


TRIM = """
if __name__ == "__main__":
    z, y = snp.ones(8 << 20), snp.ones(3)
    name = Arena.default().name
    del z
    assert held() >= 64 * MIB
    given = snp.trim()
    assert given >= 64 * MIB and held() < MIB and y.sum() == 3, (given, held())
    assert snp.ones(4 << 20).sum() == 4 << 20
"""


def test_trim(tmp_path):
    run_program(tmp_path, HELD + TRIM)


IDLE = """
if __name__ == "__main__":
    z = snp.ones(8 << 20)
    del z
    assert held() >= 64 * MIB
    time.sleep(11)
    assert held() >= 64 * MIB
    snp.ones(10)
    assert held() < 9 * MIB, held()
"""


@pytest.mark.slow
def test_idle_memory_goes_back(tmp_path):
    run_program(tmp_path, HELD + IDLE)


# What a daemon thread does when its program ends.
WAITS = {
    "reader": "ring = snp.RingBuffer((1000, 1000), slots=2)\ndef run():\n    while True:\n"
    "        with ring.read() as f: pass",
    "writer": "ring = snp.RingBuffer((1000, 1000), slots=2)\ndef run():\n    while True:\n"
    "        with ring.write() as f: f[:] = 1",
    "latest": "ring = snp.RingBuffer((1000, 1000), slots=2)\ndef run():\n    while True:\n"
    "        with ring.latest() as f: pass",
    "a frame": "ring = snp.RingBuffer((1000, 1000), slots=2)\n"
    "with ring.write() as f: f[:] = 1\n"
    "def run():\n    with ring.read() as f: wait()",
    "a generator": "ring = snp.RingBuffer((1000, 1000), slots=2)\ndef frames():\n"
    "    while True:\n        with ring.write() as f: yield f\n"
    "g = frames(); next(g)\ndef run(): wait()",
    "putter": "q = snp.Queue(2); a = np.zeros(1000000)\ndef run():\n    while True: q.put(a)",
    "putter of shared": "q = snp.Queue(2)\ndef run():\n    while True: q.put({'a': snp.ones(9)})",
    "putter of bytes": "q = snp.SimpleQueue()\ndef run():\n    while True: q.put(b'x' * 20000)",
    "getter": "q = snp.Queue(); a = snp.zeros(1000000)\ndef run(): q.get()",
    "busy": "q = snp.Queue()\ndef run():\n    while True: q.put(np.zeros(9999)); q.get()",
    "join": "q = snp.JoinableQueue(); q.put(snp.ones(3))\ndef run(): q.join()",
    "arrays": "def run():\n    while True: snp.zeros(100000)",
    "executor": "ex = snp.ProcessPoolExecutor(1)\ndef run():\n"
    "    while True: ex.submit(abs, 1).result()",
    "context": "c = snp.SharedContext({'a': np.ones(3)}, 1)\nsleep = c.register(time.sleep)\n"
    "def run():\n    while True: sleep(0.05); c.evaluate()",
    "manager": "m = snp.SharedMemoryManager()\nif __name__ == '__main__': m.start()\n"
    "def run():\n    while True: m.SharedMemory(100).close()",
    "array manager": "m = snp.ArrayManager()\nif __name__ == '__main__': m.start()\n"
    "def run():\n    while True: m.zeros(100)",
    "managers": "def run():\n    while True:\n"
    "        with snp.SharedMemoryManager() as m: m.SharedMemory(100).close()",
    # The first array, when the process ends already.
    "late": "from multiprocessing import util\n"
    "util.Finalize(None, time.sleep, (0.5,), exitpriority=-2000)\n"
    "def run():\n    while not util.is_exiting(): time.sleep(0.001)\n    snp.zeros(3)",
    "exit": "def run():\n    snp.zeros(3)\n    sys.exit()",
}
# Of each kind one.
FIRST = ["reader", "a generator", "putter of shared", "busy", "executor", "manager"]
BEFORE = """
import threading
def wait(): threading.Event().wait()
{}
if __name__ == "__main__":
    threading.Thread(target=run, daemon=True).start()
    time.sleep(0.3)
"""


@pytest.mark.parametrize(
    "names", [FIRST, pytest.param(sorted(WAITS), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_a_program_ends_silently_and_leaves_nothing(tmp_path, names):
    """Whatever a daemon thread does."""
    started, before = {}, names_now()
    for number, name in enumerate(names):
        code = WAITS[name]
        script = tmp_path / "script{}.py".format(number)
        script.write_text(BEGIN + BEFORE.format(code))
        started[name] = subprocess.Popen(
            [sys.executable, str(script)], stderr=subprocess.PIPE, universal_newlines=True
        )
    wrong = {}
    for name, process in started.items():
        errors = process.communicate(timeout=60)[1]
        left = left_of(process.pid, before)
        if (process.returncode, errors, left) != (0, "", []):
            wrong[name] = process.returncode, errors, left
        for each in left:
            os.unlink("/dev/shm/" + each)
    assert not wrong


CHILDREN = {
    # Threads make arrays, the first one among them, while children are forked that end at once.
    "threads": "import threading\nstop = []\ndef churn():\n    while not stop: snp.zeros(1000)\n"
    "threads = [threading.Thread(target=churn) for _ in range(3)]\n"
    "for each in threads: each.start()\n"
    "for _ in range(30): os.waitpid(forked(lambda: None), 0)\n"
    "stop.append(1)\nfor each in threads: each.join()",
    # Nobody waits for them.
    "zombies": "z = snp.ones(10)\nfor _ in range(3): forked(lambda: None)",
    "popen": "z = snp.ones(10)\nfor _ in range(3): os.popen('df /dev/shm | tail -1').read()",
    # The same where no tracker removes the names, as after a plain fork of the newest releases.
    "untracked": "from shared_numpy import _core\na = Arena.create()\n_core.end_tracking()\n"
    "pids = [forked(sleep)]\na.close()\nos.kill(pids[0], 9); os.waitpid(pids[0], 0)",
    # One that has an arena which its parent has closed.
    "closed": "a = Arena.create()\npids = [forked(sleep)]\na.close()\n"
    "os.kill(pids[0], 9); os.waitpid(pids[0], 0)",
}


@pytest.mark.parametrize("kind", sorted(CHILDREN))
def test_children_that_end_without_a_word(tmp_path, kind):
    code = HELD + "if __name__ == '__main__':\n    print(os.getpid())\n"
    code += "".join("    {}\n".format(line) for line in CHILDREN[kind].split("\n"))
    before = names_now()
    assert left_of(int(run_program(tmp_path, code)), before) == []


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_children_of_a_copy_of_multiprocessing_end_without_a_word(tmp_path, method):
    """As those of `multiprocess` and pathos; they make the first array of the program."""
    copy = tmp_path / "multiprocess"
    shutil.copytree(os.path.dirname(multiprocessing.__file__), str(copy))
    for each in copy.glob("*.py"):
        # What a new interpreter is told to import.
        each.write_text(each.read_text().replace("from multiprocessing.", "from multiprocess."))
    code = "import os, sys, shared_numpy as snp\n"
    code += "def first(): print(os.getpid(), snp.ones(10).sum(), flush=True)\n"
    code += "if __name__ == '__main__':\n    import multiprocess\n"
    code += "    os.environ['PYTHONPATH'] = os.pathsep.join(sys.path)\n"
    code += "    child = multiprocess.get_context({!r}).Process(target=first)\n".format(method)
    code += "    child.start(); child.join(); print(child.exitcode)"
    before = names_now()
    pid, total, exitcode = run_program(tmp_path, code).split()
    assert (total, exitcode, left_of(int(pid), before)) == ("10.0", "0", [])


def make_and_end(name, stop):
    from shared_numpy._core import Arena

    while not stop.is_set():
        try:
            with Arena.create(name=name):
                time.sleep(0.001)
        except FileExistsError:
            pass  # It was attached.


def test_an_arena_is_attached_or_not_there(new_name):
    from shared_numpy._core import Arena

    name, stop = new_name(), multiprocessing.Event()
    maker = multiprocessing.Process(target=make_and_end, args=(name, stop))
    maker.start()
    seen = {"there": 0, "not there": 0}

    def attach():
        for _ in range(100):
            try:
                Arena.attach(name).close()
                seen["there"] += 1
            except FileNotFoundError:
                seen["not there"] += 1
        return seen["there"] >= 5 and seen["not there"] >= 100

    try:
        eventually(attach, tell=lambda: seen)
    finally:
        stop.set()
        maker.join()
    eventually(lambda: not os.path.exists("/dev/shm/" + name))


MOVED = """
if __name__ == "__main__":
    count, q, out = 16500, snp.Queue(), []
    for i in range(count):
        q.put(np.full(2100, i) if i % 2 else [object, np.full(2100, i)])
        out.append(q.get() if i % 2 else q.get()[1])
    def change():
        for each in out: each[:] = -1
    assert os.waitpid(forked(change), 0)[1] == 0
    assert all((each == i).all() and each.flags.writeable for i, each in enumerate(out))
"""


@pytest.mark.slow
def test_any_number_of_moved_arrays_is_the_receiver_s_own(tmp_path):
    run_program(tmp_path, HELD + MOVED)


MORE_CHILDREN_THAN_SLOTS = """
import os
import shared_numpy as snp
from shared_numpy._core import Arena

arrays = [snp.full(10000, index, "u1") for index in range(50)]
arena = Arena.default()
reader, writer = os.pipe()
children = []
for _ in range(300):
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0 if all((array == i).all() for i, array in enumerate(arrays)) else 1)
    children.append(pid)
assert arena.stats()["pinned_forks"] >= 44
arrays.clear()
arena.reap()
assert arena.stats()["blocks"] == 50, arena.stats()
others = [snp.zeros(10000, "u1") for _ in range(50)]
os.close(writer)
assert not any(os.waitpid(pid, 0)[1] for pid in children)
others.clear()
arena.reap()
print(arena.stats()["blocks"], arena.check())
"""


def test_more_children_than_an_arena_has_places():
    """Each holds what was there at its fork, and what all of them held is free with the last."""
    assert run_python(MORE_CHILDREN_THAN_SLOTS) == "0 []\n"
