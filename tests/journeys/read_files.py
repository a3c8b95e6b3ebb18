"""A program reads every file in /dev/shm, as a backup does. The kernel takes away its lock when it closes
the file of that lock; other containers still see that it lives."""
# methods: none
# needs: root mounts unshare
# run: exec python read_files.py
# prints: the other container sees 3.0 and writes 7.0
# prints: this one reads 7.0, and goes on with 3 new arrays
# prints: names left: []

import os
import subprocess
import sys
from contextlib import suppress

import shared_numpy as snp

OTHER = """
import shared_numpy as snp, sys
array = snp.receive(sys.stdin.buffer.read())
own = [snp.ones(1000) for _ in range(100)]  # and sweeps what no process has
seen, array[0] = array[0], 7
print("the other container sees", seen, "and writes", array[0])
"""


def in_another_container(array):
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", OTHER]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as container:
        container.communicate(snp.send(array))


if __name__ == "__main__":
    array = snp.full(1000, 3.0)
    for name in os.listdir("/dev/shm"):
        # (Other programs come and go, and make folders there.)
        with suppress(OSError), open(os.path.join("/dev/shm", name), "rb") as file:
            file.read(1)
    in_another_container(array)
    new = [snp.ones(1000) for _ in range(3)]
    print("this one reads {}, and goes on with {} new arrays".format(array[0], len(new)))
    del array, new
    own = "-%x-" % os.getpid()
    print("names left:", [name for name in os.listdir("/dev/shm") if own not in name])
