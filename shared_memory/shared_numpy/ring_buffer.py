"""Streams of frames: arrays of one shape that writers fill, and readers look at, without a copy.

A `RingBuffer` has a number of slots; each frame lies in a block of the arena. A writer fills a free
one, then publishes it to all readers, any number of which may look at it at a time. A process holds
a reference to the block of each frame that it fills or looks at. So no writer gets a frame that a
reader sees, and the references of a killed process are released.
"""

import inspect
import operator
import queue
import sys
from multiprocessing import context, util

import numpy as np

from . import _core, arrays
from ._channels.closable import Closable, within
from ._pickling import by_reference, registry
from ._system import exit_order
from .errors import ArenaFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple

__all__ = ["RingBuffer"]


def _references():
    thing = object()
    return sys.getrefcount(thing)


# What `sys.getrefcount` returns for an object with two references: a variable here, and another.
# (From 3.14 on the interpreter may count no reference for the argument of the call.)
_ALONE = _references() + 1


class EndedFrame(arrays.ndarray):
    """A frame after its ``with`` block: reading or writing its items, and every function of numpy
    that a class can intercept, raises ValueError.

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
    """Take the place of all methods that would use the items of a frame."""
    raise ValueError(
        "{!r} has no items any more: use a frame inside its with block; to keep it, copy it "
        "there (frame.copy()), or keep it or a view of it in a second place".format(frame)
    )


# Attributes that work after the block: those about the array as a whole, and those of any object.
_STAYS = frozenset(
    "base close closed device dtype flags itemsize nbytes ndim release shape size strides "
    "__array_finalize__ __array_priority__ __buffer__ __class__ __class_getitem__ __delattr__ __dict__ "
    "__dir__ __doc__ __format__ __getattribute__ __hash__ __init__ __init_subclass__ "
    "__module__ __new__ __release_buffer__ __setattr__ __sizeof__ __subclasshook__ __weakref__".split()
)
for _name in set(dir(arrays.ndarray)) - _STAYS - set(vars(EndedFrame)):
    # (Methods are replaced in the class, where numpy looks them up; data attributes by properties.)
    _is_method = callable(getattr(arrays.ndarray, _name))
    setattr(EndedFrame, _name, _refuse if _is_method else property(_refuse))
EndedFrame.__array_ufunc__ = EndedFrame.__array_function__ = _refuse  # type: ignore
registry.register(EndedFrame, _refuse)


class _Frame:
    """The context manager of a frame: a ``with`` block fills it or looks at it."""

    _block = _frame = None  # type: Any
    _call = ""  # The method of the ring that returns it.

    def __init__(self, ring, timeout):
        self._ring = ring
        self._timeout = timeout

    def _refuse(self, *arguments, **options):
        """Take the place of what a frame has and its manager has not."""
        raise TypeError(
            "ring.{0}() is no frame yet: use it as `with ring.{0}() as frame:`".format(self._call)
        )

    # (Without `__array__` numpy would make an array of one object.)
    __array__ = __getitem__ = __setitem__ = __len__ = __iter__ = _refuse

    def __getattr__(self, name):
        raise AttributeError(
            "ring.{0}() has no attribute {1!r}: use it as `with ring.{0}() as frame:`".format(
                self._call, name
            )
        )

    def __enter__(self):
        if self._frame is not None:
            raise RuntimeError("a frame is filled or looked at by one with block")
        self._begin()
        frame = self._frame = self._ring._on(self._block)
        return frame

    def _end(self, caller):
        """Release the frame, unless the program has kept it or a view of it: then the last of these
        releases it. `caller` is the stack frame of the ``with`` statement."""
        frame, self._frame, self._block = self._frame, None, None
        # (Two references: `frame` here, and the variable of the ``with`` statement.)
        if sys.getrefcount(frame) <= _ALONE and _is_variable(frame, caller):
            # Race: another thread may have got it by that variable while `_is_variable` ran.
            if sys.getrefcount(frame) <= _ALONE and not _has_views(frame):
                empty = (1, (0,), frame.dtype, False, b"")
                np.ndarray.__setstate__(frame, empty)
                frame.__class__ = EndedFrame
        del frame
        self._ring._let_go()


def _is_variable(frame, caller):
    """Tell whether the reference is a variable of the code with the ``with`` statement. Otherwise
    the program has stored the frame elsewhere, where it stays usable."""
    while caller is not None and caller.f_globals.get("__name__") == "contextlib":
        caller = caller.f_back  # An ExitStack leaves the block for the program's code.
    if caller is None:
        return False
    code, variables = caller.f_code, caller.f_locals
    found = False
    if code.co_flags & inspect.CO_OPTIMIZED:
        # (`list` copies them in one step: other threads may change variables of closures.)
        found = id(frame) in map(id, list(variables.values()))
        if sys.version_info < (3, 13):
            # Before 3.13 (PEP 667) `f_locals` is a dict that the interpreter keeps with the call, so
            # it would keep the frame alive. If nothing else refers to the dict it is cleared. If
            # the program has it, too (by `locals()`), only the frame is taken out.
            if sys.getrefcount(variables) <= _ALONE:
                variables.clear()
            for name in [name for name in variables if variables[name] is frame]:
                del variables[name]
    # Modules: a namespace may have thousands of names, the code uses few.
    spaces = [each for each in (variables, caller.f_globals) if isinstance(each, dict)]
    return found or any(
        dict.get(space, name) is frame for space in spaces for name in code.co_names
    )


def _has_views(frame):
    """Tell whether there are views of an array that lies in a block."""
    inner = frame.base
    # Two references, `inner` here and the frame's `base`, or there is a view.
    if sys.getrefcount(inner) > _ALONE:
        return True
    block = inner if type(inner) is _core.Block else inner.base
    del inner
    return sys.getrefcount(block) > _ALONE


class _Writing(_Frame):
    """A frame that is filled, and published when the ``with`` block ends without an exception.

    Attributes
    ----------
    sequence : int
        The frame's number, once it is published.
    """

    sequence = None  # type: Optional[int]
    _index = -1
    _call = "write"

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
    """A frame that a reader looks at.

    Attributes
    ----------
    sequence : int
        Its number, counted from 0 in the order of publication. That of a process's first frame is
        also how many frames were published before it, which this process does not get.
    time : float
        The time of its publication, in seconds of `time.monotonic`.
    skipped : int
        How many frames between this one and the process's last one it has missed. For its first
        frame: how many were lost since it became a reader.
    """

    sequence = time = skipped = None  # type: Any

    def __init__(self, ring, timeout, which):
        super().__init__(ring, timeout)
        self._call = which

    def _begin(self):
        found = self._ring._call(self._call, self._timeout)
        if found is None:
            raise queue.Empty(self._ring._say_why_empty(self._timeout))
        self._block, self.sequence, nanoseconds, self.skipped = found
        self.time = nanoseconds * 1e-9

    def __enter__(self):
        frame = super().__enter__()
        # The array below it first: then the program cannot make the view writable again.
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
        The type of its items; not one with references to Python objects.
    slots : int
        How many frames the ring has, 1 to 256: those that are being filled, that wait to be read,
        and that readers look at.
    when_full : {"wait", "drop_oldest"}
        What a writer does if no slot is free. "wait": it waits until all readers have read a frame.
        "drop_oldest": it overwrites the oldest frame that no reader looks at, read or not.
    readers : int
        How many readers the first `write` waits for, 0 to 64. 0, the default: it does not wait, and
        a process that becomes a reader later does not get the frames that are overwritten by then.

    Attributes
    ----------
    shape, dtype, slots, when_full, readers
        The arguments.
    spin : bool
        Whether a waiting thread of this process may spin for up to 50 µs before it sleeps. By
        default it does if the process has two processors or more, and as long as waits are short.

    Raises
    ------
    TypeError, ValueError
        No array can have this shape and dtype, or another argument is out of range.
    ArenaFullError
        /dev/shm has no room for all slots. None is kept then.

    Notes
    -----
    Pass it to other processes as an argument of ``Process``, or of a pool's ``initializer``
    (``initargs=(ring,)``). A process becomes a reader with `join`, or with its first `read` or
    `latest`. It gets the frames that are still in the ring (from the last gap on, if older ones
    were overwritten), and every later one; writers wait for it from then on, unless they drop the
    oldest. A forked child begins where its parent is. There are at most 64 readers. A process is
    no reader any more when it has exited or closed the ring.

    With ``readers=n`` no frame can be filled until `n` processes are readers at the same time; one
    that has exited before that does not count. Once they are there, writers never wait for readers
    to come again. So each of them gets all frames from the first one, number 0, on.

    If a process keeps a frame, or a view of it, beyond the ``with`` block, its slot stays occupied
    until the last view is gone. If only the variable of the block refers to it, the frame ends with
    the block, and using its items raises ValueError.

    If a process is killed while it fills a frame, the frame is not published; if it is killed while
    it looks at a frame, the slot is free again. A writer that keeps views of its frame, or a child
    that it has forked inside the block, can still write to a published frame: do not.

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
        self,
        shape: "Any",
        dtype: "Any" = float,
        slots: int = 4,
        when_full: str = "wait",
        readers: int = 0,
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
        # (A dtype of sub-arrays adds dimensions.)
        self.shape += probe.shape[1:]
        self.dtype = probe.dtype
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        # An array without items shows whether numpy supports so many dimensions.
        arrays.empty((0,) * len(self.shape) if size else self.shape, self.dtype)
        self.slots = operator.index(slots)
        if not 1 <= self.slots <= 256:
            raise ValueError("slots must be 1 to 256, not {}".format(slots))
        if when_full not in ("wait", "drop_oldest"):
            raise ValueError("when_full must be 'wait' or 'drop_oldest', not {!r}".format(when_full))
        self.when_full = when_full
        self.readers = operator.index(readers)
        if not 0 <= self.readers <= 64:
            raise ValueError("readers must be 0 to 64, not {}".format(readers))
        self._frames = self._make(size)
        self._begin()

    def _make(self, size):
        overwrites = self.when_full == "drop_oldest"
        try:
            # (A size above 1 << 62 does not fit into the core's integer, nor into any memory.)
            return _core.Frames.create(self.slots, min(size, 1 << 62), overwrites, self.readers)
        except ArenaFullError as error:
            asked = "a ring of {} slots of {:,} bytes is {:,} bytes: ".format(
                self.slots, size, self.slots * size
            )
            error.args = (error.errno, asked + error.strerror)
            error.strerror = asked + error.strerror
            raise

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
        """How many frames were published so far: the number of the next one."""
        self._check_open()
        try:
            return int(self._frames.written)
        except OSError as error:
            self._explain(error)
            raise

    def write(self, timeout: "Optional[float]" = None) -> "_Writing":
        """Fill a frame: ``with ring.write() as frame: frame[:] = ...``

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for a free slot; for ever by default.

        Returns
        -------
        context manager
            Gives the frame, with the items that it had before. The frame is published at the end of
            the block, unless that raises an exception. Then the manager's ``sequence`` is the
            frame's number.

        Raises
        ------
        queue.Full
            At the beginning of the block: no slot was free in time, or the readers have not come
            that the ring waits for.
        ValueError
            The ring is closed.
        """
        self._check_open()
        return _Writing(self, timeout)

    def join(self) -> None:
        """Make this process a reader now, without waiting for a frame.

        From here on writers wait for it (unless they drop the oldest), and it misses nothing until
        its first `read`. A process that is a reader stays what it is.

        Raises
        ------
        ValueError
            The ring is closed.
        ArenaFullError
            There are 64 readers.

        Examples
        --------
        >>> import shared_numpy as snp
        >>> ring = snp.RingBuffer(3, "u1", readers=1)
        >>> ring.join()
        >>> with ring.write(timeout=1) as frame:  # Without a reader it would raise queue.Full.
        ...     frame[:] = 7
        >>> with ring.read(timeout=1) as frame:
        ...     frame.sequence
        0
        """
        self._check_open()
        self._call("join")

    def read(self, timeout: "Optional[float]" = None) -> "_Reading":
        """Look at the next frame that this process has not read.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for one; for ever by default.

        Returns
        -------
        context manager
            Gives the frame, which is read-only. The frame and the manager have the attributes
            ``sequence``, the frame's number, counted from 0; ``time``, the time of its publication
            by `time.monotonic`; and ``skipped``, how many frames this process has missed between it
            and the last one that it read. Of the first frame that a process reads, ``skipped``
            counts the frames that were lost since it became a reader, and ``sequence`` all frames
            that were published before it: it is 0 if the process has missed none.

        Raises
        ------
        queue.Empty
            At the beginning of the block: there was no frame in time.
        ValueError
            The ring is closed.
        ArenaFullError
            There are 64 readers.
        """
        self._check_open()
        return _Reading(self, timeout, "read")

    def latest(self, timeout: "Optional[float]" = None) -> "_Reading":
        """Look at the newest frame, read or not; older ones are skipped.

        Parameters
        ----------
        timeout : float, optional
            How many seconds to wait for the first frame; for ever by default.

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
        """Close the ring in this process; frames that it has kept stay usable."""
        self._closed = True
        self._frames.close()

    def _say_why_empty(self, timeout):
        return "no new frame came{}: the ring has had {} so far".format(
            within(timeout), self.written
        )

    def _say_why_full(self, timeout):
        missing = self._call("missing_readers")
        if missing is not None:
            return (
                "no frame could be filled{}: the ring waits for {} reader{}, and {} {} "
                "there; a process becomes one with ring.join() or its first read".format(
                    within(timeout), missing[1], "" if missing[1] == 1 else "s",
                    missing[0], "is" if missing[0] == 1 else "are",
                )
            )  # fmt: skip
        held, unread = self._call("occupied")
        return (
            "no frame could be filled{}: of the ring's {} slots {} {} held (filled or "
            "looked at now, or kept beyond a with block) and {} {} to be read".format(
                within(timeout), self.slots, held, "is" if held == 1 else "are",
                unread, "waits" if unread == 1 else "wait",
            )
        )  # fmt: skip

    def _on(self, block):
        """Return an array on the block of a frame."""
        return block.array(self.shape, self.dtype, cls=arrays.ndarray)

    def _call(self, name, *arguments):
        try:
            return getattr(self._frames, name)(*arguments)
        except OSError as error:
            self._explain(error)
            raise

    def _let_go(self):
        """Wake the writers that wait: a slot may be free."""
        if not self._closed:
            self._call("let_go")

    def __getstate__(self):
        context.assert_spawning(self)
        self._check_open()
        names = ("shape", "dtype", "slots", "when_full", "readers")
        state = {name: getattr(self, name) for name in names}
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
