"""A pipe that carries packets between any number of processes.

A write puts a whole packet into the pipe and a read takes a whole one out, both in
one system call, so there is no lock to be held: a process that is killed leaves the
pipe as it was before its call or as it is after it, and no half of a packet.
"""

import errno
import fcntl
import os
import select
import selectors
import socket
import time
from multiprocessing import context, reduction

from .. import _core, _reduce
from .._system.interruptions import append_if_true, extend_by_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple

# The most that is written in one piece (PIPE_BUF).
PACKET = 4096

# So many packets it holds, if the system lets it; each takes a page of the system's.
_PACKETS = 64
_F_SETPIPE_SZ = 1031


def _open():
    """Return the two descriptors of a new pipe."""
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # No pipes of packets here: a pair of sockets does the same, more slowly.
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in pair:
            end.setblocking(False)
        return pair[0].detach(), pair[1].detach()
    try:
        fcntl.fcntl(writer, _F_SETPIPE_SZ, _PACKETS * _core.PAGE_SIZE)
    except OSError:
        pass  # This user has many pipes: it stays as it was made.
    return reader, writer


def _wait(descriptor, event, deadline):
    """Wait until something can be done; False if it cannot by then."""
    left = None if deadline is None else max(0, deadline - time.monotonic())
    with _Selector() as selector:
        selector.register(descriptor, event)
        return bool(selector.select(left))


# Eventlet takes `select.poll` away, perhaps after `selectors` has defined a class that uses it.
_Selector = selectors.PollSelector if hasattr(select, "poll") else selectors.SelectSelector


class Pipe:
    """Packets from any of its processes to any other.

    A transport of messages; it is handed on to children as they are made. What has
    `send`, `receive`, `poll`, `close_reader` and `close_writer` can take its place.
    """

    _reader = _writer = -1

    def __init__(self) -> None:
        self._reader, self._writer = _open()

    def send(
        self,
        packet: bytes,
        timeout: "Optional[float]" = None,
        sent: "Optional[List[int]]" = None,
    ) -> None:
        """Put a packet in.

        Parameters
        ----------
        packet : bytes
            At most `PACKET` of them.
        timeout : float, optional
            How many seconds to wait for room.
        sent : list, optional
            Something is appended to it when the packet is in, before an exception of a
            signal's handler can come between; nothing if there was no room.

        Raises
        ------
        BrokenPipeError
            Nobody can receive any more.
        """
        sent = [] if sent is None else sent
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            append_if_true(sent, _core.write_packet, self._writer, packet)
            if sent or timeout == 0 or not _wait(self._writer, selectors.EVENT_WRITE, deadline):
                return

    def receive(
        self, timeout: "Optional[float]", received: "List[bytes]", most: int = 1
    ) -> None:
        """Take packets out.

        Parameters
        ----------
        timeout : float or None
            How many seconds to wait for one.
        received : list of bytes
            They are appended to it, before an exception of a signal's handler can come
            between; nothing if there were none.
        most : int
            How many to take, if there are so many.

        Raises
        ------
        EOFError
            Nobody can send any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            extend_by_result(received, _core.read_packets, self._reader, most)
            if received and not received[-1]:
                received.pop()
                if not received:
                    raise EOFError("nobody can send any more")
            if received or timeout == 0 or not _wait(self._reader, selectors.EVENT_READ, deadline):
                return

    def poll(self, timeout: "Optional[float]" = 0) -> bool:
        """Tell whether there is a packet, or will be within so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return _wait(self._reader, selectors.EVENT_READ, deadline)

    def close_reader(self) -> None:
        """Receive nothing more; closing again does nothing."""
        reader, self._reader = self._reader, -1
        if reader >= 0:
            os.close(reader)

    def close_writer(self) -> None:
        """Send nothing more; closing again does nothing."""
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)

    def __del__(self, close: "Any" = os.close) -> None:
        # (`os` may be gone when the interpreter ends.)
        for end in (self._reader, self._writer):
            if end >= 0:
                close(end)

    def __reduce__(self) -> "Tuple[Any, Tuple[Any, ...]]":
        context.assert_spawning(self)
        ends = [reduction.DupFd(end) for end in (self._reader, self._writer)]
        return _reduce.pipe, tuple(ends)


def rebuild(reader, writer):
    pipe = Pipe.__new__(Pipe)
    pipe._reader, pipe._writer = reader.detach(), writer.detach()
    return pipe
