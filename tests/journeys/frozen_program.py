"""A program that PyInstaller has made into one folder: its workers are the program itself."""
# needs: PyInstaller
# methods: spawn
# seconds: 150
# run: python -m PyInstaller --log-level ERROR frozen_program.py > build.txt 2>&1 || cat build.txt; exec dist/frozen_program/frozen_program METHOD
# prints: [0.0, 2.0, 4.0]

import multiprocessing
import sys

import numpy as np
import shared_numpy as snp


def double(values):
    values *= 2


if __name__ == "__main__":
    multiprocessing.freeze_support()
    values = snp.array(np.arange(3.0))
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        pool.submit(double, values).result()
    print(values.tolist())
