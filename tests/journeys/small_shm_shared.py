"""A container with Docker's 64 MiB: a program frees what it has and idles, and another one, and
everything else that lies in shared memory, can have that memory at once."""
# shm: 64m
# methods: none
# prints: the first program has freed 60 MB, in small pieces
# prints: 62 MB: another array, a segment, a named array, a file

import gc
import os
import subprocess
import sys

import shared_numpy as snp

FIRST = """
import gc
import sys
import shared_numpy as snp
pieces = [snp.ones(1000000, "u1") for _ in range(60)]
del pieces
gc.collect()
print("freed", flush=True)
sys.stdin.read()
small = snp.ones(1000)
assert small.sum() == 1000
"""
SIZE = 62000000


def segment():
    made = snp.SharedMemory(create=True, size=SIZE, reserve=True)
    made.close()
    made.unlink()


def named():
    snp.create("small-shm-shared", SIZE, "u1")
    snp.delete("small-shm-shared")


def file():
    path = "/dev/shm/small-shm-shared"
    with open(path, "wb") as stream:
        # Others know nothing of arenas: they have what is not kept for quick reuse.
        stream.write(bytes(SIZE - (8 << 20)))
    os.unlink(path)


if __name__ == "__main__":
    command = [sys.executable, "-c", FIRST]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert first.stdout.readline() == b"freed\n"
    print("the first program has freed 60 MB, in small pieces")
    array = snp.ones(SIZE, "u1")
    del array
    gc.collect()
    segment()
    named()
    file()
    first.communicate()
    assert first.returncode == 0
    print("62 MB: another array, a segment, a named array, a file")
