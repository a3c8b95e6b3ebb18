"""Tests of a project run with every warning as an error, and use processes, queues and pools."""
# methods: spawn forkserver
# run: exec python -W error warnings_as_errors.py METHOD
# prints: [2.0, 2.0] 1.0 0.0

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def work(queue):
    queue.put(np.ones(10000))


def add_one(values):
    return values + 1


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queue, ring = snp.Queue(), snp.RingBuffer(100)
    process = multiprocessing.Process(target=work, args=(queue,))
    process.start()
    with snp.ProcessPoolExecutor(2) as pool:
        result = pool.submit(add_one, np.ones(2)).result()
    with ring.write() as frame:
        frame[:] = 0
    with ring.read() as frame:
        print(result.tolist(), queue.get()[0], frame.sum())
    process.join()
