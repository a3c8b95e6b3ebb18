"""A long map shows its progress by tqdm on stderr, and gives its results in order."""
# needs: tqdm
# prints: [0.0, 1.0, 2.0, 3.0]
# stderr: ...4/4...

import sys

import numpy as np
import shared_numpy as snp


def mean(image):
    return float(image.mean())


if __name__ == "__main__":
    images = [np.full((100, 100), number) for number in range(4)]
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        print(list(pool.map(mean, images, progress=True)))
