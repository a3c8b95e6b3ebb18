"""Two containers share /dev/shm, each with process numbers of its own: one is killed, the other
goes on with the arrays and removes them."""
# methods: none
# needs: root mounts unshare
# run: exec python containers.py
# prints: the other container has written 7.0
# prints: it was killed, and what it wrote is still 7.0
# prints: names left: []

import os
import subprocess
import sys
import time

import shared_numpy as snp

OTHER = """
import shared_numpy as snp, sys
weights = snp.attach("weights")
weights[:] = 7
own = snp.ones(1000000)
print("written", flush=True)
sys.stdin.read()
"""

if __name__ == "__main__":
    weights = snp.create("weights", (1000, 1000))
    frame = snp.ones(10)
    container = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-c", OTHER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    assert container.stdout.readline() == "written\n"
    print("the other container has written", weights[0, 0])
    container.kill()
    container.communicate()
    print("it was killed, and what it wrote is still", weights[-1, -1])
    snp.delete("weights")
    del weights, frame
    # What a killed program of another container has left goes at the next program's start.
    end = time.monotonic() + 30
    while time.monotonic() < end:
        subprocess.check_call([sys.executable, "-c", "import shared_numpy as snp; snp.ones(10)"])
        own = "-%x-" % os.getpid()
        left = [name for name in os.listdir("/dev/shm") if own not in name]
        if not left:
            break
    print("names left:", left)
