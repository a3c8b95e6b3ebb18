"""Each worker of the standard library's pool counts into a row of a shared table of its own."""
# prints: 100000 values counted, as numpy counts them: True

import concurrent.futures
import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def count(values, row):
    row += np.bincount(values, minlength=len(row))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    values = snp.array(np.random.RandomState(1).randint(0, 256, 100000))
    table = snp.zeros((4, 256), int)
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        list(pool.map(count, np.split(values, 4), table))
    right = np.array_equal(table.sum(axis=0), np.bincount(values, minlength=256))
    print("%d values counted, as numpy counts them: %s" % (table.sum(), right))
