"""What it costs to pass arrays on: echoes and frames, beside the standard library's.

    python benchmarks/channels.py [--threshold | --messages]

All systems take turns in one run, so that the ratios mean something on a noisy machine;
medians are shown. The sender changes the first item of the array each time, the worker
the last, and the sender checks it. With --threshold: from which size on it is faster to
move a plain array, or bytes, through shared memory than to have it in the message. With
--messages: what one message costs, in one process.
"""

import multiprocessing
import pickle
import statistics
import sys
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np

import shared_numpy as snp
from peers import given, taken
from shared_numpy import _channels, _core
from shared_numpy._pickling import moved, pickler
from shared_numpy.shared_memory import SharedMemory

MIB = 1 << 20
FRAMES, SIDE = 10, 3000


def echo(get, put):
    """Change the last item of what comes, and send it back."""
    while True:
        array = get()
        if array is None:
            break
        array[-1] += 1
        put(array)
        del array


def echo_segments(get, put):
    """The same with a segment of its own for each message."""
    while True:
        message = get()
        if message is None:
            break
        array, shm = taken(message)
        array[-1] += 1
        put(given(array))
        del array
        shm.close()
        shm.unlink()


def produce_frames(get, put):
    """Write frames and send them, each time one is asked for."""
    pattern = np.arange(SIDE, dtype="f4")
    while True:
        how = get()
        if how is None:
            break
        for number in range(FRAMES):
            if how == "plain":
                frame = np.empty((SIDE, SIDE), "f4")
            elif how == "shared":
                frame = snp.empty((SIDE, SIDE), "f4")
            else:
                shm = SharedMemory(create=True, size=SIDE * SIDE * 4, track=False)
                frame = np.ndarray((SIDE, SIDE), "f4", buffer=shm.buf)
            frame[:] = pattern
            frame += number
            if how == "segment":
                put((shm.name, frame.shape, "<f4"))
                del frame
                shm.close()
            else:
                put(frame)
                del frame


class Peer:
    """A worker and two queues to it."""

    def __init__(self, target, queue):
        self.requests, self.answers = queue(), queue()
        self.process = multiprocessing.Process(
            target=target, args=(self.requests.get, self.answers.put), daemon=True
        )
        self.process.start()

    def close(self):
        self.requests.put(None)
        self.process.join()

    def echo(self, array, by_segment=False):
        """Return the seconds that one echo takes."""
        array[0] += 1
        last = array[-1] + 1
        start = time.perf_counter()
        if by_segment:
            self.requests.put(given(array))
            back, shm = taken(self.answers.get())
        else:
            self.requests.put(array)
            back = self.answers.get()
        found = back[-1]
        seconds = time.perf_counter() - start
        assert found == last and back[0] == array[0]
        if by_segment:
            del back
            shm.close()
            shm.unlink()
        return seconds

    def frames(self, how, whole=False):
        """Return the seconds until the last frame is there, the ends of each checked,
        or every pixel."""
        expected = np.arange(SIDE, dtype="f4")
        start = time.perf_counter()
        self.requests.put(how)
        for number in range(FRAMES):
            frame, shm = self.answers.get(), None
            if how == "segment":
                frame, shm = taken(frame)
            assert frame[0, 0] == number and frame[-1, -1] == SIDE - 1 + number
            if whole:
                assert (frame == expected + number).all()
            del frame
            if shm is not None:
                shm.close()
                shm.unlink()
        return time.perf_counter() - start


def median_of(rounds, *tasks):
    """Run tasks in turns; return the median of what each returns."""
    results = [[task() for task in tasks] for _ in range(rounds + 1)][1:]
    return [statistics.median(column) for column in zip(*results)]


def timed(task, count=1):
    start = time.perf_counter()
    for _ in range(count):
        task()
    return (time.perf_counter() - start) / count


def echoes():
    ours = Peer(echo, snp.SimpleQueue)
    queue = Peer(echo, multiprocessing.SimpleQueue)
    segments = Peer(echo_segments, multiprocessing.SimpleQueue)
    small, large = 8, 64 * MIB // 8
    shared = {size: snp.zeros(size) for size in (small, large)}
    # (Written to: what is all zeros would be one page.)
    plain = {size: np.ones(size) for size in (small, MIB // 8, large)}
    touched = np.ones(large)
    copy = lambda: touched.__setitem__(Ellipsis, plain[large])  # noqa: E731

    print("echo of an array that is shared already, us")
    a, b = median_of(300, lambda: ours.echo(shared[small]), lambda: ours.echo(shared[large]))
    print("  64 B {:8.1f}   64 MiB {:8.1f}   ratio {:.2f}".format(a * 1e6, b * 1e6, b / a))
    for size in plain:
        rounds = 200 if size < large else 9
        memcpy, little, mine, fresh, stdlib = median_of(
            rounds,
            lambda: timed(copy) if size == large else 0,
            lambda: ours.echo(plain[small]),
            lambda: ours.echo(plain[size]),
            lambda: segments.echo(plain[size], True),
            lambda: queue.echo(plain[size]),
        )
        print("echo of a plain array of {:,} bytes, us".format(size * 8))
        print("  ours                          {:12.1f}".format(mine * 1e6))
        print("  a SharedMemory per message    {:12.1f}  {:6.1f} x".format(fresh * 1e6, fresh / mine))
        print("  multiprocessing.SimpleQueue   {:12.1f}  {:6.1f} x".format(stdlib * 1e6, stdlib / mine))
        if size == large:
            limit = memcpy + little
            print(
                "  one way, beside a memcpy ({:.1f}) and a small echo ({:.1f}): {:.2f} x".format(
                    memcpy * 1e6, little * 1e6, mine / 2 / limit
                )
            )
    for peer in (ours, queue, segments):
        peer.close()


def frames():
    # Two at a time: else the producer would fill memory ahead of who looks at it.
    ours = Peer(produce_frames, lambda: snp.Queue(2))
    queue = Peer(produce_frames, lambda: multiprocessing.Queue(2))
    ways = [(ours, "shared"), (ours, "plain"), (queue, "segment"), (queue, "plain")]
    for peer, how in ways:
        peer.frames(how, whole=True)
    shared, moved, segment, pickled = median_of(
        5, *[lambda peer=peer, how=how: peer.frames(how) for peer, how in ways]
    )
    print("{} frames of {} x {} float32, written and checked, ms".format(FRAMES, SIDE, SIDE))
    for name, seconds in [
        ("snp.Queue, made by snp.empty", shared),
        ("snp.Queue, made by np.empty", moved),
        ("a SharedMemory per frame", segment),
        ("multiprocessing.Queue", pickled),
    ]:
        print("  {:<30}{:9.1f}  {:6.1f} x".format(name, seconds * 1e3, seconds / shared))
    for peer in (ours, queue):
        peer.close()


def making():
    def ours():
        snp.empty(1024, "u1")

    def numpys():
        np.empty(1024, "u1")

    mine, theirs = median_of(51, lambda: timed(ours, 5000), lambda: timed(numpys, 5000))
    print("make and drop 1 KiB, ns")
    print(
        "  snp.empty {:.0f}   np.empty {:.0f}   ratio {:.2f}".format(
            mine * 1e9, theirs * 1e9, mine / theirs
        )
    )


def passed(ring, thing, plain=moved.DEFAULT):
    """What arrives of a thing that is put into a ring and taken out of it."""
    handles = []
    ring.put(pickler.dumps(thing, handles, plain), handles, 0)
    stream, _keeper = _channels.unpack(ring.get(0))
    return pickler.loads(stream)


def messages():
    """Things that are put and taken in one process, and only pickled and unpickled."""
    ring = _core.Ring.create(0, 1 << 16, 1 << 20)
    print("a message, put and taken by one process, us; and pickled and unpickled")
    for name, thing, times in [
        ("64 bytes", b"x" * 64, 1000),
        ("bytes of 1 MiB", bytes(MIB), 20),
        ("a call with an array of 10 KiB", (echo, (np.ones(1280),), {}), 1000),
        ("a shared array", snp.ones(8), 1000),
        ("a plain array of 32 KiB", np.ones(4096), 1000),
    ]:
        pickler = ForkingPickler if type(thing) is snp.ndarray else pickle
        mine, theirs = median_of(
            51,
            lambda thing=thing, times=times: timed(lambda: passed(ring, thing), times),
            lambda thing=thing, times=times, pickler=pickler: timed(
                lambda: pickle.loads(pickler.dumps(thing)), times
            ),
        )
        print(
            "  {:<30}{:9.2f}{:9.2f}  {:6.1f} x".format(
                name, mine * 1e6, theirs * 1e6, theirs / mine
            )
        )


def threshold():
    """Arrays and bytes of some sizes in the message itself, and moved."""
    ring = _core.Ring.create(0, 1 << 16, 1 << 20)
    ways = [moved.DEFAULT._replace(threshold=limit) for limit in (1 << 30, 0)]
    print("an array of bytes  in the message us    moved us    as bytes us    moved us")
    for size in (1024, 2048, 4096, 8192, 16384, 32768, 65536):
        array = np.ones(size // 8)
        for_arrays = [
            lambda plain=plain: timed(lambda: passed(ring, array, plain).sum(), 500)
            for plain in ways
        ]
        for_bytes = [
            lambda plain=plain: timed(lambda: passed(ring, array.tobytes(), plain), 500)
            for plain in ways
        ]
        found = [each * 1e6 for each in median_of(51, *for_arrays + for_bytes)]
        print("{:<17}{:21.1f}{:12.1f}{:15.1f}{:12.1f}".format(size, *found))


if __name__ == "__main__":
    print("CPython {}.{}.{}, numpy {}".format(*sys.version_info[:3], np.__version__))
    if "--messages" in sys.argv[1:]:
        messages()
    elif "--threshold" in sys.argv[1:]:
        threshold()
    else:
        making()
        messages()
        echoes()
        frames()
