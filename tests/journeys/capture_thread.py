"""A thread grabs frames while the main thread starts the workers: the usual start of a capture
program, in which the package's first use and a fork happen at the same time."""
# prints: [0, 0, 0] (480, 640, 3)

import multiprocessing
import sys
import threading

import shared_numpy as snp


def capture(frames):
    frames.append(snp.zeros((480, 640, 3), "u1"))


def work():
    counters = snp.zeros(3)
    counters += 1


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    frames = []
    thread = threading.Thread(target=capture, args=(frames,))
    thread.start()
    workers = [multiprocessing.Process(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    thread.join()
    print([worker.exitcode for worker in workers], frames[0].shape)
