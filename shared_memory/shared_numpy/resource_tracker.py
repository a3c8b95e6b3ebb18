"""The process that removes at the end what a process tree left behind.

The twin of CPython's ``multiprocessing.resource_tracker``. From 3.8 on it is
that very tracker; on 3.6 and 3.7, which track semaphores only, importing this
module puts `tracker_py37` in the place of ``multiprocessing.semaphore_tracker``
for this process and those that it starts. That and nothing else is what an
import changes in a process; no process is started by it.

Import the package in the process that starts the workers: then the whole tree
has one tracker, whichever start method makes it. A worker whose parent does
not know the package has a tracker of its own, which removes at the worker's end
what the worker registered.
"""

import os
import stat
import sys
import threading

if sys.version_info >= (3, 8):
    from multiprocessing import resource_tracker as _twin

    def _after_fork_in_child():
        """Renew the tracker's lock, and forget its process, in a forked child.

        Another thread of the parent may have held the lock; it does not exist in
        the child, which would wait for ever. The tracker's process is a child of
        the parent: from 3.12.10 to 3.13.5 and later ones, this process would
        otherwise wait for it at its end, and say that it has no such child.
        """
        tracker = _twin._resource_tracker
        reentrant = isinstance(tracker._lock, type(threading.RLock()))
        tracker._lock = threading.RLock() if reentrant else threading.Lock()
        tracker._pid = None

    if not hasattr(_twin.ResourceTracker, "_after_fork_in_child"):
        # The newest patch releases do the same.
        os.register_at_fork(after_in_child=_after_fork_in_child)
else:
    from ._system import tracker_py37 as _twin

    _twin.take_over()

# CPython's tests ask for some of these by name.
# (Those of before 3.13 know no type "dummy", with which later ones test.)
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

    Then no tracker can be told anything. The number may be another file's by now:
    3.8 and later would write to that. (On 3.6 and 3.7 a new tracker is started.)
    """
    fd = _twin._resource_tracker._fd
    if fd is None or sys.version_info < (3, 8):
        return False
    try:
        return not stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return True


def register(name: str, rtype: str) -> None:
    """Let the tracker remove a resource if the process tree does not.

    Parameters
    ----------
    name : str
        Its name, with the slash.
    rtype : str
        "shared_memory" or "semaphore".

    Raises
    ------
    ValueError
        The name would break the tracker's protocol: its message would be longer
        than 512 bytes, or it is not ASCII, or it has a colon, a newline or a NUL.
    """
    check(name, rtype)
    if not is_lost():
        _twin.register(name, rtype)


def unregister(name: str, rtype: str) -> None:
    """Tell the tracker that a resource has been removed.

    Parameters and errors are those of `register`.
    """
    check(name, rtype)
    if not is_lost():
        _twin.unregister(name, rtype)


# Comes with 3.7.
_is_ascii = getattr(str, "isascii", lambda name: max(name, default="") <= "\x7f")


def check(name: str, rtype: str) -> None:
    """Refuse what `register` would refuse."""
    if _ANY_NAME:
        return
    if ":" in name or "\n" in name or "\0" in name or not _is_ascii(name):
        raise ValueError(
            "the resource tracker cannot take the name {!r}: only ASCII characters "
            "but colon, newline and NUL. Choose another, or use track=False".format(name)
        )
    # As CPython has it since 3.10: longer ones may not be written in one piece.
    if len("UNREGISTER:::") + len(name) + len(rtype) > 512:
        raise ValueError("the resource tracker cannot take so long a name: " + repr(name))
