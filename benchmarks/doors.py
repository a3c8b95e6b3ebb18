"""The doors for other projects' users, beside those projects.

    python benchmarks/doors.py [--rounds N] [--out FILE]

* an array of 1 KiB is made and dropped through `shared_numpy.compat.jztools` and
  `shared_numpy.compat.pyarraypool`, and through jztools and pyarraypool where they are
  installed (they must be able to run beside this package: the first has a server, the
  second a segment of its own);
* npshmex's task, `add_one` over 160 MB, through its door and, where it is installed,
  through npshmex in a program of its own: it changes `concurrent.futures` for all.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from measuring import write
from shared_numpy.compat import jztools, npshmex, pyarraypool

SHAPE = 128
MANY = 2000


def per_call(make, count):
    start = time.perf_counter()
    for _ in range(count):
        make()
    return (time.perf_counter() - start) / count * 1e6


def show(title, rows):
    print(title)
    medians = {name: statistics.median(times) for name, times in rows.items()}
    base = next(iter(medians.values()))
    for name, median in medians.items():
        print("  {:<28}{:12.2f} us {:10.2f} x".format(name, median, median / base))


def made_and_dropped(rounds):
    """Arrays of 1 KiB; return {name: times in microseconds}."""
    array = np.ones(SHAPE)
    ways = {"np.empty": (lambda: np.empty(SHAPE), MANY)}
    ways["compat.pyarraypool"] = (lambda: pyarraypool.make_transferable(array), MANY)
    numbered = pyarraypool.ShmObjectPool(path="doors-{}".format(os.getpid()))

    def by_number():
        numbered.add_object(1, array.nbytes)
        numbered.set_object_releasable(1)
        numbered.detach_object(1)

    ways["  with a number"] = (by_number, 100)
    with jztools.XSharedMemoryManager() as manager:
        ways["compat.jztools"] = (lambda: manager.empty(SHAPE), MANY)
        theirs = None
        try:
            import jztools.shared_memory as original
        except ImportError:
            print("(jztools is not installed)")
        else:
            theirs = original.XSharedMemoryManager()
            theirs.start()
            ways["jztools"] = (lambda: theirs.empty(SHAPE), 50)
        link = os.path.join(tempfile.gettempdir(), "doors-{}.seg".format(os.getpid()))
        try:
            import pyarraypool as pool
        except ImportError:
            print("(pyarraypool is not installed)")
        else:
            pool.configure_global_pool(link_path=link, slot_count=5000, data_size="64M")

            def transferable():
                # What was not transferred keeps its slot unless this is said.
                pool.make_transferable(array.copy(), transfer_required=False)

            ways["pyarraypool"] = (transferable, 1000)
        times = {name: [] for name in ways}
        for number in range(rounds + 1):
            for name, (make, count) in ways.items():
                seconds = per_call(make, count)
                if number:
                    times[name].append(seconds)
        if theirs is not None:
            theirs.shutdown()
        if "pyarraypool" in ways:
            pool.stop_pool()
            pool.cleanup_shm()
    return times


def add_one(x):
    return x + 1


THEIRS = """
import statistics, sys, time
import numpy as np
from npshmex import ProcessPoolExecutor
def add_one(x):
    return x + 1
if __name__ == "__main__":
    ex, data, times = ProcessPoolExecutor(2), np.ones(int(2e7)), []
    for number in range({} + 2):
        data[:] = number
        start = time.perf_counter()
        result = ex.submit(add_one, data).result()
        times.append(time.perf_counter() - start)
        assert result[0] == result[-1] == number + 1
        del result
    print(*[each * 1e6 for each in times[2:]])
"""


def task(rounds):
    """npshmex's own example; return {name: times in microseconds}."""
    data, times = np.ones(int(2e7)), {"add_one, bare": [], "compat.npshmex": []}
    with npshmex.ProcessPoolExecutor(2) as ex:
        for number in range(rounds + 2):
            data[:] = number
            for name, call in (
                ("add_one, bare", lambda: add_one(data)),
                ("compat.npshmex", lambda: ex.submit(add_one, data).result()),
            ):
                start = time.perf_counter()
                result = call()
                seconds = time.perf_counter() - start
                assert result[0] == result[-1] == number + 1
                del result
                if number >= 2:
                    times[name].append(seconds * 1e6)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "theirs.py")
        with open(path, "w") as file:
            file.write(THEIRS.format(rounds))
        program = [sys.executable, path]
        theirs = subprocess.run(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if theirs.returncode:
        print("(npshmex is not installed)")
    else:
        times["npshmex"] = [float(each) for each in theirs.stdout.split()]
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", help="write the figures into this file, too")
    options, figures = parser.parse_args(), {}
    for title, measured in (
        ("an array of 1 KiB, made and dropped", made_and_dropped),
        ("add_one over 160 MB, there and back", task),
    ):
        rows = measured(options.rounds)
        show(title, rows)
        figures[title] = {
            name.strip(): [each * 1e-6 for each in times] for name, times in rows.items()
        }
    if options.out:
        write(options.out, figures, ["jztools", "pyarraypool", "npshmex"])


if __name__ == "__main__":
    main()
