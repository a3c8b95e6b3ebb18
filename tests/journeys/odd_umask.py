"""A service runs with a strange umask: its own user can attach its arrays all the same."""
# run: umask 777; exec python odd_umask.py METHOD
# prints: 5.0 ['0600']

import multiprocessing
import os
import sys

import shared_numpy as snp


def write(name):
    snp.attach(name)[:] = 5


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    name = "umask-%d" % os.getpid()
    values = snp.create(name, 1000)
    process = multiprocessing.Process(target=write, args=(name,))
    process.start()
    process.join()
    paths = [os.path.join("/dev/shm", each) for each in os.listdir("/dev/shm") if name in each]
    print(values.mean(), ["%04o" % (os.stat(path).st_mode & 0o777) for path in paths])
    snp.delete(name)
