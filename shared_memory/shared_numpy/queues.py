"""Queues whose messages keep their arrays in shared memory.

They have the interfaces of `multiprocessing`'s. What differs: ``put`` pickles at once,
so it raises what is wrong with an object, and an array can be closed, changed or
dropped right after it; what was put is in the queue, whatever becomes of who put it; and
a message that nobody takes ends with the queue, when the last process that has that is gone
or has closed it.

The messages are in a ring in shared memory, or, where that is not to be had, go through a
pipe: see `_channels`.
"""

import queue
from contextlib import suppress
from multiprocessing import context, util

from . import _core
from ._channels import pipe_channel
from ._pickling import pickler
from ._channels import ChannelArgument, channel, unpack
from ._channels.closable import Closable
from ._system import exit_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, List, Optional, Tuple

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# A simple queue has room for so many bytes, as a pipe has.
_SIMPLE_BYTES = 1 << 16


class SimpleQueue(Closable):
    """A queue of some room: ``put`` waits while there is none.

    Parameters
    ----------
    ctx : multiprocessing context, optional
        Has no influence but on a queue that is a pipe; for the sake of
        `multiprocessing.SimpleQueue`'s signature.

    Attributes
    ----------
    spin : bool
        Whether waiters of this process may look for some microseconds before they sleep: by
        default they do where the process has two processors, and while waits are short.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> q = snp.SimpleQueue()
    >>> q.put({"frame": snp.ones(3), "number": 1})
    >>> q.get()["frame"].is_shared()
    True
    """

    def __init__(self, *, ctx: "Any" = None) -> None:
        self._open(channel(0, _SIMPLE_BYTES, _SIMPLE_BYTES, ctx, feeds=False))

    def _open(self, channel):
        self._channel = channel
        self._begin()

    def _watch(self):
        # What was taken and not returned, see `get_many`; a child has none of that.
        self._rest = []  # type: List[Any]
        # (A pipe sees to its end itself.)
        if isinstance(self._channel, _core.Ring):
            util.Finalize(self, self._channel.let_go, exitpriority=exit_order.CHANNELS)

    @property
    def spin(self) -> bool:
        return bool(self._channel.spin)

    @spin.setter
    def spin(self, spin: bool) -> None:
        self._channel.spin = spin

    def put(self, obj: "Any") -> None:
        """Put something in; wait until there is room.

        Raises
        ------
        ValueError
            The queue is closed.
        ArenaFullError
            There is no room for the message in /dev/shm.
        """
        self._put(obj, None)

    def get(self) -> "Any":
        """Take the next thing out; wait until there is one.

        Raises
        ------
        ValueError
            The queue is closed.
        """
        return self._get(None)

    def empty(self) -> bool:
        """Tell whether there is nothing in it, at this moment."""
        self._check_open()
        return not self._rest and not self._channel.poll(0)

    def close(self) -> None:
        """Be done with the queue in this process."""
        self._closed = True
        del self._rest[:]
        self._channel.close()

    def _put(self, obj, timeout):
        """Pickle something and put it in; raise `queue.Full` if there is no room."""
        if self._closed:
            self._check_open()
        handles = []  # type: List[bytes]
        try:
            if not self._channel.put(pickler.dumps(obj, handles), handles, timeout):
                raise queue.Full
        except BaseException as error:
            # (None is left of what was put.)
            pickler.cancel(handles)
            self._explain(error)
            raise

    def _take(self, most, timeout):
        """Take messages out; those first that were, and were not unpickled."""
        found = []  # type: List[Any]
        with suppress(IndexError):
            # (Another thread may take them.)
            while len(found) < most:
                found.append(self._rest.pop(0))
        return found or self._channel.get_many(most, timeout)

    def _get(self, timeout):
        """Take a message out and unpickle it; raise `queue.Empty` if there is none."""
        if self._closed:
            self._check_open()
        try:
            if self._rest:
                found = next(iter(self._take(1, timeout)), None)
            else:
                found = self._channel.get(timeout)
        except BaseException as error:
            self._explain(error)
            raise
        if found is None:
            raise queue.Empty
        return _load(found)

    def __getstate__(self):
        context.assert_spawning(self)
        self._check_open()
        return {"channel": ChannelArgument(self._channel)}

    def __setstate__(self, state):
        self._open(state["channel"].channel)


class _Loaded:
    """What was a message, and is unpickled already."""

    def __init__(self, thing):
        self.thing = thing


def _load(message):
    """Unpickle a message that was taken out, if it is not yet."""
    if type(message) is _Loaded:
        return message.thing
    stream, _owner = unpack(message)
    return pickler.loads(stream)


class Queue(SimpleQueue):
    """A queue as `multiprocessing.Queue`, whose arrays stay in shared memory.

    Parameters
    ----------
    maxsize : int
        How many things it holds before ``put`` waits; no bound if it is 0.
    ctx : multiprocessing context, optional
        Has no influence but on a queue that is a pipe.

    Attributes
    ----------
    spin : bool
        As of `SimpleQueue`.

    Notes
    -----
    It can be an argument of a ``Process`` (or of a pool's initializer), and so reach
    the processes that share it. A plain array from 16 KiB on is copied once, into
    shared memory, and becomes the receiver's own; a smaller one lies in the message.
    Long ``bytes`` go through shared memory, too, and are copied out of it. A
    shared array goes by reference: both sides see what either writes.

    What was put is in the queue when ``put`` returns: no thread sends it, and a process that
    ends does not wait for that. A process that is killed while it receives takes that message
    with it, and nothing else; one that is killed while it puts has put it or has not.

    Where processes cannot sleep on shared memory, or with SHARED_NUMPY_RING=0 in the
    environment, the messages go through a pipe. What does not fit into that waits in the
    process, and a thread sends it; a process waits at its end until all is sent. The place
    that a process had which was killed in the middle of a ``put`` or ``get`` is free again
    when the queue was empty for half a second.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> q = snp.Queue(maxsize=10)
    >>> q.put([snp.array([1, 2, 3]), "and more"])
    >>> q.get()[0].is_shared()
    True
    >>> q.close()
    """

    def __init__(self, maxsize: int = 0, *, ctx: "Any" = None) -> None:
        self._open(channel(max(maxsize, 0), ctx=ctx))

    def put(
        self, obj: "Any", block: bool = True, timeout: "Optional[float]" = None
    ) -> None:
        """Put something in.

        Parameters
        ----------
        obj : object
            What can be pickled; it is pickled now.
        block : bool
            Wait for a place if the queue is full.
        timeout : float, optional
            For so many seconds at most.

        Raises
        ------
        queue.Full
            There was no place.
        ValueError
            The queue is closed.
        ArenaFullError
            There is no room for the message in /dev/shm.
        """
        self._put(obj, timeout if block else 0)

    def put_many(
        self,
        objs: "Iterable[Any]",
        block: bool = True,
        timeout: "Optional[float]" = None,
    ) -> int:
        """Put things in, in order, one behind the other: quicker than one by one.

        Parameters
        ----------
        objs : iterable
            What can be pickled; they are all pickled before the first is put.
        block : bool
            Wait for places if the queue is full.
        timeout : float, optional
            For so many seconds at most, for all of them.

        Returns
        -------
        int
            How many were put: less than all only if there was no place in time.

        Raises
        ------
        ValueError
            The queue is closed, perhaps since the first ones are in.
        ArenaFullError
            There is no room in /dev/shm for all of them; the first ones may be in.
        """
        self._check_open()
        packed = []  # type: List[Tuple[bytes, List[bytes]]]
        held = []  # type: List[List[bytes]]
        try:
            for obj in objs:
                held.append([])
                packed.append((pickler.dumps(obj, held[-1]), held[-1]))
            return int(self._channel.put_many(packed, timeout if block else 0))
        except BaseException as error:
            pickler.cancel(held)
            self._explain(error)
            raise

    def get(self, block: bool = True, timeout: "Optional[float]" = None) -> "Any":
        """Take the next thing out.

        Parameters
        ----------
        block : bool
            Wait for one if there is none.
        timeout : float, optional
            For so many seconds at most.

        Raises
        ------
        queue.Empty
            There was none.
        ValueError
            The queue is closed.
        """
        return self._get(timeout if block else 0)

    def get_many(
        self, most: int, block: bool = True, timeout: "Optional[float]" = None
    ) -> "List[Any]":
        """Take things out, in order: those that there are, and at least one.

        Parameters
        ----------
        most : int
            How many at most.
        block : bool
            Wait for the first one if there is none.
        timeout : float, optional
            For so many seconds at most.

        Returns
        -------
        list
            Of `most` things, or fewer.

        Raises
        ------
        queue.Empty
            There was none.
        ValueError
            The queue is closed, or `most` is less than 1.
        Exception
            One of them cannot be unpickled. It is lost, alone: the others stay.
        """
        if most < 1:
            raise ValueError("most must be 1 or more, not {}".format(most))
        self._check_open()
        try:
            found = self._take(most, timeout if block else 0)
        except BaseException as error:
            self._explain(error)
            raise
        if not found:
            raise queue.Empty
        things = []  # type: List[Any]
        try:
            for number, message in enumerate(found):
                # (What has begun to be unpickled cannot be so again.)
                found[number] = None
                things.append(_load(message))
        except BaseException:
            rest = [each for each in found[len(things) :] if each is not None]
            self._rest[:0] = list(map(_Loaded, things)) + rest
            raise
        return things

    def put_nowait(self, obj: "Any") -> None:
        """The same as ``put(obj, False)``."""
        self.put(obj, False)

    def get_nowait(self) -> "Any":
        """The same as ``get(False)``."""
        return self.get(False)

    def qsize(self) -> int:
        """Return how many things are in it, at this moment."""
        self._check_open()
        return len(self._channel) + len(self._rest)

    def full(self) -> bool:
        """Tell whether it is full, at this moment."""
        self._check_open()
        return len(self._channel) >= self._channel.limit

    def join_thread(self) -> None:
        """Wait until all that was put is sent, after `close`: it is, but in a pipe.

        Raises
        ------
        ValueError
            The queue was not closed.
        """
        if not self._closed:
            raise ValueError("{!r} is not closed: close() it first".format(self))
        if isinstance(self._channel, pipe_channel.Channel):
            self._channel.feeder.join()

    def cancel_join_thread(self) -> None:
        """Drop at the process's end what waits to be sent through a pipe."""
        if isinstance(self._channel, pipe_channel.Channel):
            self._channel.feeder.is_joined = False


class JoinableQueue(Queue):
    """A `Queue` that knows when all that was put in is done.

    Parameters
    ----------
    maxsize, ctx
        As for `Queue`.
    """

    def task_done(self) -> None:
        """Say that one of the things that were taken out is done.

        Raises
        ------
        ValueError
            It was called more often than there were things.
        """
        self._check_open()
        if not self._channel.report_done():
            raise ValueError("task_done() called more often than things were put in")

    def join(self) -> None:
        """Wait until all that was put in is done."""
        self._check_open()
        try:
            self._channel.join()
        except BaseException as error:
            self._explain(error)
            raise
