"""Channels: messages from any process to any other, in a ring or through a pipe.

A channel is a `_core.Ring`, which tells what its methods do, or a `pipe_channel.Channel`, which has
the same ones.
"""

import multiprocessing
import os

from .. import _core, _reduce
from . import pipe_channel
from .._pickling import by_reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Tuple


def uses_rings() -> bool:
    """Tell whether channels are rings: unless SHARED_NUMPY_RING=0 is set, or processes cannot
    sleep on shared memory here."""
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
        How many messages it holds at most; 0 for any number.
    first, longest : int
        How many bytes a ring has room for at first, and may grow to.
    ctx : multiprocessing context, optional
        Of which the locks of a pipe are.
    feeds : bool
        What a pipe has no room for waits in the process; else ``put`` does.
    """
    if uses_rings():
        return _core.Ring.create(limit, first, longest)
    return pipe_channel.Channel(limit, ctx or multiprocessing.get_context(), feeds)


class ChannelArgument:
    """A channel, as an argument of a process; it arrives as one."""

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
    """Return the stream of bytes of a message that was taken out, and what answers for what it
    speaks of, which is to be kept until it is loaded."""
    return (found, None) if type(found) is bytes else found
