"""A batch system gives each process 4 GiB of address space (ulimit -v), as clusters do."""
# run: ulimit -v 4194304; OPENBLAS_NUM_THREADS=1 exec python little_address_space.py METHOD
# prints: 2.0 1.0

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def add_one(values):
    return values + 1


def work(queue):
    queue.put(np.ones((1000, 1000)))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queue = snp.Queue()
    process = multiprocessing.Process(target=work, args=(queue,))
    process.start()
    with snp.ProcessPoolExecutor(2) as pool:
        print(pool.submit(add_one, snp.ones((1000, 1000))).result()[0, 0], queue.get().mean())
    process.join()
