"""Segments and arrays that end with their manager, whatever the workers do with them."""
# prints: 6.0 [2, 4] 0.0
# prints: the segment ended with its manager

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def work(shm, totals, array):
    np.ndarray(3, buffer=shm.buf)[:] = 2
    totals[1] = 4
    array += 0
    shm.close()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with snp.ArrayManager() as manager:
        shm, totals = manager.SharedMemory(24), manager.ShareableList([2, 3])
        array = manager.zeros(9)
        process = multiprocessing.Process(target=work, args=(shm, totals, array))
        process.start()
        process.join()
        print(np.ndarray(3, buffer=shm.buf).sum(), list(totals), array.sum())
        totals.shm.close()
        shm.close()
    try:
        snp.SharedMemory(shm.name)
    except FileNotFoundError:
        print("the segment ended with its manager")
