"""Room in shared memory: checked before a segment is made, or reserved at once."""

import errno
import os
from contextlib import contextmanager

from .. import _core
from . import records

# (Without arenas, as on 32 bits, there is no memory to give back.)
_make_room = getattr(_core, "make_room", None)
_memory_left = getattr(_core, "memory_left", None)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Tuple


# How an error names what has no room, and what helps.
SEGMENT = "a segment", "Unlink segments that are no longer used"
NAMED_ARRAY = "an array with a name", "Delete such arrays that are no longer used (shared_numpy.delete)"


def refuse_if_larger(
    fd: int, size: int, name: str, touched: bool = False, kind: "Tuple[str, str]" = SEGMENT
) -> None:
    """Raise OSError (ENOSPC) if `size` more bytes do not fit.

    Before it raises, arenas give back unused memory: those of this process, and others of this user.

    Parameters
    ----------
    fd : int
        The segment's descriptor.
    size : int
        The number of bytes.
    name : str
        The segment's name, for the error.
    touched : bool
        All of them are used now: check the limit of the process's control group, too. There the
        kernel does not refuse memory, it kills.
    kind : tuple of str
        What it is, for the error.
    """
    room, why = shm_space(fd, touched)
    if size > room and _make_room is not None:
        _make_room(size)
        room, why = shm_space(fd, touched)
    if size > room:
        raise _does_not_fit(size, room, name, why, kind)


def shm_space(fd, touched):
    """Return the number of free bytes, and the reason for it if the limit is not that of
    /dev/shm."""
    room = _core.room(fd)
    memory = _memory_left() if touched and _memory_left is not None else None
    if memory is not None and (room is None or memory < room):
        return memory, "the memory limit of this process's control group leaves no more"
    return (float("inf") if room is None else room), None


def reserve(fd: int, name: str, kind: "Tuple[str, str]" = SEGMENT) -> None:
    """Reserve all the memory of a segment.

    Raises
    ------
    OSError
        ENOSPC: there is no room for it.
    """
    status = os.fstat(fd)
    room, _ = shm_space(fd, True)
    refuse_if_larger(fd, status.st_size - 512 * status.st_blocks, name, True, kind)
    try:
        _core.reserve(fd, status.st_size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        # Race: other processes have taken it since the check.
        raise _does_not_fit(status.st_size, room, name, None, kind) from None


def _does_not_fit(size, room, name, why, kind):
    text = "refused a segment of %d bytes, %r: shared memory has %d left"
    records.note("refusal", records.WARNING, text, size, name, room)
    return OSError(
        errno.ENOSPC,
        "no room for {} of {:,} bytes: {:,} bytes of shared memory are free{}. {}, or enlarge the "
        "shared memory (in Docker: docker run --shm-size)".format(
            kind[0], size, room, " ({})".format(why) if why else "", kind[1]
        ),
        name,
    )


@contextmanager
def in_folder() -> "Iterator[None]":
    """Explain a FileNotFoundError if this system has no folder for shared memory."""
    try:
        yield
    except FileNotFoundError as error:
        text = getattr(_core, "NO_FOLDER", None)
        if text is None or os.path.isdir("/dev/shm"):
            raise
        raise FileNotFoundError(error.errno, text) from None
