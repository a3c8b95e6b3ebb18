"""The exceptions of arenas, and a warning; each is also the nearest one of the builtins.

What is no more than a wrong argument raises `ValueError` or `TypeError`, what
the system refuses plain `OSError`.
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

    A handle counts as a reference until it has been received once. Received
    again, it works for as long as some process has the block.
    """


class ForeignHandleError(ValueError):
    """A handle or an arena of another machine, boot, user or version."""


class ArenaFullError(OSError):
    """There is no room for one more; nothing has changed.

    Its ``errno`` is ``ENOSPC``.

    Attributes
    ----------
    asked : int or None
        Bytes that were asked for, or the number of rows that are all taken.
    left : int or None
        Bytes that there are: in /dev/shm, or what the memory limit of a control group leaves if
        that is less.
    """

    asked = None  # type: Optional[int]
    left = None  # type: Optional[int]


class ArenaBusyError(TimeoutError):
    """A living process has kept the arena's lock for too long.

    Attributes
    ----------
    pid : int or None
        The process.
    state : str or None
        What it was doing, as far as this process can see.
    """

    pid = None  # type: Optional[int]
    state = None  # type: Optional[str]


class ArenaCorruptedError(RuntimeError):
    """What lies in shared memory contradicts itself: it was overwritten.

    No process can use the arena any more. Arrays that exist stay as they are.
    """


class CopyWarning(UserWarning):
    """An array in shared memory was pickled by value; see `warn_on_copy`."""
