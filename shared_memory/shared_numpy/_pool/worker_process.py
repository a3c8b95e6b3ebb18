"""A worker's process as its pool sees it, and the calls that it has."""

import collections
import os
import signal
import sys
import time
from contextlib import suppress

from ..errors import ArenaFullError
from . import worker_main

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class WorkerProcess:
    """A worker's process, and the calls that it has, in the order of their sending."""

    def __init__(self, process, requests, left, is_child):
        self.process = process
        self.requests = requests
        # Not so with a fork server, whose child it is.
        self.is_child = is_child
        # The process is there; see `has_started`.
        self.is_up = False
        # The pool has ended before the process was there: whoever starts it ends it.
        self.is_late = False
        self.tasks = collections.OrderedDict()  # type: Dict[int, Task]
        # How many calls it will do, if that is limited.
        self.left = left
        # Why its initializer failed.
        self.unfit = None  # type: Optional[BaseException]

    def has_started(self):
        """Tell whether the process is there: it is started without the pool's lock."""
        self.is_up = self.is_up or self.process.pid is not None
        return self.is_up

    def has_ended(self):
        """Tell whether the process is gone."""
        if not self.process.is_alive():
            # The fork server of 3.6 leaves it to the process itself to tell of its end.
            tells = self.is_child or sys.version_info >= (3, 7)
            return tells or not serves(self.process.pid)
        if self.is_child:
            # `is_alive` says yes for ever if others have taken the exit code: os.wait() of the
            # program, or the kernel where SIGCHLD is ignored. Then it is no child any more.
            try:
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
        return False

    def exit_code(self):
        """Return the exit code of the process, which has ended; None if nobody knows it."""
        process = self.process
        # (Without a limit it would wait for one that lives on without its sentinel.)
        process.join(0)
        # Another thread may be about to tell, which has asked for all children's.
        end = time.monotonic() + 1
        while process.exitcode is None and time.monotonic() < end:
            time.sleep(0.001)
        return process.exitcode

    def send_signal(self, number):
        """Send the process a signal, if it is still there."""
        if self.has_started() and not self.has_ended():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def drop(self, task):
        """Drop a call that it has not taken yet; False if it has."""
        # What is in its channel are the last of those that were sent, in their order.
        sent = [number for number, each in self.tasks.items() if each.is_sent]
        behind = len(sent) - 1 - sent.index(task.number)
        end = worker_main.REQUEST.pack(task.number)
        with suppress(ArenaFullError):
            # (Noted before an exception of a signal's handler can come between.)
            task.withdrawn.extend(map(self.requests.withdraw, (behind,), (end,)))
        return task.is_cancelled

    def take_back(self, most=sys.maxsize):
        """Return the numbers and messages of the first calls that it has not taken yet."""
        unread = self.requests.get_unopened(min(most, len(self.tasks) + 1))
        size = worker_main.REQUEST.size
        ends = [(message.end(size), message) for message in unread]
        return [
            (worker_main.REQUEST.unpack(end)[0], message)
            for end, message in ends
            if end != worker_main.STOP
        ]


def serves(pid):
    """Tell whether a process is a living child of the fork server."""
    from multiprocessing import forkserver

    try:
        with open("/proc/{}/stat".format(pid)) as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return False
    return state != "Z" and int(parent) == forkserver._forkserver._forkserver_pid


def tell_to_stop(worker):
    """Have a worker end when it has done its calls; False if there is no room to say so."""
    try:
        return worker.requests.put(worker_main.STOP, [], 0)
    except ArenaFullError:
        return False


def has_calls(worker):
    return any(task.is_sent for task in worker.tasks.values())


def describe_exit(code):
    if code is not None and code < 0:
        try:
            return "was killed by {}".format(signal.Signals(-code).name)
        except ValueError:
            return "was killed by signal {}".format(-code)
    return "ended with exit code {}".format(code)
