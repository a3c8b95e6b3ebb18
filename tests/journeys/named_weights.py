"""A trainer writes weights under a name; a server, another program, reads them, and is killed."""
# methods: none
# prints: the server answers 10.0
# prints: with new weights it answers 20.0
# prints: after it was killed the weights are still there: 20.0

import subprocess
import sys

import numpy as np
import shared_numpy as snp

SERVER = """
import sys
import shared_numpy as snp
weights = snp.attach("journey-weights", readonly=True)
for line in sys.stdin:
    print((weights * float(line)).sum(), flush=True)
"""


def ask(server, value):
    server.stdin.write("%s\n" % value)
    server.stdin.flush()
    return server.stdout.readline().strip()


if __name__ == "__main__":
    weights = snp.create("journey-weights", 1000, fill=np.full(1000, 0.01))
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    print("the server answers", ask(server, 1))
    weights *= 2
    print("with new weights it answers", ask(server, 1))
    server.kill()
    server.communicate()
    print("after it was killed the weights are still there:", weights.sum())
    snp.delete("journey-weights")
