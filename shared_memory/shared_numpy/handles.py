"""Handles: an object travels to one receiver by any transport.

The pickled object lies in a block of the arena, and the block's handle travels. The block owns the
handles of the arrays in the object: when the block is freed, so are the arrays that no process has
received.
"""

from . import _core, _reduce
from ._pickling import pickler
from .errors import StaleHandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Tuple

__all__ = ["Handle", "receive", "send"]

# Before the block's handle, so that no handle of a block is taken for one.
_PREFIX = b"snpREF"
# How the handle of a block begins.
_BLOCK = b"SN"


class Handle(bytes):
    """Stands for an object on its way to another process; `send` makes it.

    It is bytes, so it can be pickled and goes by any transport. It is valid for one `receive`, on
    this machine, until a restart.

    Parameters
    ----------
    handle : bytes
        The bytes of another handle.

    Raises
    ------
    TypeError, ValueError
        `handle` is not bytes, or not those of a handle.
    """

    __slots__ = ()

    def __new__(cls, handle: bytes) -> "Handle":
        _check(handle)
        return bytes.__new__(cls, handle)

    def cancel(self) -> bool:
        """Free the object and its memory.

        Returns
        -------
        bool
            False if it was received or cancelled before.

        Raises
        ------
        ValueError, ForeignHandleError
            As in `receive`.
        """
        try:
            _core.take(_block_handle(self))
        except StaleHandleError:
            return False
        return True

    def __reduce__(self) -> "Tuple[Any, Tuple[bytes]]":
        return _reduce.handle, (bytes(self),)

    def __repr__(self) -> str:
        return "<Handle {}>".format(_block_handle(self)[32:56].hex())

    __str__ = __repr__


def _block_handle(handle):
    return handle[len(_PREFIX) :]


def _check(handle):
    """Raise TypeError or ValueError if this cannot be a handle of `send`."""
    if not isinstance(handle, bytes):
        raise TypeError(
            "a handle is what shared_numpy.send has returned, or its bytes, not {!r}".format(handle)
        )
    if not handle.startswith(_PREFIX):
        if handle.startswith(_BLOCK):
            raise ValueError("this is the handle of a block: shared_numpy.Arena.receive takes it")
        raise ValueError("shared_numpy.send makes no such handle: {!r}".format(bytes(handle)))


def send(obj: "Any") -> Handle:
    """Put an object into shared memory, for one receiver.

    Shared arrays in it, at any depth, go by reference; plain arrays are moved into shared memory,
    as in `shared_numpy.Queue`; the rest is pickled.

    Parameters
    ----------
    obj : object
        It must support pickling.

    Returns
    -------
    Handle
        At most 106 bytes, plus the path of its folder if the arena is not in /dev/shm. Pass them
        to another process of this user on this machine, by any transport. The object stays until
        `receive` or ``handle.cancel()``, or until ten minutes after this program has ended.

    Raises
    ------
    ArenaFullError
        There is no room for it.

    See Also
    --------
    receive

    Examples
    --------
    >>> import shared_numpy as snp
    >>> handle = snp.send({"frames": [snp.ones(3), snp.zeros(2)], "number": 7})
    >>> snp.receive(handle)["number"]
    7
    """
    handles = []  # type: List[bytes]
    try:
        return Handle(_PREFIX + _core.lay_down(pickler.dumps(obj, handles), handles, True))
    except BaseException as error:
        pickler.cancel(handles)
        pickler.explain(error)
        raise


def receive(handle: bytes) -> "Any":
    """Return the object that was sent: once, in any process.

    Parameters
    ----------
    handle : Handle or bytes
        The handle that `send` has returned, or its bytes.

    Returns
    -------
    object
        Shared arrays in it have the memory of those that were sent; plain arrays belong to this
        process alone.

    Raises
    ------
    TypeError
        `handle` is not bytes.
    ValueError
        It is not a handle of `send`, or it is damaged.
    StaleHandleError
        It was received or cancelled before, or all processes of its program were killed.
    ForeignHandleError
        It comes from another machine or user, or from before this machine was restarted.

    See Also
    --------
    send
    """
    _check(handle)
    try:
        stream, _owner = _core.take_up(_block_handle(handle))
    except StaleHandleError:
        raise StaleHandleError(
            "{!r} was received or cancelled before, or all processes of the program that sent it "
            "were killed".format(Handle(handle))
        ) from None
    return pickler.loads(stream)
