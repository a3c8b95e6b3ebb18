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
import signal
import sys
import threading
import time
import weakref
from concurrent.futures import Executor, Future, _base
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from functools import partial
from multiprocessing import connection, util

from . import _channels, _core, _ends, _reduce, _workers, transfer
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

# How many seconds the workers of a broken pool have to end, all together; those that are
# still there one second before are killed.
_GRACE = 5.0

# How many seconds a worker may take to end after its sentinel says that it has. A worker
# that lives on has closed the sentinel together with its other descriptors.
_DYING = 0.2

# At process exit: after so many seconds without a sign of life the dispatcher is given up,
# and so are workers that were told to stop.
_STUCK = 60.0

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
            # (A forked child must not take its parent's calls back.)
            if pool is not None and task is not None and pool.pid == os.getpid():
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
        # Two threads may cancel it at a time: one of them tells.
        with self._condition:
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
        self.future.fail(error)


class _Worker:
    """A worker's process, and the calls that it has, in the order of their sending."""

    def __init__(self, process, requests, left, is_child):
        self.process = process
        self.requests = requests
        # Not so with a fork server, whose child it is.
        self.is_child = is_child
        # The process is there; see `has_started`.
        self.is_up = False
        # The pool has ended before the process was there: whoever starts it ends it.
        self.is_late = False
        self.tasks = collections.OrderedDict()  # type: Dict[int, _Task]
        # How many calls it will do, if that is limited.
        self.left = left
        # Why its initializer failed.
        self.unfit = None  # type: Optional[BaseException]

    def has_started(self):
        """Tell whether the process is there: it is started without the pool's lock."""
        self.is_up = self.is_up or self.process.pid is not None
        return self.is_up

    def has_ended(self):
        """Tell whether the process is gone."""
        if not self.process.is_alive():
            # The fork server of 3.6 leaves it to the process itself to tell of its end.
            tells = self.is_child or sys.version_info >= (3, 7)
            return tells or not _serves(self.process.pid)
        if self.is_child:
            # `is_alive` says yes for ever if others have taken the exit code: os.wait() of the
            # program, or the kernel where SIGCHLD is ignored. Then it is no child any more.
            try:
                os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
        return False

    def exit_code(self):
        """Return the exit code of the process, which has ended; None if nobody knows it."""
        process = self.process
        # (Without a limit it would wait for one that lives on without its sentinel.)
        process.join(0)
        # Another thread may be about to tell, which has asked for all children's.
        end = time.monotonic() + 1
        while process.exitcode is None and time.monotonic() < end:
            time.sleep(0.001)
        return process.exitcode

    def send_signal(self, number):
        """Send the process a signal, if it is still there."""
        if self.has_started() and not self.has_ended():
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

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
        # Held for moments, and never while anything is pickled, a future is told, or a process
        # is started or waited for.
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
        self.has_ended = False
        # Released when the pool has ended.
        self.end_lock = threading.Lock()
        self.end_lock.acquire()
        # The thread that starts workers, in a list of its own; no other one does meanwhile.
        self.starter = None  # type: Optional[List[int]]
        # Counts on for as long as the dispatcher is not stuck.
        self.beats = 0
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
        if _over and _ends.is_forsaken():
            _ends.stay()
        with self.lock:
            if self.broken is not None:
                raise BrokenProcessPool(self.broken)
            if self.is_ending or _over:
                over = "interpreter shutdown" if _over else "shutdown"
                raise RuntimeError("cannot schedule new futures after " + over)
            self.pending.append(task)
        if self.thread is None or len(self.workers) < self.settings.workers:
            self.start(task)
        if self.is_waiting:
            self.is_waiting = False
            self.wake()
        return future

    def start(self, task=None):
        """Start the workers that are missing, and the dispatcher's thread.

        Should that fail, `task` is not pending any more.
        """
        claim = [threading.get_ident()]
        try:
            while True:
                begin = self.next_start(claim)
                if begin is None:
                    return
                begin()
        except BaseException as error:
            with self.lock, suppress(ValueError):
                self.pending.remove(task)
            if self.thread is None:
                self.leave_start(error)
            raise
        finally:
            if self.starter is claim:
                self.starter = None

    def leave_start(self, error):
        """Deal with a start that has failed before there was a dispatcher."""
        if not self.pending:
            self.end_workers()
            return
        # Other threads have submitted calls meanwhile, and left the start to this one: the
        # dispatcher tries again.
        try:
            self.start_dispatcher()
        except BaseException:
            self.breaks("its workers could not be started: {!r}".format(error))

    def next_start(self, claim):
        """Return the method that starts what is missing; None if nothing is, or another thread
        starts it.

        The thread with the claim is the only one that starts anything. It gives the claim back
        in the same moment in which it sees that nothing is missing: a call that comes later finds
        it free.
        """
        settings = self.settings
        with self.lock:
            # (A handler of a signal may have come in the thread that has the claim.)
            is_free = self.starter is None or self.starter is claim
            if not is_free or self.broken is not None or self.is_over:
                return None
            self.starter = claim
            missing = settings.workers - len(self.workers)
            if self.thread is not None or not settings.starts_all:
                idle = sum(1 for worker in self.workers.values() if not worker.tasks)
                missing = min(missing, len(self.pending) - idle)
            if missing > 0:
                return self.start_worker
            if self.thread is None:
                return self.start_dispatcher
            self.starter = None
            return None

    def is_starting(self):
        """Tell whether another thread starts workers."""
        starter = self.starter
        return starter is not None and starter != [threading.get_ident()]

    def start_dispatcher(self):
        self.watch_end()
        thread = threading.Thread(target=self.run, name="ExecutorDispatcher", daemon=True)
        self.thread = thread
        try:
            thread.start()
        except BaseException:
            # There is no thread, or Ctrl-C came while this one waited for it to begin: then
            # it sees that it is not wanted, unless it has begun already.
            with self.lock:
                if not self.beats:
                    self.thread = None
            raise

    def watch_end(self):
        """Have all calls done before this process ends."""
        _watch_end()
        _pools.add(self)

    def start_worker(self):
        self.watch_end()
        settings = self.settings
        method = settings.context.get_start_method()
        number, requests = next(self.numbers), self.channel()
        process = settings.context.Process(
            target=_reduce.worker,
            args=(
                number, _channels.Sent(requests), _channels.Sent(self.replies),
                settings.results.threshold, settings.results.copied, settings.gives,
                settings.limit, settings.initializer, settings.initargs,
            ),
        )  # fmt: skip
        worker = _Worker(process, requests, settings.limit, method != "forkserver")
        # Ctrl-C is for those who can deal with it: a worker, when it is one. (A fork server
        # would hand that on to others.)
        blocked = [] if method == "forkserver" else [signal.SIGINT]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
            with self.lock:
                self.workers[number] = worker
            process.start()
        except BaseException:
            # One that has started stays, whatever came then; if that is not known yet, it ends.
            if process.pid is None:
                with self.lock:
                    self.workers.pop(number, None)
                _tell_to_stop(worker)
                requests.let_go()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            with self.lock:
                is_late = worker.is_late and worker.has_started()
            if is_late:
                self.end_workers([worker])
                self.replies.close()
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
            return None, _workers.own_error(error.with_traceback(error.__traceback__.tb_next))
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
            if load < room and worker.left != load and (worker.is_up or worker.has_started()):
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
        self.tell(task, error)

    def tell(self, task, error, value=None):
        """Have a call fail, or with None for the error return a value; its callbacks are called."""
        if error is None:
            task.succeed(value)
        else:
            task.fail(error)
        # A callback may have forked this process, and the child come back from it.
        _workers.end_if_cloned(self.pid)

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
                if thief.tasks or thief.left == 0 or not thief.is_up:
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
        with self.lock:
            if self.thread is not threading.current_thread():
                return  # Its start was interrupted, see `start_dispatcher`.
            self.beats += 1
        try:
            self.serve()
        except BaseException as error:
            self.breaks("its dispatcher failed: {!r}".format(error), _workers.text_of(error))
            raise
        finally:
            self.end()

    def serve(self):
        """Take answers and send calls until there is nothing more to do."""
        while not self.is_done():
            self.beats += 1
            self.is_waiting = True
            with self.lock:
                idle = self.free_worker() is None
            self.replies.poll(_LOOK if idle else 0)
            self.is_waiting = False
            dead = self.find_dead()
            self.answer()
            for number in dead:
                self.bury(number)
            if self.pending and not self.workers:
                self.replace_workers()  # Also if another thread began to, and failed.
            self.dispatch()
            self.balance()

    def find_dead(self):
        """Return the numbers of workers that have ended, if nobody has looked for a while."""
        now = time.monotonic()
        if now - self.looked < _LOOK:
            return []
        self.looked = now
        with self.lock:
            workers = [each for each in self.workers.items() if each[1].has_started()]
            for _, worker in workers:
                # Those that a signal's exception has left.
                for number in [n for n, task in worker.tasks.items() if task.is_cancelled]:
                    del worker.tasks[number]
        if now - self.looked_well > _PATIENCE:
            self.looked_well = now
            return [n for n, worker in workers if worker.has_ended()]
        sentinels = {worker.process.sentinel: n for n, worker in workers}
        return [sentinels[sentinel] for sentinel in connection.wait(list(sentinels), 0)]

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
        error = value = None
        try:
            value = transfer.loads(stream)
            # Whoever looks for leaks looks when he has the answer.
            stream = keeper = None
        except BaseException as why:
            error = _workers.own_error(why)
        else:
            if kind == _workers.ERROR:
                error = _workers.unpack_error(value)
        self.tell(task, error, value)

    # Deaths, and the end.

    def bury(self, number):
        """Deal with the end of a worker."""
        worker = self.workers.get(number)
        if worker is None:
            return
        fate = self.make_end(worker)
        self.answer()  # What it said before.
        code, retries = worker.exit_code(), self.settings.retries
        with self.lock:
            self.workers.pop(number, None)
            untouched = {number for number, _ in worker.take_back()}
            tasks = list(worker.tasks.values())
            worker.tasks.clear()
            self.is_full = False
            worker.requests.close()
            done = [task for task in tasks if task.is_sent and task.number not in untouched]
            well = code in (0, None) and worker.left == 0 and not done and worker.unfit is None
            for task in done:
                task.deaths += 1
            # With retries a call that always kills its worker fails alone.
            failed = [task for task in done if 0 < retries < task.deaths]
            for task in reversed(tasks):
                task.is_sent = False
                if task not in failed:
                    self.pending.appendleft(task)
        # What it held.
        _core.Arena.default().reap()
        if not well:
            text = "the worker with pid {} {}".format(worker.process.pid, fate or _fate(code))
            if worker.unfit is not None:
                text = "the initializer of a worker failed: {!r}".format(worker.unfit)
            elif done:
                text += " while it ran {}".format(" and ".join(task.name for task in done))
                self.fail_alone(failed, text)
            else:
                # No call can be blamed for it, so none says when to give up.
                self.deaths += 1
            hopeless = worker.unfit is not None or (done and not retries)
            if hopeless or self.deaths > retries * self.settings.workers:
                self.breaks(text, worker.unfit and str(worker.unfit.__cause__))
                return
        if self.pending:
            self.replace_workers()

    def make_end(self, worker):
        """Wait until a worker has ended whose sentinel says so. One that lives on has closed that,
        as libraries do which make a process a daemon: nobody could tell when it dies, and others
        may take it for dead. It is killed; return how to say so then."""
        if not self.await_ends([worker], _DYING):
            return None
        worker.send_signal(signal.SIGKILL)
        self.await_ends([worker], _GRACE)
        return "was killed, since it had closed its file descriptors"

    def fail_alone(self, tasks, text):
        """Have calls fail for which their workers have died, again and again."""
        for task in tasks:
            task.begin()
            self.tell(task, BrokenProcessPool("{}, {} times".format(text, task.deaths)))

    def replace_workers(self):
        """Start what is missing; the pool breaks if that cannot be done."""
        try:
            self.start()
        except BaseException as error:
            text = "its workers could not be started: {!r}".format(error)
            self.breaks(text, _workers.text_of(error))

    def breaks(self, text, trace=None):
        """Break the pool: fail all calls, and end all workers.

        `trace` is the traceback of what it is for, as text.
        """
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
            error.__cause__ = trace and _workers.trace_of(trace)
            self.tell(task, error)

    def finish(self):
        """End when all calls are done."""
        if os.getpid() == self.pid:
            self.is_ending = True
            self.wake()

    def cancel(self):
        """Cancel what no worker has taken yet."""
        # (The last ones first: else a worker may take one meanwhile.)
        for task in reversed(self.all_tasks()):
            task.future.cancel()

    def all_tasks(self):
        """Return the calls that have no answer yet."""
        with self.lock:
            tasks = [task for worker in self.workers.values() for task in worker.tasks.values()]
            return tasks + list(self.pending)

    def kill(self, number):
        """Send all workers a signal; the pool breaks of it."""
        self.breaks("its workers were ended by {}".format(signal.Signals(number).name))
        with self.lock:
            workers = list(self.workers.values())
        for worker in workers:
            worker.send_signal(number)
        self.wake()

    def join(self, patience=None):
        """Wait until the pool has ended.

        Parameters
        ----------
        patience : float, optional
            For how many seconds the dispatcher may show no sign of life before it is given up.
        """
        if self.thread is threading.current_thread():
            return
        # Ctrl-C can end a `with` statement without its end, before 3.10 any, and always one of a
        # condition, see `_futures`: the dispatcher would wait for what this thread has locked,
        # and this thread for the dispatcher.
        while self.lock._is_owned():
            self.lock.release()
        for task in self.all_tasks():
            task.future.release()
        sign, since = None, time.monotonic()
        # (Not by `Thread.join`: Ctrl-C in it can leave the lock of a thread that has ended
        # locked before 3.12, and the next join waits for ever. Should it come between these
        # two steps, another thread that waits sees the attribute half a second later.)
        while not self.has_ended:
            if self.thread is None and not self.is_starting():
                self.end()
            if self.end_lock.acquire(True, 0.5):
                self.end_lock.release()
            now, before = time.monotonic(), sign
            # A dispatcher that copies something huge uses the processor.
            sign = self.beats, round(time.process_time(), 1)
            if sign != before:
                since = now
            elif patience is not None and now - since > patience:
                self.give_up()
                return

    def give_up(self):
        """Kill the workers, at process exit, of a dispatcher that does not go on: in a callback that
        waits for ever, say. `multiprocessing` would wait for them for ever."""
        _base.LOGGER.critical(
            "A process pool was given up at exit: its thread has done nothing for %d seconds "
            "(a callback of a future that waits for something?)", _STUCK,
        )  # fmt: skip
        for worker in list(self.workers.values()):
            worker.send_signal(signal.SIGKILL)

    def await_ends(self, workers, seconds):
        """Wait until workers have ended, for so many seconds in all; return those that have not.

        (Not by `Process.join`: with a limit that waits for the sentinel, which the processes keep
        open that the worker has started.)
        """
        end, pause = time.monotonic() + seconds, 0.001
        while True:
            workers = [worker for worker in workers if not worker.has_ended()]
            if not workers or time.monotonic() >= end:
                return workers
            self.beats += 1
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    def end_workers(self, workers=None):
        """End some workers, or all."""
        with self.lock:
            if workers is None:
                workers, self.workers = list(self.workers.values()), {}
            for worker in workers:
                worker.is_late = not worker.has_started()
            left = workers = [worker for worker in workers if not worker.is_late]
        if self.broken is None:
            told = [worker for worker in workers if _tell_to_stop(worker)]
            # A worker may have threads and children of its own that it waits for: as long as
            # they like, but not at the end of this process.
            since = time.monotonic()
            while told and not (_over and time.monotonic() - since > _STUCK):
                told = self.await_ends(told, 1)
            left = [worker for worker in workers if not worker.has_ended()]
        for worker in left:
            worker.send_signal(signal.SIGTERM)
        left = self.await_ends(left, _GRACE - 1)
        for worker in left:
            worker.send_signal(signal.SIGKILL)
        # (One that cannot be killed is stuck in the kernel.)
        self.await_ends(left, 1)
        for worker in workers:
            worker.process.join(0)
            worker.requests.close()

    def end(self):
        """End the workers, and let go of everything."""
        is_mine = False
        try:
            with self.lock:
                if self.is_over:
                    return
                self.is_over = is_mine = True
                tasks = list(self.pending)
                self.pending.clear()
            # Another thread may be starting a worker that this pool needs no more. Should that
            # hang, the worker ends when it is there.
            deadline = time.monotonic() + _GRACE
            while self.is_starting() and time.monotonic() < deadline:
                self.beats += 1
                time.sleep(0.01)
            self.end_workers()
            if not self.is_starting():
                self.replies.close()
            self.settings.initargs = ()
            for task in tasks:
                # Submitted in a handler of a signal that came while workers were started.
                self.tell(task, RuntimeError("cannot schedule new futures after shutdown"))
            # What the workers still held at their end.
            _core.Arena.default().reap()
        finally:
            if is_mine:
                self.has_ended = True
                self.end_lock.release()


def _serves(pid):
    """Tell whether a process is a living child of the fork server."""
    from multiprocessing import forkserver

    try:
        with open("/proc/{}/stat".format(pid)) as file:
            state, parent = file.read().rpartition(")")[2].split()[:2]
    except OSError:
        return False
    return state != "Z" and int(parent) == forkserver._forkserver._forkserver_pid


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
        pool.join(_STUCK)


# Where plain arrays in results can lie.
_RESULTS = ("shared", "copy", "in_place")


# The default arena has places for so many processes beside an executor's workers, and so many
# in all, at least.
_OTHERS, _USUAL = 64, 256


def count_workers(max_workers: "Optional[int]") -> int:
    """Return how many workers an executor has that is given this number, or None.

    Each is a member of the arena in which this process allocates. If that is not there yet it will
    be made with places enough, unless the environment says for how many processes.

    Raises
    ------
    TypeError, ValueError
        It is no number of workers, or the arena has fewer places.
    """
    most = _core.MOST_PLACES
    if max_workers is not None:
        max_workers = _integer("max_workers", max_workers)
        if not 0 < max_workers < most:
            raise ValueError(
                "max_workers must be greater than 0 and at most {}, not {}: an arena has places for "
                "at most {} processes, and this one is one of them".format(
                    most - 1, max_workers, most
                )
            )
    wanted = len(os.sched_getaffinity(0)) if max_workers is None else max_workers
    # (A set of processes has 64 bits in a word.)
    needed = -(-max(wanted + _OTHERS, _USUAL) // 64) * 64
    places = _core.places(min(needed, most))
    if max_workers is None:
        return min(wanted, places - 1)
    if max_workers >= places:
        raise ValueError(
            "max_workers={} and this process need {} places in the program's arena, which has {}: "
            "set SHARED_NUMPY_ARENA=processes={} or more (at most {}) in the environment of the "
            "program".format(max_workers, max_workers + 1, places, max_workers + 1, most)
        )
    return max_workers


class ProcessPoolExecutor(Executor):
    """Runs functions in other processes, as ``concurrent.futures.ProcessPoolExecutor``.

    The arrays in arguments and results, at whatever depth, go through shared memory: a
    shared array by reference, a plain one as a copy that belongs to the function, or to
    the caller, alone.

    Parameters
    ----------
    max_workers : int, optional
        How many processes, 1,023 at most; by default as many as there are CPUs for this one, if
        the arena has so many places. An arena that is there already has 256 by default; one that
        is made for the executor has places for its workers and 64 other processes at least. What
        ``SHARED_NUMPY_ARENA=processes=N`` says in the environment holds for either.
    mp_context : multiprocessing context or str, optional
        Which start method is used, also by its name (``"spawn"``); by default that of
        `multiprocessing`.
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
    results : {"shared", "copy", "in_place"}
        Where plain arrays in results lie. "shared": in shared memory, which is freed with the
        last view of them. "copy": in ordinary memory, copied once more. "in_place": as "shared",
        and the workers allocate their large arrays there from the beginning,
        so that those which a function returns need no copy. One that is still referred to
        after the call, or was there when the worker forked a process, is copied as ever;
        so is what other threads of the worker make, what would leave less than a quarter
        of /dev/shm free, and all where numpy is older than 1.22. Such memory is taken when
        it is allocated: ``numpy.empty`` and ``zeros`` of much that is never used cost it.

    Raises
    ------
    TypeError, ValueError
        An argument is none of these, or the arena has fewer places than the workers need.

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
        results: str = "shared"
    ) -> None:
        max_workers = count_workers(max_workers)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable, not {!r}".format(initializer))
        try:
            threshold = min(operator.index(threshold), sys.maxsize)
        except TypeError:
            raise TypeError(
                "threshold is a number of bytes, an integer, not {!r}; with sys.maxsize no "
                "array is moved".format(threshold)
            ) from None
        retries = _integer("retries", retries)
        if threshold < 0 or retries < 0:
            raise ValueError(
                "threshold and retries are not negative: {}, {}".format(threshold, retries)
            )
        if results not in _RESULTS:
            raise ValueError(
                "results must be one of {}, not {!r}".format(", ".join(map(repr, _RESULTS)), results)
            )
        context = _context(mp_context)
        if max_tasks_per_child is not None:
            max_tasks_per_child = _integer("max_tasks_per_child", max_tasks_per_child)
            if max_tasks_per_child < 1:
                raise ValueError(
                    "max_tasks_per_child must be >= 1, not {}".format(max_tasks_per_child)
                )
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
                transfer.MOVED._replace(threshold=threshold, copied=results == "copy"),
                results == "in_place", retries,
            )
        )  # fmt: skip
        weakref.finalize(self, self._pool.finish).atexit = False

    @property
    def _processes(self):
        """The workers' processes by their ids, as the standard library's class has them."""
        workers = list(self._pool.workers.values())
        return {each.process.pid: each.process for each in workers if each.has_started()}

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
        TypeError, ValueError
            `chunksize` or `buffersize` is no integer, or less than 1.
        ImportError
            tqdm is not installed.
        """
        chunksize = _integer("chunksize", chunksize)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1, not {}".format(chunksize))
        if buffersize is not None:
            buffersize = _integer("buffersize", buffersize, " or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0, not {}".format(buffersize))
        bar = progress_bar() if progress else None
        end = None if timeout is None else timeout + time.monotonic()
        calls = zip(*iterables)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        sent = (
            self.submit(_reduce.call_each, fn, chunk) if chunksize > 1 else self.submit(fn, *chunk[0])
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


def _integer(name, value, others=""):
    """Return an argument as an integer."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError("{} must be an integer{}, not {!r}".format(name, others, value)) from None


def _context(given):
    """Return the context of multiprocessing that was given, or named."""
    if given is None or isinstance(given, str):
        return multiprocessing.get_context(given)
    if not callable(getattr(given, "Process", None)):
        raise TypeError(
            "mp_context must be a context of multiprocessing or a start method's name ({}), "
            "not {!r}".format(", ".join(multiprocessing.get_all_start_methods()), given)
        )
    return given


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


def call_each(function, calls):
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
