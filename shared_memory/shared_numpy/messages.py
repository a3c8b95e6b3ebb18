"""Messages: anything that can be pickled, on its way to one receiver.

A message lies in a block of the arena, and what travels is the block's handle. The block
answers for the handles of the arrays that the message speaks of: whatever becomes of a
message, they end with it, unless they were received.
"""

from . import _core, transfer
from .errors import StaleHandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Tuple

__all__ = ["Ref", "get", "put"]

# Before the handle in a token, so that no handle of an array is taken for one.
_TOKEN = b"snpREF"


class Ref:
    """A small token for anything, made by `put`.

    It can be pickled, and ``bytes(ref)`` are all there is to it: ``Ref(those)`` is
    the same again. It is good for one `get`, on this machine until it is restarted.

    Parameters
    ----------
    token : bytes
        ``bytes(ref)`` of another one.

    Raises
    ------
    TypeError, ValueError
        `token` is something else.
    """

    __slots__ = ("_token",)

    def __init__(self, token: bytes) -> None:
        if type(token) is not bytes:
            raise TypeError(
                "a Ref is made by shared_numpy.put, or of bytes(ref), not of {!r}".format(token)
            )
        if not token.startswith(_TOKEN):
            raise ValueError("no Ref has these bytes: {!r}".format(token))
        self._token = token

    def cancel(self) -> bool:
        """Give up what the token stands for, and the memory with it.

        Returns
        -------
        bool
            False if it was got or cancelled before.

        Raises
        ------
        ValueError, ForeignHandleError
            As in `get`.
        """
        try:
            _core.take(self._handle)
        except StaleHandleError:
            return False
        return True

    @property
    def _handle(self):
        return self._token[len(_TOKEN) :]

    def __bytes__(self) -> bytes:
        return self._token

    def __reduce__(self) -> "Tuple[Any, Tuple[bytes]]":
        return Ref, (self._token,)

    def __eq__(self, other: object) -> bool:
        return type(other) is Ref and other._token == self._token

    def __hash__(self) -> int:
        return hash(self._token)

    def __repr__(self) -> str:
        return "<Ref {}>".format(self._handle[32:56].hex())


def put(obj: "Any") -> Ref:
    """Lay anything down in shared memory, for one receiver.

    Arrays at any depth stay in shared memory or are moved there, as in
    `shared_numpy.Queue`; all else is pickled.

    Parameters
    ----------
    obj : object
        What can be pickled.

    Returns
    -------
    Ref
        A token of at most 106 bytes that any transport can carry to another process
        of this user and machine; longer by the path of its folder if the arena is not in
        /dev/shm. What it stands for stays until `get` or
        ``ref.cancel()``; after the end of this program for ten minutes.

    Raises
    ------
    ArenaFullError
        There is no room for it.

    See Also
    --------
    get

    Examples
    --------
    >>> import shared_numpy as snp
    >>> ref = snp.put({"frames": [snp.ones(3), snp.zeros(2)], "number": 7})
    >>> snp.get(ref)["number"]
    7
    """
    handles = []  # type: List[bytes]
    try:
        return Ref(_TOKEN + _core.lay_down(transfer.dumps(obj, handles), handles, True))
    except BaseException:
        transfer.cancel(handles)
        raise


def get(ref: Ref) -> "Any":
    """Return what was laid down by `put`; once, in whatever process.

    Parameters
    ----------
    ref : Ref
        What `put` returned.

    Returns
    -------
    object
        Shared arrays are those that were put, others this process's own.

    Raises
    ------
    TypeError
        `ref` is no `Ref`.
    ValueError
        Its bytes were damaged.
    StaleHandleError
        It was got or cancelled before.
    ForeignHandleError
        It is of another machine or user, or of before this machine was started.
    """
    if type(ref) is not Ref:
        raise TypeError("get takes what put has returned, not {!r}".format(ref))
    try:
        stream, _keeper = _core.take_up(ref._handle)
    except StaleHandleError:
        raise StaleHandleError("{!r} was got or cancelled before".format(ref)) from None
    return transfer.loads(stream)
