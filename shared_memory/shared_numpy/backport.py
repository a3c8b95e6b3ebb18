"""Gives CPython 3.6 and 3.7 the modules that came with 3.8, if one asks for it.

``install()`` makes these importable from their standard places, so that code
written for 3.8 runs unchanged:

* ``multiprocessing.shared_memory``
* ``multiprocessing.resource_tracker``
* ``SharedMemoryManager`` in ``multiprocessing.managers``

Where the standard library has them it does nothing. Nothing is written to disk,
and importing this module changes nothing. Call it at the top level of the main
module, before the imports that need it: children under spawn and forkserver run
the main module's top level again, and have it then too. (Not so where the main
module is a package's ``__main__`` or a ``python -c``: call it then in the module
that the children import.)
"""

import multiprocessing
import multiprocessing.managers
import sys

from . import managers, resource_tracker, shared_memory

__all__ = ["install", "uninstall"]

_MODULES = {"shared_memory": shared_memory, "resource_tracker": resource_tracker}


def install() -> None:
    """Make the backport importable from the standard places.

    Calling it again does nothing.
    """
    if sys.version_info >= (3, 8):
        return
    for name, module in _MODULES.items():
        if "multiprocessing." + name not in sys.modules:
            sys.modules["multiprocessing." + name] = module
            setattr(multiprocessing, name, module)
    home = multiprocessing.managers
    if not hasattr(home, "SharedMemoryManager"):
        home.SharedMemoryManager = managers.SharedMemoryManager
        home.__all__.append("SharedMemoryManager")


def uninstall() -> None:
    """Take back what `install` did; what was imported meanwhile goes on working."""
    for name, module in _MODULES.items():
        if sys.modules.get("multiprocessing." + name) is module:
            del sys.modules["multiprocessing." + name]
        if getattr(multiprocessing, name, None) is module:
            delattr(multiprocessing, name)
    home = multiprocessing.managers
    if getattr(home, "SharedMemoryManager", None) is managers.SharedMemoryManager:
        del home.SharedMemoryManager
        home.__all__.remove("SharedMemoryManager")
