"""Streams of frames: arrays of one shape that are filled and looked at where they lie.

A `RingBuffer` has a number of frames, each in a block of the arena. A writer fills one and
shows it to the readers; a reader looks at it without a copy, while others do, too. Who
fills a frame or looks at one holds its block: so nobody writes to what somebody sees, and
what a killed process held is free again.
"""

import inspect
import operator
import queue
import sys
from multiprocessing import context, util

import numpy as np

from . import _core, arrays
from ._channels.closable import Closable
from ._pickling import by_reference, registry
from ._system import exit_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple

__all__ = ["RingBuffer"]


def _references():
    thing = object()
    return sys.getrefcount(thing)


# How many references to something are counted if there are two: a name here, and another one.
# (From 3.14 on the call that counts has none of its own.)
_ALONE = _references() + 1


class EndedFrame(arrays.ndarray):
    """What a frame becomes when its ``with`` block is over: all that reads or writes items,
    and all that numpy lets a class intercept, raises ValueError.

    Attributes
    ----------
    sequence, time, skipped
        As the frame had them.
    closed : bool
        True.
    """

    sequence = time = skipped = None  # type: Any
    closed = True  # type: ignore

    def __repr__(self) -> str:
        return "<frame{} of a RingBuffer, after its with block>".format(
            "" if self.sequence is None else " {}".format(self.sequence)
        )

    __str__ = __repr__


def _refuse(frame, *arguments, **options):
    """Raise, in the place of whatever would use the items of a frame."""
    raise ValueError(
        "{!r} has no items any more: use a frame inside its with block; to keep it, copy it "
        "there (frame.copy()), or keep it or a view of it in a second place".format(frame)
    )


# What works after the block: what tells about the array, and what every object has.
_STAYS = frozenset(
    "base close closed device dtype flags itemsize nbytes ndim release shape size strides "
    "__array_finalize__ __array_priority__ __buffer__ __class__ __class_getitem__ __delattr__ __dict__ "
    "__dir__ __doc__ __format__ __getattribute__ __hash__ __init__ __init_subclass__ "
    "__module__ __new__ __release_buffer__ __setattr__ __sizeof__ __subclasshook__ __weakref__".split()
)
for _name in set(dir(arrays.ndarray)) - _STAYS - set(vars(EndedFrame)):
    # (A method that every numpy from 1.13 on looks up in the class, and plain attributes.)
    _is_method = callable(getattr(arrays.ndarray, _name))
    setattr(EndedFrame, _name, _refuse if _is_method else property(_refuse))
EndedFrame.__array_ufunc__ = EndedFrame.__array_function__ = _refuse  # type: ignore
registry.register(EndedFrame, _refuse)


class _Frame:
    """A frame, while a ``with`` block fills it or looks at it."""

    _block = _frame = None  # type: Any

    def __init__(self, ring, timeout):
        self._ring = ring
        self._timeout = timeout

    def __enter__(self):
        if self._frame is not None:
            raise RuntimeError("a frame is filled or looked at by one with block")
        self._begin()
        frame = self._frame = self._ring._on(self._block)
        return frame

    def _end(self, caller):
        """Let go of the frame, unless the program has kept it, or a view of it: then it is
        let go of when these are gone. `caller` is the stack's frame that ends the block."""
        frame, self._frame, self._block = self._frame, None, None
        # (The name here, and the program's.)
        if sys.getrefcount(frame) <= _ALONE and _is_variable(frame, caller):
            # Once more: another thread may have got it by the variable meanwhile.
            if sys.getrefcount(frame) <= _ALONE and not _has_views(frame):
                empty = (1, (0,), frame.dtype, False, b"")
                np.ndarray.__setstate__(frame, empty)
                frame.__class__ = EndedFrame
        del frame
        self._ring._let_go()


def _is_variable(frame, caller):
    """Tell whether a variable of the code that ends a with block refers to the frame: else
    the program has moved it somewhere, and it stays whole there."""
    while caller is not None and caller.f_globals.get("__name__") == "contextlib":
        caller = caller.f_back  # An ExitStack's code ends it for the program's.
    if caller is None:
        return False
    code, variables = caller.f_code, caller.f_locals
    found = False
    if code.co_flags & inspect.CO_OPTIMIZED:
        # (In one step, since other threads may change the variables of closures.)
        found = id(frame) in map(id, list(variables.values()))
        if sys.version_info < (3, 13):
            # The interpreter keeps this copy of a function's variables with the call, and so all
            # that they refer to. If the program has it, too (`locals()`), it shall not refer to
            # the frame when it did not before.
            if sys.getrefcount(variables) <= _ALONE:
                variables.clear()
            for name in [name for name in variables if variables[name] is frame]:
                del variables[name]
    # A namespace may have thousands of names; those of the code are few.
    spaces = [each for each in (variables, caller.f_globals) if isinstance(each, dict)]
    return found or any(
        dict.get(space, name) is frame for space in spaces for name in code.co_names
    )


def _has_views(frame):
    """Tell whether there are views of an array that lies in a block."""
    inner = frame.base
    # The name here and the frame's own, or a view has it, too.
    if sys.getrefcount(inner) > _ALONE:
        return True
    block = inner if type(inner) is _core.Block else inner.base
    del inner
    return sys.getrefcount(block) > _ALONE


class _Writing(_Frame):
    """A frame that is filled, and shown to the readers when the ``with`` block ends well.

    Attributes
    ----------
    sequence : int
        The frame's number, when it was written.
    """

    sequence = None  # type: Optional[int]
    _index = -1

    def _begin(self):
        found = self._ring._call("blank", self._timeout)
        if found is None:
            raise queue.Full(self._ring._say_why_full(self._timeout))
        self._block, self._index = found

    def __exit__(self, kind, error, trace):
        frame = self._frame
        try:
            if kind is None:
                frame.flags.writeable = False
                self.sequence = self._ring._call("write", self._block, self._index)
                frame.sequence = self.sequence
        finally:
            del frame
            self._end(sys._getframe().f_back)


class _Reading(_Frame):
    """A frame that is looked at.

    Attributes
    ----------
    sequence : int
        Its number; they are counted from 0, in the order in which they were written.
    time : float
        When it was written, in seconds of `time.monotonic`.
    skipped : int
        How many frames this process has missed since the one before.
    """

    sequence = time = skipped = None  # type: Any

    def __init__(self, ring, timeout, which):
        super().__init__(ring, timeout)
        self._which = which

    def _begin(self):
        found = self._ring._call(self._which, self._timeout)
        if found is None:
            raise queue.Empty
        self._block, self.sequence, nanoseconds, self.skipped = found
        self.time = nanoseconds * 1e-9

    def __enter__(self):
        frame = super().__enter__()
        # What it is a view of first: nobody can undo it then.
        frame.base.flags.writeable = False
        frame.flags.writeable = False
        frame.sequence, frame.time, frame.skipped = self.sequence, self.time, self.skipped
        return frame

    def __exit__(self, kind, error, trace):
        self._end(sys._getframe().f_back)


class RingBuffer(Closable):
    """A ring of frames in shared memory, for any number of writers and readers.

    Parameters
    ----------
    shape : int or tuple of int
        The shape of a frame.
    dtype : dtype_like
        What its items are; none that hold references to objects.
    slots : int
        How many frames there are; 1 to 256. Each reader can look at one, and each writer fill
        one, while others wait to be read.
    when_full : {"wait", "drop_oldest"}
        What writers do when no frame is free. "wait": wait until all readers have read one.
        "drop_oldest": take the oldest frame that nobody looks at, whether all have read it or not.

    Attributes
    ----------
    shape, dtype, slots, when_full
        As it was made with.
    spin : bool
        Whether waiters of this process may look for some microseconds before they sleep: by
        default they do where the process has two processors, and while waits are short.

    Raises
    ------
    TypeError, ValueError
        There are no such frames.
    ArenaFullError
        /dev/shm has no room for them.

    Notes
    -----
    It can be an argument of a ``Process``. Each process that reads sees all frames, from the
    oldest one on that is there when it begins to read and has no gap behind it; a child that
    is forked begins where its parent is. There are 64 readers at most. A reader is forgotten when
    its process ends or has closed the ring.

    A process that keeps a frame, or a view of it, beyond the ``with`` block still looks at it:
    its slot is not used until that is gone. A frame that only the variable of the block refers
    to is over after it, and whatever uses its items raises ValueError.

    A process that is killed while it fills a frame has not written it; one that is killed while
    it looks at a frame does not any more. Views of a frame that was filled, which a writer or a
    child that it has forked in its ``with`` block keeps, can still be written to: do not.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> ring = snp.RingBuffer((480, 640), "u1", slots=4)
    >>> with ring.write() as frame:
    ...     frame[:] = 7
    >>> with ring.read(timeout=1) as frame:
    ...     int(frame[0, 0]), frame.sequence, frame.skipped
    (7, 0, 0)
    """

    def __init__(
        self, shape: "Any", dtype: "Any" = float, slots: int = 4, when_full: str = "wait"
    ) -> None:
        probe = np.empty(0, dtype)
        if probe.dtype.hasobject:
            raise TypeError(
                "frames of {} hold references to objects of one process".format(probe.dtype)
            )
        lengths = (shape,) if hasattr(shape, "__index__") else tuple(shape)
        self.shape = tuple(operator.index(length) for length in lengths)  # type: Tuple[int, ...]
        if any(length < 0 for length in self.shape):
            raise ValueError("a frame has no shape {}".format(self.shape))
        # (A dtype of sub-arrays has a shape of its own.)
        self.shape += probe.shape[1:]
        self.dtype = probe.dtype
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        # An array that takes no memory shows whether numpy has room for the dimensions.
        arrays.empty((0,) * len(self.shape) if size else self.shape, self.dtype)
        self.slots = operator.index(slots)
        if not 1 <= self.slots <= 256:
            raise ValueError("slots must be 1 to 256, not {}".format(slots))
        if when_full not in ("wait", "drop_oldest"):
            raise ValueError("when_full must be 'wait' or 'drop_oldest', not {!r}".format(when_full))
        self.when_full = when_full
        # (What is too long for a number is too long for any memory.)
        overwrites = when_full == "drop_oldest"
        self._frames = _core.Frames.create(self.slots, min(size, 1 << 62), overwrites)
        self._begin()

    def _watch(self):
        util.Finalize(self, self._frames.leave, exitpriority=exit_order.CHANNELS)

    @property
    def spin(self) -> bool:
        return bool(self._frames.spin)

    @spin.setter
    def spin(self, spin: bool) -> None:
        self._frames.spin = spin

    @property
    def written(self) -> int:
        """How many frames were written so far: the next one's number."""
        self._check_open()
        return int(self._frames.written)

    def write(self, timeout: "Optional[float]" = None) -> "_Writing":
        """Fill a frame: ``with ring.write() as frame: frame[:] = ...``

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for a frame that can be filled.

        Returns
        -------
        context manager
            Its block has the frame, whose items are what they were before. It is shown to the
            readers at the end; if the block raises something it is not. The manager's
            ``sequence`` is the number that it got.

        Raises
        ------
        queue.Full
            There was none, when the block begins: all are looked at, or waited for.
        ValueError
            The ring is closed.
        """
        self._check_open()
        return _Writing(self, timeout)

    def read(self, timeout: "Optional[float]" = None) -> "_Reading":
        """Look at the next frame that this process has not read.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for one.

        Returns
        -------
        context manager
            Its block has the frame, which cannot be written to. The frame and the manager
            have ``sequence``, its number, counted from 0; ``time``, when it was written, by
            `time.monotonic`; and ``skipped``, how many this process has missed before it.

        Raises
        ------
        queue.Empty
            There was none, when the block begins.
        ValueError
            The ring is closed.
        ArenaFullError
            There are 64 readers.
        """
        self._check_open()
        return _Reading(self, timeout, "read")

    def latest(self, timeout: "Optional[float]" = None) -> "_Reading":
        """Look at the newest frame, read or not; those before it are skipped.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait if none was written yet.

        Returns
        -------
        context manager
            As of `read`.

        Raises
        ------
        queue.Empty, ValueError, ArenaFullError
            As of `read`.
        """
        self._check_open()
        return _Reading(self, timeout, "latest")

    def close(self) -> None:
        """Be done with the ring in this process; frames that are kept stay as they are."""
        self._closed = True
        self._frames.close()

    def _say_why_full(self, timeout):
        held, unread = self._call("occupied")
        return (
            "no frame could be filled within {:g} s: of the ring's {} slots {} {} held (filled or "
            "looked at now, or kept beyond a with block) and {} {} to be read".format(
                timeout, self.slots, held, "is" if held == 1 else "are",
                unread, "waits" if unread == 1 else "wait",
            )
        )  # fmt: skip

    def _on(self, block):
        """Return the array on a frame's block."""
        return block.array(self.shape, self.dtype, cls=arrays.ndarray)

    def _call(self, name, *arguments):
        try:
            return getattr(self._frames, name)(*arguments)
        except OSError as error:
            self._explain(error)
            raise

    def _let_go(self):
        """Tell writers that a frame is free, perhaps."""
        if not self._closed:
            self._call("let_go")

    def __getstate__(self):
        context.assert_spawning(self)
        self._check_open()
        state = {name: getattr(self, name) for name in ("shape", "dtype", "slots", "when_full")}
        state["block"], state["spin"] = by_reference.send(self._frames.block), self.spin
        return state

    def __setstate__(self, state):
        self._frames = _core.Frames.open(_core.receive(state.pop("block")))
        self._frames.spin = state.pop("spin")
        self.__dict__.update(state)
        self._begin()

    def __repr__(self) -> str:
        return "<RingBuffer of {} frames of shape {}, {}, when_full={!r}>".format(
            self.slots, self.shape, self.dtype, self.when_full
        )
