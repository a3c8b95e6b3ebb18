"""A container with Docker's 64 MiB: a batch that is too large is refused with an error, and the
program goes on with smaller ones, again and again."""
# shm: 64m
# prints: too large: --shm-size is in the message: True
# prints: 20 batches of 20 MB, each of mean 1.0

import sys

import shared_numpy as snp


def normalize(batch):
    batch /= batch.max()


if __name__ == "__main__":
    try:
        snp.zeros(100000000, "u1")
    except OSError as error:
        print("too large: --shm-size is in the message:", "--shm-size" in str(error))
    means = []
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        for number in range(20):
            batch = snp.full((5, 1000, 1000), number + 1, "f4")
            pool.submit(normalize, batch).result()
            means.append(float(batch.mean()))
            del batch
    assert means == [1.0] * 20, means
    print("20 batches of 20 MB, each of mean 1.0")
