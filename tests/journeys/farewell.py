"""At exit a program still saves what its shared arrays hold, and a daemon thread still waits."""
# prints: saved 42.0 by atexit

import atexit
import multiprocessing
import sys
import threading

import shared_numpy as snp


def save(values):
    print("saved %s by atexit" % values.sum())


def fill(values):
    values[:] = 42


def wait_for_ever(queue):
    while True:
        queue.get()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    values, queue = snp.zeros(1), snp.Queue()
    atexit.register(save, values)
    threading.Thread(target=wait_for_ever, args=(queue,), daemon=True).start()
    process = multiprocessing.Process(target=fill, args=(values,))
    process.start()
    process.join()
