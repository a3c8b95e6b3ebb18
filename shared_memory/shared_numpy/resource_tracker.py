"""The process that removes at the end what a process tree left behind.

The twin of CPython's ``multiprocessing.resource_tracker``. From 3.8 on it is
that very tracker; on 3.6 and 3.7, which track semaphores only, importing this
module puts `_tracker_py37` in the place of ``multiprocessing.semaphore_tracker``
for this process and those that it starts. That and nothing else is what an
import changes in a process; no process is started by it.

Import the package in the process that starts the workers: then the whole tree
has one tracker, whichever start method makes it. A worker whose parent does
not know the package has a tracker of its own, which removes at the worker's end
what the worker registered.
"""

import sys

if sys.version_info >= (3, 8):
    from multiprocessing import resource_tracker as _twin
    from multiprocessing.resource_tracker import (
        _CLEANUP_FUNCS,
        ResourceTracker,
        _resource_tracker,
        ensure_running,
        getfd,
    )

    # Since then the protocol carries any name.
    _ANY_NAME = sys.version_info >= (3, 13, 10) and sys.version_info[:3] != (3, 14, 0)

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
            The name would break the tracker's protocol.
        """
        if not _ANY_NAME:
            for character in name:
                if character in "\n\0:":
                    raise ValueError(
                        "the resource tracker cannot take the name {!r}: it contains "
                        "{!r}. Choose another, or use track=False".format(name, character)
                    )
        _twin.register(name, rtype)

    def unregister(name: str, rtype: str) -> None:
        """Tell the tracker that a resource has been removed."""
        _twin.unregister(name, rtype)

    def expect(name: str, rtype: str) -> None:
        """Do nothing: this tracker cannot be told of what is still to be made."""

    def forget(name: str, rtype: str) -> None:
        """Do nothing, as `expect`."""


else:
    from ._tracker_py37 import (
        _CLEANUP_FUNCS,
        ResourceTracker,
        _resource_tracker,
        ensure_running,
        expect,
        forget,
        getfd,
        register,
        take_over,
        unregister,
    )

    take_over()

__all__ = ["ensure_running", "register", "unregister"]
