"""The exceptions of arenas, and a warning; each is a subclass of the nearest builtin.

A wrong argument raises `ValueError` or `TypeError`; an error of the system raises `OSError` itself.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = [
    "ArenaBusyError",
    "ArenaCorruptedError",
    "ArenaFullError",
    "CopyWarning",
    "ForeignHandleError",
    "StaleHandleError",
]


class StaleHandleError(ReferenceError):
    """The block of a handle has been freed.

    A handle is a reference to its block until it is received. It can be received again as long as a
    process has the block.
    """


class ForeignHandleError(ValueError):
    """A handle or an arena of another machine, boot, user or version."""


class ArenaFullError(OSError):
    """There is no room in the arena, or in /dev/shm; nothing has changed.

    Its ``errno`` is ``ENOSPC``.

    Attributes
    ----------
    asked : int or None
        The bytes that were asked for, or the number of table rows, all of which are in use.
    left : int or None
        The bytes that are left: in /dev/shm, or within the memory limit of the control group if
        that is less.
    """

    asked = None  # type: Optional[int]
    left = None  # type: Optional[int]


class ArenaBusyError(TimeoutError):
    """A living process has held the arena's lock for too long.

    Attributes
    ----------
    pid : int or None
        The process.
    state : str or None
        Its state, as far as this process can see it.
    """

    pid = None  # type: Optional[int]
    state = None  # type: Optional[str]


class ArenaCorruptedError(RuntimeError):
    """The arena's tables contradict themselves: they were overwritten.

    No process can use the arena any more. Existing arrays stay as they are.
    """


class CopyWarning(UserWarning):
    """An array in shared memory was pickled by value; see `warn_on_copy`."""
