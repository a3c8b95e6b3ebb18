"""Some tasks raise: their errors arrive with the worker's traceback, the other results are good."""
# prints: 0: 1.0
# prints: 1: no light in picture 1
# prints: 2: 1.0
# prints: its cause names the function: True

import sys
import traceback

import numpy as np
import shared_numpy as snp


class Dark(Exception):
    pass


def normalize(number, picture):
    if not picture.any():
        raise Dark("no light in picture %d" % number)
    return picture / picture.max()


if __name__ == "__main__":
    pictures = [np.full((50, 50), 2.0), np.zeros((50, 50)), np.full((50, 50), 8.0)]
    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        futures = [pool.submit(normalize, *each) for each in enumerate(pictures)]
        for number, future in enumerate(futures):
            try:
                print("%d: %s" % (number, future.result().max()))
            except Dark as error:
                print("%d: %s" % (number, error))
                text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    print("its cause names the function:", "in normalize" in text)
