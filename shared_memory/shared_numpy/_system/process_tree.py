"""The process tree around an arena: its resource tracker, forks and process exit; `_core` calls this.

The resource tracker removes the names of an arena when the whole tree was killed. It cannot tell that
from a tree that has ended and left an object for another program to receive; nor does it know whether
processes of other trees use the arena. Therefore:

* At most one tracker has the names of an arena. The arena records which: the inode of its channel.
* The last process of that tree to leave the arena unregisters the names, also if processes of other
  trees stay.
* A tracker that a forked worker starts for itself ends with the worker, while other processes may
  still use the worker's arena. Such an arena is registered nowhere, until a process uses it whose
  tracker outlives it.

At process exit the arenas are released after all other finalizers of `multiprocessing`, and after it
has joined the children (see the table in `exit_order`). A forked child does not keep its parent's
finalizers, so each process registers its own.
"""

import os
import sys
from multiprocessing import process, util

from .. import _core, resource_tracker
from . import exit_order, forks

if not hasattr(_core, "Arena"):
    raise ImportError("arrays in shared memory need 64-bit Linux; SharedMemory works without it")

from .._core import LOCK_SUFFIX, begin_exit, end_tracking, retire  # noqa: E402
from .exit_order import is_forsaken  # noqa: E402, F401 (asked by `_core`)
from .leftovers import clean as clean_managers  # noqa: E402, F401 (asked by `_core`)
from .leftovers import clean_once as clean_managers_once  # noqa: E402, F401 (asked by `_core`)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

_KEY = "shared_numpy_arena"

_imported_in = os.getpid()
_follows_forks = False
_session = None  # The session in which this process, or its parent, first used the tracker.


def _is_child():
    """Tell whether `multiprocessing` has made this process."""
    return process.current_process()._parent_pid is not None


def _is_forked():
    return os.getpid() != _imported_in


def _is_root():
    """Tell whether this process is the first of its tree."""
    return not (_is_child() or _is_forked())


def _end():
    # (`multiprocessing` has joined the children before.)
    retire(_is_root())


def registrar(start: bool) -> int:
    """Return the inode of the channel of this tree's tracker; 0 if no tracker outlives the tree.

    Parameters
    ----------
    start : bool
        Start a tracker if there is none, and if it would outlive the tree.
    """
    global _session
    tracker = resource_tracker._resource_tracker
    if tracker._fd is None:
        if not start or not _is_root():
            return 0
        resource_tracker.ensure_running()
    elif tracker._pid is not None and not _is_root():
        return 0  # This process has started it, and it ends with this process.
    elif resource_tracker.is_lost():
        return 0
    try:
        number = os.fstat(tracker._fd).st_ino
    except OSError:
        return 0  # A daemon has closed its descriptors.
    if _session is None:
        _session = os.getsid(0)
    return number


def _entries(name):
    """Return the names and types under which the tracker has an arena."""
    if sys.version_info < (3, 8):
        return [(name, "arena")]
    return [("/" + name, "shared_memory"), ("/" + name + LOCK_SUFFIX, "shared_memory")]


def register(name: str) -> None:
    """Have the tracker remove the names of an arena after the tree has ended."""
    for entry in _entries(name):
        resource_tracker.register(*entry)


def unregister(name: str) -> None:
    """Have the tracker forget the names of an arena."""
    for entry in _entries(name):
        resource_tracker.unregister(*entry)


def _before_fork():
    """Have the tracker forget the arenas if it would remove their names too early for the child.

    It removes them when the last process that has its channel exits. In the newest patch releases
    the children of a plain ``os.fork`` close the channel. And a process that has made a new session
    is becoming a daemon, which closes all its descriptors after its second fork, and cannot reach
    the tracker any more.
    """
    intent = getattr(resource_tracker._twin, "_fork_intent", None)
    closes = intent is not None and not getattr(intent, "preserve_fd", False)
    if closes or _session not in (None, os.getsid(0)):
        end_tracking()


def _registries():
    """Yield the modules whose finalizers run at the exit of this process.

    A child of `multiprocess`, the copy of `multiprocessing` that pathos uses, runs the finalizers of
    that copy, then calls ``os._exit``.
    """
    yield util
    other = sys.modules.get("multiprocess.process")
    if other is not None and other.current_process()._parent_pid is not None:
        yield sys.modules["multiprocess.util"]


def at_end() -> None:
    """Have this process, and the processes that it forks, release their arenas at exit."""
    global _follows_forks
    for registry in _registries():
        registry.Finalize(None, begin_exit, exitpriority=exit_order.EXITING)
        registry.Finalize(None, _end, exitpriority=exit_order.ARENAS)
    if not _follows_forks:
        _follows_forks = True
        # (A child of `multiprocessing` forgets its parent's finalizers before it calls this. The
        # registry has only a weak reference to its first argument.)
        util.register_after_fork(at_end, lambda at_end: at_end())
        forks.register_at_fork(after_in_child=at_end)
        if sys.version_info >= (3, 8):
            forks.register_at_fork(before=_before_fork)


def hand_down(name: str) -> None:
    """Pass the name of this process's arena on to processes that it makes from now on."""
    process.current_process()._config[_KEY] = name


def inherited() -> "Optional[str]":
    """Return the name of the arena that the maker of this process has passed on, or None."""
    return process.current_process()._config.get(_KEY)
