"""Messages through a pipe: what a `_core.Ring` does, where processes cannot sleep on shared
memory (see `_core.can_sleep`), or a ring is not wanted.

What is pickled small and speaks of no shared memory is its own packet. Anything else
lies in a block of the arena, and the packet is the block's handle. A block of the
channel's answers for the messages that are in it. What does not fit into the pipe at
once waits in the process that put it, and a thread sends it.

::

    packet   stream, 0        or   handle, last 8 bytes of the stream, 1
"""

import _thread
import collections
import threading
import time
import weakref
from contextlib import suppress
from multiprocessing import context, synchronize, util

from .. import _core, _reduce
from .._pickling import by_reference, pickler
from .packet_pipe import PACKET, Pipe
from .._system import exit_order
from .._system.interruptions import append_result
from ..errors import StaleHandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple

_INLINE, _BLOCK = b"\0", b"\1"
_TAIL = 8

# For so long a process waits before it looks whether the one that has made the pipe is
# still there, in seconds.
_LOOK = 0.5


class _Owners(list):
    """A block that answers for the messages in a pipe, which end with its last holder; none
    after the end of the process. Who still sends has it longer than the channel."""


def _let_go(owners):
    """Answer for nothing more, at the end of the process."""
    owners = owners()
    if owners is not None:
        owners.clear()


class Channel:
    """Messages from any of its processes to any other, in order.

    It has the methods of `_core.Ring`, which tells what they do.

    Parameters
    ----------
    limit : int
        How many messages it holds at most; 0 for any number.
    ctx : multiprocessing context
        Of which its locks are.
    feeds : bool
        What the pipe has no room for waits in the process; else ``put`` does.
    """

    spin = False

    def __init__(self, limit: int, ctx: "Any", feeds: bool) -> None:
        self.limit = limit or synchronize.SEM_VALUE_MAX
        self._pipe = Pipe()  # type: Any
        self._feeds = feeds
        self._free_slots = ctx.BoundedSemaphore(self.limit)
        self._unfinished = ctx.Semaphore(0)
        self._all_done = ctx.Condition()
        arena = _core.Arena.default()
        self._maker = arena.member()
        self._open(arena.alloc(1))

    def _open(self, owner):
        """Begin to use it in a process that did not have it before."""
        self._owners = _Owners([owner])
        self._closed = False
        # When the pipe was seen empty, and how many places were free then.
        self._empty = None  # type: Optional[Tuple[float, int]]
        # (At the process's end children may still have something to send.)
        weakref.finalize(self, self._pipe.close_reader).atexit = False
        self._begin()
        util.register_after_fork(self, Channel._begin)

    def _begin(self):
        """Do what is to be done in each process, forked ones included."""
        over = weakref.ref(self._owners)
        util.Finalize(self._owners, _let_go, (over,), exitpriority=exit_order.CHANNELS)
        self.feeder = _Feeder(self._pipe, self._owners)
        # (Other threads may still receive at the end of the process.)
        util.Finalize(self, self.feeder.finish, exitpriority=exit_order.FEEDERS)

    def put(
        self, stream: bytes, handles: "List[bytes]", timeout: "Optional[float]" = None
    ) -> bool:
        parts = []  # type: List[bytes]
        taken, counted, sent = [], [], []  # type: List[Any], List[Any], List[Any]
        undone = [], []  # type: Tuple[List[Any], List[Any]]
        try:
            packet = stream + _INLINE
            if handles or len(packet) > PACKET:
                parts.extend(handles)
                packet = _core.lay_down(stream, parts) + stream[-_TAIL:] + _BLOCK
            deadline = None if timeout is None else time.monotonic() + timeout
            while not any(taken):
                left = None if deadline is None else max(0, deadline - time.monotonic())
                wait = self._slice(left)
                append_result(taken, self._free_slots.acquire, wait != 0, wait)
                if not taken[-1]:
                    self._recount()
                    if left is not None and left <= _LOOK:
                        break
            if taken[-1]:
                append_result(counted, self._unfinished.release)
                self._send(packet, parts, timeout, sent)
            if sent:
                del handles[:]
            else:
                self._undo(parts, taken, counted, undone)
        except BaseException:
            if sent:
                _transfer_ownership(self._owners, parts, lambda: self._closed)
                del handles[:]
            else:
                # (Or the rest of it, if it was that which was interrupted.)
                self._undo(parts, taken, counted, undone)
            raise
        return bool(sent)

    def _send(self, packet, parts, timeout, sent):
        if self._feeds:
            self.feeder.put(packet, parts, sent)
        else:
            self._pipe.send(packet, timeout, sent)
            if sent:
                _transfer_ownership(self._owners, parts, lambda: self._closed)

    def _undo(self, parts, taken, counted, undone):
        """Take back what was done for a message that was not sent, but what is `undone`."""
        returned, uncounted = undone
        # (The message ends, and what it answers for.)
        pickler.cancel(parts)
        if any(taken) and not returned:
            self._note(returned)
        if counted:
            if not uncounted:
                append_result(uncounted, self._unfinished.acquire, False)
            self._tell_if_done()

    def put_many(
        self,
        messages: "List[Tuple[bytes, List[bytes]]]",
        timeout: "Optional[float]" = None,
    ) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        for number, (stream, handles) in enumerate(messages):
            left = None if deadline is None else max(0, deadline - time.monotonic())
            if not self.put(stream, handles, left):
                pickler.cancel([rest for _, rest in messages[number:]])
                return number
        return len(messages)

    def get(self, timeout: "Optional[float]" = None, watched: bool = False) -> "Any":
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            received, noted = [], []  # type: List[bytes], List[Any]
            try:
                self._pipe.receive(self._slice(left), received)
                if not received:
                    self._recount()
                    if watched and left != 0 and self._is_orphaned():
                        raise EOFError("the process that has made it is gone")
                    if left is None or left > _LOOK:
                        continue
                    return None
                self._note(noted)
                packet = received[0]
                if packet[-1:] == _INLINE:
                    return packet[:-1]
                return _core.take_up(_handles(packet)[0])
            except StaleHandleError:
                continue  # Its sender was interrupted, or killed, in the middle of it.
            except BaseException:
                if received:
                    pickler.cancel(_handles(received[0]))
                    if not noted:
                        self._note(noted)
                raise

    def _is_orphaned(self):
        """Tell whether the process that has made it is gone, a zombie included."""
        return any(owner.arena.is_gone(self._maker) for owner in self._owners[:1])

    @staticmethod
    def _slice(left):
        return _LOOK if left is None else min(left, _LOOK)

    def get_many(self, most: int, timeout: "Optional[float]" = None) -> "List[Any]":
        found = []  # type: List[Any]
        while len(found) < most:
            each = self.get(0 if found else timeout)
            if each is None:
                break
            found.append(each)
        return found

    def get_unopened(self, most: int) -> "List[_Unopened]":
        found = []  # type: List[_Unopened]
        while len(found) < most:
            received = []  # type: List[bytes]
            self._pipe.receive(0, received)
            if not received:
                break
            self._note([])
            found.append(_Unopened(received[0]))
        return found

    def withdraw(self, behind: int, end: bytes) -> "Optional[_Unopened]":
        found = None
        for message in self.get_unopened(self.limit):
            if found is None and message.end(len(end)) == end:
                found = message
            else:
                self.put_unopened(message)
        if found is not None:
            pickler.cancel(_handles(found.packet))
        return found

    def put_unopened(self, message: "_Unopened") -> bool:
        sent = []  # type: List[Any]
        if self._free_slots.acquire(False):
            self._send(message.packet, _handles(message.packet), 0, sent)
            if not sent:
                self._free_slots.release()
        return bool(sent)

    def _note(self, noted):
        """Give back the place of what was taken out; something in `noted` then."""
        with suppress(ValueError):
            append_result(noted, self._free_slots.release)

    def _recount(self):
        """Give back the places that killed processes had: if there was no message for a while,
        nobody has one.

        A process that was stopped in the middle of a call may have one all the same. Then the
        pipe holds more than its limit, until it is empty again: a place too many is not given
        back.
        """
        if self._closed:
            return
        free = self._free_slots.get_value()
        if free == self.limit or self._pipe.poll(0) or self.feeder.waiting:
            self._empty = None
            return
        now = time.monotonic()
        if self._empty is None or self._empty[1] != free:
            self._empty = now, free
        elif now - self._empty[0] >= _LOOK:
            self._empty = None
            for _ in range(self.limit - free):
                self._note([])

    def poll(self, timeout: "Optional[float]" = None) -> bool:
        return bool(self._pipe.poll(timeout))

    def __len__(self) -> int:
        self._recount()
        if not self._pipe.poll(0):
            # (Other places are those of calls in progress, or of killed processes.)
            return len(self.feeder.waiting)
        return int(self.limit - self._free_slots.get_value())

    def report_done(self) -> bool:
        with self._all_done:
            if not self._unfinished.acquire(False):
                return False
            self._tell_if_done()
            return True

    def _tell_if_done(self):
        """Wake those that wait until all is done, if it is."""
        with self._all_done:
            if self._unfinished.get_value() == 0:
                self._all_done.notify_all()

    def join(self, timeout: "Optional[float]" = None) -> bool:
        with self._all_done:
            return bool(
                self._all_done.wait_for(lambda: self._unfinished.get_value() == 0, timeout)
            )

    def let_go(self) -> None:
        self.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pipe.close_reader()
            self.feeder.finish(closes_pipe=True)
            self._owners = []

    def __reduce__(self) -> "Tuple[Any, ...]":
        context.assert_spawning(self)
        state = {
            name: getattr(self, name)
            for name in ("limit", "_pipe", "_maker", "_feeds", "_free_slots", "_unfinished", "_all_done")
        }
        return _reduce.packet_channel, (state, by_reference.send(self._owners[0]))


def rebuild(state, owner):
    """Make the channel that was taken apart for a new process."""
    channel = Channel.__new__(Channel)
    channel.__dict__.update(state)
    channel._open(_core.receive(owner))
    return channel


class _Unopened:
    """A message that was taken out unopened."""

    def __init__(self, packet):
        self.packet = packet

    def end(self, count):
        """Return the last bytes of the stream, 8 at most."""
        return self.packet[:-1][-count:]


def _handles(packet):
    """Return the handle of the block in which a message lies, if it does, in a list."""
    return [packet[: -_TAIL - 1]] if packet[-1:] == _BLOCK else []


def _transfer_ownership(owners, handles, is_closed):
    """Have a queue's block answer for a message that was sent.

    If the queue was closed meanwhile (asked when there is no block: it is closed before
    that goes) the message ends. At the end of the process, when there is no block any
    more either, it stays the sender's.
    """
    if handles:
        kept = [owner.keep(handles[-1]) for owner in owners[:1]]
        if not kept and is_closed():
            pickler.cancel(handles)


class _Feeder:
    """What waits for room in the pipe, and a thread that sends it, in order.

    The thread is not a `threading.Thread`, nor woken by a `Condition`: both are left
    half done where the exception of a signal's handler comes between.
    """

    def __init__(self, pipe, owners):
        self.pipe = pipe
        self.owners = owners
        self.is_joined = True
        self.waiting = collections.deque()
        # It may be closed by a finalizer that runs while this thread has the lock.
        self.lock = threading.RLock()
        self.closed = False
        self.closes_pipe = False
        # The thread's number, once there is one; what it waits for when it has nothing
        # to do; what is held until it ends.
        self.threads = []  # type: List[int]
        self.woken, self.ended = _locked_lock(), _locked_lock()
        util.Finalize(self, _finish, [weakref.ref(self)], exitpriority=exit_order.SENT)

    def put(self, packet, handles, sent):
        """Send a packet, now if there is room, else as soon as there is.

        From then on there is something in `sent`.
        """
        with self.lock:
            if not self.waiting:
                self.pipe.send(packet, 0, sent)
            if not sent:
                if not self.threads:
                    append_result(self.threads, _thread.start_new_thread, self.run, ())
                # It goes on when the lock is given back.
                self.wake()
                append_result(sent, self.waiting.append, (packet, handles))
                return
        _transfer_ownership(self.owners, handles, lambda: self.closes_pipe)

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
                self.owners = []
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
            _transfer_ownership(self.owners, handles, lambda: self.closes_pipe)
            del packet, handles

    def drop(self):
        """Cancel all that waits."""
        with self.lock:
            waiting, self.waiting = self.waiting, collections.deque()
        for _, handles in waiting:
            pickler.cancel(handles)

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


def _locked_lock():
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
