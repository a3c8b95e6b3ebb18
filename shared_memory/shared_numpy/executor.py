"""`ProcessPoolExecutor`: functions run in other processes, arrays in shared memory.

::

    submit --> pending --> at a worker (a few calls each) --> its future
                  ^               |
                  +---------------+  the worker died, or another one is idle

A call is pickled when a worker has room for it, by the dispatcher's thread, which also
takes the answers; so no handler of a signal comes between. Each worker has the call
that it does and some that wait, as many as it does in some milliseconds; what waits
there is taken back for a worker that has nothing to do.
"""

import collections
import itertools
import multiprocessing
import operator
import os
import select
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import Executor, Future, _base
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import util

from . import _channels, _core, _workers, transfer
from ._futures import LightFuture
from .errors import ArenaFullError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]

# How many calls a worker has at least and at most, and for how many seconds it shall
# have some.
_LEAST, _MOST, _AHEAD = 2, 32, 0.002

# After so many seconds the sentinels of workers are looked at; and they themselves, whose
# death nothing may have told: what they have started can keep their sentinels.
_LOOK, _PATIENCE = 0.05, 1.0

# The bytes that a ring of calls or answers has room for at first, and may grow to.
_FIRST, _LONGEST = 1 << 14, 1 << 34

# How many answers are taken at a time.
_MANY = 64

# How long a worker may take to end when the pool is broken.
_GRACE = 5.0

# At the end of a process, before its queues are closed.
_ENDING = 20


class _Future(LightFuture):
    """A future that can be cancelled until a worker has taken its call."""

    def __init__(self, pool):
        super().__init__()
        self._pool = pool.reference
        self._task = None  # type: Optional[_Task]

    def cancel(self) -> bool:
        pool = self._pool()
        task = self._task
        try:
            if pool is not None and task is not None:
                pool.withdraw(task)
            cancelled = super().cancel()
        finally:
            # Also if a signal's handler raises something meanwhile.
            if task is not None and task.is_cancelled:
                self._notify()
        return cancelled

    def _notify(self):
        """Be cancelled, and tell those who wait; nobody has the call any more."""
        self._task = None
        super().cancel()
        if self._state == _base.CANCELLED:
            self.set_running_or_notify_cancel()


class _Task:
    """A call, and its future."""

    __slots__ = (
        "number", "future", "call", "copies", "is_begun", "is_sent", "withdrawn", "deaths",
    )  # fmt: skip

    def __init__(self, number, future, call):
        self.number = number
        self.future = future
        self.call = call
        self.is_begun = False
        # What it was withdrawn as, or True, when it was cancelled; before, nothing but None.
        self.withdrawn = []  # type: List[Any]
        # What it has of the crowd's, see `transfer.Crowd`.
        self.copies = ()  # type: Any
        self.is_sent = False
        # How many workers have died of it.
        self.deaths = 0

    @property
    def name(self):
        function = self.call[0]
        while isinstance(function, partial) and function.args and callable(function.args[0]):
            # What calls the function that was given.
            function = function.args[0]
        return getattr(function, "__qualname__", None) or repr(function)

    @property
    def is_cancelled(self):
        return any(self.withdrawn)

    def forget_arguments(self):
        self.call = self.call[:1]

    def begin(self):
        """Have the future run, if it does not yet: it cannot be cancelled any more."""
        if not self.is_begun and not (self.withdrawn and self.is_cancelled):
            self.future.begin()
            self.is_begun = True

    def succeed(self, value):
        self.future._task = None
        self.future.settle(value)

    def fail(self, error):
        self.future._task = None
        self.future.set_exception(error)


class _Worker:
    """A worker's process, and the calls that it has, in the order of their sending."""

    def __init__(self, process, requests, left):
        self.process = process
        self.requests = requests
        self.tasks = collections.OrderedDict()  # type: Dict[int, _Task]
        # How many calls it will do, if that is limited.
        self.left = left
        # Why its initializer failed.
        self.unfit = None  # type: Optional[BaseException]

    def drop(self, task):
        """Drop a call that it has not taken yet; False if it has."""
        # What is in its channel are the last of those that were sent, in their order.
        sent = [number for number, each in self.tasks.items() if each.is_sent]
        behind = len(sent) - 1 - sent.index(task.number)
        end = _workers.REQUEST.pack(task.number)
        with suppress(ArenaFullError):
            # (Noted before an exception of a signal's handler can come between.)
            task.withdrawn.extend(map(self.requests.withdraw, (behind,), (end,)))
        return task.is_cancelled

    def take_back(self, most=sys.maxsize):
        """Return the numbers and messages of the first calls that it has not taken yet."""
        unread = self.requests.get_unopened(min(most, len(self.tasks) + 1))
        size = _workers.REQUEST.size
        ends = [(message.end(size), message) for message in unread]
        return [
            (_workers.REQUEST.unpack(end)[0], message)
            for end, message in ends
            if end != _workers.STOP
        ]


class _Settings:
    """What a pool was made with."""

    def __init__(
        self, workers, context, initializer, initargs, limit, plain, results, gives, retries
    ):
        self.workers = workers
        self.context = context
        self.initializer, self.initargs = initializer, initargs
        self.limit = limit
        # How arrays in calls go, and in results; whether those are given away.
        self.plain, self.results, self.gives = plain, results, gives
        self.retries = retries
        # A fork beside threads copies locks that they hold: all are made before the
        # dispatcher's thread is.
        self.starts_all = context.get_start_method() == "fork"


class _Pool:
    """The workers of an executor and their dispatcher; it outlives a dropped executor."""

    def __init__(self, settings):
        self.settings = settings
        self.reference = weakref.ref(self)
        self.pid = os.getpid()
        # Held for moments, and never while anything is pickled or a future is told.
        self.lock = threading.RLock()
        self.pending = collections.deque()  # type: Any
        self.workers = {}  # type: Dict[int, _Worker]
        self.numbers = itertools.count(1)
        # Who spins takes a processor, which the workers are to have.
        self.spins = len(os.sched_getaffinity(0)) > settings.workers + 1
        self.replies = self.channel()
        # How long a call takes, in seconds.
        self.mean = None  # type: Optional[float]
        # How many workers have died since there was an answer.
        self.deaths = 0
        # When somebody has looked for dead workers, by their sentinels, and well.
        self.looked = self.looked_well = 0.0
        self.broken = None  # type: Optional[str]
        self.is_ending = False
        self.is_over = False
        # There was no room for a call: some other's end is waited for.
        self.is_full = False
        # The dispatcher waits, or is about to.
        self.is_waiting = False
        self.thread = None  # type: Optional[threading.Thread]
        util.register_after_fork(self, _Pool.forget)

    def channel(self):
        channel = _channels.channel(0, _FIRST, _LONGEST, self.settings.context)
        channel.spin = self.spins
        return channel

    def forget(self):
        """Let go of the channels in a child of multiprocessing, perhaps one of the workers."""
        self.lock = threading.RLock()
        me = multiprocessing.current_process()
        self.settings.plain.crowd.used()
        for task in list(self.pending):
            task.copies = ()
        for worker in self.workers.values():
            for task in worker.tasks.values():
                task.copies = ()
            if worker.process is not me:
                worker.requests.let_go()
        if all(worker.process is not me for worker in self.workers.values()):
            self.replies.let_go()

    # Calls.

    def submit(self, call):
        """Have a call done; return its future."""
        if os.getpid() != self.pid:
            raise RuntimeError("an executor can be used only in the process that made it")
        future = _Future(self)
        future._task = task = _Task(next(self.numbers), future, call)
        with self.lock:
            if self.broken is not None:
                raise BrokenProcessPool(self.broken)
            if self.is_ending or _over:
                over = "interpreter shutdown" if _over else "shutdown"
                raise RuntimeError("cannot schedule new futures after " + over)
            self.pending.append(task)
            try:
                if self.thread is None or len(self.workers) < self.settings.workers:
                    self.start()
            except BaseException:
                with suppress(ValueError):
                    self.pending.remove(task)
                raise
        if self.is_waiting:
            self.is_waiting = False
            self.wake()
        return future

    def start(self):
        """Have workers, and the dispatcher's thread; the lock is held."""
        settings = self.settings
        missing = settings.workers - len(self.workers)
        if missing and not (settings.starts_all and self.thread is None):
            idle = sum(1 for worker in self.workers.values() if not worker.tasks)
            missing = min(missing, len(self.pending) - idle)
        if self.thread is not None:
            for _ in range(missing):
                self.start_worker()
            return
        _watch_end()
        _pools.add(self)
        try:
            for _ in range(missing):
                self.start_worker()
            thread = threading.Thread(target=self.run, name="ExecutorDispatcher", daemon=True)
            self.thread = thread
            thread.start()
        except BaseException:
            if self.thread is None or not self.thread.is_alive():
                self.thread = None
                self.end_workers()
            raise

    def start_worker(self):
        settings = self.settings
        number, requests = next(self.numbers), self.channel()
        process = settings.context.Process(
            target=_workers.work,
            args=(
                number, _channels.Sent(requests), _channels.Sent(self.replies), settings.results,
                settings.gives, settings.limit, settings.initializer, settings.initargs,
            ),
        )  # fmt: skip
        # Ctrl-C is for those who can deal with it: a worker, when it is one. (A fork server
        # would hand that on to others.)
        blocked = [] if settings.context.get_start_method() == "forkserver" else [signal.SIGINT]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
            self.workers[number] = _Worker(process, requests, settings.limit)
            process.start()
        except BaseException:
            # One that has started stays, whatever came then; if that is not known yet, it ends.
            if process.pid is None:
                worker = self.workers.pop(number, None)
                if worker is not None:
                    _tell_to_stop(worker)
                requests.let_go()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.wake()

    def dispatch(self):
        """Send pending calls to workers as long as there is room."""
        while True:
            with self.lock:
                worker = self.free_worker()
                if worker is None:
                    return
                task = self.pending.popleft()
                if task.is_cancelled:
                    continue
                if not worker.tasks:
                    task.begin()
                worker.tasks[task.number] = task
            handles = []  # type: List[bytes]
            stream, error = self.pack(task, handles)
            if error is None:
                error = self.send(worker, task, stream, handles)
                if error is None:
                    continue
            if isinstance(error, ArenaFullError) and self.give_back(worker, task):
                # There is room again when a call has come to its end.
                return
            else:
                self.fail(worker, task, error)

    def pack(self, task, handles):
        """Return a call as a stream of bytes, or None and why there can be none."""
        plain = self.settings.plain
        try:
            stream = _workers.pack_call(task.number, task.call, handles, plain)
        except BaseException as error:
            transfer.cancel(handles)
            plain.crowd.used()
            # (Who keeps the error shall not keep this frame's.)
            return None, error.with_traceback(error.__traceback__.tb_next)
        task.copies = plain.crowd.used()
        return stream, None

    def free_worker(self):
        """Return the worker that has least to do; None if all have enough, or nothing is
        pending."""
        if not self.pending or self.is_full:
            return None
        room = _LEAST
        if self.mean is not None:
            room = max(room, min(_MOST, int(_AHEAD / max(self.mean, 1e-6))))
        best = None
        for worker in self.workers.values():
            load = len(worker.tasks)
            if load < room and worker.left != load:
                room, best = load, worker
                if not load:
                    break
        return best

    def send(self, worker, task, stream, handles):
        """Send a call to its worker; return why it cannot be."""
        with self.lock:
            try:
                # Unless the worker has died meanwhile, or the call was cancelled.
                if worker.tasks.get(task.number) is task:
                    worker.requests.put(stream, handles, 0)
                    task.is_sent = True
                    if not self.settings.retries:
                        task.forget_arguments()
            except ArenaFullError as error:
                return error
            finally:
                # (None is left of what was put.)
                transfer.cancel(handles)
        return None

    def give_back(self, worker, task):
        """Have a call pending again if others are being done; else return False."""
        with self.lock:
            if not any(map(_has_calls, self.workers.values())):
                return False
            self.is_full = True
            if worker.tasks.pop(task.number, None) is not None:
                self.pending.appendleft(task)
            return True

    def fail(self, worker, task, error):
        """Have a call that was not sent end with an exception."""
        with self.lock:
            if worker.tasks.pop(task.number, None) is None:
                return
            task.begin()
        task.fail(error)

    def withdraw(self, task):
        """Take a call back that is to be cancelled; False if it is being done, or over."""
        with self.lock:
            if task.is_cancelled or task.is_begun:
                return False
            for worker in self.workers.values():
                if worker.tasks.get(task.number) is not task:
                    continue
                if task.is_sent and not worker.drop(task):
                    task.begin()
                    return False
                worker.tasks.pop(task.number, None)
            task.withdrawn.append(True)
            return True

    def balance(self):
        """Give idle workers of what waits at the others."""
        with self.lock:
            if self.pending:
                return
            for thief in self.workers.values():
                if thief.tasks or thief.left == 0:
                    continue
                victim = max(self.workers.values(), key=lambda worker: len(worker.tasks))
                share = len(victim.tasks) // 2
                if thief.left is not None:
                    share = min(share, thief.left)
                while share > 0 and self.move_call(victim, thief):
                    share -= 1

    def move_call(self, victim, thief):
        """Give the first call that a worker has not taken to another one; False if there is
        none, or no room."""
        for number, message in victim.take_back(1):
            task = victim.tasks.pop(number)
            try:
                thief.requests.put_unopened(message)
            except ArenaFullError as error:
                return self.keep_call(victim, task, message, error)
            if not thief.tasks:
                task.begin()
            thief.tasks[number] = task
            return True
        return False

    def keep_call(self, worker, task, message, error):
        """Give a call back to its worker, as the last one."""
        try:
            worker.requests.put_unopened(message)
            worker.tasks[task.number] = task
        except ArenaFullError:
            # Nobody has what it was called with any more.
            task.begin()
            task.fail(error)
        return False

    # Answers.

    def run(self):
        """Be the dispatcher's thread."""
        try:
            self.serve()
        except BaseException as error:
            self.breaks("its dispatcher failed: {!r}".format(error), error)
            raise
        finally:
            self.end()

    def serve(self):
        """Take answers and send calls until there is nothing more to do."""
        while not self.is_done():
            self.is_waiting = True
            with self.lock:
                idle = self.free_worker() is None
            self.replies.poll(_LOOK if idle else 0)
            self.is_waiting = False
            dead = self.find_dead()
            self.answer()
            for number in dead:
                self.bury(number)
            self.dispatch()
            self.balance()

    def find_dead(self):
        """Return the numbers of workers that have ended, if nobody has looked for a while."""
        now = time.monotonic()
        if now - self.looked < _LOOK:
            return []
        self.looked = now
        with self.lock:
            workers = list(self.workers.items())
            for _, worker in workers:
                # Those that a signal's exception has left.
                for number in [n for n, task in worker.tasks.items() if task.is_cancelled]:
                    del worker.tasks[number]
        if now - self.looked_well > _PATIENCE:
            self.looked_well = now
            return [n for n, worker in workers if not worker.process.is_alive()]
        sentinels = {worker.process.sentinel: n for n, worker in workers}
        poll = select.poll()
        for sentinel in sentinels:
            poll.register(sentinel, select.POLLIN)
        return [sentinels[sentinel] for sentinel, _ in poll.poll(0)]

    def is_done(self):
        with self.lock:
            if self.broken is not None:
                return True
            idle = not self.pending and not any(w.tasks for w in self.workers.values())
            return idle and (self.is_ending or _over)

    def wake(self):
        """Have the dispatcher look again."""
        # (Without the lock: a finalizer may call it anywhere. If there is no room the dispatcher
        # is awake.)
        if not self.is_over and os.getpid() == self.pid:
            with suppress(OSError):
                self.replies.put(_workers.REPLY.pack(0, 0, _workers.WAKE, 0.0), [], 0)

    def answer(self):
        """Take all the answers that there are."""
        while True:
            found = self.replies.get_many(_MANY, 0)
            if not found:
                return
            found.reverse()
            while found:
                self.take(found)

    def take(self, found):
        """Take the last one of some answers."""
        stream, keeper = _channels.unpack(found.pop())
        number, worker, kind, seconds = _workers.head_of(stream, _workers.REPLY)
        if kind == _workers.UNFIT:
            # It still says why to others, and ends.
            why = _workers.unpack_error(transfer.loads(stream))
            if worker in self.workers:
                self.workers[worker].unfit = why
        if kind not in (_workers.RESULT, _workers.ERROR):
            return
        with self.lock:
            mine = self.workers.get(worker)
            task = mine and mine.tasks.pop(number, None)
            if mine and mine.left is not None:
                mine.left -= 1
            if task:
                task.begin()
                # The next one is being done now.
                following = next(iter(mine.tasks.values()), None)
                if following is not None:
                    following.begin()
            self.is_full = False
            self.deaths = 0
            # Of late, so that it follows.
            self.mean = seconds if self.mean is None else 0.8 * self.mean + 0.2 * seconds
        if not task:
            return
        try:
            value = transfer.loads(stream)
            # Whoever looks for leaks looks when he has the answer.
            stream = keeper = None
        except BaseException as error:
            task.fail(error)
            return
        if kind == _workers.RESULT:
            task.succeed(value)
        else:
            task.fail(_workers.unpack_error(value))

    # Deaths, and the end.

    def bury(self, number):
        """Deal with the end of a worker."""
        self.answer()  # What it said before.
        with self.lock:
            worker = self.workers.pop(number, None)
            if worker is None:
                return
            untouched = {number for number, _ in worker.take_back()}
            tasks = list(worker.tasks.values())
            worker.tasks.clear()
            self.is_full = False
            code = _exit_code(worker.process)
            worker.requests.close()
            done = [task for task in tasks if task.is_sent and task.number not in untouched]
            well = code in (0, None) and worker.left == 0 and not done and worker.unfit is None
            if not well:
                self.deaths += 1
            for task in done:
                task.deaths += 1
            for task in reversed(tasks):
                task.is_sent = False
                self.pending.appendleft(task)
        # What it held.
        _core.Arena.default().reap()
        if not well:
            retries = self.settings.retries
            text = "the worker with pid {} {}".format(worker.process.pid, _fate(code))
            if worker.unfit is not None:
                text = "the initializer of a worker failed: {!r}".format(worker.unfit)
            elif done:
                text += " while it ran {}".format(" and ".join(task.name for task in done))
            most = retries * self.settings.workers
            hopeless = worker.unfit is not None or any(task.deaths > retries for task in done)
            if hopeless or self.deaths > most:
                self.breaks(text, worker.unfit)
                return
        with self.lock:
            if self.pending:
                self.start()

    def breaks(self, text, cause=None):
        """Break the pool: fail all calls, and end all workers."""
        with self.lock:
            if self.broken is not None:
                return
            self.broken = text
            tasks = list(self.pending)
            self.pending.clear()
            for worker in self.workers.values():
                tasks += worker.tasks.values()
                worker.tasks.clear()
            tasks = [task for task in tasks if not task.is_cancelled]
            for task in tasks:
                task.begin()
        for task in tasks:
            error = BrokenProcessPool(text)
            error.__cause__ = cause
            task.fail(error)

    def finish(self):
        """End when all calls are done."""
        if os.getpid() == self.pid:
            self.is_ending = True
            self.wake()

    def cancel(self):
        """Cancel what no worker has taken yet."""
        with self.lock:
            tasks = [task for worker in self.workers.values() for task in worker.tasks.values()]
            tasks += self.pending
        # (The last ones first: else a worker may take one meanwhile.)
        for task in reversed(tasks):
            task.future.cancel()

    def kill(self, number):
        """Send all workers a signal; the pool breaks of it."""
        self.breaks("its workers were ended by {}".format(signal.Signals(number).name))
        with self.lock:
            workers = list(self.workers.values())
        for worker in workers:
            _send_signal(worker.process, number)
        self.wake()

    def join(self):
        thread = self.thread
        if thread is None:
            self.end()
        elif thread is not threading.current_thread():
            thread.join()

    def end_workers(self):
        with self.lock:
            workers, self.workers = list(self.workers.values()), {}
        for worker in workers:
            if self.broken is not None or not _tell_to_stop(worker):
                _send_signal(worker.process, signal.SIGTERM)
        for worker in workers:
            worker.process.join(None if self.broken is None else _GRACE)
            if worker.process.is_alive():
                _send_signal(worker.process, signal.SIGKILL)
                worker.process.join()
            worker.requests.close()

    def end(self):
        """End the workers, and let go of everything."""
        with self.lock:
            if self.is_over:
                return
            self.is_over = True
        self.end_workers()
        self.replies.close()
        self.settings.initargs = ()
        # What the workers still held at their end.
        _core.Arena.default().reap()


def _tell_to_stop(worker):
    """Have a worker end when it has done its calls; False if there is no room to say so."""
    try:
        return worker.requests.put(_workers.STOP, [], 0)
    except ArenaFullError:
        return False


def _has_calls(worker):
    return any(task.is_sent for task in worker.tasks.values())


def _fate(code):
    if code is not None and code < 0:
        try:
            return "was killed by {}".format(signal.Signals(-code).name)
        except ValueError:
            return "was killed by signal {}".format(-code)
    return "ended with exit code {}".format(code)


def _send_signal(process, number):
    """Send a signal to a worker, if it is still there."""
    if process.is_alive():
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def _exit_code(process):
    """Return the exit code of a worker that has ended; None if nobody knows."""
    process.join()
    # Another thread may be about to tell, which has asked for all children's.
    end = time.monotonic() + 1
    while process.exitcode is None and time.monotonic() < end:
        time.sleep(0.001)
    return process.exitcode


# Those that have a dispatcher, and whether the process is about to end.
_pools = weakref.WeakSet()  # type: weakref.WeakSet[_Pool]
_over = False
_watching = None  # type: Optional[int]


def _watch_end():
    """Have all calls done before this process ends."""
    global _watching, _over
    if _watching != os.getpid():
        _watching, _over = os.getpid(), False
        util.Finalize(None, _end_all, exitpriority=_ENDING)


def _end_all():
    global _over
    _over = True
    pools = [pool for pool in _pools if pool.pid == os.getpid()]
    for pool in pools:
        pool.finish()
    for pool in pools:
        pool.join()


class ProcessPoolExecutor(Executor):
    """Runs functions in other processes, as ``concurrent.futures.ProcessPoolExecutor``.

    The arrays in arguments and results, at whatever depth, go through shared memory: a
    shared array by reference, a plain one as a copy that belongs to the function, or to
    the caller, alone.

    Parameters
    ----------
    max_workers : int, optional
        How many processes; by default as many as there are CPUs for this one.
    mp_context : multiprocessing context, optional
        Which start method is used; by default that of `multiprocessing`.
    initializer : callable, optional
        Called first in each worker, with `initargs`. If it fails, the pool is broken.
    initargs : tuple
        Its arguments.
    max_tasks_per_child : int, optional
        A worker ends after so many calls and is replaced; not with the start method
        "fork". Where that is the default one, "spawn" is used.
    threshold : int
        Plain arrays of at least so many bytes, and ``bytes``, go through shared memory;
        smaller ones go in the message itself, which is as fast.
    retries : int
        How often a call is done again whose worker was killed. The worker is replaced,
        and the call is pickled anew from the objects that the caller gave.
    copy_results : bool
        Copy plain arrays in results to ordinary memory. By default they stay in shared
        memory, which is freed with the last view of them.
    zero_copy_results : bool
        Have the workers allocate large plain arrays in shared memory from the beginning,
        so that those which a function returns need no copy. One that is still referred to
        after the call, or was there when the worker forked a process, is copied as ever;
        so is what other threads of the worker make, what would leave less than a quarter
        of /dev/shm free, and all where numpy is older than 1.22. Such memory is taken when
        it is allocated: ``numpy.empty`` and ``zeros`` of much that is never used cost it.

    Raises
    ------
    TypeError, ValueError
        An argument is none of these.

    Notes
    -----
    Where cloudpickle is installed, functions may also be lambdas, closures, or defined
    at a prompt.

    If a worker is killed, the pool is broken as in the standard library: all its futures
    raise `BrokenProcessPool`, which tells what the worker did. Nothing is left behind; what
    it was about to send is freed half a minute later.

    Plain arrays of 512 MiB and more are copied once for all calls that have them at a time: a
    worker gets pages of its own where it writes to them.

    A call is pickled when it is sent to a worker, at once or later: the caller should not
    change what he gave before its future is running.

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy as snp
    >>> with snp.ProcessPoolExecutor(max_workers=1) as executor:
    ...     future = executor.submit(np.add, np.ones(100000), 1)
    ...     float(future.result()[0])
    2.0
    """

    def __init__(
        self,
        max_workers: "Optional[int]" = None,
        mp_context: "Any" = None,
        initializer: "Optional[Callable[..., Any]]" = None,
        initargs: "Tuple[Any, ...]" = (),
        *,
        max_tasks_per_child: "Optional[int]" = None,
        threshold: int = transfer.THRESHOLD,
        retries: int = 0,
        copy_results: bool = False,
        zero_copy_results: bool = False
    ) -> None:
        if max_workers is None:
            max_workers = len(os.sched_getaffinity(0))
        if max_workers <= 0:
            raise ValueError("max_workers must be greater than 0, not {}".format(max_workers))
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable, not {!r}".format(initializer))
        try:
            threshold = min(operator.index(threshold), sys.maxsize)
        except TypeError:
            raise TypeError(
                "threshold is a number of bytes, an integer, not {!r}; with sys.maxsize no "
                "array is moved".format(threshold)
            ) from None
        if threshold < 0 or retries < 0:
            raise ValueError(
                "threshold and retries are not negative: {}, {}".format(threshold, retries)
            )
        if copy_results and zero_copy_results:
            raise ValueError("results are copied or not: copy_results or zero_copy_results")
        context = mp_context or multiprocessing.get_context()
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child < 1:
                raise ValueError("max_tasks_per_child must be >= 1")
            if context.get_start_method(allow_none=False) == "fork":
                if mp_context is not None:
                    raise ValueError(
                        "max_tasks_per_child is incompatible with the start method 'fork'; "
                        "give a context of 'spawn' or 'forkserver'"
                    )
                context = multiprocessing.get_context("spawn")
        self._mp_context = context
        self._max_workers = max_workers
        self._pool = _Pool(
            _Settings(
                max_workers, context, initializer, tuple(initargs), max_tasks_per_child,
                transfer.MOVED._replace(threshold=threshold, crowd=transfer.Crowd()),
                transfer.MOVED._replace(threshold=threshold, copied=copy_results),
                zero_copy_results, retries,
            )
        )  # fmt: skip
        weakref.finalize(self, self._pool.finish).atexit = False

    @property
    def _processes(self):
        """The workers' processes by their ids, as the standard library's class has them."""
        workers = list(self._pool.workers.values())
        return {worker.process.pid: worker.process for worker in workers}

    @property
    def _broken(self):
        return self._pool.broken

    @property
    def _executor_manager_thread(self):
        return self._pool.thread

    def _know(self, known):
        """Send the shared twins of arrays, by their ids, instead of them."""
        settings = self._pool.settings
        settings.plain = settings.plain._replace(known=known)

    def submit(*args: "Any", **kwargs: "Any") -> "Future[Any]":
        """Have a function called in a worker.

        Parameters
        ----------
        fn : callable
            The function.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        concurrent.futures.Future
            Which yields the result, or raises what the function has raised, or why the
            call could not be pickled.

        Raises
        ------
        BrokenProcessPool
            A worker was killed, or could not be started.
        RuntimeError
            After `shutdown`, or in another process.
        """
        # (Any name may be one of `kwargs`.)
        if len(args) < 2:
            raise TypeError("submit() takes a function and its arguments")
        self, fn = args[:2]
        return self._pool.submit((fn, args[2:], kwargs))

    submit.__text_signature__ = "($self, fn, /, *args, **kwargs)"  # type: ignore

    def map(
        self,
        fn: "Callable[..., Any]",
        *iterables: "Iterable[Any]",
        timeout: "Optional[float]" = None,
        chunksize: int = 1,
        buffersize: "Optional[int]" = None,
        progress: bool = False
    ) -> "Iterator[Any]":
        """Call a function with the items of iterables, in parallel.

        Parameters
        ----------
        fn : callable
            The function.
        *iterables
            What its arguments are taken from, as by ``map``.
        timeout : float, optional
            How many seconds from now on the results may take.
        chunksize : int
            How many calls a worker takes at a time.
        buffersize : int, optional
            How many chunks are sent ahead of the results that were taken; by default all
            are, at once.
        progress : bool
            Show a progress bar, by tqdm.

        Returns
        -------
        iterator
            The results, in order.

        Raises
        ------
        concurrent.futures.TimeoutError
            When a result is asked for and not there in time.
        ValueError
            `chunksize` or `buffersize` is less than 1.
        ImportError
            tqdm is not installed.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1, not {}".format(chunksize))
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0, not {}".format(buffersize))
        bar = progress_bar() if progress else None
        end = None if timeout is None else timeout + time.monotonic()
        calls = zip(*iterables)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        sent = (
            self.submit(_call_each, fn, chunk) if chunksize > 1 else self.submit(fn, *chunk[0])
            for chunk in chunks
        )
        futures = collections.deque(itertools.islice(sent, buffersize))
        return _results(futures, sent, end, chunksize > 1, bar)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; end the workers when all are done.

        Parameters
        ----------
        wait : bool
            Wait until they have ended.
        cancel_futures : bool
            Cancel the calls that no worker has yet.
        """
        pool = self._pool
        if os.getpid() != pool.pid:
            return
        if cancel_futures:
            pool.cancel()
        pool.finish()
        if wait:
            pool.join()

    def terminate_workers(self) -> None:
        """End the workers by SIGTERM; what is not done fails, and the pool is broken."""
        self._pool.kill(signal.SIGTERM)
        self.shutdown()

    def kill_workers(self) -> None:
        """End the workers by SIGKILL; what is not done fails, and the pool is broken."""
        self._pool.kill(signal.SIGKILL)
        self.shutdown()


def progress_bar() -> "Any":
    """Return tqdm's class of progress bars.

    Raises
    ------
    ImportError
        It is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm: pip install 'shared-numpy[progress]'"
        ) from None
    return tqdm


def _call_each(function, calls):
    return [function(*call) for call in calls]


def _results(futures, sent, end, chunked, bar):
    """Yield the results of futures; send one more for each that is taken."""
    shown = bar(total=len(futures), unit="call") if bar else None
    try:
        while futures:
            left = None if end is None else end - time.monotonic()
            # Nobody but the caller keeps a result.
            result = [futures[0].result(left)]
            del futures[0]
            futures.extend(itertools.islice(sent, 1))
            if shown is not None:
                shown.update()
            if chunked:
                for each in result.pop():
                    yield each
            else:
                yield result.pop()
    finally:
        if shown is not None:
            shown.close()
        for future in futures:
            future.cancel()
