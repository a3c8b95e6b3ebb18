"""Pools at process exit: their calls are done before the process ends.

`multiprocessing` runs finalizers at exit, by priority, and joins its children in between;
`_system.exit_order` has the whole table.
"""

import os
import weakref
from multiprocessing import util

from .._system import exit_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# At exit a pool is given up when its dispatcher has shown no sign of life for so many seconds,
# and so are workers that were told to stop.
STUCK = 60.0

# The pools that have a dispatcher.
_pools = weakref.WeakSet()  # type: weakref.WeakSet[Any]

_is_exiting = False

# The process whose exit is watched: a forked child has none of its parent's finalizers.
_watching = None  # type: Optional[int]


def has_begun() -> bool:
    """Tell whether this process is exiting, and takes no more calls."""
    return _is_exiting


def watch(pool: "Any") -> None:
    """Have a pool's calls done, and its workers ended, before this process exits."""
    global _watching, _is_exiting
    if _watching != os.getpid():
        _watching, _is_exiting = os.getpid(), False
        util.Finalize(None, _end_pools, exitpriority=exit_order.POOLS)
    _pools.add(pool)


def _end_pools():
    global _is_exiting
    _is_exiting = True
    pools = [pool for pool in _pools if pool.pid == os.getpid()]
    for pool in pools:
        pool.shut_down()
    for pool in pools:
        pool.join(STUCK)
