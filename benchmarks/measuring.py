"""What the benchmarks share: turns, times, processes that end with their parent, files of figures.

A figure is taken once in each round, and within a round all peers take their turns, so that what
disturbs the machine for a while disturbs all of them.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time

# After so many seconds a turn has failed.
LIMIT = 60
WARM, FEWEST = 20, 20
PR_SET_PDEATHSIG = 1


def timed(*calls):
    """Return the seconds that some calls take, one after the other."""
    start = time.perf_counter()
    for call in calls:
        call()
    return time.perf_counter() - start


def timed_each(call, count=1):
    """Return the seconds that a call takes, of `count` in a row."""
    return timed(*[call] * count) / count


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
    if any(getattr(arg, "has_files", False) for arg in args):
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
def limited(seconds):
    """Raise `TimeoutError` where it takes too long."""

    def late(*args):
        raise TimeoutError("it took more than {} s".format(seconds))

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def by_turns(rounds, ways):
    """Do each thing once in each round; return the results of those that never failed."""
    results = {name: [] for name in ways}
    for _ in range(rounds):
        for name in list(results):
            try:
                with limited(LIMIT):
                    results[name].append(ways[name]())
            except Exception as error:
                print("({} failed: {!r})".format(name, error), flush=True)
                del results[name]
    return results


def echoed(requests, answers, payload, seconds, warm=WARM, fewest=FEWEST):
    """Return the median and the 99th percentile of the times of echoes.

    Parameters
    ----------
    requests, answers : object with put and get
        To a worker that runs `peers.echo`, and from it.
    payload : callable
        Makes the message of a number: bytes, or an array of which the first item is the number.
    seconds : float
        How long to go on, if `fewest` echoes (after `warm` of them) are done by then.
    warm, fewest : int
        Echoes that do not count, and how many count at least.
    """
    times, end = [], time.perf_counter() + seconds
    while len(times) < warm + fewest or time.perf_counter() < end:
        message = payload(len(times))
        if not isinstance(message, bytes):
            first, last = message[0], message[-1]
        start = time.perf_counter()
        requests.put(message)
        back = answers.get()
        times.append(time.perf_counter() - start)
        if isinstance(message, bytes):
            assert back == message
        else:
            # The worker has changed the last item, if what it received can be written to.
            assert back[0] == first and back[-1] in (last, last + 1)
        del back
    times = sorted(times[warm:])
    return statistics.median(times), times[int(len(times) * 0.99)]


# ---- what a file of figures has --------------------------------------------------------------


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def huge_pages():
    try:
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled") as file:
            return file.read().partition("[")[2].partition("]")[0]
    except OSError:
        return "none"


def machine():
    return {
        "processor": processor(),
        "CPUs": len(os.sched_getaffinity(0)),
        "memory, bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "page, bytes": os.sysconf("SC_PAGE_SIZE"),
        "huge pages of shared memory": huge_pages(),
        "kernel": platform.release().partition("-")[0],
        "libc": " ".join(platform.libc_ver()),
    }


def versions(packages):
    """Return {name: version} of the interpreter, and of those packages that are installed."""
    found = {"CPython": platform.python_version()}
    try:
        from importlib import metadata
    except ImportError:
        import numpy
        import shared_numpy

        found.update({"shared-numpy": shared_numpy.__version__, "numpy": numpy.__version__})
    else:
        for package in packages:
            try:
                found[package] = metadata.version(package)
            except metadata.PackageNotFoundError:
                pass
    return found


def load():
    return [round(each, 2) for each in os.getloadavg()]


def summary(figures):
    middle = statistics.median(figures)
    return dict(rounds=figures, min=min(figures), median=middle, max=max(figures))


def summaries(figures):
    """Return {label: {peer: summary}} of {label: {peer: figures}}."""
    return {
        label: {peer: summary(values) for peer, values in rows.items() if values}
        for label, rows in figures.items()
    }


def write(path, figures, packages=()):
    """Write {label: {peer: figures}} and the versions into a file, for `costs.py`."""
    with open(path, "w") as file:
        json.dump({"versions": versions(packages), "figures": summaries(figures)}, file)
