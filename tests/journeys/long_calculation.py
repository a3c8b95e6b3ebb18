"""A pool works for days with arrays in arguments and results: nothing adds up in any process."""
# prints: round 0 1.0
# prints: ...
# prints: round 29 30.0

import sys

import numpy as np
import shared_numpy as snp


def add_one(values):
    return values + 1


if __name__ == "__main__":
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        for number in range(30):
            values = np.full(250000, number, "f4")
            results = [pool.submit(add_one, values) for _ in range(4)]
            print("round", number, max(each.result().max() for each in results), flush=True)
