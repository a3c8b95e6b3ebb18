"""The examples of the project whose name this package has, as its page shows them."""

import os
import sys

import pytest
from conftest import ROOT, run_command, run_script

# Word for word, but that what runs at once stands under the guard that `spawn` needs.
FUNCTION = """
import shared_numpy as snp

def f(q):
    for i in range(10):
        a = snp.array([1, 2, 3, 4, 5])
        q.put(a)
        a.close()
    q.put(None)
"""

MAIN = """
import multiprocessing as mp

q = snp.Queue()
p = mp.Process(target=f, args=(q,))
p.start()
while True:
    out = q.get()
    if out is None: break
    out.close()
    out.unlink()
p.join()
"""

FROM_ARRAY = """
import numpy as np
import shared_numpy as snp

a = np.zeros((10, 10))
b = snp.from_array(a)
"""

CHECKED = """
if __name__ == "__main__":
    import gc, sys, time
    import multiprocessing
    multiprocessing.set_start_method(sys.argv[1])
    seen = []
{}
    assert seen == [[1, 2, 3, 4, 5]] * 10, seen
    assert p.exitcode == 0
    # Nothing had to be closed or unlinked, and nothing is left.
    from shared_numpy._core import Arena
    name = Arena.default().name
    del q, p, out
    gc.collect()
    deadline = time.monotonic() + 20
    while True:
        Arena.default().reap()  # Its end may be told before it comes.
        stats = Arena.default().stats()
        if (stats["blocks"], stats["handles"]) == (0, 0):
            break
        assert time.monotonic() < deadline, stats
        time.sleep(0.01)
    print(name)
"""


def run_quietly(folder, code, *arguments):
    process = run_script(folder, code, *arguments)
    assert (process.returncode, process.stderr) == (0, ""), process.stderr
    return process.stdout


def indented(code):
    return "".join("    " + line if line.strip() else line for line in code.splitlines(True))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_queue_of_arrays(tmp_path, method):
    main = indented(MAIN).replace(
        "break\n", "break\n        seen.append(out.tolist())\n"
    )
    name = run_quietly(tmp_path, FUNCTION + CHECKED.format(main), method).strip()
    assert not os.path.exists("/dev/shm/" + name)


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_word_for_word(tmp_path, start):
    code = FUNCTION + "if __name__ == '__main__':\n"
    code += "    import multiprocessing\n    multiprocessing.set_start_method({!r})\n".format(start)
    assert run_quietly(tmp_path, code + indented(MAIN)) == ""


def test_from_array(tmp_path):
    code = FROM_ARRAY + "assert type(b) is snp.ndarray and b.is_shared() and (a == b).all()\n"
    code += "c = snp.ndarray((3, 4), 'f4')\nassert c.shape == (3, 4) and c.is_shared()\n"
    code += "snp.SharedMemory, snp.ShareableList\n"
    run_quietly(tmp_path, code)


def test_import_star(tmp_path):
    code = "from shared_numpy import *\n"
    run_quietly(tmp_path, code + "Queue, array, ndarray, from_array, SharedMemory, ShareableList\n")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_the_faults_it_had(tmp_path, method):
    """Each failed there: transposed and Fortran-order arrays arrived scrambled; of no
    items or no dimensions crashed; views could not be sent; use after close() ended the
    interpreter; an array of a killed producer stayed for ever."""
    code = """
import gc, multiprocessing, os, signal, sys, time
import numpy as np, shared_numpy as snp

def echo(requests, answers):
    while True:
        array = requests.get()
        if array is None:
            break
        answers.put(array)

def produce_and_die(q):
    q.put(snp.ones(1000))
    mine = [snp.ones(1000) for _ in range(10)]
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    requests, answers = snp.Queue(), snp.Queue()
    worker = multiprocessing.Process(target=echo, args=(requests, answers), daemon=True)
    worker.start()
    grid = snp.array(np.arange(12.0).reshape(3, 4))
    wanted = [
        grid.T, snp.array(np.arange(12.0).reshape(3, 4), order="F"), grid[::-1, 1:], grid[1],
        snp.zeros((0, 3)), snp.array(5.0), snp.zeros(()), grid[:, ::2].T,
    ]
    for array in wanted:
        requests.put(array)
        back = answers.get()
        assert (back.shape, back.strides) == (array.shape, array.strides)
        assert (back == array).all()
    array = grid[1:]
    array.close()
    grid.close()
    grid.unlink()
    assert array.sum() == sum(range(4, 12)) and grid.sum() == 66
    requests.put(None)
    worker.join()
    q = snp.Queue()
    producer = multiprocessing.Process(target=produce_and_die, args=(q,))
    producer.start()
    producer.join()
    assert q.get(timeout=20).sum() == 1000
    from shared_numpy._core import Arena
    del wanted, array, grid, back, q, producer, requests, answers, worker
    gc.collect()
    deadline = time.monotonic() + 20
    while True:
        Arena.default().reap()
        stats = Arena.default().stats()
        if (stats["blocks"], stats["handles"]) == (0, 0):
            break
        assert time.monotonic() < deadline, stats
        time.sleep(0.01)
"""
    run_quietly(tmp_path, code, method)


def test_the_timing_comparison():
    process = run_command([sys.executable, "examples/timing_comparison.py", "3", "200"], cwd=ROOT)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.count("total time") == 4 and process.stdout.count("ratio") == 2
