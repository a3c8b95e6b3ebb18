"""Queues whose messages keep their arrays in shared memory.

They have the interfaces of `multiprocessing`'s. What differs: ``put`` pickles at once,
so it raises what is wrong with an object, and an array can be closed, changed or
dropped right after it; and a message that nobody takes ends with the queue, when the
last process that has that is gone or has closed it.

A queue is a transport of packets (`_pipe`), which needs no lock, and a block of the
arena that answers for the messages that are in it.
"""

import _thread
import collections
import multiprocessing
import queue
import threading
import time
import weakref
from contextlib import suppress
from itertools import starmap
from multiprocessing import context, synchronize, util

from . import _core, messages, transfer
from ._pipe import Pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional

__all__ = ["JoinableQueue", "Queue", "SimpleQueue"]

# At the end of a process, by the priorities of `multiprocessing`'s finalizers: no more
# is put; the children have ended, and what waits is sent; nothing is answered for.
_CLOSING, _SENT, _OVER = 10, -5, -100


class _Keepers(list):
    """A block that answers for the messages in a pipe, which end with its last holder; none
    after the end of the process. Who still sends has it longer than the queue."""


def _let_go(keepers):
    """Answer for nothing more, at the end of the process."""
    keepers = keepers()
    if keepers is not None:
        keepers.clear()


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
        self._open(_core.Arena.default().alloc(1))

    def _open(self, keeper):
        """Begin to use the queue in a process that did not have it before."""
        self._keepers = _Keepers([keeper])
        self._closed = False
        self._begin()
        util.register_after_fork(self, type(self)._begin)

    def _begin(self):
        """Do what is to be done in each process, forked ones included."""
        over = weakref.ref(self._keepers)
        util.Finalize(self._keepers, _let_go, (over,), exitpriority=_OVER)

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
        handles, sent = [], []  # type: List[bytes], List[int]
        try:
            packet = messages.pack(obj, handles)
            self._pipe.send(packet, None, sent)
            _entrust(self._keepers, handles, lambda: self._closed)
        except BaseException as error:
            if sent:
                _entrust(self._keepers, handles, lambda: self._closed)
            else:
                transfer.cancel(handles)
            self._explain(error)
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
        self._keepers.clear()

    def _check_open(self):
        if self._closed:
            raise ValueError("{!r} is closed".format(self))

    def _explain(self, error):
        """Say that the queue is closed, if that is why something failed."""
        if isinstance(error, OSError) and self._closed:
            raise ValueError("{!r} was closed meanwhile".format(self)) from None

    def _get(self, timeout):
        """Take a message out and unpack it; raise `queue.Empty` if there is none."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_open()
            left = None if deadline is None else max(0, deadline - time.monotonic())
            received, noted = [], []  # type: List[bytes], List[Any]
            try:
                self._pipe.receive(left, received)
                if not received:
                    raise queue.Empty
                self._note(noted)
                return messages.unpack(received[0])
            except messages.Cancelled:
                continue  # Its sender was interrupted, or killed, in the middle of it.
            except BaseException as error:
                if received:
                    messages.discard(received[0])
                    if not noted:
                        self._note(noted)
                self._explain(error)
                raise

    def _note(self, noted):
        """Give back the place of what was taken out; something in `noted` then."""

    def __getstate__(self):
        context.assert_spawning(self)
        self._check_open()
        return {"_pipe": self._pipe, "keeper": transfer.send(self._keepers[0])}

    def __setstate__(self, state):
        keeper = state.pop("keeper")
        self.__dict__.update(state)
        self._open(_core.receive(keeper))


def _entrust(keepers, handles, is_closed):
    """Have a queue's block answer for a message that was sent.

    If the queue was closed meanwhile (asked when there is no block: it is closed before
    that goes) the message ends. At the end of the process, when there is no block any
    more either, it stays the sender's.
    """
    if handles:
        kept = [keeper.keep(handles[-1]) for keeper in keepers[:1]]
        if not kept and is_closed():
            transfer.cancel(handles)


class _Feeder:
    """What waits for room in the pipe, and a thread that sends it, in order.

    The thread is not a `threading.Thread`, nor woken by a `Condition`: both are left
    half done where the exception of a signal's handler comes between.
    """

    def __init__(self, pipe, keepers):
        self.pipe = pipe
        self.keepers = keepers
        self.is_joined = True
        self.waiting = collections.deque()
        # It may be closed by a finalizer that runs while this thread has the lock.
        self.lock = threading.RLock()
        self.closed = False
        self.closes_pipe = False
        # The thread's number, once there is one; what it waits for when it has nothing
        # to do; what is held until it ends.
        self.threads = []  # type: List[int]
        self.woken, self.ended = _held_lock(), _held_lock()
        util.Finalize(self, _finish, [weakref.ref(self)], exitpriority=_SENT)

    def put(self, packet, handles, sent):
        """Send a packet, now if there is room, else as soon as there is.

        From then on there is something in `sent`.
        """
        with self.lock:
            if not self.waiting:
                self.pipe.send(packet, 0, sent)
            if not sent:
                if not self.threads:
                    self.threads.extend(map(_thread.start_new_thread, (self.run,), ((),)))
                # It goes on when the lock is given back.
                self.wake()
                sent.extend(map(self.waiting.append, ((packet, handles),)))
                return
        _entrust(self.keepers, handles, lambda: self.closes_pipe)

    def wake(self):
        """Have the thread look again; the lock is held."""
        with suppress(RuntimeError):
            self.woken.release()

    def run(self):
        """Send what waits until the queue is closed and nothing does."""
        try:
            while not self.is_over():
                self.woken.acquire()
                self.send_waiting()
        finally:
            self.ended.release()

    def is_over(self):
        """Tell whether all is sent and no more will be; let go of the pipe then."""
        with self.lock:
            if not self.closed or self.waiting:
                return False
            if self.closes_pipe:
                self.pipe.close_writer()
                self.keepers = []
            return True

    def send_waiting(self):
        """Send what waits."""
        while True:
            with self.lock:
                if not self.waiting:
                    return
                packet, handles = self.waiting[0]
            try:
                self.pipe.send(packet)
            except OSError:
                self.drop()  # Nobody can receive any more.
                continue
            with self.lock:
                # Or it was dropped meanwhile.
                if self.waiting and self.waiting[0][0] is packet:
                    self.waiting.popleft()
            _entrust(self.keepers, handles, lambda: self.closes_pipe)
            del packet, handles

    def drop(self):
        """Cancel all that waits."""
        with self.lock:
            waiting, self.waiting = self.waiting, collections.deque()
        for _, handles in waiting:
            transfer.cancel(handles)

    def finish(self, closes_pipe=False):
        """Send nothing more but what waits."""
        with self.lock:
            self.closed = True
            self.closes_pipe = closes_pipe
            self.wake()
            if not self.threads:
                self.is_over()

    def join(self):
        if self.threads and self.threads[0] != _thread.get_ident():
            with self.ended:
                pass


def _held_lock():
    lock = _thread.allocate_lock()
    lock.acquire()
    return lock


def _finish(feeder):
    """At the end of the process: send what waits, or drop it."""
    feeder = feeder()
    if feeder is None:
        return
    while feeder.lock._is_owned():
        # Before 3.10 a signal's exception can end a `with` statement without its end.
        feeder.lock.release()
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
    process that is killed while it receives takes that message with it.

    The places of a bounded queue are counted by a semaphore of `multiprocessing`, which
    knows nothing of deaths: each message that is lost so leaves one place less.

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
        ctx = ctx or multiprocessing.get_context()
        self._maxsize = maxsize if maxsize > 0 else synchronize.SEM_VALUE_MAX
        self._places = ctx.BoundedSemaphore(self._maxsize)
        super().__init__()

    def _open(self, keeper):
        # (At the process's end children may still have something to send.)
        weakref.finalize(self, self._pipe.close_reader).atexit = False
        super()._open(keeper)

    def _begin(self):
        super()._begin()
        self._feeder = _Feeder(self._pipe, self._keepers)
        # (Other threads may still receive at the end of the process.)
        util.Finalize(self, self._feeder.finish, exitpriority=_CLOSING)

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
        if not block and self.full():
            raise queue.Full
        handles = []  # type: List[bytes]
        placed, counted, sent = [], [], []  # type: List[Any], List[Any], List[Any]
        try:
            packet = messages.pack(obj, handles)
            # What a call did is noted before an exception of a signal can come between.
            placed.extend(map(self._places.acquire, (block,), (timeout,)))
            if not placed[0]:
                raise queue.Full
            self._count(counted)
            self._feeder.put(packet, handles, sent)
        except BaseException as error:
            if sent:
                _entrust(self._keepers, handles, lambda: self._closed)
            else:
                transfer.cancel(handles)
                if any(placed):
                    self._note([])
                if counted:
                    self._discount()
            self._explain(error)
            raise

    def _count(self, counted):
        """Count what is about to be sent, and note it in `counted`."""

    def _discount(self):
        """Take back what `_count` did."""

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

    def _note(self, noted):
        with suppress(ValueError):
            noted.extend(starmap(self._places.release, ((),)))

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
            self._feeder.finish(closes_pipe=True)
            self._keepers = []

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


class JoinableQueue(Queue):
    """A `Queue` that knows when all that was put in is done.

    Parameters
    ----------
    maxsize, ctx
        As for `Queue`.
    """

    def __init__(self, maxsize: int = 0, *, ctx: "Any" = None) -> None:
        ctx = ctx or multiprocessing.get_context()
        self._unfinished = ctx.Semaphore(0)
        self._all_done = ctx.Condition()
        super().__init__(maxsize, ctx=ctx)

    def _count(self, counted):
        # Before it is sent: whoever takes it may be done before `put` returns.
        counted.extend(starmap(self._unfinished.release, ((),)))

    def _discount(self):
        self.task_done()

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
