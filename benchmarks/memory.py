"""What an array costs in memory while several workers have it.

    python benchmarks/memory.py [--rounds N]

An array of 64 MiB is handed to 1, 2, 4 and 8 workers. While all of them have it, and have read it,
the proportional memory (PSS) of the program and all its processes is compared with that before:
a page that several processes map counts once. joblib is measured where it is installed.
"""

import argparse
import concurrent.futures
import contextlib
import os
import statistics
import tempfile
import threading
import time

import numpy as np

import shared_numpy as snp
from measuring import LIMIT, by_turns
from peers import MIB, is_installed

SIZE = 64 * MIB
WORKERS = (1, 2, 4, 8)


def tree():
    """Return the process ids of this process and all its descendants."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/{}/stat".format(name)) as file:
                parents[int(name)] = int(file.read().rpartition(")")[2].split()[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def tree_memory():
    """Return the proportional memory of this process and its descendants, in bytes."""
    total = 0
    for pid in tree():
        with contextlib.suppress(OSError):  # It has ended.
            with open("/proc/{}/smaps_rollup".format(pid)) as file:
                total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    return total * 1024


def hold(array, folder):
    """Read all of an array, say so, and keep it until all workers have read theirs."""
    result = float(array[::512].sum())
    open(os.path.join(folder, "has-{}".format(os.getpid())), "w").close()
    end = time.monotonic() + LIMIT
    while not os.path.exists(os.path.join(folder, "enough")) and time.monotonic() < end:
        time.sleep(0.01)
    return result


def nothing(folder, number):
    """Meet all other workers: each has been started then."""
    hold(np.zeros(1), folder)


def while_held(count, folder):
    """Return the memory of the processes when so many workers have the array."""
    end = time.monotonic() + LIMIT
    while len(os.listdir(folder)) < count:
        if time.monotonic() > end:
            raise TimeoutError("only {} workers have it".format(len(os.listdir(folder))))
        time.sleep(0.01)
    try:
        return tree_memory()
    finally:
        open(os.path.join(folder, "enough"), "w").close()


def futures(make, array, count):
    """Return the additional memory of an array that each worker of an executor has."""
    with make(count) as executor, contextlib.ExitStack() as stack:
        first, second = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        idle = [executor.submit(nothing, first, number) for number in range(count)]
        before = while_held(count, first)
        for each in idle:
            each.result()
        calls = [executor.submit(hold, array, second) for _ in range(count)]
        used = while_held(count, second) - before
        assert [call.result() for call in calls] == [array.size / 512] * count
    return used


def with_joblib(array, count):
    """The same through `joblib.Parallel`, which returns when all calls have ended."""
    import joblib

    with contextlib.ExitStack() as stack:
        first, second = [stack.enter_context(tempfile.TemporaryDirectory()) for _ in range(2)]
        parallel = stack.enter_context(joblib.Parallel(n_jobs=count))
        found = []
        for folder, given in ((first, np.zeros(1)), (second, array)):
            calls = [joblib.delayed(hold)(given, folder) for _ in range(count)]
            thread = threading.Thread(target=parallel, args=(calls,))
            thread.start()
            try:
                found.append(while_held(count, folder))
            finally:
                thread.join()
    return found[1] - found[0]


def measured(rounds):
    """Return {workers: {peer: additional bytes of each round}}."""
    plain, shared = np.ones(SIZE // 8), snp.ones(SIZE // 8)
    theirs = concurrent.futures.ProcessPoolExecutor
    found = {}
    for count in WORKERS:
        ways = {
            "shared_numpy, a shared array": lambda: futures(snp.ProcessPoolExecutor, shared, count),
            "shared_numpy, a plain array": lambda: futures(snp.ProcessPoolExecutor, plain, count),
            "concurrent.futures": lambda: futures(theirs, plain, count),
        }
        # (A single job it does in the program itself.)
        if count > 1 and is_installed("joblib", "joblib"):
            ways["joblib"] = lambda: with_joblib(plain, count)
        found[count] = by_turns(rounds, ways)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    print("memory that an array of {} MiB takes more when workers have it".format(SIZE // MIB))
    for count, rows in measured(parser.parse_args().rounds).items():
        for name, used in rows.items():
            copies = statistics.median(used) / SIZE
            print("  {} workers  {:<32}{:8.2f} copies".format(count, name, copies))


if __name__ == "__main__":
    main()
