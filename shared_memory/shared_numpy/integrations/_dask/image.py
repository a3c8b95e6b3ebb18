"""The bytes of a share in one piece of memory: a header, a flag for each piece, the buffers.

::

    0      8       16       24      28     64            256       256 + pieces       multiple of 4096
    magic  length  piece's  filler  zeros  filler's      a flag    zeros              the bytes
           of the  length   (its    ...    name, UTF-8   for each
           bytes            PID)                         piece

A flag is set after the bytes of its piece are there, by the process that holds the lock of
`host_memory`. So a process that takes over from a dead one goes on where that has stopped.

Processors that reorder memory accesses, such as 64-bit Arm's, must not let a flag be seen before its
bytes. So the one that fills takes and releases the arena's lock between them (`Image.order`), and one
that has found all flags set does the same before it looks at the bytes. Of the two times the
reader's is the later one: before the writer's time no flag is set. The lock then orders the bytes.
(From a dead one the kernel's lock comes, which orders all that it has done.)
"""

import struct

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Tuple

# So many bytes travel at a time.
PIECE = 8 << 20

_MAGIC = b"snpCOPY1"
_HEAD = struct.Struct("=8sQQI")
_NAME = slice(64, 256)
_FLAGS = 256
_PAGE = 4096
# Each buffer begins at a multiple of that.
_ALIGNMENT = 64


def offsets_of(sizes: "List[int]") -> "Tuple[List[int], int]":
    """Return where each buffer begins among the bytes, and how many bytes there are in all."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = offsets[-1] + size
    return offsets, end


def _start_of(nbytes):
    pieces = -(-nbytes // PIECE)
    return pieces, -(-(_FLAGS + pieces) // _PAGE) * _PAGE


def size_of(nbytes: int) -> int:
    """Return how much memory an image of so many bytes takes."""
    return _start_of(nbytes)[1] + nbytes


class Image:
    """The bytes of a share.

    Parameters
    ----------
    memory : numpy.ndarray
        Memory of `size_of(nbytes)` bytes, of dtype uint8.
    nbytes : int
        How many bytes the share has.
    """

    def __init__(self, memory: "np.ndarray[Any, Any]", nbytes: int) -> None:
        self.memory, self.nbytes = memory, nbytes
        # Called between bytes and flags, while it is filled for other processes.
        self.order = None  # type: Optional[Callable[[], Any]]
        self.pieces, start = _start_of(nbytes)
        self.flags = memory[_FLAGS : _FLAGS + self.pieces]
        self.data = memory[start : start + nbytes]

    def begin(self) -> None:
        """Write the header of new memory: no piece is there."""
        self.memory[: _FLAGS + self.pieces] = 0
        _HEAD.pack_into(self.memory, 0, _MAGIC, self.nbytes, PIECE, 0)

    def check(self) -> None:
        """Raise RuntimeError if the memory was not begun as an image of so many bytes."""
        found = _HEAD.unpack_from(self.memory)[:3]
        if found != (_MAGIC, self.nbytes, PIECE):
            raise RuntimeError(
                "the arena of a share has {!r} where {!r} was expected: another version of "
                "shared_numpy has made it".format(found, (_MAGIC, self.nbytes, PIECE))
            )

    def set_filler(self, pid: int, name: str) -> None:
        """Note who fills it, for errors of those that wait."""
        _HEAD.pack_into(self.memory, 0, _MAGIC, self.nbytes, PIECE, pid)
        length = _NAME.stop - _NAME.start
        self.memory[_NAME] = np.frombuffer(name.encode()[:length].ljust(length, b"\0"), "u1")

    def filler(self) -> str:
        """Return who fills it, or did."""
        name = self.memory[_NAME].tobytes().rstrip(b"\0").decode("utf-8", "replace")
        return "{} (PID {})".format(name or "a process", _HEAD.unpack_from(self.memory)[3])

    def count(self) -> int:
        """Return how many pieces there are."""
        return int(np.count_nonzero(self.flags))

    def is_complete(self) -> bool:
        return self.count() == self.pieces

    def has(self, piece: int) -> bool:
        return bool(self.flags[piece])

    def missing(self) -> "List[int]":
        """Return the pieces that are not there."""
        return np.flatnonzero(self.flags == 0).tolist()

    def piece(self, number: int) -> "np.ndarray[Any, Any]":
        """Return the memory of a piece."""
        return self.data[number * PIECE : (number + 1) * PIECE]

    def store(self, number: int, data: "Any") -> None:
        """Write a piece, then set its flag."""
        self.piece(number)[...] = np.frombuffer(data, "u1")
        self._put_in_order()
        self.flags[number] = 1

    def complete(self) -> None:
        """Set all flags: the bytes were written as a whole."""
        self._put_in_order()
        self.flags[...] = 1

    def _put_in_order(self):
        if self.order is not None:
            self.order()
