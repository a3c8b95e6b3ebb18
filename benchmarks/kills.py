"""What goes on, and what is left behind, after workers were killed.

    python benchmarks/kills.py [--kills 20]

Of each channel and pool, a program of its own has workers killed, one after the other:

* a worker that puts arrays of 32 KiB into a channel and takes them out again, at a random moment
  of its work. The program has survived it if it can then put an array into that channel and take
  it out, within two seconds;
* a worker of a pool, by its function. The program has survived it if the call returns its result
  all the same: shared_numpy's executor with ``retries=1``; the others have no such option.

A program that did not survive is killed as a whole, and another one goes on. Counted is, too, what
is in /dev/shm in the end: when the last of the programs has ended by itself, and when such a program
is killed with all its processes and another one of the same kind has run. All that takes place
in a mount namespace with a /dev/shm of its own, for which it needs root; without, what other
programs make meanwhile counts as well, and what is left stays there.
"""

import argparse
import concurrent.futures
import functools
import multiprocessing
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np

import peers
import shared_numpy as snp
from measuring import workers

FOLDER = "/dev/shm"
# Within so many seconds a program survives a kill. (It is much less on a quiet machine.)
PATIENCE = 2
START = 30
APART = "SHARED_NUMPY_BENCHMARK_APART"
ITEMS = 4096
MOST_WAITING = 1000


# ---- channels --------------------------------------------------------------------------------


def work_alone(queue, begun):
    """Put arrays into a channel and take them out, until killed."""
    array = np.zeros(ITEMS)
    while True:
        queue.put(array)
        back = queue.get()
        back[-1] += 1
        del back
        begun.set()


def still_works(queue, number):
    """Tell whether an array goes through a channel, behind those that wait in it."""
    queue.put(np.full(ITEMS, float(number)))
    return any(queue.get()[0] == number for _ in range(MOST_WAITING))


def in_channel(factory, kills, seed, tell):
    chance = random.Random(seed)
    queue = factory()
    for number in range(1, kills + 1):
        begun = multiprocessing.Event()
        worker = multiprocessing.Process(target=work_alone, args=(queue, begun), daemon=True)
        worker.start()
        begun.wait()
        time.sleep(chance.uniform(0, 0.02))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        tell(still_works(queue, number))
    getattr(queue, "close", lambda: None)()


def standard_segments():
    from multiprocessing.shared_memory import SharedMemory

    return peers.Segments(segment=SharedMemory)


# ---- pools -----------------------------------------------------------------------------------


def killed_once(array, path):
    """Die when called for the first time; add one to an array when called again."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return array + 1
    os.kill(os.getpid(), signal.SIGKILL)


def in_pool(call, kills, seed, tell):
    array = np.ones(1 << 17)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            try:
                result = call(killed_once, array, os.path.join(folder, str(number)))
            except Exception:
                tell(False)
            else:
                tell(result[0] == 2)


def executor_of(make):
    """Return what calls a function in an executor, a new one after it broke."""
    made = []

    def call(*function):
        if not made:
            made.append(make(2))
        try:
            return made[0].submit(*function).result()
        except Exception:
            made.pop().shutdown()
            raise

    return call


def pool():
    made = multiprocessing.Pool(2)
    return lambda function, *args: made.apply(function, args)


def parallel():
    import joblib

    # (A single job it does in the program itself.)
    other = joblib.delayed(abs)(0)
    return lambda function, *args: joblib.Parallel(2)([joblib.delayed(function)(*args), other])[0]


def kinds():
    """Return {name: function of kills, seed, tell} of what is there."""
    channels = {
        peers.BASE: functools.partial(snp.Queue, peers.BOUND),
        "multiprocessing.Queue": functools.partial(multiprocessing.Queue, peers.BOUND),
        "multiprocessing.SimpleQueue": multiprocessing.SimpleQueue,
    }
    if sys.version_info >= (3, 8):
        channels["multiprocessing's SharedMemory"] = standard_segments
    if peers.is_installed("SharedArray", "SharedArray"):
        channels["SharedArray"] = peers.SharedArrays
    if peers.is_installed("faster_fifo", "faster-fifo"):
        channels["faster-fifo"] = functools.partial(peers.faster_fifo_queue, peers.MIB)
    retrying = functools.partial(snp.ProcessPoolExecutor, retries=1)
    pools = {
        "shared_numpy.ProcessPoolExecutor": functools.partial(executor_of, retrying),
        "concurrent.futures": functools.partial(
            executor_of, concurrent.futures.ProcessPoolExecutor
        ),
        "multiprocessing.Pool": pool,
    }
    if peers.is_installed("joblib", "joblib"):
        pools["joblib"] = parallel
    found = {name: functools.partial(in_channel, factory) for name, factory in channels.items()}
    for name, make in pools.items():
        found[name] = lambda *args, make=make: in_pool(make(), *args)
    return found


# ---- programs that are watched ---------------------------------------------------------------


class Program:
    """A program of a kind, in a session of its own; each line of it tells of a kill."""

    def __init__(self, kind, kills, seed):
        command = [sys.executable, os.path.abspath(__file__), "--kind", kind]
        command += ["--kills", str(kills), "--seed", str(seed)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )

    def line(self, seconds):
        """Return the next line, or None if it does not come, or the program has ended."""
        end = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            left = max(0, end - time.monotonic())
            if not select.select([self.process.stdout], [], [], left)[0]:
                return None
            byte = self.process.stdout.read(1)
            if not byte:
                return None
            line += byte
        return line.decode().strip()

    def end(self, seconds):
        """Return whether it ends by itself."""
        try:
            return self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False

    def kill(self):
        """Kill it with all its processes."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.process.stdout.close()


def in_use(before):
    """Return the bytes of what is in /dev/shm beside the names that were there before."""
    found = [os.path.join(FOLDER, name) for name in set(os.listdir(FOLDER)) - before]
    total = 0
    for path in found:
        try:
            total += os.lstat(path).st_blocks * 512
            if os.path.isdir(path):
                found += [os.path.join(path, name) for name in os.listdir(path)]
        except FileNotFoundError:
            pass
    return total


def survived(kind, kills, seed):
    """Return how many kills the programs of a kind survived."""
    count, number = 0, 0
    while number < kills:
        program = Program(kind, kills - number, seed + number)
        try:
            if program.line(START) != "begun":
                raise RuntimeError("a program of {} did not start".format(kind))
            line = ""
            while number < kills and line is not None:
                line = program.line(PATIENCE)
                number += 1
                count += line == "survived"
            if line is not None:
                program.end(PATIENCE)
        finally:
            program.kill()
    return count


def killed_as_a_whole(kind, seed):
    """Kill a program with all its processes amid its work, and have another one run."""
    program = Program(kind, 1000000, seed)
    program.line(START)
    program.line(PATIENCE)
    time.sleep(random.Random(seed).uniform(0, 0.05))
    program.kill()
    program = Program(kind, 1, seed)
    program.line(START)
    program.line(PATIENCE)
    program.end(PATIENCE)
    program.kill()


def measured(kills, seed=1):
    """Return {what: {peer: [number]}}: the kills, those that were survived, and the bytes that were
    left in /dev/shm."""
    titles = ("kills", "survived", "left at the end", "left after a kill of all")
    found = {title: {} for title in titles}
    environment = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder  # What killed programs leave there goes with it.
        for kind in kinds():
            before = set(os.listdir(FOLDER))
            count = survived(kind, kills, seed)
            left = in_use(before)
            clear()
            before = set(os.listdir(FOLDER))
            killed_as_a_whole(kind, seed)
            last = in_use(before)
            clear()
            for title, value in zip(titles, (kills, count, left, last)):
                found[title][kind] = [value]
            row = (kind, count, kills, left, last)
            print("  {:<34}{:4} of {}  left {:>12,}  {:>12,}".format(*row), flush=True)
        os.environ.pop("TMPDIR")
    if environment is not None:
        os.environ["TMPDIR"] = environment
    return found


def clear():
    """Remove what is in a /dev/shm of this benchmark's own."""
    if os.environ.get(APART):
        for name in os.listdir(FOLDER):
            path = os.path.join(FOLDER, name)
            shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def apart(command):
    """Return a command that runs another one with a /dev/shm of its own, if that is allowed."""
    script = "mount -t tmpfs -o mode=1777 tmpfs {} && exec \"$@\"".format(FOLDER)
    unshared = ["unshare", "--mount", "sh", "-c", script, "sh"]
    try:
        if subprocess.call(unshared + ["true"], stderr=subprocess.DEVNULL) == 0:
            return ["env", APART + "=yes"] + unshared + command
    except OSError:
        pass
    print("(no /dev/shm of its own: what others make counts, and what is left stays)", flush=True)
    return ["env", APART + "="] + command


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", help="be a program of this kind")
    options = parser.parse_args()
    if options.kind:
        multiprocessing.set_start_method("fork")
        print("begun", flush=True)

        def tell(good):
            print("survived" if good else "failed", flush=True)

        kinds()[options.kind](options.kills, options.seed, tell)
    elif os.environ.get(APART) is None:
        sys.exit(subprocess.call(apart([sys.executable] + sys.argv)))
    else:
        print("kills survived, and bytes left in /dev/shm: at the end, after a kill of all")
        measured(options.kills)


if __name__ == "__main__":
    main()
