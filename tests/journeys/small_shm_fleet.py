"""A container with Docker's 64 MiB: many small programs, of which each shares a few numbers."""
# shm: 64m
# methods: none
# seconds: 180
# prints: 24 programs of 24 bytes each take less than 4 MiB

import os
import subprocess
import sys

PROGRAM = """
import sys
import shared_numpy as snp
numbers = snp.zeros(3)
print("ready", flush=True)
sys.stdin.read()
"""
COUNT = 24

if __name__ == "__main__":
    programs = []
    for _ in range(COUNT):
        command = [sys.executable, "-c", PROGRAM]
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert program.stdout.readline() == b"ready\n"
        programs.append(program)
    system = os.statvfs("/dev/shm")
    used = (system.f_blocks - system.f_bfree) * system.f_frsize
    for program in programs:
        program.communicate()
        assert program.returncode == 0
    # (With pages of 64 KiB each takes more.)
    less = used < max(4 << 20, COUNT * 16 * os.sysconf("SC_PAGE_SIZE"))
    print(COUNT, "programs of 24 bytes each take", "less than 4 MiB" if less else used)
