"""Queues between processes, beside one another.

    python benchmarks/rings.py [--rounds N] [--quick] [--only echo,pinned,...] [--out FILE]

All take turns in one run; medians over the rounds are shown. What is measured:

* echo, pinned, loaded: messages to a worker and back, by their size, the median and the
  99th percentile: on all CPUs, with both processes on one, and with a process on each CPU
  that computes all the time;
* rate: messages in one direction, from one process to one other;
* many: the same from four processes to four, where a queue can be shared so;
* idle: the CPU that a process takes while it waits for a message;
* frames: images of 36 MB that one process writes and the other checks, beside two copies
  of them in memory.

faster-fifo and iceoryx2 are measured where they are installed. What iceoryx2 carries is
bytes, not objects, from one publisher to one subscriber, and both ask again and again
instead of waiting. The queues whose messages can be counted hold 1,000 at most.
"""

import argparse
import functools
import multiprocessing
import os
import statistics
import sys
import time

import numpy as np

import peers
import shared_numpy as snp
from measuring import LIMIT, by_turns, echoed, made, timed, workers, write
from peers import BASE, MIB

FRAMES, SIDE = 10, 3000
# The medians that were shown, by title and name.
FOUND = {}
# The first figure of each round, in seconds, messages a second or parts, by title and name.
FIGURES = {}


def show(title, unit, factor, rows, base=BASE):
    """Print the medians of what was found, and their ratios to that of `base`."""
    print("{}, {}".format(title, unit))
    medians = {
        name: [statistics.median(column) * factor for column in zip(*turns)]
        for name, turns in rows.items()
    }
    for name, values in medians.items():
        FOUND[title, name] = values
        FIGURES.setdefault(title, {})[name] = [turn[0] for turn in rows[name]]
        line = "  {:<28}".format(name) + "".join("{:12,.1f}".format(each) for each in values)
        if base in medians:
            line += "  {:8.2f} x".format(values[0] / medians[base][0])
        print(line, flush=True)


def as_bytes(size, number):
    return number.to_bytes(8, "little") * (size // 8)


def as_array(size, number):
    return np.full(size // 8, number)


PAYLOADS = {
    "64 B": functools.partial(as_bytes, 64),
    "1 KiB": functools.partial(as_bytes, 1 << 10),
    "10 KiB": functools.partial(as_bytes, 10 << 10),
    "64 KiB": functools.partial(as_bytes, 64 << 10),
    "1 MiB": functools.partial(as_bytes, MIB),
    "an array of 1 MiB": functools.partial(as_array, MIB),
}


def echoes(factories, rounds, seconds, condition, labels=tuple(PAYLOADS)):
    """Echo messages of each size, each peer with one worker for all of them."""

    def turn(factory):
        payloads = {label: PAYLOADS[label] for label in labels}
        if factory is peers.Iceoryx:
            payloads.pop("an array of 1 MiB", None)
        with made(factory, factory) as (requests, answers):
            with workers((peers.echo, requests, answers)):
                return {
                    label: echoed(requests, answers, payload, seconds)
                    for label, payload in payloads.items()
                }

    ways = {name: functools.partial(turn, factory) for name, factory in factories.items()}
    results = by_turns(rounds, ways)
    for label in labels:
        rows = {
            name: [found[label] for found in turns]
            for name, turns in results.items()
            if label in turns[0]
        }
        show("echo of {}, {}".format(label, condition), "us: median, p99", 1e6, rows)
    return results


def pinned(factories, rounds, seconds, labels=tuple(PAYLOADS)):
    """Echo with all processes on one CPU."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        return echoes(factories, rounds, seconds, "one CPU", labels)
    finally:
        os.sched_setaffinity(0, cpus)


def burn(cpu):
    os.sched_setaffinity(0, {cpu})
    while True:
        pass


def loaded(factories, rounds, seconds, labels=tuple(PAYLOADS)):
    """Echo beside processes that take all the CPU they get."""
    with workers(*[(burn, cpu) for cpu in os.sched_getaffinity(0)]):
        return echoes(factories, rounds, seconds, "loaded", labels)


def produce(queue, message, count, barrier, reports):
    queue.put(message)
    barrier.wait(LIMIT)
    start = time.perf_counter()
    for _ in range(count):
        queue.put(message)
    reports.put(start)


def consume(queue, message, count, barrier, reports):
    assert queue.get() == message
    barrier.wait(LIMIT)
    for _ in range(count):
        assert queue.get() == message
    reports.put(time.perf_counter())


def rates(factories, rounds, total, pairs):
    """Send messages in one direction only."""

    def turn(factory, message):
        barrier, reports = multiprocessing.Barrier(2 * pairs), multiprocessing.SimpleQueue()
        with made(factory) as [queue]:
            args = queue, message, total // pairs, barrier, reports
            with workers(*[(task,) + args for task in (produce, consume) * pairs]):
                # The starts of the ones and the ends of the others.
                times = [reports.get() for _ in range(2 * pairs)]
        return [total / (max(times) - min(times))]

    for label in ("64 B", "10 KiB"):
        message = PAYLOADS[label](1)
        ways = {
            name: functools.partial(turn, factory, message)
            for name, factory in factories.items()
            if pairs == 1 or getattr(factory, "is_shared", True)
        }
        title = "messages of {} from {} to {}".format(label, pairs, pairs)
        show(title, "thousands a second", 1e-3, by_turns(rounds, ways))


def wait(queue, reports):
    queue.get()
    time.sleep(0.2)  # Threads of numpy's own come to rest.
    cpu, start = time.process_time(), time.perf_counter()
    queue.get()
    reports.put((time.process_time() - cpu) / (time.perf_counter() - start))


def idle(factories, seconds):
    """Wait for a message that comes late."""

    def turn(factory):
        reports = multiprocessing.SimpleQueue()
        with made(factory) as [queue], workers((wait, queue, reports)):
            queue.put(b"It begins.")
            time.sleep(seconds)
            queue.put(b"It ends.")
            return [reports.get()]

    ways = {name: functools.partial(turn, factory) for name, factory in factories.items()}
    title = "CPU of a process that waits for {} s".format(seconds)
    show(title, "per cent", 100, by_turns(1, ways), None)


@functools.lru_cache()
def picture():
    return np.arange(SIDE * SIDE, dtype="f4").reshape(SIDE, SIDE)


def draw(frame, number):
    np.copyto(frame, picture())
    frame[0] = number


def check(frame, number):
    assert (frame[0] == number).all() and (frame[-1] == picture()[-1]).all()
    part, expected = frame[1::50, ::50], picture()[1::50, ::50]
    assert part.sum(dtype="f8") == expected.sum(dtype="f8")


def draw_frames(requests, channel, empty):
    """Write frames, each time they are asked for: into the places of a ring, or new ones."""
    while True:
        requests.get()
        for number in range(FRAMES):
            if empty is None:
                with channel.write(timeout=LIMIT) as frame:
                    draw(frame, number)
            else:
                frame = empty((SIDE, SIDE), "f4")
                draw(frame, number)
                channel.put(frame)
            del frame


def check_frames(channel, empty):
    for number in range(FRAMES):
        if empty is None:
            with channel.read(timeout=LIMIT) as frame:
                check(frame, number)
        else:
            frame = channel.get()
            check(frame, number)
        del frame


def frames(rounds):
    """Have frames written in one process and checked in another."""
    first, second = np.zeros_like(picture()), np.zeros_like(picture())

    def copies():
        calls = [lambda: np.copyto(first, picture()), lambda: np.copyto(second, first)]
        timed(*calls)
        return [timed(*(calls * FRAMES))]

    def turn(factory, empty):
        with made(multiprocessing.SimpleQueue, factory) as (requests, channel):
            with workers((draw_frames, requests, channel, empty)):
                calls = [lambda: requests.put(None), lambda: check_frames(channel, empty)]
                timed(*calls)  # Warm, and a ring's places were all used.
                return [timed(*calls)]

    # Two at a time: else the one process would fill memory ahead of the other.
    ways = {
        "two copies": copies,
        "multiprocessing.Queue": lambda: turn(lambda: multiprocessing.Queue(2), np.empty),
        "shared_numpy.Queue, plain": lambda: turn(lambda: snp.Queue(2), np.empty),
        "shared_numpy.Queue, shared": lambda: turn(lambda: snp.Queue(2), snp.empty),
    }
    if peers.is_installed("faster_fifo", "faster-fifo"):
        size = 5 * picture().nbytes // 2
        ways["faster-fifo"] = lambda: turn(lambda: peers.faster_fifo_queue(size), np.empty)
    if hasattr(snp, "RingBuffer"):
        shape = SIDE, SIDE
        ways["shared_numpy.RingBuffer"] = lambda: turn(
            lambda: snp.RingBuffer(shape, "f4", 4), None
        )
    else:
        print("(there is no shared_numpy.RingBuffer)")
    title = "{} frames of {} x {} float32".format(FRAMES, SIDE, SIDE)
    results = by_turns(rounds, ways)
    show(title, "ms", 1e3, results, "two copies")
    return results


def summary():
    """Print the ratios that matter most, of what was measured."""
    print("ratios")
    stdlib, pipe = "multiprocessing.Queue", "multiprocessing.Pipe"
    frame = "{} frames of {} x {} float32".format(FRAMES, SIDE, SIDE)
    for title, column, above, below in [
        ("echo of 64 B, all CPUs", 0, stdlib, BASE),
        ("echo of 64 B, all CPUs", 0, "faster-fifo", BASE),
        ("echo of 64 B, all CPUs", 0, "iceoryx2", BASE),
        ("echo of 64 B, one CPU", 0, BASE, pipe),
        ("echo of 64 B, loaded", 1, BASE, pipe),
        (frame, 0, "shared_numpy.RingBuffer", "two copies"),
    ]:
        if (title, above) in FOUND and (title, below) in FOUND:
            ratio = FOUND[title, above][column] / FOUND[title, below][column]
            what = title + (", p99" if column else "")
            print("  {:<32}{:<24} / {:<22}{:8.2f}".format(what, above, below, ratio))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="less of all")
    parser.add_argument("--only", metavar="PART,...", help="no more than these of the parts")
    parser.add_argument("--start-method", default="fork")
    parser.add_argument("--out", help="write the figures into this file, too")
    options = parser.parse_args()
    multiprocessing.set_start_method(options.start_method)
    rounds = options.rounds or (3 if options.quick else 5)
    seconds, total = (0.05, 2000) if options.quick else (0.2, 20000)
    versions = "CPython {}.{}.{}".format(*sys.version_info[:3]), snp.__version__, np.__version__
    print("{}, shared_numpy {}, numpy {}".format(*versions))
    print("{} CPUs, load {:.1f}".format(os.cpu_count(), os.getloadavg()[0]))
    factories = peers.queues()
    parts = {
        "echo": lambda: echoes(factories, rounds, seconds, "all CPUs"),
        "pinned": lambda: pinned(factories, rounds, seconds),
        "loaded": lambda: loaded(factories, rounds, seconds),
        "rate": lambda: rates(factories, rounds, total, 1),
        "many": lambda: rates(factories, rounds, total, 4),
        "idle": lambda: idle(factories, 1 if options.quick else 5),
        "frames": lambda: frames(rounds),
    }
    for name in options.only.split(",") if options.only else parts:
        parts[name]()
    summary()
    if options.out:
        write(options.out, FIGURES)


if __name__ == "__main__":
    main()
