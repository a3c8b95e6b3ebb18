"""A virtual environment that was moved to another folder: all workers run in it."""
# run: export PYTHONPATH=$(python -c "import os, sys; print(os.pathsep.join(sys.path[1:]))"); python -m venv --without-pip old && mv old new && exec new/bin/python moved_environment.py METHOD
# prints: all run in the moved environment: True
# prints: 10.0

import multiprocessing
import os
import sys

import numpy as np
import shared_numpy as snp


def where():
    return sys.prefix


def work(queue):
    queue.put(np.ones(10))


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queue = snp.Queue()
    process = multiprocessing.Process(target=work, args=(queue,))
    process.start()
    with snp.ProcessPoolExecutor(2) as pool:
        prefixes = {pool.submit(where).result(), sys.prefix}
    print("all run in the moved environment:", prefixes == {os.path.abspath("new")})
    print(queue.get().sum())
    process.join()
