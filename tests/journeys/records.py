"""Measurements as records and masked arrays go to a worker and back, with fields and masks."""
# prints: mean of the valid ones: 2.0
# prints: fields: ('time', 'value') and the worker has set [1.0, 1.0, 1.0, 1.0]

import sys

import numpy as np
import shared_numpy as snp


def mean_of_valid(values):
    return float(values.mean())


def stamp(records):
    records.time[:] = 1
    return records.dtype.names


if __name__ == "__main__":
    values = np.ma.masked_array(snp.array([1.0, 2.0, 3.0, 999.0]), [False, False, False, True])
    records = snp.zeros(4, [("time", "f8"), ("value", "i4")]).view(np.recarray)
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        print("mean of the valid ones:", pool.submit(mean_of_valid, values).result())
        names = pool.submit(stamp, records).result()
    print("fields: %s and the worker has set %s" % (names, records["time"].tolist()))
