"""Queues whose messages keep their arrays in shared memory.

They have the interfaces of the queues of `multiprocessing`. The differences:

* ``put`` pickles at once. So it raises the errors of pickling, and an array can be changed, closed
  or dropped right after it.
* A message is in the queue when ``put`` returns, also if the sender is killed then.
* Messages that no process takes are freed with the queue: when the last process that has it has
  exited or closed it.

The messages lie in a ring in shared memory, or go through a pipe where the system has no futexes
on shared memory: see `_channels`.
"""

import operator
import queue
from contextlib import suppress
from multiprocessing import context, synchronize, util

from . import _core
from ._channels import pipe_channel
from ._pickling import pickler
from ._channels import ChannelArgument, channel, unpack
from ._channels.closable import Closable, within
from ._system import exit_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, List, Optional, Tuple

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# A simple queue has room for so many bytes, as a pipe has.
_SIMPLE_BYTES = 1 << 16

# What a channel without a limit says that its limit is, or more.
_UNLIMITED = synchronize.SEM_VALUE_MAX

_EMPTY = "no object came{}: the queue is empty"


class SimpleQueue(Closable):
    """A queue with room for 64 KiB: ``put`` waits while it is full.

    Parameters
    ----------
    ctx : multiprocessing context, optional
        Makes the locks of a queue that is a pipe; else it is not used.

    Attributes
    ----------
    spin : bool
        Whether a waiting thread of this process may spin for up to 50 µs before it sleeps. By
        default it does if the process has two processors or more, and as long as waits are short.

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
        # Messages taken out of the channel and not returned, see `get_many`. A forked child has
        # none: they are its parent's.
        self._rest = []  # type: List[Any]
        # (A pipe registers its own finalizers.)
        if isinstance(self._channel, _core.Ring):
            util.Finalize(self, self._channel.let_go, exitpriority=exit_order.CHANNELS)

    @property
    def spin(self) -> bool:
        return bool(self._channel.spin)

    @spin.setter
    def spin(self, spin: bool) -> None:
        self._channel.spin = spin

    def put(self, obj: "Any") -> None:
        """Put an object in; wait until there is room.

        Parameters
        ----------
        obj : object
            It must support pickling.

        Raises
        ------
        ValueError
            The queue is closed.
        ArenaFullError
            There is no room for the message in /dev/shm.
        """
        self._put(obj, None)

    def get(self) -> "Any":
        """Take the next object out; wait until there is one.

        Raises
        ------
        ValueError
            The queue is closed.
        """
        return self._get(None)

    def empty(self) -> bool:
        """Tell whether the queue is empty at this moment."""
        self._check_open()
        return not self._rest and not self._channel.poll(0)

    def close(self) -> None:
        """Close the queue in this process; other processes may go on using it."""
        self._closed = True
        del self._rest[:]
        self._channel.close()

    def _put(self, obj, timeout):
        """Pickle an object and put it in; raise `queue.Full` if there is no room in time."""
        if self._closed:
            self._check_open()
        handles = []  # type: List[bytes]
        try:
            if not self._channel.put(pickler.dumps(obj, handles), handles, timeout):
                raise queue.Full(self._say_full(timeout))
        except BaseException as error:
            # (Sending has taken the handles out of the list.)
            pickler.cancel(handles)
            pickler.explain(error)
            self._explain(error)
            raise

    def _take(self, most, timeout):
        """Take messages out; first those that an earlier `get_many` has left in this process."""
        found = []  # type: List[Any]
        with suppress(IndexError):
            # (IndexError: another thread takes them at the same time.)
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
            raise queue.Empty(_EMPTY.format(within(timeout)))
        return _load(found)

    def _say_full(self, timeout):
        text = "the queue had no room{}: it holds {} objects".format(
            within(timeout), len(self._channel)
        )
        limit = self._channel.limit
        return text + (" (maxsize is {})".format(limit) if limit < _UNLIMITED else "")

    def __getstate__(self):
        context.assert_spawning(self)
        self._check_open()
        return {"channel": ChannelArgument(self._channel)}

    def __setstate__(self, state):
        self._open(state["channel"].channel)


class _Loaded:
    """An object that `get_many` has unpickled, and not returned."""

    def __init__(self, thing):
        self.thing = thing


def _load(message):
    """Return the object of a message that was taken out."""
    if type(message) is _Loaded:
        return message.thing
    stream, _owner = unpack(message)
    return pickler.loads(stream)


class Queue(SimpleQueue):
    """A queue as `multiprocessing.Queue`, whose arrays stay in shared memory.

    Parameters
    ----------
    maxsize : int
        How many objects it holds before ``put`` waits; no limit if it is 0.
    ctx : multiprocessing context, optional
        Makes the locks of a queue that is a pipe; else it is not used.

    Attributes
    ----------
    spin : bool
        As of `SimpleQueue`.

    Raises
    ------
    TypeError
        `maxsize` is no integer.

    Notes
    -----
    Pass it to other processes as an argument of ``Process``, or of a pool's initializer. A plain
    array of 16 KiB or more is copied once, into shared memory that becomes the receiver's own; the
    message contains a smaller one. Long ``bytes`` go through shared memory, too, and are copied out
    of it. A shared array goes by reference: both sides see what either writes.

    A message is in the queue when ``put`` returns: no thread sends it later, and process exit does
    not wait for one. A process that is killed while it receives loses that message alone; if it is
    killed during ``put``, the message is in the queue or is not.

    Without futexes on shared memory, or with SHARED_NUMPY_RING=0 in the environment, the messages
    go through a pipe. Those that do not fit into it wait in the sending process, where a thread
    sends them; process exit waits until all are sent. If a process is killed during ``put`` or
    ``get``, the slot of its message is free again once the queue has been empty for half a second.

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
        if not hasattr(maxsize, "__index__"):
            raise TypeError("maxsize must be an integer, not {!r}".format(maxsize))
        self._open(channel(max(operator.index(maxsize), 0), ctx=ctx))

    def put(
        self, obj: "Any", block: bool = True, timeout: "Optional[float]" = None
    ) -> None:
        """Put an object in.

        Parameters
        ----------
        obj : object
            It is pickled before this returns.
        block : bool
            Wait if the queue is full.
        timeout : float, optional
            Wait for so many seconds at most.

        Raises
        ------
        queue.Full
            The queue was full all the time.
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
        """Put objects in, in order and next to each other: faster than one by one.

        Parameters
        ----------
        objs : iterable
            All of them are pickled before the first is put.
        block : bool
            Wait if the queue is full.
        timeout : float, optional
            Wait for so many seconds at most, for all of them together.

        Returns
        -------
        int
            How many were put: fewer than all only if the queue was full in the end.

        Raises
        ------
        ValueError
            The queue is closed; if another thread has closed it meanwhile, the first objects may
            be in.
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
            pickler.explain(error)
            self._explain(error)
            raise

    def get(self, block: bool = True, timeout: "Optional[float]" = None) -> "Any":
        """Take the next object out.

        Parameters
        ----------
        block : bool
            Wait if the queue is empty.
        timeout : float, optional
            Wait for so many seconds at most.

        Raises
        ------
        queue.Empty
            The queue was empty all the time.
        ValueError
            The queue is closed.
        """
        return self._get(timeout if block else 0)

    def get_many(
        self, most: int, block: bool = True, timeout: "Optional[float]" = None
    ) -> "List[Any]":
        """Take objects out, in order: all that are there up to `most`, and at least one.

        Parameters
        ----------
        most : int
            The largest number of objects to take.
        block : bool
            Wait for the first one if the queue is empty.
        timeout : float, optional
            Wait for so many seconds at most.

        Returns
        -------
        list
            Of `most` objects, or fewer.

        Raises
        ------
        queue.Empty
            The queue was empty all the time.
        ValueError
            The queue is closed, or `most` is less than 1.
        Exception
            One of them cannot be unpickled. It alone is lost: the others come with the next call.
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
            raise queue.Empty(_EMPTY.format(within(timeout if block else 0)))
        things = []  # type: List[Any]
        try:
            for number, message in enumerate(found):
                # (The handles in a message are good for one attempt to unpickle it.)
                found[number] = None
                things.append(_load(message))
        except BaseException:
            rest = [each for each in found[len(things) :] if each is not None]
            self._rest[:0] = list(map(_Loaded, things)) + rest
            raise
        return things

    def put_nowait(self, obj: "Any") -> None:
        """Put an object in without waiting: the same as ``put(obj, False)``.

        Parameters
        ----------
        obj : object
            It must support pickling.
        """
        self.put(obj, False)

    def get_nowait(self) -> "Any":
        """Take an object out without waiting: the same as ``get(False)``."""
        return self.get(False)

    def qsize(self) -> int:
        """Return how many objects are in the queue at this moment."""
        self._check_open()
        return len(self._channel) + len(self._rest)

    def full(self) -> bool:
        """Tell whether the queue is full at this moment."""
        self._check_open()
        return len(self._channel) >= self._channel.limit

    def join_thread(self) -> None:
        """Wait, after `close`, until all messages are sent. Only a queue that is a pipe has some left.

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
        """Drop the messages that still wait for room in a pipe at process exit."""
        if isinstance(self._channel, pipe_channel.Channel):
            self._channel.feeder.is_joined = False


class JoinableQueue(Queue):
    """A `Queue` that knows when all objects that were put in are done.

    Parameters
    ----------
    maxsize, ctx
        As for `Queue`.
    """

    def task_done(self) -> None:
        """Tell the queue that one of the objects that were taken out is done.

        Raises
        ------
        ValueError
            It was called more often than objects were put in.
        """
        self._check_open()
        if not self._channel.report_done():
            raise ValueError("task_done() called more often than things were put in")

    def join(self) -> None:
        """Wait until all objects that were put in are done."""
        self._check_open()
        try:
            self._channel.join()
        except BaseException as error:
            self._explain(error)
            raise
