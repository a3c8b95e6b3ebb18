"""Where the blocks were made that are still alive: `trace_blocks`."""

import collections
import operator
import os
import sys

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, NamedTuple, Optional, Tuple

    class _Fields(NamedTuple):
        stack: Tuple[Tuple[str, int, str], ...]
        count: int
        nbytes: int

else:
    _Fields = collections.namedtuple("Place", "stack count nbytes")

__all__ = ["trace_blocks"]

# With the separator at its end.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

# Where the trace that this process has was begun: contains at most one text.
_begun = []  # type: List[str]


class Place(_Fields):
    """A place in a program that has made blocks, and those of them that are alive.

    Attributes
    ----------
    stack : tuple of tuple
        ``(file name, line, function)`` of each frame, from the line that made the blocks outwards.
    count : int
        How many blocks.
    nbytes : int
        Their length in all, in bytes.
    """

    __slots__ = ()

    def __str__(self) -> str:
        lines = [
            "{:,} block{} of {:,} bytes in all, made by".format(
                self.count, "" if self.count == 1 else "s", self.nbytes
            )
        ]
        lines += ['  File "{}", line {}, in {}'.format(*frame) for frame in self.stack]
        return "\n".join(lines if self.stack else lines + ["  a thread without Python code"])


class BlockTrace:
    """Notes where this process makes blocks, in a ``with`` statement; see `trace_blocks`."""

    def __init__(self, frames: int) -> None:
        self._frames = frames
        # {key of the block: (its length, the stack)}; None before the statement.
        self._made = None  # type: Optional[Dict[Any, Tuple[int, Any]]]
        self._is_over = False
        self._pid = os.getpid()

    def __enter__(self) -> "BlockTrace":
        if self._made is not None:
            raise RuntimeError("a trace serves one `with` statement: call trace_blocks() again")
        self._refuse_fork()
        frame = sys._getframe(1)
        here = "{}:{}".format(frame.f_code.co_filename, frame.f_lineno)
        # (Before the trace begins: if Ctrl-C comes in between, `__del__` ends the trace.)
        self._made = {}
        if not _core.begin_trace(self._made, self._frames, _PACKAGE):
            self._made = None
            raise RuntimeError(
                "blocks are traced already, since {}: traces do not nest, and a process has one "
                "for all its threads".format(_begun[0] if _begun else "another thread began")
            )
        _begun[:] = [here]
        return self

    def __exit__(self, *exc_info: "Any") -> None:
        if self._made is None or self._is_over or self._pid != os.getpid():
            return
        self._is_over = True
        del _begun[:]
        _core.end_trace(self._made)
        _core.drop_freed(self._made)

    def places(self) -> "List[Place]":
        """Return where the blocks were made that are alive.

        In the ``with`` statement those that are alive now, behind it those that were at its end.

        Returns
        -------
        list of Place
            The one with the most bytes first. Blocks of one stack are one place.

        Raises
        ------
        RuntimeError
            The ``with`` statement has not begun, or this is a forked child: its blocks are not
            traced.
        """
        self._refuse_fork()
        if self._made is None:
            raise RuntimeError("nothing is traced yet: use `with trace_blocks() as trace:`")
        if not self._is_over:
            _core.drop_freed(self._made)
        found = {}  # type: Dict[Any, List[int]]
        # (`list` copies in one step what other threads change.)
        for nbytes, stack in list(self._made.values()):
            place = found.setdefault(stack, [0, 0])
            place[0] += 1
            place[1] += nbytes
        places = [Place(stack, count, nbytes) for stack, (count, nbytes) in found.items()]
        return sorted(places, key=lambda place: (-place.nbytes, place.stack))

    def _refuse_fork(self):
        if self._pid != os.getpid():
            raise RuntimeError(
                "this trace is of the parent process, with pid {}: call trace_blocks() in the "
                "child".format(self._pid)
            )

    def __str__(self) -> str:
        places = self.places()
        text = "\n".join(map(str, places))
        return text or "no block is alive that was made in this trace"

    def __del__(self) -> None:
        # Ctrl-C may have come before the `with` statement had the trace.
        if self._made is not None and not self._is_over:
            _core.end_trace(self._made)
            if self._pid == os.getpid():
                del _begun[:]


def trace_blocks(frames: int = 8) -> BlockTrace:
    """Note where this process makes blocks of shared memory, to find those that are kept.

    A block is what an array of this package lies in, or a long message, or a queue. While a ``with``
    statement runs, each block that any thread of this process makes is noted with its stack.

    Parameters
    ----------
    frames : int
        How many frames of a stack are noted, from the line that makes the block outwards; 1 at
        least. Those of this package on the inside are left out.

    Returns
    -------
    BlockTrace
        A context manager. ``trace.places()`` returns a list of places with the attributes
        ``stack``, ``count`` and ``nbytes`` (bytes), the largest first; ``print(trace)`` prints it.

    Raises
    ------
    TypeError
        `frames` is no integer.
    ValueError
        `frames` is less than 1, or more than `sys.maxsize`.
    RuntimeError
        From the ``with`` statement: the process is traced already.

    Notes
    -----
    A block is alive as long as a process has it or a handle or message stands for it, so a message
    that nobody takes is found, too. Blocks that other processes made and this one has received are
    theirs to trace. Not traced is what a queue allocates when it grows, and memory of plain arrays
    that ``integrations`` place in shared memory.

    While no trace runs, nothing is noted and it costs nothing; in one each block takes some
    microseconds more.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> with snp.trace_blocks() as trace:
    ...     kept = [snp.zeros(1000) for _ in range(3)]
    ...     dropped = snp.zeros(1000)
    ...     del dropped
    >>> place = trace.places()[0]
    >>> place.count, place.nbytes
    (3, 24000)
    """
    try:
        count = operator.index(frames)
    except TypeError:
        raise TypeError("frames must be an integer, not {!r}".format(frames)) from None
    if not 1 <= count <= sys.maxsize:
        text = "frames must be from 1 to {} (sys.maxsize), not {}"
        raise ValueError(text.format(sys.maxsize, count))
    return BlockTrace(count)
