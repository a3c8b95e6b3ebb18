"""A program is killed in the middle of its work: its workers end, and its memory is free again
when the next program starts. (The standard library's tracker warns of it on stderr.)"""
# needs: mounts
# run: python killed_program.py METHOD 2> /dev/null; exec python killed_program.py again
# prints: works
# prints: all memory is free: True

import os
import signal
import sys
import time

import shared_numpy as snp


def fill(image):
    image[:] = 1


def main(method):
    images = [snp.zeros((1000, 1000)) for _ in range(5)]
    pool = snp.ProcessPoolExecutor(2, method)
    list(pool.map(fill, images))
    busy = [pool.submit(time.sleep, 0.5) for _ in range(4)]
    print("works", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def used():
    shm = os.statvfs("/dev/shm")
    return (shm.f_blocks - shm.f_bfree) * shm.f_frsize


if __name__ == "__main__":
    if sys.argv[1] != "again":
        main(sys.argv[1])
    end = time.monotonic() + 30
    # The workers of the killed program end when their call does.
    while used() > 10**7 and time.monotonic() < end:
        time.sleep(0.1)
        snp.trim()
    image = snp.ones(100)
    print("all memory is free:", used() < 10**7)
