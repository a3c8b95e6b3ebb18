"""Memory comes back.

Properties:

* the last ``del`` of an array frees it when nobody else who holds it lives, however they ended,
  and its pages are the system's again when it returns;
* what a child held that dies later is found at a later call, within a second or so;
* `snp.trim` gives all free memory back.
"""

import pytest
from conftest import run_program

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
