"""A package that is run by python -m: its workers find its functions."""
# run: mkdir service && touch service/__init__.py && cp run_as_module.py service/__main__.py && cp run_as_module.py service/jobs.py && exec python -m service METHOD
# prints: 499500.0 by service.jobs

import sys

import numpy as np
import shared_numpy as snp


def total(values):
    return float(values.sum())


if __name__ == "__main__":
    from service.jobs import total

    with snp.ProcessPoolExecutor(2, sys.argv[1]) as pool:
        print(pool.submit(total, np.arange(1000.0)).result(), "by", total.__module__)
