"""A task closes all descriptors of its worker, as libraries do that start daemons: the pool breaks
with an error, and the program goes on with another pool."""
# methods: fork spawn
# prints: it broke, or went on without it: True
# prints: another pool: 9

import os
import sys
from concurrent.futures.process import BrokenProcessPool

import shared_numpy as snp


def close_all():
    os.closerange(3, 256)


if __name__ == "__main__":
    answer = None
    pool = snp.ProcessPoolExecutor(1, sys.argv[1])
    try:
        pool.submit(close_all).result(timeout=30)
        answer = pool.submit(pow, 3, 2).result(timeout=30)
    except BrokenProcessPool as error:
        answer = error
    print("it broke, or went on without it:", isinstance(answer, BrokenProcessPool) or answer == 9)
    pool.shutdown()
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        print("another pool:", pool.submit(pow, 3, 2).result())
