"""A decoder crashes now and then: the call is tried again in another worker; a file that always
crashes it fails alone."""
# prints: good files: 8
# prints: the bad one: BrokenProcessPool
# prints: and the pool goes on: 3

import os
import sys
import tempfile
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import shared_numpy as snp


def decode(data, folder):
    # Once, for every third file, the library that decodes it crashes.
    mark = os.path.join(folder, str(data[0]))
    if data[0] % 3 == 0 and not os.path.exists(mark):
        open(mark, "w").close()
        os._exit(139)
    return data * 2


def crash():
    os._exit(139)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        with snp.ProcessPoolExecutor(2, sys.argv[1], retries=3) as pool:
            files = [np.full(3000, number) for number in range(8)]
            results = [pool.submit(decode, data, folder) for data in files]
            good = sum((each.result() == 2 * data).all() for each, data in zip(results, files))
            print("good files:", good)
            try:
                pool.submit(crash).result()
            except BrokenProcessPool as error:
                print("the bad one:", type(error).__name__)
            print("and the pool goes on:", pool.submit(abs, -3).result())
