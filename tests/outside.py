"""Runs a program and looks at it from outside: its output, processes, memory and /dev/shm.

A process of its own stands between a test and the program:

    test ── watcher (this file) ── sh ── the program ── its workers, daemons, ...
                 └──────── processes that outlive their parent

The watcher adopts orphans (PR_SET_CHILD_SUBREAPER), so it sees every process that the program
has started, whatever session or group that made for itself. It has a mount namespace of its
own with an empty tmpfs on /dev/shm, so every name there is the program's. Where namespaces are
not allowed it looks for new names that carry the number of one of the program's processes.

A program that works in rounds prints a line that begins with "round" in each. At each of these
lines the watcher counts the descriptors and the memory of every process, and the use of
/dev/shm.
"""

import ctypes
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time

CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_CHILD_SUBREAPER = 36
SHM = "/dev/shm"


def watch(
    command, shm=None, timeout=90, interrupt=(), private=True, patience=15, **options
):
    """Run a command in a process that watches it; return what that has seen.

    Parameters
    ----------
    command : str
        For the shell.
    shm : str, optional
        The size of /dev/shm, as ``mount`` takes it.
    timeout : float
        After so many seconds the program and its processes are killed.
    interrupt : sequence of (str, float, int)
        When the program has printed a line that begins with the text, so many seconds later the
        signal is sent to its process group, as a terminal does.
    private : bool
        Whether to give the program a /dev/shm of its own if the system allows it.
    patience : float
        How many seconds its processes may take to end after it, as resource trackers do.
    **options
        For `subprocess.Popen`.

    Returns
    -------
    dict
        ``code``, the exit code, None after the timeout; ``output`` and ``errors``; ``processes``,
        the command lines of those that were left; ``names``, what was left in /dev/shm;
        ``samples``, one dict for each round, of "descriptors" and "memory" (dicts of values by
        process, memory in bytes) and "shm" (bytes); ``private``, whether /dev/shm was.
    """
    request = dict(
        command=command, shm=shm, timeout=timeout, interrupt=interrupt, private=private,
        patience=patience,
    )  # fmt: skip
    # Isolated, and without the packages of the environment: it starts in no time.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", os.path.abspath(__file__), json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        universal_newlines=True,
        **options
    )
    try:
        report = process.communicate()[0]
    except BaseException:
        # The signal makes it kill the program and its processes.
        process.terminate()
        process.wait()
        raise
    assert process.returncode == 0, "the watcher failed"
    return json.loads(report)


# ---- in the watcher -------------------------------------------------------------------------


def _mount_shm(size):
    """Mount an empty /dev/shm that only this process and its children see, if allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS):
        # Other users may do it in a user namespace, where that is allowed.
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS):
            return False
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", "%d %d 1" % (user, user)),
            ("gid_map", "%d %d 1" % (group, group)),
        ):
            with open("/proc/self/" + name, "w") as file:
                file.write(text)
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    data = b"mode=1777" + (b",size=" + size.encode() if size else b"")
    return not libc.mount(b"tmpfs", SHM.encode(), b"tmpfs", 0, data)


class Watcher:
    """One run of a program."""

    def __init__(self, command, shm, timeout, interrupt, private, patience):
        self.private = private and _mount_shm(shm)
        self.before = set(os.listdir(SHM))
        self.deadline = time.monotonic() + timeout
        self.patience = patience
        self.interrupts = interrupt
        # (moment, signal)
        self.due = []
        self.seen, self.samples = set(), []
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.program = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.text = {self.program.stdout: b"", self.program.stderr: b""}

    def run(self):
        self.read()
        code = self.program.poll()
        left = self.wait_for_processes() if code is not None else self.running()
        self.kill()
        output, errors = (data.decode("utf-8", "replace") for data in self.text.values())
        return dict(
            code=code, output=output, errors=errors, processes=list(left.values()),
            names=self.names(), samples=self.samples, private=self.private,
        )  # fmt: skip

    def read(self):
        """Read what the program prints, until it has ended or is out of time."""
        with selectors.DefaultSelector() as selector:
            for pipe in self.text:
                selector.register(pipe, selectors.EVENT_READ)
            while time.monotonic() < self.deadline:
                ended = self.program.poll() is not None
                ready = selector.select(0 if ended else self.pause())
                for key, _ in ready:
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    self.take(key.fileobj, data)
                # A process that outlives the program may keep its pipes open.
                if ended and not ready:
                    break
                self.send_signals()
                self.reap()

    def pause(self):
        moments = [moment for moment, _ in self.due] + [self.deadline, time.monotonic() + 0.05]
        return max(0, min(moments) - time.monotonic())

    def take(self, pipe, data):
        before = self.text[pipe]
        self.text[pipe] = before + data
        if pipe is not self.program.stdout:
            return
        # The lines that are complete now, and were not before.
        start = before.rfind(b"\n") + 1
        for line in (before[start:] + data).split(b"\n")[:-1]:
            if line.startswith(b"round"):
                self.samples.append(self.sample())
            for text, seconds, number in self.interrupts:
                if line.startswith(text.encode()):
                    self.due.append((time.monotonic() + seconds, number))

    def send_signals(self):
        for moment, number in list(self.due):
            if moment <= time.monotonic():
                self.due.remove((moment, number))
                if self.program.poll() is None:
                    os.killpg(self.program.pid, number)

    def running(self):
        """Return the command lines of the processes below this one, by number."""
        parents, found = {}, {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/stat" % pid) as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    parents[int(pid)] = int(parent)
            except OSError:
                pass
        for pid in parents:
            above = pid
            while above in parents and above != os.getpid():
                above = parents[above]
            if above == os.getpid() and pid != os.getpid():
                found[pid] = self.command_line(pid)
        self.seen.update(found)
        return found

    def command_line(self, pid):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as file:
                return file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        except OSError:
            return "process %d" % pid

    def sample(self):
        descriptors, memory = {}, {}
        for pid in self.running():
            try:
                with open("/proc/%d/statm" % pid) as file:
                    pages = int(file.read().split()[1])
                # One that ends has no memory any more.
                if pages:
                    descriptors[pid] = len(os.listdir("/proc/%d/fd" % pid))
                    memory[pid] = pages * os.sysconf("SC_PAGE_SIZE")
            except OSError:
                pass
        system = os.statvfs(SHM)
        used = (system.f_blocks - system.f_bfree) * system.f_frsize if self.private else 0
        return {"descriptors": descriptors, "memory": memory, "shm": used}

    def wait_for_processes(self):
        """Return the processes that do not end by themselves after the program."""
        end = time.monotonic() + self.patience
        while True:
            self.reap()
            left = self.running()
            if not left or time.monotonic() > end:
                return left
            time.sleep(0.01)

    def reap(self):
        """Wait for orphans that have ended, as init does; not for the program itself."""
        flags = os.WEXITED | os.WNOHANG
        try:
            ended = os.waitid(os.P_ALL, 0, flags | os.WNOWAIT)
            while ended and (ended.si_pid != self.program.pid or self.program.poll() is not None):
                os.waitid(os.P_PID, ended.si_pid, flags)
                ended = os.waitid(os.P_ALL, 0, flags | os.WNOWAIT)
        except ChildProcessError:
            pass

    def kill(self):
        while self.running():
            for pid in self.running():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self.reap()

    def names(self):
        """Return the names that the program has left in /dev/shm."""
        new = sorted(set(os.listdir(SHM)) - self.before)
        if self.private:
            return new
        numbers = self.seen | {self.program.pid}
        marks = {str(pid) for pid in numbers} | {"%x" % pid for pid in numbers}
        # (The name of an arena has the program's name, too, which may look like a number.)
        plain = {name: re.sub(r"\Asnp-[\w.]+(?=-[0-9a-f]+-[0-9a-f]{8}\b)", "", name) for name in new}
        return [name for name in new if marks & set(re.split("[-_.]", plain[name]))]


def main():
    def end(*_):
        raise SystemExit("the watcher was told to end")

    signal.signal(signal.SIGTERM, end)
    watcher = Watcher(**json.loads(sys.argv[1]))
    try:
        report = watcher.run()
    except SystemExit:
        watcher.kill()
        raise
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main()
