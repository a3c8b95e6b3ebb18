"""Channels: messages from any process to any other, in a ring or through a pipe.

A channel is a `_core.Ring`, which documents the methods, or a `pipe_channel.Channel`, which has the
same ones.

`packet_pipe`    a pipe of packets
`pipe_channel`   a channel through such a pipe
`closable`       what queues and ring buffers have in common
"""

import multiprocessing
import os

from .. import _core, _reduce
from . import pipe_channel
from .._pickling import by_reference
from .._system import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Tuple


def uses_rings() -> bool:
    """Tell whether new channels are rings. They are pipes if SHARED_NUMPY_RING=0 is set, or if this
    system has no futexes on shared memory."""
    return os.environ.get("SHARED_NUMPY_RING") != "0" and _core.can_sleep()


# A ring has room for so many bytes at first, and grows to so many.
FIRST_BYTES, MOST_BYTES = 1 << 14, 1 << 34


def channel(
    limit: int = 0,
    first: int = FIRST_BYTES,
    longest: int = MOST_BYTES,
    ctx: "Any" = None,
    feeds: bool = True,
) -> "Any":
    """Make a channel.

    Parameters
    ----------
    limit : int
        The largest number of messages; 0 for any number.
    first, longest : int
        The bytes that a ring has room for at first, and may grow to.
    ctx : multiprocessing context, optional
        Makes the locks of a pipe.
    feeds : bool
        Messages that do not fit into a pipe wait in the process; otherwise ``put`` waits.
    """
    if uses_rings():
        return _core.Ring.create(limit, first, longest)
    _note_fallback()
    return pipe_channel.Channel(limit, ctx or multiprocessing.get_context(), feeds)


_is_noted = False


def _note_fallback():
    """Note, once in a process, that channels are pipes."""
    global _is_noted
    if not _is_noted:
        _is_noted = True
        why = "SHARED_NUMPY_RING=0 is set"
        if not _core.can_sleep():
            why = "this system has no futexes on shared memory"
        text = "channels go through pipes, which are slower, since %s"
        records.note("fallback", records.WARNING, text, why)


class ChannelArgument:
    """Wraps a channel that is an argument of a new process."""

    def __init__(self, channel: "Any") -> None:
        self.channel = channel

    def __reduce__(self) -> "Tuple[Any, ...]":
        if isinstance(self.channel, pipe_channel.Channel):
            return _reduce.sent_channel, (self.channel,)
        return _reduce.channel, (by_reference.send(self.channel.block), self.channel.spin)


def open_channel(handle, spin):
    ring = _core.Ring.open(_core.receive(handle))
    ring.spin = spin
    return ChannelArgument(ring)


def unpack(found: "Any") -> "Tuple[Any, Any]":
    """Return the bytes of a message that was taken out, and the owner of the handles in it, or None.

    The caller keeps the owner until it has unpickled the bytes.
    """
    return (found, None) if type(found) is bytes else found
