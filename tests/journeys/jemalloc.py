"""A service runs with jemalloc instead of the C library's allocator."""
# run: LD_PRELOAD=$(ls /usr/lib/*/libjemalloc.so.2) exec python jemalloc.py METHOD
# needs: /usr/lib/*/libjemalloc.so.2
# prints: [2.0, 2.0, 2.0, 2.0]

import sys

import numpy as np
import shared_numpy as snp


def add_one(values):
    return values + 1


if __name__ == "__main__":
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        print([float(values[0]) for values in pool.map(add_one, [np.ones(100000)] * 4)])
