"""A program with secrets forbids to look into its memory (PR_SET_DUMPABLE), as key agents do."""
# prints: 2.0 7.0

import ctypes
import multiprocessing
import sys

import numpy as np
import shared_numpy as snp

PR_SET_DUMPABLE = 4


def forbid():
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def work(values, queue):
    forbid()
    values[0] = 7
    queue.put(np.ones(100000))


def add_one(values):
    return values + 1


if __name__ == "__main__":
    forbid()
    multiprocessing.set_start_method(sys.argv[1])
    values, queue = snp.zeros(1000000), snp.Queue()
    process = multiprocessing.Process(target=work, args=(values, queue))
    process.start()
    received = queue.get(timeout=30)
    process.join()
    with snp.ProcessPoolExecutor(1, initializer=forbid) as pool:
        print(pool.submit(add_one, received).result()[0], values[0])
