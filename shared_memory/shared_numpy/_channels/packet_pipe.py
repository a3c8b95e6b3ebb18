"""A pipe that carries packets between any number of processes.

A write puts a whole packet into the pipe, and a read takes a whole one out, each in one system
call. So no lock is needed, and a killed process leaves no half of a packet: its system call has
taken place or has not.
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

# The most bytes that one write puts in without interruption (PIPE_BUF).
PACKET = 4096

# The pipe holds so many packets, if the system permits it; each takes a page of the kernel.
_PACKETS = 64
_F_SETPIPE_SZ = 1031


def _open():
    """Return the two descriptors of a new pipe."""
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # The system has no pipes of packets: a pair of sockets does the same, more slowly.
        pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in pair:
            end.setblocking(False)
        return pair[0].detach(), pair[1].detach()
    try:
        fcntl.fcntl(writer, _F_SETPIPE_SZ, _PACKETS * _core.PAGE_SIZE)
    except OSError:
        pass  # The user's limit for pipes is reached: this one keeps its size.
    return reader, writer


def _wait(descriptor, event, deadline):
    """Wait until a descriptor is ready; False if it is not by the deadline."""
    left = None if deadline is None else max(0, deadline - time.monotonic())
    with _Selector() as selector:
        selector.register(descriptor, event)
        return bool(selector.select(left))


# Eventlet takes `select.poll` away, perhaps after `selectors` has defined a class that uses it.
_Selector = selectors.PollSelector if hasattr(select, "poll") else selectors.SelectSelector


class Pipe:
    """Packets from any process to any other; an argument of new processes.

    Another transport with `send`, `receive`, `poll`, `close_reader` and `close_writer` could take
    its place.
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
            At most `PACKET` bytes.
        timeout : float, optional
            How many seconds to wait for room.
        sent : list, optional
            True is appended to it once the packet is in the pipe, with no step in between at which
            a signal handler could raise; nothing if there was no room.

        Raises
        ------
        BrokenPipeError
            No process can receive any more.
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
            The packets are appended to it, with no step in between at which a signal handler could
            raise; nothing if there were none.
        most : int
            The largest number of packets to take.

        Raises
        ------
        EOFError
            No process can send any more.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            extend_by_result(received, _core.read_packets, self._reader, most)
            if received and not received[-1]:
                received.pop()
                if not received:
                    raise EOFError("no process can send any more")
            if received or timeout == 0 or not _wait(self._reader, selectors.EVENT_READ, deadline):
                return

    def poll(self, timeout: "Optional[float]" = 0) -> bool:
        """Wait for a packet for so many seconds; tell whether there is one."""
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
        # (At interpreter shutdown the module `os` may be gone already.)
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
