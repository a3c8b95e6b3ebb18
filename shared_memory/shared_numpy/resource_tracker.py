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

    def expect(name: str, rtype: str) -> None:
        """Do nothing: this tracker cannot be told of what is still to be made."""

    def forget(name: str, rtype: str) -> None:
        """Do nothing, as `expect`."""


else:
    from . import _tracker_py37 as _twin
    from ._tracker_py37 import expect, forget

    _twin.take_over()

# CPython's tests ask for some of these by name.
# (Those of before 3.13 know no type "dummy", with which later ones test.)
_CLEANUP_FUNCS = {
    rtype: remove for rtype, remove in _twin._CLEANUP_FUNCS.items() if rtype != "dummy"
}
_resource_tracker = _twin._resource_tracker
ResourceTracker = _twin.ResourceTracker
ensure_running = _twin.ensure_running
getfd = _twin.getfd

__all__ = ["ensure_running", "register", "unregister"]

# Since 3.13.10 and 3.14.1 the protocol carries any name.
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
        The name would break the tracker's protocol: its message would be longer
        than 512 bytes, or it is not ASCII, or it has a colon, a newline or a NUL.
    """
    _check(name, rtype)
    _twin.register(name, rtype)


def unregister(name: str, rtype: str) -> None:
    """Tell the tracker that a resource has been removed.

    Parameters and errors are those of `register`.
    """
    _check(name, rtype)
    _twin.unregister(name, rtype)


# Comes with 3.7.
_is_ascii = getattr(str, "isascii", lambda name: max(name, default="") <= "\x7f")


def _check(name, rtype):
    """Refuse what the tracker would take for something else."""
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
