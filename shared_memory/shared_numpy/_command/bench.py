"""Compare ways between processes on this machine, in under a minute: what arrays and small messages
cost through the standard library and through shared memory.

Times are medians of rounds in which all ways take turns, from the request to the answer. What comes
back is checked. Compare the ratios within one run; times differ from machine to machine.
"""

import concurrent.futures
import multiprocessing
import os
import platform
import queue
import signal
import statistics
from contextlib import contextmanager
from time import perf_counter

from . import output
from .exit_codes import DONE, FAILED, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Tuple

_MIB = 1 << 20
# Bytes of a large array, and seconds for each comparison: as usual, and with --quick.
_USUAL = (64 * _MIB, 8.0)
_QUICK = (8 * _MIB, 0.7)
_ROUNDS = (3, 300)
# Seconds after which a worker that does not answer is given up.
_PATIENCE = 60
# Columns of the longest bar.
_BAR = 30


def add_arguments(parser: "Any") -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("--json", action="store_true", help="print JSON, with times in seconds")
    parser.add_argument(
        "--quick", action="store_true", help="arrays of 8 MiB, in a few seconds, less exact"
    )


class _Interrupts:
    """Notes the first Ctrl-C for the next turn; the second one raises KeyboardInterrupt.

    Raised anywhere, it would be lost in a finalizer now and then, with a traceback.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: "Any") -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was one."""
        if self.came:
            raise KeyboardInterrupt


_interrupts = _Interrupts()


def run(options: "Any") -> int:
    """Run the subcommand; return the exit code."""
    before = signal.signal(signal.SIGINT, _interrupts)
    try:
        return _run(options)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(options):
    size, seconds = _QUICK if options.quick else _USUAL
    size = _fitting(size)
    about = _about()
    if not options.json:
        output.line(about)
    told = []
    for title, meaning, compare in (
        (
            "echo of a plain array of {}".format(output.size(size)),
            "An array goes to another process, which changes an item, and comes back.",
            _echo_of_arrays,
        ),
        (
            "a function over an array of {} in another process".format(output.size(size)),
            "The process adds one to each item and returns a new array.",
            _functions,
        ),
        (
            "echo of 64 bytes",
            "A small message there and back: what a channel itself costs.",
            _echo_of_bytes,
        ),
        (
            "making and dropping an array of 1 MiB",
            "Without touching its memory.",
            _making,
        ),
    ):
        times = compare(size, seconds)
        told.append({"title": title, "meaning": meaning, "seconds": times})
        if not options.json:
            _show(title, meaning, times)
    if options.json:
        output.as_json({"about": about, "array_bytes": size, "comparisons": told})
    return DONE


def _fitting(size):
    """Return the bytes of a large array, less where shared memory has no room for some of these."""
    from .. import _core

    place = _core.folder() or "/dev/shm"
    try:
        status = os.statvfs(place)
    except OSError as error:
        raise Failure(FAILED, "{} cannot be used: {}".format(place, error)) from None
    free = status.f_bavail * status.f_frsize if status.f_blocks else size * 16
    left = _core.memory_left()
    if left is not None:
        free = min(free, left)
    # (Several ways hold theirs at a time, and arenas keep some.)
    while size * 16 > free and size > _MIB:
        size //= 2
    if size * 4 > free:
        raise Failure(
            FAILED,
            "{} has {} free, too little to compare anything: see shared-numpy doctor".format(
                place, output.size(free)
            ),
        )
    return size


def _about():
    from .. import _core

    return "shared-numpy {}, {} {}, {} CPUs, start method {}".format(
        _core.__version__,
        platform.python_implementation(),
        platform.python_version(),
        os.cpu_count(),
        multiprocessing.get_context().get_start_method(),
    )


def _show(title, meaning, times):
    """Print the times of one comparison, with bars."""
    output.line()
    output.line(title)
    output.paragraph(meaning, "  ")
    longest, least = max(times.values()), min(times.values())
    output.table(
        ["", "time", "times as long", ""],
        [
            [
                name,
                output.time(seconds),
                "{:.{}f}".format(seconds / least, 0 if seconds / least >= 9.95 else 1),
                output.bar(seconds / longest, _BAR),
            ]
            for name, seconds in times.items()
        ],
        right=["time", "times as long"],
    )


def measure(ways: "Dict[str, Callable[[], Any]]", seconds: float) -> "Dict[str, float]":
    """Run ways in turns; return the median of each one's seconds.

    Parameters
    ----------
    ways : dict of str to callable
        What to measure. A way that returns a number has measured itself.
    seconds : float
        How long, in all. The first round does not count, and at least three do.
    """
    found = {name: [] for name in ways}  # type: Dict[str, List[float]]
    end = perf_counter() + seconds
    least, most = _ROUNDS
    for number in range(most + 1):
        if number > least and perf_counter() > end:
            break
        for name, way in ways.items():
            _interrupts.check()
            start = perf_counter()
            own = way()
            taken = perf_counter() - start
            if number:
                found[name].append(taken if own is None else own)
    return {name: statistics.median(each) for name, each in found.items()}


@contextmanager
def _deaf() -> "Iterator[None]":
    """Ignore Ctrl-C while processes are started: so they ignore it for good, and this one ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def echo(requests: "Any", answers: "Any") -> None:
    """Send back what comes, with its last item changed; a worker's job."""
    while True:
        message = requests.get()
        if message is None:
            break
        if not isinstance(message, bytes):
            message[-1] += 1
        answers.put(message)
        del message


def echo_segments(requests: "Any", answers: "Any") -> None:
    """The same with a segment of its own for each message."""
    while True:
        message = requests.get()
        if message is None:
            break
        array, shm = taken_from(message)
        array[-1] += 1
        answers.put(in_segment(array))
        del array
        shm.close()
        shm.unlink()


def in_segment(array: "Any") -> "Tuple[str, Any, str]":
    """Copy an array to a new segment; return what another process needs to find it."""
    import numpy as np

    from ..shared_memory import SharedMemory

    shm = SharedMemory(create=True, size=array.nbytes, track=False)
    np.ndarray(array.shape, array.dtype, buffer=shm.buf)[...] = array
    name = shm.name
    shm.close()
    return name, array.shape, array.dtype.str


def taken_from(message: "Any") -> "Tuple[Any, Any]":
    """Return the array of a message, and its segment."""
    import numpy as np

    from ..shared_memory import SharedMemory

    name, shape, dtype = message
    shm = SharedMemory(name, track=False)
    return np.ndarray(shape, dtype, buffer=shm.buf), shm


class Peer:
    """A process that answers, and two queues to it."""

    def __init__(self, make: "Callable[[], Any]", target: "Callable[..., None]" = echo) -> None:
        self.requests, self.answers = make(), make()
        # After Ctrl-C nobody reads the rest of a message any more: exit must not wait for it.
        for each in (self.requests, self.answers):
            each.cancel_join_thread()
        with _deaf():
            self.process = multiprocessing.Process(
                target=target, args=(self.requests, self.answers), daemon=True
            )
            self.process.start()

    def ask(self, message: "Any") -> "Any":
        """Send a message; return the answer."""
        self.requests.put(message)
        try:
            return self.answers.get(timeout=_PATIENCE)
        except queue.Empty:
            raise Failure(
                FAILED,
                "a worker has not answered for {} s (exit code {})".format(
                    _PATIENCE, self.process.exitcode
                ),
            ) from None

    def close(self) -> None:
        """End the process."""
        self.requests.put(None)
        self.process.join(_PATIENCE)
        for each in (self.requests, self.answers):
            each.close()


def _check(right):
    if not right:
        raise Failure(FAILED, "an answer came back wrong")


def _echo_of_arrays(size, seconds):
    import numpy as np

    from .. import arrays, queues

    plain = np.ones(size // 8)
    shared = arrays.ones(size // 8)

    def by_value(peer, array):
        expected = array[-1] + 1
        start = perf_counter()
        back = peer.ask(array)
        taken = perf_counter() - start
        _check(back[-1] == expected and back[0] == array[0])
        return taken

    def by_segment(peer):
        expected = plain[-1] + 1
        start = perf_counter()
        back, shm = taken_from(peer.ask(in_segment(plain)))
        found = back[-1]
        taken = perf_counter() - start
        _check(found == expected)
        del back
        shm.close()
        shm.unlink()
        return taken

    standard, ours = Peer(multiprocessing.Queue), Peer(queues.Queue)
    segments = Peer(multiprocessing.Queue, echo_segments)
    ways = {
        "multiprocessing.Queue": lambda: by_value(standard, plain),
        "a SharedMemory for each message": lambda: by_segment(segments),
        "snp.Queue": lambda: by_value(ours, plain),
        "snp.Queue, an array of snp.ones": lambda: by_value(ours, shared),
    }
    try:
        return measure(ways, seconds)
    finally:
        for peer in (standard, segments, ours):
            peer.close()


def _echo_of_bytes(size, seconds):
    from .. import queues

    message = b"x" * 64
    peers = {
        "multiprocessing.Queue": Peer(multiprocessing.Queue),
        "multiprocessing.Pipe": _PipePeer(),
        "snp.Queue": Peer(queues.Queue),
    }

    def ask(peer):
        start = perf_counter()
        for _ in range(20):
            back = peer.ask(message)
        taken = (perf_counter() - start) / 20
        _check(back == message)
        return taken

    try:
        return measure({name: lambda peer=peer: ask(peer) for name, peer in peers.items()}, seconds)
    finally:
        for peer in peers.values():
            peer.close()


class _PipePeer:
    """A process that answers through a pipe, as `Peer`."""

    def __init__(self):
        self.end, other = multiprocessing.Pipe()
        with _deaf():
            self.process = multiprocessing.Process(target=echo_pipe, args=(other,), daemon=True)
            self.process.start()
        other.close()

    def ask(self, message):
        self.end.send(message)
        return self.end.recv()

    def close(self):
        self.end.send(None)
        self.process.join(_PATIENCE)
        self.end.close()


def echo_pipe(end: "Any") -> None:
    """Send back what comes through a pipe; a worker's job."""
    while True:
        message = end.recv()
        if message is None:
            break
        end.send(message)


def add_one(array: "Any") -> "Any":
    """The function that the pools run."""
    return array + 1


def _functions(size, seconds):
    import numpy as np

    from ..executor import ProcessPoolExecutor

    data = np.ones(size // 8)

    def call(pool):
        data[:] += 1
        start = perf_counter()
        result = pool.submit(add_one, data).result()
        taken = perf_counter() - start
        _check((result == data[0] + 1).all())
        return taken

    def directly():
        start = perf_counter()
        add_one(data)
        return perf_counter() - start

    pools = [concurrent.futures.ProcessPoolExecutor(1), ProcessPoolExecutor(1)]
    ways = {
        "concurrent.futures": lambda: call(pools[0]),
        "snp.ProcessPoolExecutor": lambda: call(pools[1]),
        "in this process": directly,
    }
    try:
        # They start their workers with the first call.
        with _deaf():
            for pool in pools:
                pool.submit(abs, -1).result()
        return measure(ways, seconds)
    finally:
        # (Also after Ctrl-C: at exit concurrent.futures may find its descriptors closed.)
        for pool in pools:
            pool.shutdown()


def _making(size, seconds):
    import numpy as np

    from .. import arrays
    from ..shared_memory import SharedMemory

    items = _MIB // 8

    def segment():
        shm = SharedMemory(create=True, size=_MIB, track=False)
        array = np.ndarray(items, buffer=shm.buf)
        del array
        shm.close()
        shm.unlink()

    def repeated(make):
        start = perf_counter()
        for _ in range(100):
            make()
        return (perf_counter() - start) / 100

    return measure(
        {
            "numpy on a new SharedMemory": lambda: repeated(segment),
            "snp.empty": lambda: repeated(lambda: arrays.empty(items)),
            "numpy.empty": lambda: repeated(lambda: np.empty(items)),
        },
        seconds / 4,
    )
