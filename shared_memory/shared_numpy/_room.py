"""Room in shared memory: it is asked for before it is promised, or taken at once."""

import errno
import os

from . import _core

# Where there are no arenas there is nothing to give back.
_make_room = getattr(_core, "make_room", None)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def refuse_if_larger(fd: int, size: int, name: str) -> None:
    """Raise OSError (ENOSPC) if `size` bytes more than are free do not fit.

    Before, arenas give back what they do not use: this process's, and others' of this user.

    Parameters
    ----------
    fd : int
        The segment's descriptor.
    size : int
        Bytes that are wanted.
    name : str
        The segment's, for the error.
    """
    room = _core.room(fd)
    if room is not None and size > room and _make_room is not None:
        _make_room(size)
        room = _core.room(fd)
    if room is not None and size > room:
        raise _does_not_fit(size, room, name)


def reserve(fd: int, name: str) -> None:
    """Take all the memory of a segment, if there is room for it.

    Raises
    ------
    OSError
        ENOSPC: there is none.
    """
    status = os.fstat(fd)
    room = _core.room(fd)
    refuse_if_larger(fd, status.st_size - 512 * status.st_blocks, name)
    try:
        _core.reserve(fd, status.st_size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Others took it since.
        raise _does_not_fit(status.st_size, room, name) from None


def _does_not_fit(size, room, name):
    # type: (int, Optional[int], str) -> OSError
    return OSError(
        errno.ENOSPC,
        "no room for a segment of {:,} bytes: {:,} bytes of shared memory are "
        "free. Unlink segments that are no longer used, or enlarge the "
        "shared memory (in Docker: docker run --shm-size)".format(size, room or 0),
        name,
    )
