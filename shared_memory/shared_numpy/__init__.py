"""Numpy arrays in POSIX shared memory, on every CPython from 3.6 on.

The map of the package, from the ground up; imports point down only:

==================  ========================================================
`errors`            the exceptions of arenas
`_core`             the extension module, written in Rust: arenas, and what
                    `_posixshmem` takes from it
`_posixshmem`       ``shm_open`` and ``shm_unlink``
`_tracker_py37`     the resource tracker of CPython 3.6 and 3.7
`resource_tracker`  that one, or the standard library's
`_tree`             what arenas ask of the processes around them
`_list_layout`      how a `ShareableList` lies in its segment
`shared_memory`     `SharedMemory` and `ShareableList`: a backport of CPython
                    3.8's ``multiprocessing.shared_memory``
`managers`          `SharedMemoryManager`
`arrays`            numpy arrays in shared memory, by handle from process to
                    process
`backport`          on request, all this in the standard library's places
`demo`              what ``python -m shared_numpy demo`` shows
==================  ========================================================

Everything is loaded when it is first asked for: ``from shared_numpy import
shared_memory`` imports neither numpy nor anything else that it does not need.
"""

import sys
import types
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import arrays, backport, demo, errors, managers, resource_tracker, shared_memory
    from ._core import __version__
    from .arrays import (
        array,
        asarray,
        empty,
        empty_like,
        from_array,
        full,
        full_like,
        ndarray,
        ones,
        ones_like,
        zeros,
        zeros_like,
    )
    from .errors import (
        ArenaBusyError,
        ArenaCorruptedError,
        ArenaFullError,
        ForeignHandleError,
        StaleHandleError,
    )
    from .managers import SharedMemoryManager
    from .shared_memory import ShareableList, SharedMemory

__all__ = [
    "ArenaBusyError",
    "ArenaCorruptedError",
    "ArenaFullError",
    "ForeignHandleError",
    "ShareableList",
    "SharedMemory",
    "SharedMemoryManager",
    "StaleHandleError",
    "array",
    "arrays",
    "asarray",
    "backport",
    "empty",
    "empty_like",
    "errors",
    "from_array",
    "full",
    "full_like",
    "managers",
    "ndarray",
    "ones",
    "ones_like",
    "resource_tracker",
    "shared_memory",
    "zeros",
    "zeros_like",
]

_MODULES = frozenset(
    ["arrays", "backport", "demo", "errors", "managers", "resource_tracker", "shared_memory"]
)

# Public name -> the module that defines it.
_HOMES = {
    "ArenaBusyError": "errors",
    "ArenaCorruptedError": "errors",
    "ArenaFullError": "errors",
    "ForeignHandleError": "errors",
    "ShareableList": "shared_memory",
    "SharedMemory": "shared_memory",
    "SharedMemoryManager": "managers",
    "StaleHandleError": "errors",
    "__version__": "_core",
}
_HOMES.update(
    dict.fromkeys(
        [
            "array",
            "asarray",
            "empty",
            "empty_like",
            "from_array",
            "full",
            "full_like",
            "ndarray",
            "ones",
            "ones_like",
            "zeros",
            "zeros_like",
        ],
        "arrays",
    )
)


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

    def __dir__(self):
        return sorted(set(super().__dir__()) | _MODULES | set(_HOMES))


sys.modules[__name__].__class__ = _LazyModule
