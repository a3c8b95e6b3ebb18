"""A worker of a pool has its own pool: folds of a cross-validation, each with parallel fits."""
# prints: [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]

import sys

import numpy as np
import shared_numpy as snp


def fit(data, row):
    return float(data[row].mean())


def fold(method, data, rows):
    with snp.ProcessPoolExecutor(2, method) as pool:
        return list(pool.map(fit, [data] * len(rows), rows))


if __name__ == "__main__":
    data = snp.array(np.arange(6.0)[:, None] * np.ones(10000))
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        folds = [pool.submit(fold, sys.argv[1], data, rows) for rows in ([0, 1, 2], [3, 4, 5])]
        print([each.result() for each in folds])
