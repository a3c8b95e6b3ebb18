"""A call takes too long: the program ends its worker and goes on with a new pool."""
# prints: it took too long
# prints: 6.0

import concurrent.futures
import sys
import time

import numpy as np
import shared_numpy as snp


def total(values):
    return float(values.sum())


if __name__ == "__main__":
    pool = snp.ProcessPoolExecutor(1, sys.argv[1])
    overdue = pool.submit(time.sleep, 600)
    try:
        overdue.result(timeout=0.5)
    except concurrent.futures.TimeoutError:
        print("it took too long")
    pool.terminate_workers()
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        print(pool.submit(total, np.arange(4.0)).result())
