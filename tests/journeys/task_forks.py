"""A task forks, and its child raises or exits: the pool has as many workers as before."""
# prints: [1, 1, 1, 1] by one worker

import os
import sys

import shared_numpy as snp


def fork_and_exit(_):
    pid = os.fork()
    if pid == 0:
        sys.exit(0)
    os.waitpid(pid, 0)
    return 1


def worker(_):
    return os.getpid()


if __name__ == "__main__":
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        results = list(pool.map(fork_and_exit, range(4)))
        workers = set(pool.map(worker, range(20)))
    print(results, "by one worker" if len(workers) == 1 else workers)
