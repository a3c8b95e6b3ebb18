"""The process that removes segments after a whole process tree has ended.

The twin of CPython's ``multiprocessing.resource_tracker``. From 3.8 on it is that tracker itself. On
3.6 and 3.7, whose tracker knows semaphores only, importing this module replaces
``multiprocessing.semaphore_tracker`` by `tracker_py37`, in this process and in those that it starts.
An import changes nothing else in a process, and starts no process.

Import the package in the process that starts the workers: then the whole tree has one tracker, with
any start method. A worker whose parent has not imported the package has a tracker of its own, which
removes the worker's segments when the worker exits.
"""

import os
import stat
import sys
import threading

if sys.version_info >= (3, 8):
    from multiprocessing import resource_tracker as _twin

    def _after_fork_in_child():
        """Renew the tracker's lock, and forget its process, in a forked child.

        A thread of the parent may have held the lock; it does not exist in the child, which would
        wait for ever. The tracker's process is a child of the parent: CPython from 3.12.10 and
        3.13.5 on would wait for it at the exit of this process, and fail since it is no child.
        """
        tracker = _twin._resource_tracker
        reentrant = isinstance(tracker._lock, type(threading.RLock()))
        tracker._lock = threading.RLock() if reentrant else threading.Lock()
        tracker._pid = None

    if not hasattr(_twin.ResourceTracker, "_after_fork_in_child"):
        # (The newest patch releases do the same themselves.)
        os.register_at_fork(after_in_child=_after_fork_in_child)
else:
    from ._system import tracker_py37 as _twin

    _twin.take_over()

# CPython's tests use some of these. (Tests before 3.13 do not know the type "dummy", which later
# tests need.)
_CLEANUP_FUNCS = {
    rtype: remove for rtype, remove in _twin._CLEANUP_FUNCS.items() if rtype != "dummy"
}
_resource_tracker = _twin._resource_tracker
ResourceTracker = _twin.ResourceTracker
getfd = _twin.getfd

__all__ = ["ensure_running", "register", "unregister"]

# Since 3.13.10 and 3.14.1 the protocol carries any name.
_ANY_NAME = sys.version_info >= (3, 13, 10) and sys.version_info[:3] != (3, 14, 0)


def ensure_running() -> None:
    """Start the tracker unless it runs, in any process of the tree."""
    if not is_lost():
        _twin.ensure_running()


def is_lost() -> bool:
    """Tell whether this process has closed the tracker's descriptor, as daemons do.

    Then this process cannot reach the tracker. The descriptor may be another file's by now, to which
    3.8 and later would write. (On 3.6 and 3.7 a new tracker is started.)
    """
    fd = _twin._resource_tracker._fd
    if fd is None or sys.version_info < (3, 8):
        return False
    try:
        return not stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return True


def register(name: str, rtype: str) -> None:
    """Have the tracker remove a resource if the process tree does not.

    Parameters
    ----------
    name : str
        Its name, with the slash.
    rtype : str
        "shared_memory" or "semaphore".

    Raises
    ------
    ValueError
        The tracker's protocol cannot carry the name: its message would be longer than 512 bytes, or
        it is not ASCII, or it contains a colon, a newline or a NUL.
    """
    check(name, rtype)
    if not is_lost():
        _twin.register(name, rtype)


def unregister(name: str, rtype: str) -> None:
    """Tell the tracker that a resource has been removed.

    Parameters
    ----------
    name : str
        As given to `register`.
    rtype : str
        As given to `register`.

    Raises
    ------
    ValueError
        As by `register`.
    """
    check(name, rtype)
    if not is_lost():
        _twin.unregister(name, rtype)


# (`str.isascii` exists from 3.7 on.)
_is_ascii = getattr(str, "isascii", lambda name: max(name, default="") <= "\x7f")


def check(name: str, rtype: str) -> None:
    """Raise ValueError for a name that `register` refuses."""
    if _ANY_NAME:
        return
    if ":" in name or "\n" in name or "\0" in name or not _is_ascii(name):
        raise ValueError(
            "the resource tracker cannot take the name {!r}: only ASCII characters "
            "but colon, newline and NUL. Choose another, or use track=False".format(name)
        )
    # (The limit of CPython from 3.10 on: longer messages may not be written in one piece.)
    if len("UNREGISTER:::") + len(name) + len(rtype) > 512:
        raise ValueError("the resource tracker cannot take so long a name: " + repr(name))
