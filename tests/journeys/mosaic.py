"""Workers of a Pool each compute a part of one large picture, given as slices of it."""
# prints: 285.0 True

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def draw(tile, value):
    tile[...] = value


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    picture = snp.zeros((400, 1000))
    tiles = [picture[row : row + 40] for row in range(0, 400, 40)]
    with multiprocessing.Pool(2) as pool:
        pool.starmap(draw, [(tile, number**2) for number, tile in enumerate(tiles)])
        pool.close()
        pool.join()
    expected = np.repeat(np.arange(10.0) ** 2, 40)[:, None] * np.ones(1000)
    print(picture[::40, 0].sum(), np.array_equal(picture, expected))
