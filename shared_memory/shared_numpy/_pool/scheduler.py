"""The scheduler of an executor: which worker does which call, and what becomes of it.

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
import os
import signal
import threading
import time
import weakref
from concurrent.futures import _base
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import connection, util

from .. import _channels, _core, _reduce
from .._pickling import pickler
from .._system import exit_order
from ..errors import ArenaFullError
from . import worker_main
from .task import Task, TaskFuture
from .worker_process import WorkerProcess, describe_exit, has_calls, tell_to_stop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

TYPE_CHECKING = False

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


class Settings:
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


class Pool:
    """The workers of an executor and their dispatcher; it outlives a dropped executor."""

    def __init__(self, settings):
        self.settings = settings
        self.reference = weakref.ref(self)
        self.pid = os.getpid()
        # Held for moments, and never while anything is pickled, a future is told, or a process
        # is started or waited for.
        self.lock = threading.RLock()
        self.pending = collections.deque()  # type: Any
        self.workers = {}  # type: Dict[int, WorkerProcess]
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
        util.register_after_fork(self, Pool.forget)

    def channel(self):
        channel = _channels.channel(0, _FIRST, _LONGEST, self.settings.context)
        channel.spin = self.spins
        return channel

    def forget(self):
        """Let go of the channels in a child of multiprocessing, perhaps one of the workers."""
        self.lock = threading.RLock()
        me = multiprocessing.current_process()
        self.settings.plain.shared_copies.used()
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
        future = TaskFuture(self)
        future._task = task = Task(next(self.numbers), future, call)
        if _over and exit_order.is_forsaken():
            exit_order.stay()
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
        worker = WorkerProcess(process, requests, settings.limit, method != "forkserver")
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
                tell_to_stop(worker)
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
            stream = worker_main.pack_call(task.number, task.call, handles, plain)
        except BaseException as error:
            pickler.cancel(handles)
            plain.shared_copies.used()
            # (Who keeps the error shall not keep this frame's.)
            return None, worker_main.own_error(error.with_traceback(error.__traceback__.tb_next))
        task.copies = plain.shared_copies.used()
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
                pickler.cancel(handles)
        return None

    def give_back(self, worker, task):
        """Have a call pending again if others are being done; else return False."""
        with self.lock:
            if not any(map(has_calls, self.workers.values())):
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
        worker_main.end_if_cloned(self.pid)

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
            self.breaks("its dispatcher failed: {!r}".format(error), worker_main.text_of(error))
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
                self.replies.put(worker_main.REPLY.pack(0, 0, worker_main.WAKE, 0.0), [], 0)

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
        number, worker, kind, seconds = worker_main.head_of(stream, worker_main.REPLY)
        if kind == worker_main.UNFIT:
            # It still says why to others, and ends.
            why = worker_main.unpack_error(pickler.loads(stream))
            if worker in self.workers:
                self.workers[worker].unfit = why
        if kind not in (worker_main.RESULT, worker_main.ERROR):
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
            value = pickler.loads(stream)
            # Whoever looks for leaks looks when he has the answer.
            stream = keeper = None
        except BaseException as why:
            error = worker_main.own_error(why)
        else:
            if kind == worker_main.ERROR:
                error = worker_main.unpack_error(value)
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
            text = "the worker with pid {} {}".format(worker.process.pid, fate or describe_exit(code))
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
                cause = worker.unfit and str(worker.unfit.__cause__)
                if cause is None and code:
                    # As in CPython 3.15.
                    cause = "the process {} terminated abruptly with exit code {}".format(
                        worker.process.pid, code
                    )
                self.breaks(text, cause)
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
            self.breaks(text, worker_main.text_of(error))

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
            error.__cause__ = trace and worker_main.trace_of(trace)
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
        # condition, see `future`: the dispatcher would wait for what this thread has locked,
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
            told = [worker for worker in workers if tell_to_stop(worker)]
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


# Those that have a dispatcher, and whether the process is about to end.
_pools = weakref.WeakSet()  # type: weakref.WeakSet[Pool]

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
