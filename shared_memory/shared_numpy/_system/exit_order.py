"""The order in which parts of this package end at process exit; and daemon threads at that time.

`multiprocessing` registers one function with `atexit`. It runs its finalizers with a priority of
0 or more, highest first; joins the children of the process; then runs those below 0. A child of
`multiprocessing` skips `atexit` and runs that function itself before ``os._exit``; it has forgotten
the finalizers of its parent, so each module here registers its own again after a fork.

The table of the parts that this package ends, in order::

    when          ends                                 why there
    DAEMONS       daemon threads begin no work that    First of all, so that nothing below waits for
       (1000)     `awaited` protects; work in          work that begins meanwhile: by `atexit`, before
                  progress has a second to finish      `multiprocessing` begins; in its children, which
                                                       skip `atexit`, as the first finalizer.
    POOLS         executors: calls are done, workers   Before their channels and futures' threads go;
       (20)       stopped and joined                   after DAEMONS, since `submit` may be such work.
    (pools, 15)   `multiprocessing.Pool`               (A priority of the standard library.)
    FEEDERS       threads that send messages for       As those of `multiprocessing.Queue`: pools have
       (10)       which a pipe had no room take no     put their last message.
                  more of them
    (servers, 0)  the servers of managers              (A priority of the standard library.)
    (children)    `multiprocessing` joins children     They may still get from queues of this process.
    MANAGERS      the file of a manager, if its        After its server, which removes it as a rule.
       (-1)       server was killed
    SENT          the threads of FEEDERS are joined    After the children, which read from the pipes.
       (-5)
    EXITING       a daemon thread that would free      The rows below take apart what such a thread
       (-99)      a block stays where it is            would change (`_core.begin_exit`).
    CHANNELS      this process's part in rings, and    Nothing in this process uses one any more; the
       (-100)     ownership of messages in pipes       arena still exists, as they free blocks in it.
    ARENAS        this process's part in arenas        Last: everything above frees blocks there.
       (-1000)    (`_core.retire`)
    (tracker)     names of arenas and segments         Outlives this process: it removes them when
                                                       the last process of the program has exited.

At interpreter shutdown the interpreter stops daemon threads wherever they are. A thread must not stop
between two steps that other processes rely on: `awaited` makes the exit wait for such work, for a
moment, and lets a daemon thread begin none after that.
"""

import atexit
import threading
import time
from contextlib import contextmanager
from multiprocessing import util

from . import forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Set

# Priorities of finalizers: see the table.
DAEMONS, POOLS, FEEDERS, MANAGERS, SENT = 1000, 20, 10, -1, -5
EXITING, CHANNELS, ARENAS = -99, -100, -1000

# A forsaken thread is a daemon thread while the process exits. It sleeps for so many seconds; if
# the process has not exited by then, it goes on.
_STAY = 60.0

# The exit waits for so many seconds for work in progress.
_PATIENCE = 1.0


class _Progress:
    """The work of threads of this process that must not be cut off."""

    def __init__(self):
        self.changed = threading.Condition(threading.Lock())
        self.works = set()  # type: Set[object]
        self.is_over = False


_progress = _Progress()


def is_forsaken() -> bool:
    """Tell whether the process exits, and this is a daemon thread, which it does not wait for."""
    exits = util.is_exiting() or _progress.is_over
    return bool(exits) and threading.current_thread().daemon


def stay() -> None:
    """Sleep until the process exits. (If the thread raised an exception, it would be printed.)"""
    threading.Event().wait(_STAY)


@contextmanager
def awaited() -> "Iterator[None]":
    """Do something that process exit waits for. A daemon thread does not begin it once the process
    exits."""
    progress, work = _progress, object()
    with progress.changed:
        forsaken = is_forsaken()
        if not forsaken:
            progress.works.add(work)
    if forsaken:
        stay()
    try:
        yield
    finally:
        with progress.changed:
            progress.works.discard(work)
            progress.changed.notify_all()


def _end():
    """Let daemon threads begin no more work, and wait for the work in progress."""
    progress = _progress
    with progress.changed:
        progress.is_over = True
        deadline = time.monotonic() + _PATIENCE
        while progress.works and time.monotonic() < deadline:
            progress.changed.wait(deadline - time.monotonic())


def _begin() -> "Any":
    global _progress
    _progress = _Progress()
    util.Finalize(None, _end, exitpriority=DAEMONS)


def _begin_in_fork():
    # The threads that may have held the lock are not in the child.
    global _progress
    _progress = _Progress()


atexit.register(_end)
_begin()
# A child of `multiprocessing` forgets its parent's finalizers before it calls this.
util.register_after_fork(_Progress, lambda _: _begin())
forks.register_at_fork(after_in_child=_begin_in_fork)
