"""A program runs under python -OO, without docstrings and assertions."""
# run: exec python -OO optimized.py METHOD
# prints: None 3.0 [2.0, 2.0]

import sys

import numpy as np
import shared_numpy as snp


def add_one(values):
    """This text is not there."""
    assert False, "nor is this"
    return values + 1


if __name__ == "__main__":
    values = snp.create("optimized", 3, fill=np.ones(3))
    snp.delete("optimized")
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        print(add_one.__doc__, values.sum(), pool.submit(add_one, snp.ones(2)).result().tolist())
