"""Daemon threads at the end of the process.

The interpreter ends daemon threads wherever they are. What is announced to another process
and then done must not be left in between, so the end of the process waits, for a moment,
until no thread is at such work; a daemon thread begins none after that.
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

# For so many seconds a thread stays: should the program wait for it after all, it goes on.
_LONGEST = 60.0

# For so many seconds the end of the process waits for work in progress.
_PATIENCE = 1.0

# The order among the finalizers of `multiprocessing`: before a manager's server is told to end.
_FIRST = 1000


class _Progress:
    """What threads of this process are at that must not be cut off."""

    def __init__(self):
        self.changed = threading.Condition(threading.Lock())
        self.works = set()  # type: Set[object]
        self.is_over = False


_progress = _Progress()


def is_forsaken() -> bool:
    """Tell whether the process ends, and as a rule does not wait for this thread, a daemon."""
    ends = util.is_exiting() or _progress.is_over
    return bool(ends) and threading.current_thread().daemon


def stay() -> None:
    """Wait for the end of the process: an exception of a forsaken thread would be printed."""
    threading.Event().wait(_LONGEST)


@contextmanager
def awaited() -> "Iterator[None]":
    """Do something that the end of the process waits for; a daemon thread begins it no more
    when that has come."""
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
    """Let daemon threads begin nothing more, and wait for what they are at."""
    progress = _progress
    with progress.changed:
        progress.is_over = True
        deadline = time.monotonic() + _PATIENCE
        while progress.works and time.monotonic() < deadline:
            progress.changed.wait(deadline - time.monotonic())


def _begin() -> "Any":
    # Before `multiprocessing` runs finalizers and joins its children. In a child that it has
    # made, which ends without `atexit`, as the first of the finalizers.
    global _progress
    _progress = _Progress()
    util.Finalize(None, _end, exitpriority=_FIRST)


def _begin_in_fork():
    # Other threads, which may have had the lock, did not come along.
    global _progress
    _progress = _Progress()


atexit.register(_end)
_begin()
# A child of `multiprocessing` forgets its parent's finalizers, then calls this.
util.register_after_fork(_Progress, lambda _: _begin())
forks.register_at_fork(after_in_child=_begin_in_fork)
