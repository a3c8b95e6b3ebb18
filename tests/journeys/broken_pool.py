"""A worker dies while its siblings' helper processes live on: the program learns it and goes on."""
# methods: fork
# prints: BrokenProcessPool
# prints: nobody waited for the helpers: True

import os
import signal
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import shared_numpy as snp


def start_helper(number):
    """Leave a helper process behind, as libraries do that have servers of their own."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def crash():
    os._exit(1)


if __name__ == "__main__":
    pool = snp.ProcessPoolExecutor(3, sys.argv[1])
    helpers = list(pool.map(start_helper, range(3)))
    try:
        pool.submit(crash).result(timeout=60)
    except BrokenProcessPool as error:
        print(type(error).__name__)
    pool.shutdown()
    print("nobody waited for the helpers:", all(is_running(helper) for helper in helpers))
    for helper in helpers:
        os.kill(helper, signal.SIGTERM)
        while is_running(helper):
            time.sleep(0.01)
