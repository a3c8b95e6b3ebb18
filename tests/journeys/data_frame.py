"""A DataFrame on a shared array keeps its columns, and a worker's changes are seen in it."""
# needs: pandas
# prints: ['x', 'y'] (1000, 2) None
# prints: 1000.0

import multiprocessing
import sys

import pandas as pd

import shared_numpy as snp


def fill(table):
    table[:, 1] = 1


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    table = snp.zeros((1000, 2))
    process = multiprocessing.Process(target=fill, args=(table,))
    process.start()
    process.join()
    frame = pd.DataFrame(table, columns=["x", "y"])
    print(list(frame.columns), frame.shape, pd.Series(table[:, 0]).name)
    print(frame["y"].sum())
