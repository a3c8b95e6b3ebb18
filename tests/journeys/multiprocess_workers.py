"""The multiprocess package (dill) sends a lambda that captures a shared array: a copy goes."""
# needs: multiprocess
# methods: none
# prints: [0.0, 3.0, 6.0]
# prints: by handle it is the same memory: 9.0

import multiprocess

import shared_numpy as snp


def write(handle):
    snp.receive(handle)[0] = 9


if __name__ == "__main__":
    values = snp.full(3, 3.0)
    with multiprocess.Pool(2) as pool:
        print(pool.map(lambda number: float(values[number] * number), range(3)))
        pool.apply(write, (snp.send(values),))
        pool.close()
        pool.join()
    print("by handle it is the same memory:", values[0])
