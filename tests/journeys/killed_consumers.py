"""Consumers of a bounded queue are killed again and again: it keeps all of its places."""
# prints: 5 places, and 5 again after 4 kills
# prints: what was put then arrives: [0, 1, 2, 3, 4]

import multiprocessing
import os
import queue
import signal
import sys
import time

import shared_numpy as snp


def consume(jobs, taken):
    while True:
        jobs.get()
        taken += 1


def fill(jobs):
    count = 0
    try:
        while True:
            jobs.put_nowait(count)
            count += 1
    except queue.Full:
        return count


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    jobs, taken = snp.Queue(maxsize=5), snp.zeros(1, int)
    places = fill(jobs)
    for _ in range(4):
        taken[:] = 0
        process = multiprocessing.Process(target=consume, args=(jobs, taken))
        process.start()
        # (An Event has a lock, which a process that is killed could keep.)
        while not taken.any():
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        fill(jobs)
    try:
        while True:
            jobs.get(timeout=0.2)
    except queue.Empty:
        pass
    print("%d places, and %d again after 4 kills" % (places, fill(jobs)))
    print("what was put then arrives:", [jobs.get(timeout=30) for _ in range(5)])
