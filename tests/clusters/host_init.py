"""The first process of a host of `hosts`: it mounts, starts programs and waits for orphans.

    python host_init.py NAME ADDRESS SIZE

It runs in namespaces of its own. /dev/shm becomes a tmpfs of SIZE bytes that only the processes of
this host see. Each line on stdin is a JSON list of a program's words, its environment and the file
for its output; the answer on stdout is the program's process number in this host. At the end of
stdin the process exits, and the kernel kills all others of the host with it.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys


def reaped():
    """Wait for all children that have ended: as process 1 this one inherits every orphan."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def started(words, environment, path):
    """Start a program; return its process number."""
    with open(path, "ab") as log:
        process = subprocess.Popen(
            words,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # (Its exit code is `reaped`'s, and nobody's.)
    process.returncode = 0
    return process.pid


def main(name, address, size):
    # A host forgets its mounts with its last process.
    subprocess.check_call(["mount", "--make-rprivate", "/"])
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", "mode=1777,size=" + size, "tmpfs", "/dev/shm"])
    socket.sethostname(name)
    print("mounted", flush=True)
    assert sys.stdin.readline() == "linked\n"
    for words in ("addr add {}/24 dev eth0".format(address), "link set eth0 up", "link set lo up"):
        subprocess.check_call(["ip"] + words.split())
    # An ended child wakes the wait below.
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *args: None)
    print("up", flush=True)
    # (Without a buffer: `select` would not see what lies in it.)
    with open(0, "rb", buffering=0) as orders:
        while True:
            ready = select.select([orders, reader], [], [])[0]
            if reader in ready:
                os.read(reader, 4096)
                reaped()
            if orders in ready:
                line = b""
                while not line.endswith(b"\n"):
                    part = orders.read(1)
                    if not part:
                        return
                    line += part
                print(started(*json.loads(line.decode())), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
