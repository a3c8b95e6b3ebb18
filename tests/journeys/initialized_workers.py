"""Each worker loads its model once, by an initializer, from one array that all of them share."""
# prints: [0.0, 10.0, 20.0, 30.0]
# prints: one model: True

import sys

import numpy as np
import shared_numpy as snp


def load(weights):
    global model
    model = weights


def predict(value):
    return float((model * value).sum())


def where():
    return snp.name_of(model)


if __name__ == "__main__":
    weights = snp.ones(10)
    with snp.ProcessPoolExecutor(2, sys.argv[1], initializer=load, initargs=(weights,)) as pool:
        print(list(pool.map(predict, np.arange(4.0))))
        places = {pool.submit(where).result() for _ in range(8)}
        print("one model:", places == {snp.name_of(weights)})
