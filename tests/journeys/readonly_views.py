"""Workers get a read-only view of the main program's data, and cannot change it by mistake."""
# prints: ValueError: assignment destination is read-only
# prints: 0.0

import sys

import shared_numpy as snp


def change(values):
    values[0] = 1


if __name__ == "__main__":
    values = snp.zeros(1000)
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        try:
            pool.submit(change, values.readonly()).result()
        except ValueError as error:
            print("ValueError:", error)
    print(values[0])
