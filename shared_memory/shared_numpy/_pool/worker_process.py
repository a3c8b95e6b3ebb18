"""A worker process as its pool sees it, and the calls that it has."""

import collections
import os
import signal
import sys
import time
from contextlib import suppress

from .._system import interruptions
from ..errors import ArenaFullError
from . import worker_main
from .task import CANCELLED, SENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from .task import Task

# The exit code is known after so many seconds, if another thread waits for all children.
_EXIT_CODE = 1.0


class WorkerProcess:
    """A worker process, and the calls that it has, in the order of their sending.

    The scheduler's lock guards `tasks`, `is_late`, and the channel of `requests`; the methods
    below that use them end in ``_locked``. The others may be called by any thread.
    """

    def __init__(self, process, requests, calls_left, is_child):
        self.process = process
        self.requests = requests
        # False with a fork server: the process is the server's child.
        self.is_child = is_child
        # The process exists; see `has_started`.
        self.is_up = False
        # The pool has ended before the process existed: the thread that starts it ends it.
        self.is_late = False
        self.tasks = collections.OrderedDict()  # type: collections.OrderedDict[int, Task]
        # How many calls it will still do; None for any number.
        self.calls_left = calls_left
        # It has said that it takes calls.
        self.is_ready = False
        # The exception of its initializer.
        self.init_error = None  # type: Optional[BaseException]

    def has_started(self):
        """Tell whether the process exists: another thread may still be starting it."""
        self.is_up = self.is_up or self.process.pid is not None
        return self.is_up

    def has_exited(self):
        """Tell whether the process has exited. It does not wait."""
        if not self.process.is_alive():
            # On 3.6 a child of the fork server itself reports its exit, and a killed one never
            # does: the pipe is closed either way.
            reports = self.is_child or sys.version_info >= (3, 7)
            return reports or not _is_served(self.process.pid)
        if self.is_child:
            # `is_alive` stays true if someone else has reaped the process: an `os.wait` of the
            # program, or the kernel where SIGCHLD is ignored. Then it is no child any more.
            try:
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
        return False

    def exit_code(self):
        """Return the exit code of the process, which has exited; None if it is unknown."""
        process = self.process
        # (Without a limit `join` would wait for a process that has closed its sentinel.)
        process.join(0)
        # Another thread may have reaped all children, and not stored their codes yet.
        end = time.monotonic() + _EXIT_CODE
        while process.exitcode is None and time.monotonic() < end:
            time.sleep(0.001)
        return process.exitcode

    def send_signal(self, number):
        """Send the process a signal, if it has not exited."""
        if self.has_started() and not self.has_exited():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def is_working_locked(self):
        """Tell whether it has been sent a call that it has not answered."""
        return any(task.state is SENT for task in self.tasks.values())

    def unsend_locked(self, task):
        """Take a call out of its channel, and mark it as cancelled; False if it has taken it."""
        # Its channel has the last of those that were sent, in their order.
        sent = [number for number, each in self.tasks.items() if each.state is SENT]
        behind = len(sent) - 1 - sent.index(task.number)
        end = worker_main.REQUEST.pack(task.number)
        with suppress(ArenaFullError):
            interruptions.set_if_true(
                task, "state", CANCELLED, self.requests.withdraw, behind, end
            )
        return task.state is CANCELLED

    def take_unread_locked(self, most=sys.maxsize):
        """Take the first calls that it has not read out of its channel; return their numbers and
        messages."""
        # (One more, for the message that tells it to stop.)
        unread = self.requests.get_unopened(min(most, len(self.tasks) + 1))
        size = worker_main.REQUEST.size
        ends = [(message.end(size), message) for message in unread]
        return [
            (worker_main.REQUEST.unpack(end)[0], message)
            for end, message in ends
            if end != worker_main.STOP
        ]

    def tell_to_stop(self):
        """Have it exit when it has done its calls; False if there is no room to say so."""
        try:
            return self.requests.put(worker_main.STOP, [], 0)
        except ArenaFullError:
            return False


def _is_served(pid):
    """Tell whether a process is a living child of the fork server."""
    from multiprocessing import forkserver

    try:
        with open("/proc/{}/stat".format(pid)) as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return False
    return state != "Z" and int(parent) == forkserver._forkserver._forkserver_pid


def describe_exit(code):
    if code is not None and code < 0:
        try:
            return "was killed by {}".format(signal.Signals(-code).name)
        except ValueError:
            return "was killed by signal {}".format(-code)
    return "ended with exit code {}".format(code)


def explain_failed_start(method):
    """Return what an error adds if a worker has failed before it could take calls."""
    text = "; its own error is on stderr"
    if method != "fork":
        text += (
            ". A worker that is not forked imports the main module: that has to be a file (not "
            "stdin), and what starts processes has to be behind `if __name__ == \"__main__\":`"
        )
    return text
