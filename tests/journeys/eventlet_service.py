"""An eventlet service, in which select.poll is taken away, uses a pool."""
# needs: eventlet
# methods: fork spawn
# prints: 2.0

import warnings

# eventlet says that it is no longer developed.
warnings.simplefilter("ignore")

import eventlet  # noqa: E402

eventlet.monkey_patch()

import sys  # noqa: E402

import numpy as np  # noqa: E402
import shared_numpy as snp  # noqa: E402


def add_one(values):
    return values + 1


if __name__ == "__main__":
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        print(pool.submit(add_one, np.ones(5)).result()[0])
