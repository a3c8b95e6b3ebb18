"""Numpy arrays in POSIX shared memory, on every CPython from 3.6 on.

::

    import shared_numpy as snp

    frame = snp.zeros((1000, 1000), "f4")    # an array that other processes can see

What a program needs most:

`zeros`, `array`, `asarray`, ...  arrays in shared memory, made as numpy makes them; `multiprocessing`
                                  and `concurrent.futures` send them without a copy
`share`                           a copy of an array in shared memory
`Queue`                           messages with arrays in them; `SimpleQueue`, `JoinableQueue`
`RingBuffer`                      frames of one shape, filled and looked at where they lie
`ProcessPoolExecutor`             functions over arrays, in other processes
`SharedContext`                   functions that see the same arrays as globals
`create`, `attach`, `delete`      arrays that unrelated programs find by name; `list_named`
`send`, `receive`                 any object to another process, by any transport
`SharedMemory`, `ShareableList`   as in CPython 3.8's ``multiprocessing.shared_memory``
`ArrayManager`                    arrays that are deleted when it ends; `SharedMemoryManager`

Arrays of `create` and segments of `SharedMemory` stay until they are deleted. Nothing else has
to be closed or unlinked. Modules: `shared_memory` and `managers` (the backport), `backport` (which
puts these in the standard library's places), `integrations` (other packages' pools), `compat`
(other packages' names), `errors`.

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

    The core has one state for the process: it would mix up the objects of two interpreters, and
    wait at exit for an interpreter that has ended.
    """
    # (The first module exists from 3.13 on, the second from 3.8 to 3.12. Before there is none.)
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

from ._system import forks  # noqa: E402, F401 (it watches imports from now on)

# Module -> the public names that it defines.
_NAMES = {
    "arrays": [
        "array", "asarray", "empty", "empty_like", "from_array", "full", "full_like", "is_shared",
        "name_of", "ndarray", "ones", "ones_like", "share", "zeros", "zeros_like",
    ],
    "queues": ["JoinableQueue", "Queue", "SimpleQueue"],
    "ring_buffer": ["RingBuffer"],
    "executor": ["ProcessPoolExecutor"],
    "context": ["SharedContext"],
    "named": ["attach", "create", "delete", "get_include", "list_named"],
    "handles": ["Handle", "receive", "send"],
    "shared_memory": ["ShareableList", "SharedMemory"],
    "managers": ["SharedMemoryManager"],
    "array_manager": ["ArrayManager"],
    "_pickling.classes": ["register_type"],
    "_pickling.copy_warnings": ["warn_on_copy"],
    "_system.block_trace": ["trace_blocks"],
    "errors": [
        "ArenaBusyError", "ArenaCorruptedError", "ArenaFullError", "CopyWarning",
        "ForeignHandleError", "StaleHandleError",
    ],
    "_command.findings": ["diagnose"],
    "_core": ["Arena", "Block", "__version__", "clean", "machine", "stats", "trim"],
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

# The modules that users import; the others of `_NAMES` define public names.
_SHOWN = ["shared_memory", "managers", "backport", "integrations", "compat", "errors", "resource_tracker"]
_MODULES = frozenset(_SHOWN + [name for name in _NAMES if not name.startswith("_")] + ["demo"])

# The names of ``from shared_numpy import *``; all others are used as ``snp.x``.
__all__ = [
    "array", "asarray", "empty", "empty_like", "from_array", "full", "full_like", "ndarray", "ones",
    "ones_like", "zeros", "zeros_like", "Queue", "ProcessPoolExecutor", "create", "attach", "delete",
    "SharedMemory", "ShareableList", "SharedMemoryManager", "shared_memory",
]  # fmt: skip


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
        own = [name for name in super().__dir__() if name.startswith("__")]
        return sorted(set(own) | set(_SHOWN) | set(_HOMES))


sys.modules[__name__].__class__ = _LazyModule
