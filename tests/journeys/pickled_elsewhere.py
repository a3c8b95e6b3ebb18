"""Functions of the main module that mention the package go through cloudpickle, loky and joblib."""
# methods: none
# needs: cloudpickle loky joblib
# prints: cloudpickle: [1.0, 1.0, 1.0]
# prints: joblib: [1.0, 2.0]
# prints: loky: [1.0, 1.0]

import pickle

import cloudpickle
from joblib import Parallel, delayed
from loky import get_reusable_executor

import shared_numpy as snp


def ones(count):
    return snp.ones(count)


if __name__ == "__main__":
    copied = pickle.loads(cloudpickle.dumps(ones))
    print("cloudpickle:", copied(3).tolist())
    sums = Parallel(n_jobs=2)(delayed(lambda n: float(ones(n).sum()))(n) for n in (1, 2))
    print("joblib:", sums)
    executor = get_reusable_executor(max_workers=1)
    print("loky:", executor.submit(lambda: ones(2)).result().tolist())
    executor.shutdown()
