"""/dev/shm is mounted anew, larger, while a program runs: it goes on with what it has."""
# methods: fork
# needs: root mounts mount umount
# prints: what it had: 5.0, and a child has added to it: 6.0
# prints: what came later: 2.0

import multiprocessing
import subprocess
import sys

import shared_numpy as snp


def add_one(values):
    values += 1


if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    values = snp.full(100000, 5.0)
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", "/dev/shm"])
    before = values.mean()
    child = context.Process(target=add_one, args=(values,))
    child.start()
    child.join()
    print("what it had: %s, and a child has added to it: %s" % (before, values.mean()))
    later = snp.ones(1000000)
    child = context.Process(target=add_one, args=(later,))
    child.start()
    child.join()
    print("what came later:", later.mean())
    subprocess.check_call(["umount", "/dev/shm"])
