"""A notebook on a machine without cloudpickle: the error says what to install."""
# run: mkdir cloudpickle && echo 'raise ImportError("not here")' > cloudpickle/__init__.py && exec python notebook_without_extra.py METHOD
# prints: ...pip install cloudpickle...
# prints: named functions still work: 3

import sys

import shared_numpy as snp

if __name__ == "__main__":
    with snp.ProcessPoolExecutor(1, sys.argv[1]) as pool:
        try:
            pool.submit(lambda: 3).result()
        except Exception as error:
            print(error)
        print("named functions still work:", pool.submit(abs, -3).result())
