"""A channel through a pipe, for systems without futexes on shared memory (`_core.can_sleep`).

A message that is short, and contains no handles, is a packet of the pipe. Any other message lies
in a block of the arena, and the packet is the handle of that block. One block of the channel owns
the messages in the pipe: they are freed with it. Messages that do not fit into the pipe wait in the
process that has put them, where a thread sends them.

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

# A waiting process checks every so many seconds whether the maker of the channel still exists, and
# whether slots of killed processes are to be freed.
_CHECK = 0.5


class _Owners(list):
    """The block that owns the messages in a pipe, in a list; empty once the process exits.

    The messages are freed when no process has the block any more. The feeder keeps the list longer
    than the channel, until it has sent all messages.
    """


def _let_go(owners):
    """Release the block at process exit."""
    owners = owners()
    if owners is not None:
        owners.clear()


class Channel:
    """Messages from any of its processes to any other, in order.

    It has the methods of `_core.Ring`, which documents them.

    Parameters
    ----------
    limit : int
        The largest number of messages; 0 for any number.
    ctx : multiprocessing context
        Makes its locks.
    feeds : bool
        Messages that do not fit into the pipe wait in the process; otherwise ``put`` waits.
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
        """Begin to use the channel in a process: at its creation, and where it is unpickled."""
        self._owners = _Owners([owner])
        self._closed = False
        # The time since which the pipe is seen empty, and the number of free slots then.
        self._empty = None  # type: Optional[Tuple[float, int]]
        # (Not at process exit: children may still send, and fail without a reader.)
        weakref.finalize(self, self._pipe.close_reader).atexit = False
        self._begin()
        util.register_after_fork(self, Channel._begin)

    def _begin(self):
        """Register finalizers, and make a feeder: in each process, also in a forked child."""
        over = weakref.ref(self._owners)
        util.Finalize(self._owners, _let_go, (over,), exitpriority=exit_order.CHANNELS)
        self.feeder = _Feeder(self._pipe, self._owners)
        # (The reading end stays open: other threads may still receive.)
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
                    if left is not None and left <= _CHECK:
                        break
            if taken[-1]:
                append_result(counted, self._unfinished.release)
                self._send(packet, parts, timeout, sent)
            if sent:
                del handles[:]
                _core.count_piped(len(stream), False)
            else:
                self._undo(parts, taken, counted, undone)
        except BaseException:
            if sent:
                _transfer_ownership(self._owners, parts, lambda: self._closed)
                del handles[:]
            else:
                # (The rest of it, if `_undo` itself was interrupted.)
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
        """Undo the steps for a message that was not sent, except those recorded in `undone`."""
        returned, uncounted = undone
        # (Frees the message's block, and the handles that it owns.)
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
                        raise EOFError("the process that has made the channel is gone")
                    if left is None or left > _CHECK:
                        continue
                    return None
                self._note(noted)
                packet = received[0]
                if packet[-1:] == _INLINE:
                    _core.count_piped(len(packet) - 1, True)
                    return packet[:-1]
                found = _core.take_up(_handles(packet)[0])
                _core.count_piped(len(found[0]), True)
                return found
            except StaleHandleError:
                continue  # The sender was interrupted, or killed, and has freed the message.
            except BaseException:
                if received:
                    pickler.cancel(_handles(received[0]))
                    if not noted:
                        self._note(noted)
                raise

    def _is_orphaned(self):
        """Tell whether the process that has made the channel has exited, also as a zombie."""
        return any(owner.arena.is_gone(self._maker) for owner in self._owners[:1])

    @staticmethod
    def _slice(left):
        return _CHECK if left is None else min(left, _CHECK)

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
        """Free the slot of a message that was taken out; recorded in `noted`."""
        with suppress(ValueError):
            append_result(noted, self._free_slots.release)

    def _recount(self):
        """Free the slots that killed processes have taken and not freed: when the pipe has been
        empty for a while, no message occupies a slot.

        A process that is stopped (SIGSTOP) in the middle of a call may still occupy one. Then the
        pipe holds more messages than its limit until it is empty again: a bounded semaphore refuses
        to free a slot too many.
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
        elif now - self._empty[0] >= _CHECK:
            self._empty = None
            for _ in range(self.limit - free):
                self._note([])

    def poll(self, timeout: "Optional[float]" = None) -> bool:
        return bool(self._pipe.poll(timeout))

    def __len__(self) -> int:
        self._recount()
        if not self._pipe.poll(0):
            # (Slots that are not free belong to calls in progress, or to killed processes.)
            return len(self.feeder.waiting)
        return int(self.limit - self._free_slots.get_value())

    def report_done(self) -> bool:
        with self._all_done:
            if not self._unfinished.acquire(False):
                return False
            self._tell_if_done()
            return True

    def _tell_if_done(self):
        """Wake the threads that wait in `join`, if all messages are done."""
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
        names = "limit _pipe _maker _feeds _free_slots _unfinished _all_done".split()
        state = {name: getattr(self, name) for name in names}
        return _reduce.packet_channel, (state, by_reference.send(self._owners[0]))


def rebuild(state, owner):
    """Make a channel in a new process, from the parts of `Channel.__reduce__`."""
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
    """Return the handle of a message's block in a list; an empty one if it lies in the packet."""
    return [packet[: -_TAIL - 1]] if packet[-1:] == _BLOCK else []


def _transfer_ownership(owners, handles, is_closed):
    """Make the channel's block the owner of a message that was sent.

    Without a block, the channel was closed meanwhile, and the message is freed; or the process
    exits, and the message stays the sender's. (`is_closed` is asked last: a channel is closed
    before it releases its block.)
    """
    if handles:
        owned = [owner.keep(handles[-1]) for owner in owners[:1]]
        if not owned and is_closed():
            pickler.cancel(handles)


class _Feeder:
    """Messages that wait for room in the pipe, and a thread that sends them in order.

    The thread is not a `threading.Thread`, and no `Condition` wakes it: both consist of several
    steps, and an exception of a signal handler between two of them leaves them unusable.
    """

    def __init__(self, pipe, owners):
        self.pipe = pipe
        self.owners = owners
        self.is_joined = True
        self.waiting = collections.deque()
        # Reentrant: a finalizer that closes the channel may run while this thread has the lock.
        self.lock = threading.RLock()
        self.closed = False
        self.closes_pipe = False
        # The thread's identifier, once there is a thread; a lock that is released to wake it; a
        # lock that it releases when it ends.
        self.threads = []  # type: List[int]
        self.woken, self.ended = _locked_lock(), _locked_lock()
        util.Finalize(self, _finish, [weakref.ref(self)], exitpriority=exit_order.SENT)

    def put(self, packet, handles, sent):
        """Send a packet: now if there is room, else later, by the thread. `sent` records it."""
        with self.lock:
            if not self.waiting:
                self.pipe.send(packet, 0, sent)
            if not sent:
                if not self.threads:
                    append_result(self.threads, _thread.start_new_thread, self.run, ())
                # (It continues when this thread releases the lock.)
                self.wake_locked()
                append_result(sent, self.waiting.append, (packet, handles))
                return
        _transfer_ownership(self.owners, handles, lambda: self.closes_pipe)

    def wake_locked(self):
        """Have the thread look again."""
        with suppress(RuntimeError):
            self.woken.release()

    def run(self):
        """Send messages until the channel is closed and none waits. The thread."""
        try:
            while not self.is_over():
                self.woken.acquire()
                self.send_waiting()
        finally:
            self.ended.release()

    def is_over(self):
        """Tell whether all messages are sent and no more will come; close the pipe then."""
        with self.lock:
            if not self.closed or self.waiting:
                return False
            if self.closes_pipe:
                self.pipe.close_writer()
                self.owners = []
            return True

    def send_waiting(self):
        """Send the messages that wait. The thread."""
        while True:
            with self.lock:
                if not self.waiting:
                    return
                packet, handles = self.waiting[0]
            try:
                self.pipe.send(packet)
            except OSError:
                self.drop()  # No process can receive any more.
                continue
            with self.lock:
                # (Unless `drop` came meanwhile.)
                if self.waiting and self.waiting[0][0] is packet:
                    self.waiting.popleft()
            _transfer_ownership(self.owners, handles, lambda: self.closes_pipe)
            del packet, handles

    def drop(self):
        """Free the messages that wait."""
        with self.lock:
            waiting, self.waiting = self.waiting, collections.deque()
        for _, handles in waiting:
            pickler.cancel(handles)

    def finish(self, closes_pipe=False):
        """Take no more messages; those that wait are still sent."""
        with self.lock:
            self.closed = True
            self.closes_pipe = closes_pipe
            self.wake_locked()
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
    """At process exit: send the messages that wait, or drop them."""
    feeder = feeder()
    if feeder is None:
        return
    while feeder.lock._is_owned():
        # Before 3.10 an exception of a signal handler can leave a `with` statement without its exit.
        feeder.lock.release()
    if feeder.is_joined:
        feeder.join()
    else:
        feeder.drop()
