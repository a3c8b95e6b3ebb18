"""The main job, on real data: ``python -m shared_numpy demo``.

A parent hands frames to a worker, which changes every pixel; the parent checks
every pixel of what it gets back. Once the frames are pickled through a pipe,
once they stay in a segment of shared memory and only its name travels, and once they are
arrays that go through a queue by reference. Functions run over arrays in other processes,
by the standard library's executor, by the one here and in a context of shared arrays. Then
another program finds an array by its name. A line under each figure says what it means.
"""

import multiprocessing
import os
import platform
import queue
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

from . import __version__
from ._command import output
from .managers import SharedMemoryManager
from .shared_memory import ShareableList, SharedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional

FRAMES = 10
SIDE = 3000
# The most shared memory that the demo has at a time, in bytes for each pixel of a frame: arguments
# and results of the executor, with room for what an arena has beside its arrays.
BYTES_PER_PIXEL = 56
# How many threads linear algebra starts in each process: as many processes compute at a time as
# there are CPUs, and their threads would take these from each other.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
HAS_ARRAYS = sys.platform.startswith("linux")
DTYPE = "float32"
# Characters of the longest bar.
BAR = 30


def compare(times):
    """Print times in seconds, with bars and how many times as long the first one is."""
    longest, first = max(times.values()), next(iter(times.values()))
    output.table(
        ["", "time", "ratio", ""],
        [
            [
                "  " + way,
                output.time(seconds),
                "{:.1f}".format(first / seconds),
                output.bar(seconds / longest, BAR),
            ]
            for way, seconds in times.items()
        ],
        right=["time", "ratio"],
    )


def means(text):
    """Print what a figure means."""
    output.paragraph(text, "  ")


def side_that_fits() -> int:
    """Return the rows of the largest frame for which there is room in /dev/shm, at most `SIDE`."""
    try:
        system = os.statvfs("/dev/shm")
    except OSError:
        return SIDE
    pixels = system.f_bavail * system.f_frsize // BYTES_PER_PIXEL
    return max(1, min(SIDE, int(pixels**0.5) // 100 * 100))


@contextmanager
def running(target: "Any", *args: "Any") -> "Iterator[Any]":
    """Run a function in a process that ends with the ``with`` statement.

    After an exception it is terminated: nobody reads its answers any more, nor tells it to end.
    """
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    try:
        yield process
    except BaseException:
        process.terminate()
        raise
    finally:
        process.join()


def brighten(array: "Any") -> None:
    """Change every pixel of `array` in place."""
    array += 1


def worker(connection: "Any") -> None:
    """Change frames until None comes.

    A frame arrives as an array, by value, or as the name and shape of one that
    lies in shared memory.
    """
    import numpy as np

    attached = None  # type: Optional[SharedMemory]
    while True:
        message = connection.recv()
        if message is None:
            break
        if isinstance(message, np.ndarray):
            brighten(message)
            connection.send(message)
            continue
        name, shape = message
        if attached is None or attached.name != name:
            attached = SharedMemory(name)
        brighten(np.ndarray(shape, DTYPE, buffer=attached.buf))
        connection.send(None)
    if attached is not None:
        attached.close()


def pattern(number, side):
    """Return the rows of frame `number`: each differs from every other frame's."""
    import numpy as np

    return np.arange(side, dtype=DTYPE) + 7 * number


def check(array, number):
    """Fail unless every pixel is that of frame `number` after `brighten`."""
    expected = pattern(number, array.shape[1]) + 1
    if not (array == expected).all():
        raise AssertionError("frame {} came back wrong".format(number))


def pickled(connection, frames, side):
    """Write the frames and send them by value; return the seconds it took."""
    import numpy as np

    frame = np.empty((side, side), DTYPE)
    total = 0.0
    for number in range(frames):
        start = time.perf_counter()
        frame[:] = pattern(number, side)
        connection.send(frame)
        result = connection.recv()
        total += time.perf_counter() - start
        check(result, number)
    return total


def shared(connection, frames, side, shm):
    """Write the frames and send them by name; return the seconds it took."""
    import numpy as np

    frame = np.ndarray((side, side), DTYPE, buffer=shm.buf)
    total = 0.0
    for number in range(frames):
        start = time.perf_counter()
        frame[:] = pattern(number, side)
        connection.send((shm.name, frame.shape))
        connection.recv()
        total += time.perf_counter() - start
        check(frame, number)
    return total


def queue_worker(requests: "Any", answers: "Any") -> None:
    """Change frames that come by reference until None comes."""
    while True:
        frame = requests.get()
        if frame is None:
            break
        brighten(frame)
        answers.put(frame)


def queued(frames, side):
    """Write the frames to shared arrays and pass them on; return the seconds it took."""
    from .arrays import empty
    from .queues import Queue

    requests, answers = Queue(), Queue()
    total = 0.0
    with running(queue_worker, requests, answers) as process:
        for number in range(frames):
            start = time.perf_counter()
            frame = empty((side, side), DTYPE)
            frame[:] = pattern(number, side)
            requests.put(frame)
            result = answer(answers, process)
            total += time.perf_counter() - start
            check(result, number)
            check(frame, number)
        requests.put(None)
    return total


def answer(answers, process):
    """Return the next answer of a process; fail if it has ended without one."""
    while True:
        try:
            return answers.get(timeout=1)
        except queue.Empty:
            if process.exitcode is not None:
                text = "a worker ended without an answer, with exit code {}"
                raise AssertionError(text.format(process.exitcode)) from None


def named(side: int) -> None:
    """Let another program find an array by its name and change it."""
    from .named import create, delete

    name = "shm://shared-numpy-demo-{}".format(os.getpid())
    array = create(name, (side, side), DTYPE)
    try:
        code = "import sys, shared_numpy as snp; snp.attach(sys.argv[1])[:] += 42"
        subprocess.check_call([sys.executable, "-c", code, name])
        output.line("\nan array that another program found as {}: {}".format(name, array[-1, -1]))
        means("The other program knew the name only, and added 42 to each item where it lies.")
        if not (array == 42).all():
            raise AssertionError("the array is wrong")
    finally:
        delete(name)


def add_one(array: "Any") -> "Any":
    """The function that the executors run."""
    return array + 1


def one_sigma(sigma: float) -> "Any":
    """The function that the context runs; `D` and `b` are its arrays."""
    import numpy as np

    kernel = np.exp(-0.5 * D / (sigma * sigma))  # type: ignore # noqa: F821
    return np.linalg.solve(kernel, b)  # type: ignore # noqa: F821


def executed(side: int) -> None:
    """Run a function over a large array in another process, by two executors."""
    import concurrent.futures

    import numpy as np

    from .executor import ProcessPoolExecutor

    data = np.ones(2 * side * side)
    output.line(
        "\na function over an array of {} in another process".format(output.size(data.nbytes))
    )
    times = {}
    for name, cls in (
        ("concurrent.futures", concurrent.futures.ProcessPoolExecutor),
        ("shared_numpy", ProcessPoolExecutor),
    ):
        with cls(max_workers=1) as pool:
            pool.submit(add_one, data).result()
            times[name] = 0.0
            for number in range(1, 4):
                data[:] = number
                start = time.perf_counter()
                result = pool.submit(add_one, data).result()
                times[name] += (time.perf_counter() - start) / 3
                if not (result == number + 1).all():
                    raise AssertionError("the result is wrong")
                del result
    compare(times)
    means(
        "Both run array + 1 in one worker. concurrent.futures pickles the array and the result; "
        "shared_numpy copies the array into shared memory, and the result is made there."
    )


def limit_threads() -> None:
    """Let linear algebra start one thread a process: here, and in processes made later."""
    for name in THREADS:
        os.environ[name] = "1"
    if "numpy" in sys.modules:
        # It has read the environment already.
        with suppress(ImportError):
            import threadpoolctl

            threadpoolctl.threadpool_limits(1)


def in_context(side: int) -> None:
    """Solve some systems that share two arrays, one after the other and in a context.

    Both with one thread of linear algebra in each process.
    """
    import numpy as np

    from .context import SharedContext

    size = max(side // 3, 10)
    rng = np.random.RandomState(0)
    arrays = {"D": rng.rand(size, size), "b": rng.rand(size)}
    sigmas = [2.0**number for number in range(1, 9)]
    globals().update(arrays)
    start = time.perf_counter()
    expected = [one_sigma(sigma) for sigma in sigmas]
    serial = time.perf_counter() - start
    for name in arrays:
        del globals()[name]
    with SharedContext(arrays) as ctx:
        enqueue = ctx.register(one_sigma)
        enqueue(sigmas[0])
        ctx.evaluate()
        start = time.perf_counter()
        for sigma in sigmas:
            enqueue(sigma)
        results = ctx.evaluate()
        parallel = time.perf_counter() - start
    if not all(np.allclose(one, other) for one, other in zip(results, expected)):
        raise AssertionError("the results are wrong")
    output.line("\n{} systems of {} unknowns that share two arrays".format(len(sigmas), size))
    compare(
        {
            "one after the other": serial,
            "in a context of {} processes".format(os.cpu_count()): parallel,
        }
    )
    means(
        "All systems, with one thread of linear algebra in each process. At best the context is as "
        "many times faster as there are idle CPUs; for small systems the way there takes longer than "
        "the work."
    )


def exists(name):
    """Tell whether there is a segment of that name."""
    try:
        SharedMemory(name, track=False).close()
    except FileNotFoundError:
        return False
    return True


def edit(name: str) -> None:
    """Change the list that the parent shares."""
    settings = ShareableList(name=name)
    settings[0] = "finished"
    settings[1] += 1
    settings[3] = None
    settings.shm.close()


def managed() -> str:
    """Share a list that a manager looks after; return its segment's name."""
    with SharedMemoryManager() as manager:
        settings = manager.ShareableList(["running", 41, 2.5, True])
        with running(edit, settings.shm.name):
            pass
        output.line(
            "\na manager's list that another process changed: {}".format(list(settings))
        )
        means("It was ['running', 41, 2.5, True]; the list lies in one segment of shared memory.")
        if list(settings) != ["finished", 42, 2.5, None]:
            raise AssertionError("the list is wrong")
        settings.shm.close()
    return settings.shm.name


def run(frames: int = FRAMES, side: int = SIDE) -> None:
    """Show the main job and what it costs.

    Parameters
    ----------
    frames : int
        How many frames to send.
    side : int
        Rows and columns of a frame of float32.

    Raises
    ------
    AssertionError
        Something came back wrong or was left behind.
    OSError, MemoryError
        There is no room for the frames in shared memory.
    """
    limit_threads()
    import numpy as np

    size = side * side * np.dtype(DTYPE).itemsize
    output.line(
        "shared_numpy {}, CPython {}, numpy {}, {} CPUs".format(
            __version__, platform.python_version(), np.__version__, os.cpu_count()
        )
    )
    output.line(
        "\n{} frames of {} x {} {} ({} each) through another process".format(
            frames, side, side, DTYPE, output.size(size)
        )
    )
    means(
        "The parent writes each pixel, a worker adds one to it, the parent checks it. A time is from "
        "the first pixel written to the answer received, without the check; shorter is better."
    )
    shm = SharedMemory(create=True, size=size)
    parent, child = multiprocessing.Pipe()
    try:
        with running(worker, child):
            child.close()  # So that a worker's death ends the pipe.
            times = {"pickled through a pipe": pickled(parent, frames, side)}
            times["in a segment, by name"] = shared(parent, frames, side, shm)
            if HAS_ARRAYS:
                times["in a queue of arrays"] = queued(frames, side)
            parent.send(None)
        compare({way: seconds / frames for way, seconds in times.items()})
        means(
            "Pickled, each frame is copied into the pipe and out of it, on both ways. By name and by "
            "reference no pixel is copied: what is left is the work itself. In the queue each frame "
            "is a new array, and nobody has to think of names."
        )
    finally:
        shm.close()
        shm.unlink()

    if HAS_ARRAYS:
        executed(side)
        in_context(side)
        named(side)
    names = [shm.name, managed()]
    left = [name for name in names if exists(name)]
    if left:
        raise AssertionError("left behind: {}".format(left))
    output.line("\nnothing is left behind: {} and {} are gone".format(*names))
    means("The segments of the frames and of the list; arrays have no name to leave.")
