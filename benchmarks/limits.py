"""How far the package is from what the machine can do: each scenario beside its limit.

    python benchmarks/limits.py [--rounds 5] [--only WORD]

The limit is measured in the same run, by turns with the scenario: a copy of memory, the faults of
fresh pages, a `pwrite` of them, the wake-up of a sleeping process, numpy's own allocation, or the bare function in this
process. For each the table has the least, median and greatest time, and the ratio of the medians.
The last part shows costs that must not grow, beside what they were at first.

Times depend on the machine and on its load; the ratios of a quiet run mean something. Two processors
have to be free.
"""

import argparse
import mmap
import multiprocessing
import os
import statistics
import tempfile
import time

import numpy as np

import shared_numpy as snp
from measuring import timed_each as timed

MIB = 1 << 20


# ---- what works in other processes -----------------------------------------------------------


def echo(requests, answers):
    while True:
        message = requests.get()
        if message is None:
            break
        answers.put(message)
        del message


def wake_back(there, back):
    """Wake whoever has woken this, by semaphores, which are futexes."""
    while True:
        there.acquire()
        back.release()


def add_one(array):
    return array + 1


def total(part):
    return float(part.sum())


def nothing(array):
    return None


class Echo:
    """A process that sends everything back, through queues of ours."""

    def __init__(self):
        self.requests, self.answers = snp.Queue(), snp.Queue()
        arguments = (self.requests, self.answers)
        self.process = multiprocessing.Process(target=echo, args=arguments, daemon=True)
        self.process.start()

    def __call__(self, message):
        self.requests.put(message)
        return self.answers.get()

    def close(self):
        self.requests.put(None)
        self.process.join()


# ---- scenarios ------------------------------------------------------------------------------
# Each yields rows: what it is, the unit and its seconds, ours and the limit as functions that
# return seconds, and what the limit is.


def echoes():
    peer = Echo()
    there, back = multiprocessing.Semaphore(0), multiprocessing.Semaphore(0)
    sleeper = multiprocessing.Process(target=wake_back, args=(there, back), daemon=True)
    sleeper.start()

    def wake():
        there.release()
        back.acquire()

    small = np.zeros(8)
    yield (
        "echo of 64 B", "us", 1e-6, lambda: timed(lambda: peer(small), 2000),
        lambda: timed(wake, 2000), "two wake-ups of a sleeping process",
    )  # fmt: skip
    shared = snp.zeros(8 * MIB)
    yield (
        "echo of a shared array, 64 MiB", "us", 1e-6, lambda: timed(lambda: peer(shared), 1000),
        lambda: timed(wake, 1000), "two wake-ups of a sleeping process",
    )  # fmt: skip
    for size, count in ((MIB, 50), (64 * MIB, 3)):
        array, target = np.ones(size // 8), np.ones(size // 8)

        def copy_twice(array=array, target=target):
            np.copyto(target, array)
            np.copyto(target, array)

        yield (
            "echo of a plain array, %d MiB" % (size // MIB), "us", 1e-6,
            lambda array=array, count=count: timed(lambda: peer(array), count),
            lambda copy=copy_twice, count=count: timed(copy, count), "two copies of it",
        )  # fmt: skip
    sleeper.terminate()
    sleeper.join()
    peer.close()


def making():
    yield (
        "snp.empty of 1 KiB, made and dropped", "ns", 1e-9,
        lambda: timed(lambda: snp.empty(128), 20000), lambda: timed(lambda: np.empty(128), 20000),
        "numpy.empty",
    )  # fmt: skip
    arena = snp.Arena.default()
    yield (
        "a Block of 1 KiB, made and dropped", "ns", 1e-9,
        lambda: timed(lambda: arena.alloc(1024), 20000),
        lambda: timed(lambda: np.empty(128), 20000), "numpy.empty",
    )  # fmt: skip
    source = np.ones(10 * 1000 * 1000)

    def first_copy():
        # Nothing is kept of the last round, so that each takes pages that are new.
        snp.trim()
        start = time.perf_counter()
        array = snp.from_array(source)
        seconds = time.perf_counter() - start
        del array
        return seconds

    def write_fresh():
        folder = os.environ.get("SHARED_NUMPY_DIR", "/dev/shm")
        with tempfile.TemporaryFile(dir=folder) as file:
            view = memoryview(source).cast("B")
            start, at = time.perf_counter(), 0
            while at < len(view):
                at += os.pwrite(file.fileno(), view[at : at + (64 << 20)], at)
            return time.perf_counter() - start

    def touched():
        snp.trim()
        array = snp.empty(8 * MIB)
        return timed(lambda: array.fill(1))

    def faults():
        # Shared, as those are that several processes map; private ones cost less.
        with mmap.mmap(-1, 64 * MIB) as memory:
            array = np.frombuffer(memory, "f8")
            seconds = timed(lambda: array.fill(1))
            del array
            return seconds

    yield (
        "64 MiB of snp.empty filled, in fresh memory", "ms", 1e-3, touched, faults,
        "faults of a new shared mapping",
    )  # fmt: skip
    yield (
        "from_array of 80 MB into fresh memory", "ms", 1e-3, first_copy, write_fresh,
        "pwrite of it to a new file",
    )  # fmt: skip


def calls():
    big = np.ones(20 * 1000 * 1000)
    serial = lambda: timed(lambda: add_one(big))  # noqa: E731
    for results in ("shared", "in_place"):
        with snp.ProcessPoolExecutor(2, results=results) as executor:
            executor.submit(add_one, big).result()
            yield (
                "add_one over 160 MB, results=%r" % results, "ms", 1e-3,
                lambda: timed(lambda: executor.submit(add_one, big).result()), serial,
                "the function itself",
            )  # fmt: skip

    def first_call():
        snp.trim()
        with snp.ProcessPoolExecutor(2) as fresh:
            fresh.submit(nothing, 0).result()
            return timed(lambda: fresh.submit(add_one, big).result())

    with snp.ProcessPoolExecutor(2) as warm:

        def later_call():
            warm.submit(add_one, big).result()
            return timed(lambda: warm.submit(add_one, big).result())

        yield (
            "its first call in a new executor", "ms", 1e-3, first_call, later_call,
            "its later calls",
        )  # fmt: skip
    small = np.zeros(1280)
    with snp.ProcessPoolExecutor(1) as one:
        one.submit(nothing, small).result()

        def many():
            futures = [one.submit(nothing, small) for _ in range(1000)]
            for future in futures:
                future.result()

        yield (
            "a call with 10 KiB, of 1,000", "us", 1e-6, lambda: timed(many) / 1000,
            lambda: timed(lambda: nothing(small.copy()), 1000), "the function, and a copy",
        )  # fmt: skip
    shared = snp.ones(100 * 100000)
    parts = [shared[n * 100000 : (n + 1) * 100000] for n in range(100)]
    with multiprocessing.Pool(2) as pool:
        arguments = [(part,) for part in parts]
        pool.starmap(total, arguments)
        yield (
            "starmap of 100 slices of a shared array", "ms", 1e-3,
            lambda: timed(lambda: pool.starmap(total, arguments)),
            lambda: timed(lambda: [total(part) for part in parts]), "the functions themselves",
        )  # fmt: skip


def rings():
    side, frames = 1500, 10
    pattern = np.arange(side, dtype="f4")
    ring = snp.RingBuffer((side, side), "f4", slots=4)

    def through():
        start = time.perf_counter()
        for _ in range(frames):
            with ring.write() as frame:
                frame[:] = pattern
            with ring.read() as frame:
                assert frame[-1, -1] == side - 1
        return time.perf_counter() - start

    place = np.ones((side, side), "f4")

    def fill():
        place[:] = pattern

    through()
    yield (
        "10 frames of 9 MB written and looked at", "ms", 1e-3, through,
        lambda: timed(fill, frames) * frames, "to fill one array as often",
    )  # fmt: skip


# ---- costs that must not grow ------------------------------------------------------------------
# Each is measured at first, in the state that it may fall into, and after it.


def growing():
    arena = snp.Arena.default()

    def allocate():
        return timed(lambda: arena.alloc(MIB), 2000)

    allocate()
    first = allocate()
    snp.trim()
    allocate()
    yield "allocate 1 MiB, after memory was given back", "ns", 1e-9, allocate(), first

    peer, small = Echo(), np.zeros(8)

    def echo_small():
        return statistics.median(timed(lambda: peer(small)) for _ in range(2000))

    echo_small()
    first = min(echo_small() for _ in range(3))
    for _ in range(8):
        peer.requests.put(small)
        time.sleep(0.01)
        peer.answers.get()
        time.sleep(0.01)
    for _ in range(100):
        peer(small)
    yield "echo of 64 B, 100 rounds after slow waits", "us", 1e-6, echo_small(), first
    peer.close()

    array = snp.zeros(10)

    def cancel(count):
        handles = [snp.send(array) for _ in range(count)]
        return timed(lambda: [handle.cancel() for handle in handles]) / count

    cancel(1000)
    first = cancel(1000)
    yield "cancel a handle, of 16,000", "us", 1e-6, cancel(16000), first

    def reap():
        return timed(arena.reap, 20)

    first = reap()
    blocks = [arena.alloc(64) for _ in range(300000)]
    del blocks
    yield "reap, after 300,000 blocks came and went", "us", 1e-6, reap(), first


SCENARIOS = (echoes, making, calls, rings)
FORM = "%-44s %-4s %29s %29s %7s  %s"


def measured(rounds, only=""):
    """Yield a dict for each scenario: its name, what the limit is, the unit, its seconds, and the
    times of all rounds, here and at the limit, in that unit."""
    for scenario in SCENARIOS:
        for name, unit, factor, ours, limit, what in scenario():
            if only not in name:
                continue
            # In the first round pages are fetched and caches are filled.
            found = [(ours() / factor, limit() / factor) for _ in range(rounds + 1)][1:]
            here, there = [list(column) for column in zip(*found)]
            yield dict(name=name, limit=what, unit=unit, factor=factor, here=here, there=there)


def shown(row):
    """Return the line of the table for what was measured of a scenario."""
    columns = [sorted(row["here"]), sorted(row["there"])]
    middle = [statistics.median(column) for column in columns]
    cells = [
        "%9.1f %9.1f %9.1f" % (column[0], center, column[-1])
        for column, center in zip(columns, middle)
    ]
    ratio = "%.2f" % (middle[0] / middle[1])
    return FORM % (row["name"], row["unit"], cells[0], cells[1], ratio, row["limit"])


def head():
    here, limit = [each + ": least, median, greatest" for each in ("here", "limit")]
    return FORM % ("", "", here, limit, "ratio", "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="scenarios with this in their names")
    options = parser.parse_args()
    print(head())
    for row in measured(options.rounds, options.only):
        print(shown(row), flush=True)
    print("\n%-44s %-4s %9s %9s %7s" % ("what must not grow", "", "later", "at first", "ratio"))
    for name, unit, factor, later, first in growing():
        if options.only in name:
            row = (name, unit, later / factor, first / factor, later / first)
            print("%-44s %-4s %9.1f %9.1f %7.2f" % row)


if __name__ == "__main__":
    main()
