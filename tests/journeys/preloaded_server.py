"""A fork server loads the package in advance, so that each of its workers starts in no time."""
# methods: forkserver
# prints: [2.0, 3.0, 4.0]

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def work(number, results):
    results.put(np.full(10000, number) + 1)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    multiprocessing.set_forkserver_preload(["numpy", "shared_numpy.queues", "__main__"])
    results = snp.Queue()
    workers = [multiprocessing.Process(target=work, args=(n, results)) for n in (1, 2, 3)]
    for worker in workers:
        worker.start()
    print(sorted(float(results.get(timeout=30).mean()) for _ in workers))
    for worker in workers:
        worker.join()
