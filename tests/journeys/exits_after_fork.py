"""A child of a plain os.fork uses what it inherits and leaves by sys.exit, as a script does."""
# methods: none
# prints: the child's exit code: 0
# prints: 3.0 7.0

import os
import sys

import shared_numpy as snp

if __name__ == "__main__":
    queue, values = snp.Queue(), snp.zeros(3)
    pid = os.fork()
    if pid == 0:
        values[0] = 7
        queue.put(snp.ones(3))
        sys.exit(0)
    print("the child's exit code:", os.waitpid(pid, 0)[1])
    print(queue.get(timeout=30).sum(), values[0])
