"""A program in one file: a zipapp, whose workers find its functions inside it."""
# run: mkdir app && cp zipped_program.py app && python -m zipapp app -m zipped_program:main && exec python app.pyz METHOD
# prints: [0.0, 1.0, 4.0, 9.0]

import sys

import numpy as np
import shared_numpy as snp


def square(values):
    values **= 2


def main():
    values = snp.array(np.arange(4.0))
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        pool.submit(square, values).result()
    print(values.tolist())
