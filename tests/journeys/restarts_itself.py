"""A server restarts itself by exec when its code has changed: the same process, a new program.

(A tracker of the standard library warns of what it then removes, unless warnings are ignored.)
"""
# needs: mounts
# run: exec python -W ignore restarts_itself.py METHOD
# prints: run 0: 1000.0
# prints: run 1: 1000.0
# prints: run 2: 1000.0
# prints: its memory did not add up: True

import multiprocessing
import os
import sys

import shared_numpy as snp


def send(queue):
    queue.put(snp.ones(1000))


def used():
    shm = os.statvfs("/dev/shm")
    return (shm.f_blocks - shm.f_bfree) * shm.f_frsize


if __name__ == "__main__":
    run = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    frames, queue = snp.ones((100, 100, 1000)), snp.Queue()
    process = multiprocessing.get_context(sys.argv[1]).Process(target=send, args=(queue,))
    process.start()
    print("run %d: %s" % (run, queue.get(timeout=30).sum()), flush=True)
    process.join()
    if run < 2:
        command = [sys.executable, "-W", "ignore", __file__, sys.argv[1], str(run + 1)]
        os.execv(sys.executable, command)
    print("its memory did not add up:", used() < 2 * frames.nbytes)
