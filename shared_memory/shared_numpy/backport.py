"""Gives CPython 3.6 and 3.7 the modules of 3.8, on request.

``install()`` makes these importable from their standard places, so that code
written for 3.8 runs unchanged:

* ``multiprocessing.shared_memory``
* ``multiprocessing.resource_tracker``
* ``SharedMemoryManager`` in ``multiprocessing.managers``

If the standard library has them it does nothing. It writes nothing to disk, and importing this module
changes nothing. Call it at the top level of the main module, before the imports that need it: children
under spawn and forkserver run the top level of the main module again. (Not if that is the ``__main__``
of a package, or a ``python -c``: then call it in the module that the children import.)
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
    """Undo `install`; modules that were imported meanwhile keep working."""
    for name, module in _MODULES.items():
        if sys.modules.get("multiprocessing." + name) is module:
            del sys.modules["multiprocessing." + name]
        if getattr(multiprocessing, name, None) is module:
            delattr(multiprocessing, name)
    home = multiprocessing.managers
    if getattr(home, "SharedMemoryManager", None) is managers.SharedMemoryManager:
        del home.SharedMemoryManager
        home.__all__.remove("SharedMemoryManager")
