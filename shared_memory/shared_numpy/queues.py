"""Queues whose messages keep their arrays in shared memory.

They have the interfaces of `multiprocessing`'s. What differs: ``put`` pickles at once,
so it raises what is wrong with an object, and an array can be closed, changed or
dropped right after it; and a message that nobody takes ends with the queue, when the
last process that has that is gone or has closed it.

A queue is a transport of packets (`_pipe`), which needs no lock, and a block of the
arena that answers for the messages that are in it.
"""

import collections
import multiprocessing
import queue
import threading
import time
import weakref
from contextlib import suppress
from multiprocessing import context, synchronize, util

from . import _core, messages, transfer
from ._pipe import Pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]


class SimpleQueue:
    """A queue without a bound or a thread: ``put`` waits while the system's pipe is full.

    Parameters
    ----------
    ctx : multiprocessing context, optional
        Has no influence; for the sake of `multiprocessing.SimpleQueue`'s signature.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> q = snp.SimpleQueue()
    >>> q.put({"frame": snp.ones(3), "number": 1})
    >>> q.get()["frame"].is_shared()
    True
    """

    def __init__(self, *, ctx: "Any" = None) -> None:
        self._pipe = Pipe()  # type: Any
        # Answers for the messages in the pipe: they end with its last holder.
        self._keeper = _core.Arena.default().alloc(1)  # type: Any
        self._closed = False

    def put(self, obj: "Any") -> None:
        """Put something in; wait until there is room.

        Raises
        ------
        ValueError
            The queue is closed.
        ArenaFullError
            There is no room for the message in /dev/shm.
        """
        self._check_open()
        handles = []  # type: List[bytes]
        try:
            self._pipe.send(messages.pack(obj, handles))
            if handles:
                self._keeper.keep(handles[-1])
        except BaseException:
            # Also should it be sent by now: whoever takes it sees that, and goes on.
            transfer.cancel(handles)
            raise

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
        return not self._pipe.poll()

    def close(self) -> None:
        """Be done with the queue in this process."""
        self._closed = True
        self._pipe.close_reader()
        self._pipe.close_writer()
        self._keeper = None

    def _check_open(self):
        if self._closed:
            raise ValueError("{!r} is closed".format(self))

    def _get(self, timeout):
        """Take a message out and unpack it; raise `queue.Empty` if there is none."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_open()
            left = None if deadline is None else max(0, deadline - time.monotonic())
            packet = self._pipe.receive(left)
            if packet is None:
                raise queue.Empty
            self._received()
            try:
                return messages.unpack(packet)
            except messages.Cancelled:
                continue  # Its sender was interrupted, or killed, in the middle of it.

    def _received(self):
        """A packet was taken out."""

    def __getstate__(self):
        context.assert_spawning(self)
        self._check_open()
        return {"_pipe": self._pipe, "_keeper": transfer.send(self._keeper), "_closed": False}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._keeper = _core.receive(self._keeper)


class _Feeder:
    """What waits for room in the pipe, and a thread that sends it, in order."""

    def __init__(self, pipe, keeper):
        self.pipe = pipe
        self.keeper = keeper
        self.is_joined = True
        self.waiting = collections.deque()
        self.lock = threading.Lock()
        self.changed = threading.Condition(self.lock)
        self.closed = False
        self.thread = None

    def put(self, packet, handle):
        """Send a packet, now if there is room, else as soon as there is."""
        with self.lock:
            if self.waiting or not self.pipe.send(packet, 0):
                self.waiting.append((packet, handle))
                self.begin()
                return
        if handle is not None:
            self.keeper.keep(handle)

    def begin(self):
        """Have the thread run; the lock is held."""
        if self.thread is None:
            self.thread = threading.Thread(target=self.run, name="QueueFeederThread", daemon=True)
            self.thread.start()
            # After the children of this process have ended: they may be who receives.
            util.Finalize(self.thread, _finish, [weakref.ref(self)], exitpriority=-5)
        self.changed.notify()

    def run(self):
        """Send what waits until the queue is closed and nothing does."""
        while True:
            with self.lock:
                while not self.waiting and not self.closed:
                    self.changed.wait()
                if not self.waiting:
                    break
                packet, handle = self.waiting[0]
            try:
                self.pipe.send(packet)
            except OSError:
                self.drop()  # Nobody can receive any more.
                continue
            with self.lock:
                # Or it was dropped meanwhile.
                if self.waiting and self.waiting[0][0] is packet:
                    self.waiting.popleft()
            if handle is not None:
                self.keeper.keep(handle)
        self.end()

    def drop(self):
        """Cancel all that waits."""
        with self.lock:
            waiting, self.waiting = self.waiting, collections.deque()
        for _, handle in waiting:
            if handle is not None:
                _core.cancel(handle)

    def close(self):
        """Send nothing more but what waits."""
        with self.lock:
            self.closed = True
            if self.thread is not None:
                self.changed.notify()
                return
        self.end()

    def end(self):
        self.pipe.close_writer()
        self.keeper = None

    def join(self):
        thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()


def _finish(feeder):
    """At the end of the process: send what waits, or drop it."""
    feeder = feeder()
    if feeder is None:
        return
    if feeder.is_joined:
        feeder.join()
    else:
        feeder.drop()


class Queue(SimpleQueue):
    """A queue as `multiprocessing.Queue`, whose arrays stay in shared memory.

    Parameters
    ----------
    maxsize : int
        How many things it holds before ``put`` waits; no bound if it is 0.
    ctx : multiprocessing context, optional
        Of which its locks are; by default that of `multiprocessing`.

    Notes
    -----
    It can be an argument of a ``Process`` (or of a pool's initializer), and so reach
    the processes that share it. A plain array from 16 KiB on is copied once, into
    shared memory, and becomes the receiver's own; a smaller one is pickled. A shared
    array goes by reference: both sides see what either writes.

    What does not fit into the system's pipe at once waits in the process that put
    it, and a thread sends it; a process waits at its end until all is sent. What a
    killed process had not sent is lost, and its memory is freed half a minute later. A
    consumer that is killed may take what it was just receiving with it, and its place
    in a bounded queue; the queue goes on.

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
        super().__init__()
        ctx = ctx or multiprocessing.get_context()
        self._maxsize = maxsize if maxsize > 0 else synchronize.SEM_VALUE_MAX
        self._places = ctx.BoundedSemaphore(self._maxsize)
        self._begin()

    def _begin(self):
        """Make what is this process's own."""
        self._feeder = _Feeder(self._pipe, self._keeper)
        self._finalize = util.Finalize(self, self._feeder.close, exitpriority=10)
        # At the process's end children may still have something to send.
        weakref.finalize(self, self._pipe.close_reader).atexit = False
        util.register_after_fork(self, Queue._begin)

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
        self._check_open()
        if not self._places.acquire(block, timeout):
            raise queue.Full
        handles = []  # type: List[bytes]
        try:
            packet = messages.pack(obj, handles)
            self._feeder.put(packet, handles[-1] if handles else None)
        except BaseException:
            transfer.cancel(handles)
            self._places.release()
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

    def _received(self):
        with suppress(ValueError):
            # One whose `put` was interrupted has given its place back itself.
            self._places.release()

    def put_nowait(self, obj: "Any") -> None:
        """The same as ``put(obj, False)``."""
        self.put(obj, False)

    def get_nowait(self) -> "Any":
        """The same as ``get(False)``."""
        return self.get(False)

    def qsize(self) -> int:
        """Return about how many things are in it."""
        return self._maxsize - self._places.get_value()

    def full(self) -> bool:
        """Tell whether it is full, at this moment."""
        return self._places.get_value() == 0

    def close(self) -> None:
        """Be done with the queue in this process; what waits is still sent."""
        if not self._closed:
            self._closed = True
            self._pipe.close_reader()
            self._keeper = None
            self._finalize()

    def join_thread(self) -> None:
        """Wait until all that was put is sent; after `close`.

        Raises
        ------
        ValueError
            The queue was not closed.
        """
        if not self._closed:
            raise ValueError("{!r} is not closed: close() it first".format(self))
        self._feeder.join()

    def cancel_join_thread(self) -> None:
        """Drop at the process's end what waits, instead of waiting for it."""
        self._feeder.is_joined = False

    def __getstate__(self):
        state = super().__getstate__()
        state.update(_maxsize=self._maxsize, _places=self._places)
        return state

    def __setstate__(self, state):
        super().__setstate__(state)
        self._begin()


class JoinableQueue(Queue):
    """A `Queue` that knows when all that was put in is done.

    Parameters
    ----------
    maxsize, ctx
        As for `Queue`.
    """

    def __init__(self, maxsize: int = 0, *, ctx: "Any" = None) -> None:
        super().__init__(maxsize, ctx=ctx)
        ctx = ctx or multiprocessing.get_context()
        self._unfinished = ctx.Semaphore(0)
        self._all_done = ctx.Condition()

    def put(
        self, obj: "Any", block: bool = True, timeout: "Optional[float]" = None
    ) -> None:
        """Put something in that is to be done; see `Queue.put`."""
        # Counted first: whoever takes it may be done before this returns.
        self._unfinished.release()
        try:
            super().put(obj, block, timeout)
        except BaseException:
            self.task_done()
            raise

    def task_done(self) -> None:
        """Say that one of the things that were taken out is done.

        Raises
        ------
        ValueError
            It was called more often than there were things.
        """
        with self._all_done:
            if not self._unfinished.acquire(False):
                raise ValueError("task_done() called more often than things were put in")
            if self._unfinished.get_value() == 0:
                self._all_done.notify_all()

    def join(self) -> None:
        """Wait until all that was put in is done."""
        with self._all_done:
            while self._unfinished.get_value() > 0:
                self._all_done.wait()

    def __getstate__(self):
        state = super().__getstate__()
        state.update(_unfinished=self._unfinished, _all_done=self._all_done)
        return state
