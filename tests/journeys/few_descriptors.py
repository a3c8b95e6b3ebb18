"""A hundred named arrays and as many segments under ulimit -n 64: a pool works beside them."""
# run: ulimit -n 64; exec python few_descriptors.py METHOD
# prints: 100 arrays, 40 segments, sum 4950.0

import sys

import shared_numpy as snp


def total(arrays):
    return float(sum(array[0] for array in arrays))


if __name__ == "__main__":
    names = ["few-%d" % number for number in range(100)]
    arrays = [snp.create(name, 10, fill=float(number)) for number, name in enumerate(names)]
    segments = [snp.SharedMemory(create=True, size=1000) for _ in range(40)]
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        result = pool.submit(total, arrays).result()
    print("%d arrays, %d segments, sum %s" % (len(arrays), len(segments), result))
    for name in names:
        snp.delete(name)
    for segment in segments:
        segment.close()
        segment.unlink()
