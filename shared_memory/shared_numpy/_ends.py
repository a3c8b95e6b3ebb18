"""Threads that are left when the process ends."""

import threading
from multiprocessing import util


def is_forsaken() -> bool:
    """Tell whether the process ends without waiting for this thread, which is a daemon."""
    return bool(util.is_exiting()) and threading.current_thread().daemon


def stay() -> None:
    """Wait for the end of the process: an exception of a forsaken thread would be printed."""
    lock = threading.Lock()
    while True:
        lock.acquire()
