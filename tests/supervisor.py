"""A test that hangs, or that ends the interpreter, fails alone: a plugin of pytest.

The suite runs in a process of its own, the session. The process that was started stays
beside it as its supervisor, which is told of each test and its limit through a file:

    supervisor ── session (pytest, runs the tests) ── programs, workers, ...
         └──────── what outlived its parent

After a third of the limit (`LIMIT` seconds, or what the mark ``limit(seconds)`` says) the
supervisor tells on stderr what the threads of the session and its children are at: so one sees
of a test that took long, and passed, what it waited for.

After the limit the session is signalled, and an exception ends the wait, whatever the main
thread waits for in Python. A test that goes on nevertheless has failed, too.
`PATIENCE` seconds later the supervisor kills all processes that the tests have started,
and signals again: a ``finally`` may wait, too. If the main thread does not return to the
interpreter at all, the session is aborted, with the stacks of its threads on stderr.
A new session then reports what the first has, that this test failed, and runs the others;
so it does for a test that crashed.

The supervisor adopts orphans (PR_SET_CHILD_SUBREAPER): so it finds all processes of a
test by their parents, whatever group or session they have made for themselves.

The session begins as from a terminal: signals that the caller ignores (``nohup``, a job in
the background) have their default action again, since programs inherit that and tests
send them. It is a process group of its own then, which the caller's signals do not reach.
"""

import ctypes
import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time

import pytest

LIMIT, SLOW_LIMIT = 180, 900
# The part of the limit after which it is told what a test waits for.
LONG = 1 / 3
# From the limit to the killing of children, and from one attempt to the next.
PATIENCE = 5
# How often the supervisor looks.
POLL = 1
# How often a test is interrupted before its session is aborted.
ATTEMPTS = 5
# For what comes before and between the tests, and for the end of the session after them.
OTHER_LIMIT, END_LIMIT = 600, 60
# Many times what the gate does, for `make test-full`.
FACTOR = int(os.environ.get("SHARED_NUMPY_TEST_FACTOR", "1"))

NOTES = "SHARED_NUMPY_TEST_NOTES"
INTERRUPT, TELL = signal.SIGUSR2, signal.SIGRTMIN + 7
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def register(pluginmanager):
    """Supervise this run of pytest; to be called by ``pytest_addoption`` of a conftest."""
    if not pluginmanager.has_plugin("supervisor"):
        pluginmanager.register(Plugin(), "supervisor")


class Hang(BaseException):
    """Ends a test that has reached its limit."""


class Plugin:
    """Starts the session in the supervisor; tells of the tests in the session."""

    def __init__(self):
        self.notes = os.environ.pop(NOTES, None)
        self.limit, self.deadline = None, None
        self.is_in_test, self.was_interrupted = False, False
        if self.notes:
            self.notes, self.stacks = map(int, self.notes.split())
            self.begin()

    def begin(self):
        for file in (self.notes, self.stacks):
            os.set_inheritable(file, False)
        faulthandler.register(TELL, file=self.stacks)
        # Without a supervisor nobody would look after the tests.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if restore_signals():
            os.setpgid(0, 0)
        self.pid = os.getpid()
        signal.signal(INTERRUPT, self.interrupt)

    def note(self, *what):
        # (A child that a test has forked may come here by an exception.)
        if self.notes and os.getpid() == self.pid:
            os.write(self.notes, json.dumps(what, default=repr).encode() + b"\n")

    def interrupt(self, *_):
        # Between two tests the exception would end pytest itself; and a signal for the
        # test before may come late.
        if self.is_in_test and time.monotonic() > self.deadline:
            self.was_interrupted = True
            faulthandler.dump_traceback(2)
            raise Hang("no end after {} s".format(self.limit))

    @pytest.hookimpl(tryfirst=True)
    def pytest_cmdline_main(self, config):
        config.addinivalue_line("markers", "limit(seconds): after so long the test has failed")
        # A debugger needs time, and the terminal.
        if self.notes or config.getoption("usepdb") or config.getoption("trace"):
            return None
        config.pluginmanager.getplugin("capturemanager").suspend_global_capture(in_=True)
        flags = subprocess._args_from_interpreter_flags()
        arguments = list(map(str, config.invocation_params.args))
        return Supervisor([sys.executable] + flags + ["-m", "pytest"] + arguments).run()

    # In the session.

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtestloop(self, session):
        failed = self.replay(session) if self.notes else 0
        yield
        session.testsfailed += failed

    def replay(self, session):
        """Report what sessions before this one have; return how many of it are failures."""
        reports, ended = {}, {}
        for kind, *what in read_notes(self.notes)[0]:
            if kind == "begin":
                reports[what[0]] = []
            elif kind == "report":
                reports[what[0]].append(what[1])
            elif kind in ("end", "died"):
                ended[what[0]] = what[1:]
        before, hook = session.testsfailed, session.config.hook
        for item in session.items:
            if item.nodeid not in ended:
                continue
            hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            its = [
                hook.pytest_report_from_serializable(config=session.config, data=data)
                for data in reports[item.nodeid]
            ]
            for why in ended[item.nodeid]:
                report = pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
                its.append(report)
            for report in its:
                hook.pytest_runtest_logreport(report=report)
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        session.items[:] = [item for item in session.items if item.nodeid not in ended]
        # With these the loop would take it that the collection had failed.
        failed, session.testsfailed = session.testsfailed - before, before
        return failed

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        mark = item.get_closest_marker("limit")
        seconds = mark.args[0] if mark else SLOW_LIMIT if item.get_closest_marker("slow") else LIMIT
        self.limit = seconds * FACTOR
        self.deadline = time.monotonic() + self.limit
        self.was_interrupted = False
        self.note("begin", item.nodeid, self.limit)
        yield
        self.note("end", item.nodeid)

    @pytest.hookimpl(hookwrapper=True, trylast=True)
    def pytest_runtest_makereport(self):
        report = (yield).get_result()
        if self.was_interrupted and report.passed:
            report.outcome = "failed"
            report.longrepr = "no end after {} s: it went on when interrupted".format(self.limit)
        # (What comes after it in the test has not failed.)
        self.was_interrupted = False

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report):
        # (What is replayed is known.)
        if self.limit:
            data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
            self.note("report", report.nodeid, data)

    def pytest_configure(self, config):
        self.config = config

    def pytest_sessionfinish(self, exitstatus):
        self.note("finished", int(exitstatus))

    def in_test(self):
        self.is_in_test = True
        yield
        self.is_in_test = False

    pytest_runtest_setup = pytest.hookimpl(hookwrapper=True, tryfirst=True)(in_test)
    pytest_runtest_call = pytest.hookimpl(hookwrapper=True, tryfirst=True)(in_test)
    pytest_runtest_teardown = pytest.hookimpl(hookwrapper=True, tryfirst=True)(in_test)


def restore_signals():
    """Give ignored signals their default action again; tell whether there were any."""
    ignored = [
        number
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGALRM)
        if signal.getsignal(number) is signal.SIG_IGN
    ]
    for number in ignored:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, default)
    return bool(ignored)


def read_notes(file, start=0):
    """Return the notes that are complete, from a place in the file on, and where they end."""
    text = b""
    while True:
        part = os.pread(file, 1 << 20, start + len(text))
        if not part:
            break
        text += part
    text = text[: text.rfind(b"\n") + 1]
    return [json.loads(line.decode()) for line in text.splitlines()], start + len(text)


class Supervisor:
    """Runs sessions until one comes to its end."""

    def __init__(self, command):
        self.command = command
        # What the session notes, and where its threads are when it is asked.
        self.file, self.told = tempfile.TemporaryFile(), tempfile.TemporaryFile("a+b")
        self.notes, self.stacks = self.file.fileno(), self.told.fileno()
        # How far the notes are read.
        self.place = 0

    def run(self):
        """Return the exit status of the last session."""
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Wakes `select` when a child has ended.
        self.wakeup, writer = os.pipe()
        os.set_blocking(self.wakeup, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self.end)
        # The session gets Ctrl-C, too, and tells of it.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: None)
        with self.file, self.told:
            status = None
            while status is None:
                status = self.run_session()
        return status

    def end(self, number, _):
        """End by a signal, and all processes before."""
        self.kill_all()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def run_session(self):
        """Return the exit status, or None if a test has ended the session."""
        files = [self.notes, self.stacks]
        environment = dict(os.environ, **{NOTES: "{} {}".format(*files)})
        self.session = subprocess.Popen(self.command, env=environment, pass_fds=files)
        self.test, self.status, self.attempts = None, None, 0
        self.long = None
        self.deadline = time.monotonic() + OTHER_LIMIT
        before = time.monotonic()
        while self.session.returncode is None:
            select.select([self.wakeup], [], [], POLL)
            # Time in which all processes were stopped is nobody's.
            now = time.monotonic()
            self.deadline += max(0, now - before - 5)
            before = now
            self.empty_wakeup()
            self.reap()
            self.look()
            if self.session.returncode is None:
                if self.long is not None and time.monotonic() > self.long:
                    self.tell()
                if time.monotonic() > self.deadline:
                    self.press()
        self.look()
        code = self.session.returncode
        if self.status is not None and self.attempts:
            print("\nthe interpreter did not end after the tests", file=sys.stderr, flush=True)
            return self.status or 1
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if self.status is not None or self.test is None or -code in ends:
            return code
        self.kill_all()
        why = "the interpreter ended with {}".format(code)
        if self.attempts:
            why = "no end at its limit, nor when it was interrupted then"
        print("\n{}: {}".format(self.test, why), file=sys.stderr, flush=True)
        os.write(self.notes, json.dumps(["died", self.test, why]).encode() + b"\n")
        return None

    def empty_wakeup(self):
        try:
            os.read(self.wakeup, 4096)
        except BlockingIOError:
            pass

    def reap(self):
        """Wait for children that have ended, of which most are orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self.session.pid:
                code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
                self.session.returncode = code

    def look(self):
        """Read what the session has noted."""
        now = time.monotonic()
        notes, self.place = read_notes(self.notes, self.place)
        for kind, *what in notes:
            if kind == "begin":
                self.test, self.attempts, self.deadline = what[0], 0, now + what[1]
                self.long = now + what[1] * LONG
            elif kind == "end":
                self.test, self.attempts, self.deadline = None, 0, now + OTHER_LIMIT
                self.long = None
            elif kind == "finished":
                self.status = what[0]
                self.test, self.attempts, self.deadline = None, 0, now + END_LIMIT

    def tell(self):
        """Write what the test's threads and processes are at."""
        self.long = None
        self.told.truncate(0)
        os.kill(self.session.pid, TELL)
        time.sleep(min(1, PATIENCE))
        self.told.seek(0)
        stacks = self.told.read().decode(errors="replace").rstrip()
        lines = ["", "{} takes long. Its threads:".format(self.test), stacks or "(no answer)"]
        lines += ["Processes:"] + [describe(pid) for pid in descendants(os.getpid())]
        print("\n".join(lines), file=sys.stderr, flush=True)

    def press(self):
        """Do the next thing to come out of a hang."""
        self.attempts += 1
        if self.attempts > 1:
            self.kill_all(but=self.session.pid)
        if self.test is None and self.status is not None:
            os.kill(self.session.pid, signal.SIGKILL)  # All is reported.
        elif self.test is None or self.attempts == ATTEMPTS:
            os.kill(self.session.pid, signal.SIGABRT)
        elif self.attempts > ATTEMPTS:
            os.kill(self.session.pid, signal.SIGKILL)
        else:
            os.kill(self.session.pid, INTERRUPT)
        self.deadline = time.monotonic() + PATIENCE

    def kill_all(self, but=None):
        """Kill all that descends from this process."""
        kill(pid for pid in descendants(os.getpid()) if pid != but)
        self.reap()


def descendants(ancestor):
    """List the processes below a process."""
    children = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/{}/stat".format(pid), errors="replace") as file:
                parent = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
        children.setdefault(parent, []).append(int(pid))
    found, new = [], [ancestor]
    while new:
        new = [child for pid in new for child in children.get(pid, [])]
        found += new
    return found


def describe(pid):
    """Say what a process is, and where in the kernel it waits."""

    def read(name):
        try:
            with open("/proc/{}/{}".format(pid, name), "rb") as file:
                return file.read(500).replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            return "?"

    state = read("stat").rpartition(")")[2].split()[:2]
    return "  {} of {}, {}, {}: {}".format(
        pid, state[-1] if state else "?", state[0] if state else "?", read("wchan"), read("cmdline")
    )


def kill_tree(pid):
    """Kill a process and all that descends from it."""
    kill(descendants(pid) + [pid])


def kill(pids):
    """Kill processes, but for trackers: they end when the others have, and clean up."""
    for pid in pids:
        if not is_tracker(pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def is_tracker(pid):
    try:
        with open("/proc/{}/cmdline".format(pid), "rb") as file:
            return b"_tracker" in file.read()
    except OSError:
        return False
