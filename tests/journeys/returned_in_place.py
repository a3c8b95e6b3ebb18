"""Workers make their results in shared memory from the beginning: a large one is not copied."""
# prints: [0.0, 1.0, 2.0, 3.0] (2000, 1000)
# prints: it is the main program's to change: 7.0

import sys

import numpy as np
import shared_numpy as snp


def render(number):
    return np.full((2000, 1000), number, "f4")


if __name__ == "__main__":
    in_place = np.__version__ >= "1.22"  # Older ones cannot.
    with snp.ProcessPoolExecutor(2, sys.argv[1], results="in_place" if in_place else "shared") as pool:
        images = list(pool.map(render, range(4)))
    print([float(image.mean()) for image in images], images[0].shape)
    images[0][0, 0] = 7
    print("it is the main program's to change:", images[0][0, 0])
