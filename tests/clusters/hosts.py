"""Hosts that are parts of one machine: programs in network, mount and process namespaces.

    head 10.83.0.1                  the caller's own namespaces: the switch, the scheduler, the client
      └─ bridge ─┬─ host 10.83.0.11   its own network, /dev/shm, process numbers and name
                 └─ host 10.83.0.12   the same

What two hosts do not share, they cannot use by mistake: their processes have the same numbers, and
each /dev/shm is another file system. What they do share is the kernel, so that its boot identifier
does not tell them apart.

A program that makes hosts is started by `command`, which gives it namespaces of its own: nothing of
the machine is changed, no name can be taken, and the kernel removes all when the program ends,
however it ends. It needs root, `ip` (of iproute2), and `unshare` (of util-linux).
"""

import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
NETWORK = "10.83.0."
HEAD = NETWORK + "1"
BRIDGE = "switch"
TOOLS = ("ip", "unshare", "mount")
SHM = "1g"
# A host is up within this time, and gone.
PATIENCE = 60

Memory = collections.namedtuple("Memory", "private shared")


def why_not():
    """Return why there can be no hosts here; nothing if there can be."""
    if os.geteuid() != 0:
        return "hosts on one machine need root (network and mount namespaces)"
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        return "hosts on one machine need the program {}".format(", ".join(missing))
    try:
        call(["unshare"] + NAMESPACES + ["ip", "link", "add", BRIDGE, "type", "bridge"])
    except subprocess.CalledProcessError as error:
        return "this machine grants no namespaces or no bridge: " + error.output.strip()
    return ""


NAMESPACES = "--net --mount --pid --ipc --uts --fork --kill-child --mount-proc".split()


def command(words):
    """Return the command that runs a program as the head of hosts."""
    return ["unshare"] + NAMESPACES + words


def call(words):
    """Run a program to its end; return what it says."""
    return subprocess.run(
        words,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    ).stdout


def parents():
    """Return {process number: that of its parent}, of all processes that run."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open("/proc/{}/stat".format(name)) as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(name)] = int(parent)
    return found


def words_of(pid):
    """Return the words of a process's command; none if it has ended."""
    try:
        with open("/proc/{}/cmdline".format(pid)) as file:
            return file.read().split("\0")[:-1]
    except OSError:
        return []


def memory_of(pid):
    """Return the proportional memory of a process in bytes: private, and its share of shared."""
    found = {"Pss_Anon": 0, "Pss_Shmem": 0}
    try:
        with open("/proc/{}/smaps_rollup".format(pid)) as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in found:
                    found[name] = int(value.split()[0]) * 1024
    except OSError:
        pass  # It has ended.
    return Memory(found["Pss_Anon"], found["Pss_Shmem"])


def begin():
    """Make the switch, in the namespaces of this process."""
    call(["mount", "--make-rprivate", "/"])
    call(["mount", "-t", "tmpfs", "-o", "mode=1777,size=" + SHM, "tmpfs", "/dev/shm"])
    call(["ip", "link", "set", "lo", "up"])
    call(["ip", "link", "add", BRIDGE, "type", "bridge"])
    call(["ip", "addr", "add", HEAD + "/24", "dev", BRIDGE])
    call(["ip", "link", "set", BRIDGE, "up"])


class Host:
    """A host, which is up at once.

    Parameters
    ----------
    number : int
        From 1 on.
    folder : str
        For the output of its programs.

    Attributes
    ----------
    name, address : str
        What its programs take for the host's name, and where the others reach it.
    """

    links = 0

    def __init__(self, number, folder):
        self.name, self.address = "host-%d" % number, NETWORK + str(10 + number)
        self.folder = folder
        self.log = os.path.join(folder, self.name + ".log")
        self.up()

    def up(self):
        """Start it, with an empty /dev/shm."""
        init = [sys.executable, os.path.join(FOLDER, "host_init.py"), self.name, self.address, SHM]
        self.process = subprocess.Popen(
            ["unshare"] + NAMESPACES + init,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        assert self.process.stdout.readline() == "mounted\n"
        # `unshare` has one child, the host's process 1.
        (self.init,) = [pid for pid, of in parents().items() if of == self.process.pid]
        # The kernel takes its time to remove a dead host's link: each has a name of its own.
        Host.links += 1
        self.link = "link%d" % Host.links
        ends = [self.link, "type", "veth", "peer", "name", "eth0", "netns", str(self.init)]
        call(["ip", "link", "add"] + ends)
        call(["ip", "link", "set", self.link, "master", BRIDGE, "up"])
        self.order("linked")
        assert self.process.stdout.readline() == "up\n"

    def order(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def start(self, words, **variables):
        """Start a program on the host; return its process number as it is seen from the head."""
        self.order(json.dumps([words, dict(os.environ, **variables), self.log]))
        inside = int(self.process.stdout.readline())
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for pid in self.processes():
                if number_inside(pid) == inside:
                    return pid
        raise AssertionError("{} did not start {}".format(self.name, words))

    def processes(self):
        """Return the numbers of the host's processes as they are seen from the head, but for 1."""
        of = parents()
        found, children = [], [self.init]
        while children:
            children = [pid for pid, parent in of.items() if parent in children]
            found += children
        return found

    def kill(self, pids=None):
        """Kill processes of the host, or all, with SIGKILL; its /dev/shm stays as it is."""
        wanted = self.processes() if pids is None else pids
        for pid in wanted:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if pids is None and self.processes():
            self.kill()

    def power_off(self, cut=False):
        """End the host with all that it has in memory.

        Parameters
        ----------
        cut : bool, optional
            Nobody is told: its link goes down before its processes are killed. Without that the
            kernel of the dying host closes its connections.
        """
        if cut:
            call(["ip", "link", "set", self.link, "down"])
        # (Its process 1 dies with `unshare`, which would complain about the opposite order.)
        self.process.kill()
        self.process.wait(PATIENCE)
        self.process.stdin.close()
        self.process.stdout.close()
        end = time.monotonic() + PATIENCE
        while self.init in parents():
            assert time.monotonic() < end, "{} does not end".format(self.name)
            time.sleep(0.01)
        with contextlib.suppress(subprocess.CalledProcessError):  # The kernel was faster.
            call(["ip", "link", "del", self.link])

    def received(self):
        """Return the bytes that have come to the host since it is up."""
        with open("/proc/net/dev") as file:
            for line in file:
                name, _, counts = line.partition(":")
                if name.strip() == self.link:
                    # (What the switch's end of the link has sent.)
                    return int(counts.split()[8])
        raise AssertionError("no link " + self.link)

    def memory(self, pids):
        """Return the sum of the proportional memory of some of its processes."""
        return Memory(*(sum(each) for each in zip(*(memory_of(pid) for pid in pids))))

    def shm_path(self):
        """Return the path by which its /dev/shm is seen from here."""
        return os.path.join("/proc", str(self.init), "root", "dev", "shm")

    def shm(self):
        """Return the names in the host's /dev/shm."""
        return sorted(os.listdir(self.shm_path()))

    def shm_used(self):
        """Return the bytes that are taken in the host's /dev/shm."""
        found = os.statvfs(self.shm_path())
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def said(self, lines=40):
        """Return the end of what its programs have written."""
        with open(self.log, errors="replace") as file:
            return "".join(file.readlines()[-lines:])


def number_inside(pid):
    """Return the number that a process has on its own host."""
    try:
        with open("/proc/{}/status".format(pid)) as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return int(line.split()[-1])
    except OSError:
        pass
    return None
