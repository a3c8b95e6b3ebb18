"""The backport beside what a user would have instead, in one run.

The peer is the running version's own ``multiprocessing.shared_memory``, and on
3.6 and 3.7 the package ``shared-memory38``. The rounds of the two alternate;
a figure is the median over the rounds, the ratio that of the two figures: below
1, ours is faster.

    python benchmarks/backport.py [--out FILE]
"""

import argparse
import gc
import os
import platform
import statistics
import sys
import time

from measuring import write
from shared_numpy import shared_memory as ours

ROUNDS = 15


def find_peer():
    """Return the module to compare with, or None, and its name."""
    if sys.version_info >= (3, 8):
        from multiprocessing import shared_memory

        return shared_memory, "multiprocessing.shared_memory"
    try:
        import shared_memory
    except ImportError:
        return None, "none (shared-memory38 is not installed)"
    return shared_memory, "shared-memory38"


def timed(function, number):
    """Return the seconds that one of `number` calls takes."""
    start = time.perf_counter()
    for _ in range(number):
        function()
    return (time.perf_counter() - start) / number


def create(module, size):
    def run():
        shm = module.SharedMemory(create=True, size=size)
        shm.close()
        shm.unlink()

    return run, 300, lambda: None


def attach(module, size):
    shm = module.SharedMemory(create=True, size=size)

    def run():
        module.SharedMemory(shm.name).close()

    def end():
        shm.close()
        shm.unlink()

    return run, 300, end


def items(number):
    return [(k, k + 0.5, "item %d" % k, b"bytes", None, True)[k % 6] for k in range(number)]


def with_list(operation, calls):
    """Make a benchmark of `operation(list)` on a list of `number` items."""

    def prepare(module, number):
        sl = module.ShareableList(items(number))

        def end():
            sl.shm.close()
            sl.shm.unlink()

        return lambda: operation(sl, number), calls(number), end

    return prepare


def read_ends(sl, number):
    """Read six items at the list's end, one of each type."""
    for position in range(number - 6, number):
        sl[position]


def write_ends(sl, number):
    """Write six items at the list's end, one of each type."""
    for position in range(number - 6, number):
        sl[position] = ITEMS[position % 6]


ITEMS = (1, 2.5, "text", b"bits", None, False)


def build(module, number):
    content = items(number)

    def run():
        sl = module.ShareableList(content)
        sl.shm.close()
        sl.shm.unlink()

    return run, max(2, 1000 // number), lambda: None


BENCHMARKS = [
    ("create + close + unlink, %d bytes", create, (4096, 1 << 20)),
    ("attach + close, %d bytes", attach, (4096, 1 << 20)),
    ("list of %d: make", build, (10, 1000)),
    (
        "list of %d: get 6 at the end",
        with_list(read_ends, lambda n: 300 if n <= 1000 else 30),
        (10, 1000, 10000),
    ),
    (
        "list of %d: set 6 at the end",
        with_list(write_ends, lambda n: 300 if n <= 1000 else 30),
        (10, 1000, 10000),
    ),
    (
        "list of %d: iterate",
        with_list(lambda sl, n: list(sl), lambda n: max(1, 300 // n)),
        (10, 1000, 10000),
    ),
]


def compare(prepare, argument, peer):
    """Return the seconds of one call in each round, ours and the peer's."""
    modules = [ours, peer] if peer else [ours]
    runs = [prepare(module, argument) for module in modules]
    times = [[] for _ in runs]
    for run, _, _ in runs:
        run()  # What is done once, as to start the resource tracker, does not count.
    # Reading a list of 10,000 under the old layout takes the peer seconds.
    single = timed(runs[-1][0], 1)
    rounds = ROUNDS if single * runs[-1][1] < 0.2 else 3
    gc.disable()
    for round_number in range(rounds):
        order = list(zip(runs, times))
        for (run, number, _), found in order if round_number % 2 else order[::-1]:
            found.append(timed(run, 1 if rounds == 3 else number))
    gc.enable()
    for _, _, end in runs:
        end()
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="write the figures into this file, too")
    options, figures = parser.parse_args(), {}
    peer, name = find_peer()
    print(
        "CPython {}, {} {}, {} CPUs; peer: {}".format(
            platform.python_version(),
            platform.system(),
            platform.release(),
            len(os.sched_getaffinity(0)),
            name,
        )
    )
    print("{:40} {:>12} {:>12} {:>7}".format("", "ours, us", "peer, us", "ratio"))
    for title, prepare, arguments in BENCHMARKS:
        for argument in arguments:
            times = compare(prepare, argument, peer)
            figures[title % argument] = dict(zip(["ours", "theirs"], times))
            result = [statistics.median(found) for found in times]
            line = "{:40} {:12.2f}".format(title % argument, result[0] * 1e6)
            if peer:
                line += " {:12.2f} {:7.3f}".format(result[1] * 1e6, result[0] / result[1])
            print(line, flush=True)
    if options.out:
        write(options.out, figures)


if __name__ == "__main__":
    main()
