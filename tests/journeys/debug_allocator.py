"""A program runs with Python's debugging allocator, which finds memory used after its end."""
# run: PYTHONMALLOC=debug PYTHONFAULTHANDLER=1 exec python debug_allocator.py METHOD
# prints: 300 messages: 45150.0

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def double(requests, answers):
    for number, values in iter(requests.get, None):
        values *= 2
        answers.put((number, values[::2]))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    requests, answers = snp.Queue(), snp.Queue()
    process = multiprocessing.Process(target=double, args=(requests, answers))
    process.start()
    total = 0
    for number in range(300):
        # Below the size from which arrays are moved through shared memory, and above it.
        requests.put((number, np.full(8 if number % 2 else 4000, number / 2.0)))
        total += answers.get()[1][0] + 1
    requests.put(None)
    process.join()
    print("300 messages:", total)
