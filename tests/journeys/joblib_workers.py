"""joblib's workers fill the rows of one result, without a copy of it."""
# methods: none
# needs: joblib loky
# prints: [0.0, 1.0, 4.0, 9.0, 16.0, 25.0, 36.0, 49.0]

from joblib import Parallel, delayed

import shared_numpy as snp
from shared_numpy.integrations import joblib


def fill(result, row):
    result[row] = row**2


if __name__ == "__main__":
    joblib.register()
    result = snp.zeros((8, 100000))
    Parallel(n_jobs=2)(delayed(fill)(result, row) for row in range(8))
    print(result[:, -1].tolist())
