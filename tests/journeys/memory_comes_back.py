"""A program that runs others (by subprocess, by a pool that is terminated) gets its memory back."""
# needs: mounts
# prints: held 80 MB, after a subprocess: 0 MB
# prints: held 80 MB, after a pool: 0 MB
# prints: held 80 MB, after a killed child: 0 MB

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import shared_numpy as snp


def used():
    shm = os.statvfs("/dev/shm")
    return (shm.f_blocks - shm.f_bfree) * shm.f_frsize // 10**6 // 10 * 10


def first(values):
    return float(values[0])


def pause(started, values):
    started.set()
    signal.pause()


def run_subprocess(context, values):
    subprocess.check_call(["true"])


def run_pool(context, values):
    with context.Pool(2) as pool:
        assert pool.map(first, [values] * 4) == [1.0] * 4


def run_killed_child(context, values):
    started = context.Event()
    child = context.Process(target=pause, args=(started, values))
    child.start()
    started.wait()
    os.kill(child.pid, signal.SIGKILL)
    child.join()


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    for what, run in [
        ("a subprocess", run_subprocess),
        ("a pool", run_pool),
        ("a killed child", run_killed_child),
    ]:
        values = snp.ones(10**7)
        run(context, values)
        held = used()
        del values
        for _ in range(100):
            # What a child held that was still dying is free within a second.
            snp.trim()
            if not used():
                break
            time.sleep(0.05)
        print("held %d MB, after %s: %d MB" % (held, what, used()))
