"""Queues between processes, beside one another.

    python benchmarks/rings.py [--rounds N] [--quick] [--only echo,pinned,...]

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
import contextlib
import ctypes
import functools
import glob
import itertools
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from multiprocessing import util

import numpy as np

import shared_numpy as snp

BASE = "shared_numpy.Queue"
BOUND = 1000
FRAMES, SIDE = 10, 3000
MIB = 1 << 20
# After so many seconds a turn has failed.
LIMIT = 60
WARM, FEWEST = 20, 20
PR_SET_PDEATHSIG = 1
# The medians that were shown, by title and name.
FOUND = {}


class Pipe:
    """One direction of a pipe, for one process at each end."""

    is_shared = False

    def __init__(self):
        self.reader, self.writer = multiprocessing.Pipe(duplex=False)

    def put(self, message):
        self.writer.send(message)

    def get(self):
        return self.reader.recv()


class Iceoryx:
    """A service of iceoryx2, whose two ends are opened when they are first used."""

    is_shared = False
    numbers = itertools.count()

    def __init__(self):
        self.prefix = "rings-{}-{}-".format(os.getpid(), next(self.numbers))
        self.publisher = self.subscriber = None

    def service(self):
        import iceoryx2

        util.Finalize(self, self.remove, (self.prefix,), exitpriority=0)
        iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
        config = iceoryx2.config.global_config()
        config.global_cfg.prefix = iceoryx2.FileName.new(self.prefix)
        config.global_cfg.root_path = iceoryx2.Path.new(self.folder(self.prefix))
        node = iceoryx2.NodeBuilder.new().config(config).create(iceoryx2.ServiceType.Ipc)
        builder = node.service_builder(iceoryx2.ServiceName.new("rings"))
        builder = builder.publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        return builder.enable_safe_overflow(False).subscriber_max_buffer_size(64).open_or_create()

    def put(self, message):
        if self.publisher is None:
            import iceoryx2

            builder = self.service().publisher_builder().initial_max_slice_len(MIB)
            discard = iceoryx2.BackpressureStrategy.DiscardData
            self.publisher = builder.backpressure_strategy(discard).create()
        received_by = 0
        while not received_by:
            sample = self.publisher.loan_slice_uninit(len(message))
            ctypes.memmove(sample.payload_ptr, message, len(message))
            received_by = sample.assume_init().send()

    def get(self):
        if self.subscriber is None:
            self.subscriber = self.service().subscriber_builder().create()
        sample = None
        while sample is None:
            sample = self.subscriber.receive()
        part = sample.payload()
        return ctypes.string_at(part.as_ptr(), part.len())

    def close(self):
        self.publisher = self.subscriber = None
        self.remove(self.prefix)

    @staticmethod
    def folder(prefix):
        return os.path.join(tempfile.gettempdir(), prefix)

    @classmethod
    def remove(cls, prefix):
        """Remove what killed processes left, or this one is about to leave."""
        shutil.rmtree(cls.folder(prefix), ignore_errors=True)
        for path in glob.glob("/dev/shm/" + prefix + "*"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def peers():
    """Return what makes the queue of each peer that is installed."""
    found = {
        "multiprocessing.Pipe": Pipe,
        "multiprocessing.SimpleQueue": multiprocessing.SimpleQueue,
        "multiprocessing.Queue": functools.partial(multiprocessing.Queue, BOUND),
        "shared_numpy.SimpleQueue": snp.SimpleQueue,
        BASE: functools.partial(snp.Queue, BOUND),
    }
    try:
        import faster_fifo
    except ImportError:
        print("(faster-fifo is not installed)")
    else:
        found["faster-fifo"] = functools.partial(faster_fifo.Queue, 8 * MIB)
    try:
        import iceoryx2  # noqa: F401
    except ImportError:
        print("(iceoryx2 is not installed)")
    else:
        found["iceoryx2"] = Iceoryx
    return found


@contextlib.contextmanager
def made(*factories):
    """Make queues; be done with them at the end."""
    queues = [factory() for factory in factories]
    try:
        yield queues
    finally:
        for queue in queues:
            for name in ("cancel_join_thread", "close"):
                getattr(queue, name, lambda: None)()


def work(target, *args):
    """Do something in a worker, which ends when its parent does."""
    if any(isinstance(arg, Iceoryx) for arg in args):
        # It has files to remove at its end.
        signal.signal(signal.SIGTERM, lambda *args: sys.exit(1))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    target(*args)


@contextlib.contextmanager
def workers(*tasks):
    """Have functions run in processes of their own, to the end of the block at most."""
    processes = [
        multiprocessing.Process(target=work, args=task, daemon=True) for task in tasks
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(5)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()


@contextlib.contextmanager
def limited():
    """Raise `TimeoutError` where it takes too long."""

    def late(*args):
        raise TimeoutError("it took more than {} s".format(LIMIT))

    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)


def by_turns(rounds, ways):
    """Do each thing once in each round; return the results of those that never failed."""
    results = {name: [] for name in ways}
    for _ in range(rounds):
        for name in list(results):
            try:
                with limited():
                    results[name].append(ways[name]())
            except Exception as error:
                print("({} failed: {!r})".format(name, error))
                del results[name]
    return results


def show(title, unit, factor, rows, base=BASE):
    """Print the medians of what was found, and their ratios to that of `base`."""
    print("{}, {}".format(title, unit))
    medians = {
        name: [statistics.median(column) * factor for column in zip(*turns)]
        for name, turns in rows.items()
    }
    for name, values in medians.items():
        FOUND[title, name] = values
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


def echo(requests, answers):
    """Send back what comes, an array with its last item changed."""
    while True:
        message = requests.get()
        if not isinstance(message, bytes):
            message[-1] += 1
        answers.put(message)
        del message


def echoed(requests, answers, payload, seconds):
    """Return the median and the 99th percentile of the times of echoes."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < WARM + FEWEST or time.perf_counter() < end:
        message = payload(len(times))
        start = time.perf_counter()
        requests.put(message)
        back = answers.get()
        times.append(time.perf_counter() - start)
        if isinstance(message, bytes):
            assert back == message
        else:
            assert back[0] == message[0] and back[-1] == message[-1] + 1
        del back
    times = sorted(times[WARM:])
    return statistics.median(times), times[int(len(times) * 0.99)]


def echoes(factories, rounds, seconds, condition):
    """Echo messages of each size, each peer with one worker for all of them."""

    def turn(factory):
        payloads = dict(PAYLOADS)
        if factory is Iceoryx:
            del payloads["an array of 1 MiB"]
        with made(factory, factory) as (requests, answers):
            with workers((echo, requests, answers)):
                return {
                    label: echoed(requests, answers, payload, seconds)
                    for label, payload in payloads.items()
                }

    ways = {name: functools.partial(turn, factory) for name, factory in factories.items()}
    results = by_turns(rounds, ways)
    for label in PAYLOADS:
        rows = {
            name: [found[label] for found in turns]
            for name, turns in results.items()
            if label in turns[0]
        }
        show("echo of {}, {}".format(label, condition), "us: median, p99", 1e6, rows)


def pinned(factories, rounds, seconds):
    """Echo with all processes on one CPU."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    try:
        echoes(factories, rounds, seconds, "one CPU")
    finally:
        os.sched_setaffinity(0, cpus)


def burn(cpu):
    os.sched_setaffinity(0, {cpu})
    while True:
        pass


def loaded(factories, rounds, seconds):
    """Echo beside processes that take all the CPU they get."""
    with workers(*[(burn, cpu) for cpu in os.sched_getaffinity(0)]):
        echoes(factories, rounds, seconds, "loaded")


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


def timed(*calls):
    start = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - start


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
    if hasattr(snp, "RingBuffer"):
        shape = SIDE, SIDE
        ways["shared_numpy.RingBuffer"] = lambda: turn(
            lambda: snp.RingBuffer(shape, "f4", 4), None
        )
    else:
        print("(there is no shared_numpy.RingBuffer)")
    title = "{} frames of {} x {} float32".format(FRAMES, SIDE, SIDE)
    show(title, "ms", 1e3, by_turns(rounds, ways), "two copies")


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
    options = parser.parse_args()
    multiprocessing.set_start_method(options.start_method)
    rounds = options.rounds or (3 if options.quick else 5)
    seconds, total = (0.05, 2000) if options.quick else (0.2, 20000)
    versions = "CPython {}.{}.{}".format(*sys.version_info[:3]), snp.__version__, np.__version__
    print("{}, shared_numpy {}, numpy {}".format(*versions))
    print("{} CPUs, load {:.1f}".format(os.cpu_count(), os.getloadavg()[0]))
    factories = peers()
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


if __name__ == "__main__":
    main()
