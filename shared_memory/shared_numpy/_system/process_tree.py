"""What arenas ask of the process tree around them; called by `_core`.

The resource tracker removes an arena's names when the whole tree was killed. It
knows no difference between that and a tree that has ended and left something
for others to fetch, nor whether processes of other trees use the arena. So one
tracker at most has an arena's names, the arena says which by the number of its
channel, and the last process of that tree to leave the arena tells the tracker,
whoever else stays. A tracker that a forked worker would start for itself ends
with that worker, while others use what it made: such an arena has none until a
process whose tracker outlives it meets the arena.

At the end of a process its arenas are given back, after all other finalizers
of `multiprocessing`, which joins the children before. A forked child keeps none
of its parent's finalizers, so each is given its own.
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
_session = None  # In which this process, or its parent's, first met the tracker.


def _is_child():
    """Tell whether `multiprocessing` made this process."""
    return process.current_process()._parent_pid is not None


def _is_forked():
    return os.getpid() != _imported_in


def _is_root():
    """Tell whether no process of the tree made this one."""
    return not (_is_child() or _is_forked())


def _end():
    # Its children have ended: `multiprocessing` joins them before.
    retire(_is_root())


def registrar(start: bool) -> int:
    """Return the number of this tree's tracker; 0 if there is none to rely on.

    Parameters
    ----------
    start : bool
        Start one if there is none and it would not end before the tree.
    """
    global _session
    tracker = resource_tracker._resource_tracker
    if tracker._fd is None:
        if not start or not _is_root():
            return 0
        resource_tracker.ensure_running()
    elif tracker._pid is not None and not _is_root():
        return 0  # It was started by this process, and would end with it.
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
    """Return by which names and types the tracker knows an arena."""
    if sys.version_info < (3, 8):
        return [(name, "arena")]
    return [("/" + name, "shared_memory"), ("/" + name + LOCK_SUFFIX, "shared_memory")]


def register(name: str) -> None:
    """Have the tracker remove an arena's names in the end."""
    for entry in _entries(name):
        resource_tracker.register(*entry)


def unregister(name: str) -> None:
    """Have the tracker forget an arena's names."""
    for entry in _entries(name):
        resource_tracker.unregister(*entry)


def _before_fork():
    """Have the tracker forget the arenas if it would take their names from the child.

    It removes them when the last process that has its channel ends. The children of a
    plain ``os.fork`` close the channel, in the newest patch releases. And a process
    that has made a session of its own is becoming a daemon, which closes all its
    descriptors after its second fork; the tracker cannot be told then.
    """
    intent = getattr(resource_tracker._twin, "_fork_intent", None)
    closes = intent is not None and not getattr(intent, "preserve_fd", False)
    if closes or _session not in (None, os.getsid(0)):
        end_tracking()


def _registries():
    """Yield the modules whose finalizers run at this process's end.

    A child of `multiprocess`, the copy of `multiprocessing` that pathos uses, runs the
    finalizers of that copy and then ends by ``os._exit``.
    """
    yield util
    other = sys.modules.get("multiprocess.process")
    if other is not None and other.current_process()._parent_pid is not None:
        yield sys.modules["multiprocess.util"]


def at_end() -> None:
    """Have this process, and those it forks, give their arenas back at their end."""
    global _follows_forks
    for registry in _registries():
        registry.Finalize(None, begin_exit, exitpriority=exit_order.EXITING)
        registry.Finalize(None, _end, exitpriority=exit_order.ARENAS)
    if not _follows_forks:
        _follows_forks = True
        # A child of `multiprocessing` first forgets its parent's finalizers, and
        # then calls this; it holds its first argument weakly.
        util.register_after_fork(at_end, lambda at_end: at_end())
        forks.register_at_fork(after_in_child=at_end)
        if sys.version_info >= (3, 8):
            forks.register_at_fork(before=_before_fork)


def hand_down(name: str) -> None:
    """Let the processes that this one makes from now on know its arena."""
    process.current_process()._config[_KEY] = name


def inherited() -> "Optional[str]":
    """Return the name of the arena that this process's maker had, or None."""
    return process.current_process()._config.get(_KEY)
