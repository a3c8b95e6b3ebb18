"""An ordinary user runs the program where the processes of others are hidden (hidepid=2)."""
# needs: root mounts unshare setpriv
# run: exec unshare --pid --fork --mount --kill-child sh -c 'mount -t proc -o hidepid=2 proc /proc && setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search python hidden_processes.py METHOD; exit $?'
# prints: 2.0 7.0
# prints: it cannot see process 1: True

import multiprocessing
import os
import sys

import numpy as np
import shared_numpy as snp


def work(values, queue):
    values[0] = 7
    queue.put(np.ones(100000))


def add_one(values):
    return values + 1


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    values, queue = snp.zeros(1000000), snp.Queue()
    process = multiprocessing.Process(target=work, args=(values, queue))
    process.start()
    received = queue.get(timeout=30)
    process.join()
    with snp.ProcessPoolExecutor(1) as pool:
        print(pool.submit(add_one, received).result()[0], values[0])
    print("it cannot see process 1:", not os.path.exists("/proc/1/stat"))
