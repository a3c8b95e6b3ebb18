"""Code that was written for the standard library's shared_memory of 3.8 runs on every version."""
# prints: [0, 1, 4, 9]

import multiprocessing
import sys

import numpy as np

from shared_numpy import backport

backport.install()

from multiprocessing import shared_memory  # noqa: E402
from multiprocessing.managers import SharedMemoryManager  # noqa: E402


def square(name, count):
    shm = shared_memory.SharedMemory(name=name)
    values = np.ndarray(count, int, buffer=shm.buf)
    values **= 2
    del values
    shm.close()


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with SharedMemoryManager() as manager:
        shm = manager.SharedMemory(size=8 * 4)
        values = np.ndarray(4, int, buffer=shm.buf)
        values[:] = range(4)
        process = multiprocessing.Process(target=square, args=(shm.name, 4))
        process.start()
        process.join()
        print(values.tolist())
        del values
        shm.close()
