"""Numpy arrays in POSIX shared memory, on every CPython from 3.6 on.

The map of the package, from the ground up; imports point down only:

==================  ========================================================
`errors`            the exceptions of arenas, and a warning
`_copies`           where arrays are pickled by value, told on request
`_core`             the extension module, written in Rust: arenas, and what
                    `_posixshmem` takes from it
`_ends`             daemon threads at the end of the process
`_forks`            handlers around forks, and no fork in the middle of an import
`_leftovers`        what managers of killed programs left
`_posixshmem`       ``shm_open`` and ``shm_unlink``
`_tracker_py37`     the resource tracker of CPython 3.6 and 3.7
`resource_tracker`  that one, or the standard library's
`_tree`             what arenas ask of the processes around them
`_room`             room in shared memory, asked for or taken
`_mapping`          files in memory, without a descriptor
`_list_layout`      how a `ShareableList` lies in its segment
`_named_layout`     how a named array lies in its file
`shared_memory`     `SharedMemory` and `ShareableList`: a backport of CPython
                    3.8's ``multiprocessing.shared_memory``
`managers`          `SharedMemoryManager`
`_pipe`             packets between processes
`_piped`            messages through them, where there can be no ring
`_channels`         messages between processes: a ring, or that
`transfer`          how arrays travel: by reference, moved, by value
`arrays`            numpy arrays in shared memory
`messages`          anything with arrays in it, for one receiver; `put`, `get`
`queues`            `Queue`, `SimpleQueue`, `JoinableQueue`
`frames`            `RingBuffer`: arrays filled and looked at where they lie
`named`             arrays that other programs find by name
`closures`          functions that have no name, on their way to a worker
`_workers`          worker processes, and what they are told
`executor`          `ProcessPoolExecutor`
`context`           `SharedContext`
`array_manager`     `ArrayManager`
`integrations`      what pools of other packages need, a module each
`backport`          on request, all this in the standard library's places
`compat`            doors for the users of other projects, a module each
`demo`              what ``python -m shared_numpy demo`` shows
==================  ========================================================

Everything is loaded when it is first asked for: ``from shared_numpy import
shared_memory`` imports neither numpy nor anything else that it does not need.
"""

import sys
import types
from importlib import import_module


def _refuse_free_threading():
    """Raise ImportError where there is no GIL: the extension has the ABI of builds with one."""
    if "t" in getattr(sys, "abiflags", ""):
        raise ImportError(
            "shared_numpy serves CPython 3.6 and later with a GIL, and {} is a free-threaded build "
            "of {}.{}: use the ordinary build".format(sys.executable, *sys.version_info[:2])
        )


def _refuse_other_interpreters():
    """Raise ImportError in any interpreter of this process but the first.

    The core has one state for the process: it would mix up the objects of two
    interpreters, and wait at the end for one that has ended.
    """
    # What tells them apart is called so from 3.13 on, and from 3.8 on; before there
    # is nothing.
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            interpreters = import_module(name)
        except ImportError:
            continue
        if interpreters.get_current() != interpreters.get_main():
            raise ImportError(
                "shared_numpy works in a process's first interpreter only, and this is "
                "another one. Under mod_wsgi, set WSGIApplicationGroup %{GLOBAL}"
            )
        return


_refuse_free_threading()
_refuse_other_interpreters()

from . import _forks  # noqa: E402, F401 (it watches imports from now on)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import (
        array_manager,
        arrays,
        backport,
        context,
        demo,
        errors,
        executor,
        frames,
        managers,
        messages,
        named,
        queues,
        resource_tracker,
        shared_memory,
        transfer,
    )
    from ._copies import warn_on_copy
    from ._core import __version__, machine, trim
    from .array_manager import ArrayManager
    from .arrays import (
        array,
        asarray,
        empty,
        empty_like,
        from_array,
        full,
        full_like,
        name_of,
        ndarray,
        ones,
        ones_like,
        zeros,
        zeros_like,
    )
    from .context import SharedContext
    from .errors import (
        ArenaBusyError,
        ArenaCorruptedError,
        ArenaFullError,
        CopyWarning,
        ForeignHandleError,
        StaleHandleError,
    )
    from .executor import ProcessPoolExecutor
    from .frames import RingBuffer
    from .managers import SharedMemoryManager
    from .messages import Ref, get, put
    from .named import attach, create, delete, get_include, list_arrays
    from .queues import JoinableQueue, Queue, SimpleQueue
    from .shared_memory import ShareableList, SharedMemory
    from .transfer import register_array_wrapper, register_type, share_arrays

# Module -> the public names that it defines.
_NAMES = {
    "_copies": ["warn_on_copy"],
    "_core": ["__version__", "machine", "trim"],
    "arrays": [
        "array",
        "asarray",
        "empty",
        "empty_like",
        "from_array",
        "full",
        "full_like",
        "name_of",
        "ndarray",
        "ones",
        "ones_like",
        "zeros",
        "zeros_like",
    ],
    "array_manager": ["ArrayManager"],
    "backport": [],
    "context": ["SharedContext"],
    "demo": [],
    "errors": [
        "ArenaBusyError",
        "ArenaCorruptedError",
        "ArenaFullError",
        "CopyWarning",
        "ForeignHandleError",
        "StaleHandleError",
    ],
    "executor": ["ProcessPoolExecutor"],
    "frames": ["RingBuffer"],
    "managers": ["SharedMemoryManager"],
    "messages": ["Ref", "get", "put"],
    "named": ["attach", "create", "delete", "get_include", "list_arrays"],
    "queues": ["JoinableQueue", "Queue", "SimpleQueue"],
    "resource_tracker": [],
    "shared_memory": ["ShareableList", "SharedMemory"],
    "transfer": ["register_array_wrapper", "register_type", "share_arrays"],
}
_MODULES = frozenset(name for name in _NAMES if not name.startswith("_"))
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted((_MODULES | set(_HOMES)) - {"__version__", "demo"})


class _LazyModule(types.ModuleType):
    """A package whose public names are imported at their first use.

    CPython 3.6 has no module-level ``__getattr__``, so the class of the module
    object provides it.
    """

    def __getattr__(self, name):
        if name in _MODULES:
            return import_module("." + name, __name__)
        if name in _HOMES:
            value = getattr(import_module("." + _HOMES[name], __name__), name)
            setattr(self, name, value)
            return value
        raise AttributeError(
            "module {!r} has no attribute {!r}".format(__name__, name)
        )

    def __reduce__(self):
        # Pickled by name, as cloudpickle does with plain modules.
        return import_module, (__name__,)

    def __dir__(self):
        return sorted(set(super().__dir__()) | _MODULES | set(_HOMES))


sys.modules[__name__].__class__ = _LazyModule
