"""Arrays on an arena's blocks beside what a user would have instead, in one run.

    python benchmarks/blocks.py [--only table,crowd,parts] [--out FILE]

The peers are ``numpy.empty``, the standard library's ``SharedMemory`` (from 3.8
on), and SharedArray and iceoryx2 where they are installed. Rounds alternate; a
figure is the median over the rounds. What is made is a view of bytes that can be
written to, and is dropped again.
"""

import argparse
import ctypes
import gc
import os
import platform
import statistics
import sys
import time

import numpy as np

import peers
import shared_numpy as snp
from measuring import write
from shared_numpy._core import Arena, array_maker, receive

ROUNDS = 7
KIB = 1 << 10
LIVE = 100000


def timed(function, number):
    """Return the nanoseconds that one of `number` calls takes."""
    repeat = range(number)
    start = time.perf_counter()
    for _ in repeat:
        function()
    return (time.perf_counter() - start) / number * 1e9


def numpys(size):
    dtype = np.dtype("u1")
    return lambda: np.empty(size, dtype)


def packages(size):
    dtype = np.dtype("u1")
    return lambda: snp.empty(size, dtype)


def ours(arena):
    def prepare(size):
        dtype = np.dtype("u1")
        return lambda: arena.empty(size, dtype)

    return prepare


def standard(size):
    from multiprocessing.shared_memory import SharedMemory

    def run():
        shm = SharedMemory(create=True, size=size)
        array = np.ndarray(size, "u1", buffer=shm.buf)
        del array
        shm.close()
        shm.unlink()

    return run


def shared_array(size):
    import SharedArray

    name = "shm://snp-bench-%d" % os.getpid()

    def run():
        SharedArray.create(name, size, "u1")
        SharedArray.delete(name)

    return run


def iceoryx(size):
    # With files of its own, which go at the end.
    channel = peers.Iceoryx(size, 2)
    builder = channel.service().publisher_builder()
    publisher = builder.initial_max_slice_len(size).create()

    def run():
        sample = publisher.loan_slice_uninit(size)
        (ctypes.c_uint8 * size).from_address(sample.payload_ptr)
        sample.delete()

    run()
    return run


def ways(arena):
    found = [("numpy.empty", numpys), ("snp.empty", packages), ("arena.empty", ours(arena))]
    for name, prepare in [
        ("SharedMemory", standard),
        ("SharedArray", shared_array),
        ("iceoryx2", iceoryx),
    ]:
        try:
            prepare(KIB)()
        except ImportError:
            print("{}: not installed".format(name))
        else:
            found.append((name, prepare))
    return found


def table(arena, rounds=ROUNDS, share=1):
    """Make and drop 1 KiB, 1 MiB and 64 MiB, untouched; return {(peer, bytes): times}.

    Of the number of calls in a round only a part is made if `share` is greater than 1.
    """
    print("make and drop, ns")
    print("{:24}{:>12}{:>12}{:>12}".format("", "1 KiB", "1 MiB", "64 MiB"))
    columns = [(KIB, 100000), (1 << 20, 20000), (64 << 20, 2000)]
    results, found = {}, {}
    everybody = ways(arena)
    for size, number in columns:
        runs = {name: prepare(size) for name, prepare in everybody}
        times = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                slow = name in ("SharedMemory", "SharedArray")
                count = max(200, number // 50) if slow else number
                times[name].append(timed(run, count // share))
        for name in runs:
            found[name, size] = times[name]
            results[name, size] = statistics.median(times[name])
    for name, _ in everybody:
        cells = "".join("{:12.0f}".format(results[name, size]) for size, _ in columns)
        print("{:24}{}".format(name, cells))
    for name, _ in everybody:
        if name == "arena.empty":
            continue
        ratio = results["arena.empty", KIB] / results[name, KIB]
        print("1 KiB, arena.empty / {}: {:.3f}".format(name, ratio))
    return found


def ten(arena):
    """Ten at a time: more than the process keeps for the next allocation."""
    dtype = np.dtype("u1")
    kept = []

    def run():
        for _ in range(10):
            kept.append(arena.empty(KIB, dtype))
        del kept[:]

    return run


def crowd(arena):
    """The same beside many live blocks; return {label: {what: figures}}."""
    dtype = np.dtype("u1")
    ways = [("one", ours(arena)(KIB), 1), ("ten", ten(arena), 10)]
    alone, crowded = {}, {}
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(ROUNDS):
        for name, run, each in ways:
            alone.setdefault(name, []).append(timed(run, 50000 // each) / each)
        # Every other one is dropped again: free space is in pieces.
        kept = [arena.empty(KIB, dtype) for _ in range(2 * LIVE)][::2]
        for name, run, each in ways:
            crowded.setdefault(name, []).append(timed(run, 50000 // each) / each)
        more = len(os.listdir("/proc/self/fd")) - descriptors
        del kept
    for name, _, _ in ways:
        before, after = statistics.median(alone[name]), statistics.median(crowded[name])
        print(
            "1 KiB, {} at a time: {:.0f} ns; beside {} live blocks {:.0f} ns, ratio {:.2f}".format(
                name, before, LIVE, after, after / before
            )
        )
    print("descriptors more with {} live blocks: {}".format(LIVE, more))
    found = {"descriptors": {"more": [more]}}
    for name, _, _ in ways:
        found[name + " at a time"] = {
            "alone": [each * 1e-9 for each in alone[name]],
            "beside {:,} blocks".format(LIVE): [each * 1e-9 for each in crowded[name]],
        }
    return found


def parts(arena):
    """What is in it, and what handing over costs."""
    block = arena.alloc(KIB)
    dtype = np.dtype("u1")
    for name, run in [
        ("arena.alloc(1024)", lambda: arena.alloc(KIB)),
        ("block.array(1024, 'u1')", lambda: block.array(KIB, dtype)),
        ("receive(arena.send(block))", lambda: receive(arena.send(block))),
    ]:
        times = [timed(run, 50000) for _ in range(ROUNDS)]
        print("{:28}{:8.0f} ns".format(name, statistics.median(times)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", metavar="PART,...", help="no more than these of the parts")
    parser.add_argument("--out", help="write the figures of crowd into this file, too")
    options, found = parser.parse_args(), {}
    print(
        "CPython {}, numpy {}, {} CPUs, arrays made in {}".format(
            platform.python_version(), np.__version__, os.cpu_count(), array_maker()
        )
    )
    gc.disable()
    with Arena.create(first=256 << 20) as arena:
        for part in (table, crowd, parts):
            if not options.only or part.__name__ in options.only.split(","):
                found[part.__name__] = part(arena)
    if options.out:
        write(options.out, found.get("crowd", {}))


if __name__ == "__main__":
    sys.exit(main())
