"""Handles: anything that can be pickled, on its way to one receiver by any transport.

What is sent lies in a block of the arena, and what travels is the block's handle. The block
answers for the handles of the arrays in it: whatever becomes of a message, they end with it,
unless they were received.
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
    """What stands for an object on its way to another process, made by `send`.

    It is bytes: any transport that carries bytes carries it, and it can be pickled. It is good
    for one `receive`, on this machine until that is restarted.

    Parameters
    ----------
    handle : bytes
        The bytes of another handle.

    Raises
    ------
    TypeError, ValueError
        `handle` is something else.
    """

    __slots__ = ()

    def __new__(cls, handle: bytes) -> "Handle":
        _check(handle)
        return bytes.__new__(cls, handle)

    def cancel(self) -> bool:
        """Give up the object, and its memory with it.

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
    """Refuse what cannot be a handle of `send`."""
    if not isinstance(handle, bytes):
        raise TypeError(
            "a handle is what shared_numpy.send has returned, or its bytes, not {!r}".format(handle)
        )
    if not handle.startswith(_PREFIX):
        if handle.startswith(_BLOCK):
            raise ValueError("this is the handle of a block: shared_numpy.Arena.receive takes it")
        raise ValueError("shared_numpy.send makes no such handle: {!r}".format(bytes(handle)))


def send(obj: "Any") -> Handle:
    """Lay an object down in shared memory, for one receiver.

    Arrays at any depth stay in shared memory or are moved there, as in
    `shared_numpy.Queue`; all else is pickled.

    Parameters
    ----------
    obj : object
        What can be pickled.

    Returns
    -------
    Handle
        At most 106 bytes that any transport can carry to another process
        of this user and machine; longer by the path of its folder if the arena is not in
        /dev/shm. The object stays until `receive` or ``handle.cancel()``; after the end of this
        program for ten minutes.

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
    except BaseException:
        pickler.cancel(handles)
        raise


def receive(handle: bytes) -> "Any":
    """Return what was sent; once, in whatever process.

    Parameters
    ----------
    handle : Handle or bytes
        What `send` returned, or its bytes.

    Returns
    -------
    object
        Shared arrays are those that were sent, others this process's own.

    Raises
    ------
    TypeError
        `handle` is not bytes.
    ValueError
        It is no handle of `send`, or was damaged.
    StaleHandleError
        It was received or cancelled before.
    ForeignHandleError
        It is of another machine or user, or of before this machine was started.

    See Also
    --------
    send
    """
    _check(handle)
    try:
        stream, _owner = _core.take_up(_block_handle(handle))
    except StaleHandleError:
        raise StaleHandleError(
            "{!r} was received or cancelled before".format(Handle(handle))
        ) from None
    return pickler.loads(stream)
