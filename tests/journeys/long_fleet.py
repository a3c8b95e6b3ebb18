"""A scheduler makes a queue and a process for each job, for days."""
# prints: round 0 1000000.0
# prints: ...
# prints: round 11 1000000.0

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def work(jobs, results):
    results.put(jobs.get() + 1)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    for number in range(12):
        jobs, results = snp.Queue(), snp.Queue()
        process = multiprocessing.Process(target=work, args=(jobs, results))
        process.start()
        jobs.put(np.zeros(1000000))
        print("round", number, results.get(timeout=30).sum(), flush=True)
        process.join()
