"""Programs that see a small tmpfs in place of /dev/shm, in a mount namespace of their own."""

import functools
import shutil
import subprocess
import sys

import pytest
from conftest import run_python


@functools.lru_cache(maxsize=None)
def namespace():
    """The command that gives a process mounts of its own, or None."""
    if shutil.which("unshare"):
        for options in (["-m"], ["-rm"]):
            command = ["unshare"] + options
            probe = command + ["sh", "-c", 'mount -t tmpfs tmpfs /dev/shm && exec "$@"', "sh"]
            # (The interpreter may lie where the user of a new namespace cannot read.)
            probe += [sys.executable, "-c", ""]
            if subprocess.call(probe, stderr=subprocess.DEVNULL) == 0:
                return command
    return None


def in_tmpfs(size, code):
    """Run `code` where /dev/shm holds `size` bytes (0: without limit)."""
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    mount = 'mount -t tmpfs -o size=%d tmpfs /dev/shm && exec "$@"' % size
    return run_python(START + code, wrapper=namespace() + ["sh", "-c", mount, "sh"])


START = """
import errno, os, signal, sys, time
from shared_numpy.shared_memory import SharedMemory, ShareableList
MIB = 1 << 20
def used():
    system = os.statvfs("/dev/shm")
    return (system.f_blocks - system.f_bfree) * system.f_frsize
def refused(size, **options):
    before = os.listdir("/dev/shm"), used()
    try:
        SharedMemory("mine", create=True, size=size, **options)
    except OSError as error:
        assert error.errno == errno.ENOSPC, error
        assert error.filename == "/mine"
        assert os.listdir("/dev/shm") == before[0]
        settles(lambda: used() == before[1])
        return str(error)
    raise AssertionError("not refused")
def settles(condition):
    # The kernel counts freed pages a moment late at times.
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
def written(shm):
    child = os.fork()
    if child == 0:
        for at in range(0, shm.size, 4096):
            shm.buf[at] = 1
        os._exit(0)
    return os.waitpid(child, 0)[1]
def done(*segments):
    for shm in segments:
        shm.close()
        shm.unlink()
"""
