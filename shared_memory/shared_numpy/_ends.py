"""Threads that are left when the process ends."""

import threading
from multiprocessing import util

# For so many seconds a thread stays: should the program wait for it after all, it goes on.
_LONGEST = 60.0


def is_forsaken() -> bool:
    """Tell whether the process ends, and as a rule does not wait for this thread, a daemon."""
    return bool(util.is_exiting()) and threading.current_thread().daemon


def stay() -> None:
    """Wait for the end of the process: an exception of a forsaken thread would be printed."""
    threading.Event().wait(_LONGEST)
