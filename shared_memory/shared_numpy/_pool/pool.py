"""A pool: its scheduler, its supervisor, and the dispatcher's thread, which drives both.

`executor` opens with a picture of how they work together.
"""

import itertools
import multiprocessing
import os
import signal
import threading
import time
import weakref
from concurrent.futures import _base
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import util

from .. import _channels, _core
from .._pickling import pickler
from .._system import exit_order, records
from ..errors import ArenaFullError
from . import at_exit, worker_main
from .scheduler import Scheduler
from .supervisor import Supervisor
from .task import Task, TaskFuture
from .worker_process import describe_exit, explain_failed_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional

    from .settings import Settings

# So many answers are taken at a time.
_ANSWERS = 64


class Pool:
    """The workers of an executor and their dispatcher; it outlives an executor that is dropped.

    Methods say which threads call them: "any", or the dispatcher alone. None of them may be
    called with the scheduler's lock held, since they pickle, settle futures (which calls the
    callbacks of users), or start and join processes.
    """

    def __init__(self, settings: "Settings") -> None:
        self.settings = settings
        self.reference = weakref.ref(self)
        self.pid = os.getpid()
        self.scheduler = Scheduler(settings)
        self.supervisor = Supervisor(settings, self.scheduler)
        self._numbers = itertools.count(1)
        # How many workers have died since the last answer. Dispatcher.
        self._deaths = 0
        # The dispatcher waits, or is about to.
        self._is_waiting = False
        # Released when the pool has ended.
        self._has_ended = False
        self._end_lock = threading.Lock()
        self._end_lock.acquire()
        util.register_after_fork(self, Pool._reset_in_child)

    def _reset_in_child(self):
        """Let go of what belongs to the parent, in a child of `multiprocessing`: perhaps one of
        the workers."""
        self.settings.arguments.shared_copies.used()
        self.scheduler.reset_in_child()
        self.supervisor.reset_in_child(multiprocessing.current_process())

    # Calls: any thread.

    def submit(self, call: "Any") -> TaskFuture:
        """Have a call done; return its future. Any thread."""
        if os.getpid() != self.pid:
            raise RuntimeError("an executor can be used only in the process that made it")
        future = TaskFuture(self)
        future._task = task = Task(next(self._numbers), future, call)
        if at_exit.has_begun() and exit_order.is_forsaken():
            exit_order.stay()
        self.scheduler.add(task)
        supervisor = self.supervisor
        if supervisor.thread is None or len(self.scheduler.workers) < self.settings.workers:
            self._start(task)
        if self._is_waiting:
            self._is_waiting = False
            supervisor.wake()
        return future

    def _start(self, task=None):
        """Start the workers that are missing, and the dispatcher. Any thread.

        Should that fail, `task` is not pending any more.
        """

        def on_failure(error):
            self.scheduler.discard(task)
            if self.supervisor.thread is None:
                self._leave_start(error)

        if self.supervisor.thread is None:
            at_exit.watch(self)
        self.supervisor.start_missing(self._run, on_failure)

    def _leave_start(self, error):
        """Deal with a start that has failed before there was a dispatcher."""
        if not self.scheduler.pending:
            self.supervisor.end_workers()
            return
        # Other threads have submitted calls meanwhile, and left the start to this one: the
        # dispatcher tries again.
        try:
            self.supervisor.start_dispatcher(self._run)
        except BaseException:
            self._break("its workers could not be started: {!r}".format(error))

    def cancel_all(self) -> None:
        """Cancel the calls that no worker has taken yet. Any thread."""
        # (The last ones first: else a worker may take one meanwhile.)
        for task in reversed(self.scheduler.all_tasks()):
            task.future.cancel()

    # The dispatcher's thread.

    def _run(self):
        """Be the dispatcher's thread."""
        if not self.supervisor.begin_serving():
            return
        try:
            self._serve()
        except BaseException as error:
            self._break("its dispatcher failed: {!r}".format(error), worker_main.text_of(error))
            raise
        finally:
            self._end()

    def _serve(self):
        """Take answers and send calls until there is nothing more to do. Dispatcher."""
        scheduler, supervisor = self.scheduler, self.supervisor
        while not scheduler.is_done():
            supervisor.beats += 1
            # (Before the last look for calls: one that is added after it wakes this thread.)
            self._is_waiting = True
            if not scheduler.can_assign():
                supervisor.await_reply()
            self._is_waiting = False
            exited = supervisor.find_exited()
            self._take_answers()
            for number in exited:
                self._reap(number)
            if scheduler.pending and not scheduler.workers:
                # Also if another thread began to start them, and failed.
                self._replace_workers()
            self._dispatch()
            self._balance()
            records.emit_in_thread()

    def _dispatch(self):
        """Send pending calls to workers as long as there is room. Dispatcher."""
        while True:
            assigned = self.scheduler.assign()
            if assigned is None:
                return
            worker, task = assigned
            handles = []  # type: List[bytes]
            stream, error = self._pack(task, handles)
            if error is None:
                try:
                    self.scheduler.send(worker, task, stream, handles)
                    continue
                except ArenaFullError as full:
                    error = full
                finally:
                    # (Sending has taken the handles out of the list.)
                    pickler.cancel(handles)
            if isinstance(error, ArenaFullError) and self.scheduler.requeue(worker, task):
                # There is room again when another call is done.
                return
            if self.scheduler.unassign(worker, task):
                self._settle(task, error)

    def _balance(self):
        """Give idle workers calls that wait at others. Dispatcher."""
        for task, error in self.scheduler.balance():
            self._settle(task, error)

    def _pack(self, task, handles):
        """Return a call as a stream of bytes, or None and why there can be none. Dispatcher."""
        policy = self.settings.arguments
        try:
            stream = worker_main.pack_call(task.number, task.call, handles, policy)
        except BaseException as error:
            pickler.cancel(handles)
            policy.shared_copies.used()
            # (Without this frame, which a caller that keeps the error would keep, too.)
            return None, worker_main.own_error(error.with_traceback(error.__traceback__.tb_next))
        task.copies = policy.shared_copies.used()
        return stream, None

    def _settle(self, task, error, value=None):
        """Have a future fail, or yield a value if the error is None; its callbacks are called.
        Any thread."""
        if error is None:
            task.succeed(value)
        else:
            task.fail(error)
        # A callback may have forked this process, and the child come back from it.
        worker_main.end_if_cloned(self.pid)

    def _take_answers(self):
        """Take all the answers that there are. Dispatcher."""
        while True:
            found = self.supervisor.replies.get_many(_ANSWERS, 0)
            if not found:
                return
            found.reverse()
            while found:
                self._take_answer(found)

    def _take_answer(self, found):
        """Take the last one of some answers. Dispatcher."""
        stream, owner = _channels.unpack(found.pop())
        number, worker_number, kind, seconds = worker_main.head_of(stream, worker_main.REPLY)
        worker = self.scheduler.workers.get(worker_number)
        if kind == worker_main.READY and worker is not None:
            worker.is_ready = True
        if kind == worker_main.UNFIT and worker is not None:
            # The worker exits after it; `_reap` breaks the pool.
            worker.init_error = worker_main.unpack_error(pickler.loads(stream))
        if kind not in (worker_main.RESULT, worker_main.ERROR):
            return
        task = self.scheduler.answered(worker_number, number, seconds)
        self._deaths = 0
        if not task:
            return
        error = value = None
        try:
            value = pickler.loads(stream)
            # Before the future is done: a caller that then looks at the arena's use sees nothing
            # of the message.
            stream = owner = None
        except BaseException as why:
            error = worker_main.own_error(why)
        else:
            if kind == worker_main.ERROR:
                error = worker_main.unpack_error(value)
        self._settle(task, error, value)

    # Deaths.

    def _reap(self, number):
        """Deal with the exit of a worker. Dispatcher."""
        worker = self.scheduler.workers.get(number)
        if worker is None:
            return
        fate = self.supervisor.ensure_exited(worker)
        self._take_answers()  # Those that it sent before.
        code, retries = worker.exit_code(), self.settings.retries
        taken, failed = self.scheduler.remove_worker(number, worker)
        # Free what the process held.
        _core.Arena.default().reap()
        init_error = worker.init_error
        is_regular = code in (0, None) and worker.calls_left == 0
        if not is_regular or taken or init_error is not None:
            text = "the worker with pid {} {}".format(worker.process.pid, fate or describe_exit(code))
            if init_error is not None:
                text = "the initializer of a worker failed: {!r}".format(init_error)
            elif taken:
                text += " while it ran {}".format(" and ".join(task.name for task in taken))
            elif not worker.is_ready:
                text += " before its first call"
                if code and code > 0:
                    text += explain_failed_start(self.settings.context.get_start_method())
            # Before a future tells of it.
            records.note("worker", records.WARNING, "%s", text)
            records.emit_in_thread()
            if init_error is None and taken:
                # With retries a call that always kills its worker fails alone.
                for task in failed:
                    task.begin()
                    self._settle(task, BrokenProcessPool("{}, {} times".format(text, task.deaths)))
            elif init_error is None:
                # No call can be blamed, so no call's retries limit the deaths.
                self._deaths += 1
            is_hopeless = init_error is not None or (taken and not retries)
            if is_hopeless or self._deaths > retries * self.settings.workers:
                cause = init_error and str(init_error.__cause__)
                if cause is None and code:
                    # As in CPython 3.15.
                    cause = "the process {} terminated abruptly with exit code {}".format(
                        worker.process.pid, code
                    )
                self._break(text, cause)
                return
        if self.scheduler.pending:
            self._replace_workers()

    def _replace_workers(self):
        """Start the workers that are missing; the pool breaks if that fails. Dispatcher."""
        try:
            self._start()
        except BaseException as error:
            text = "its workers could not be started: {!r}".format(error)
            self._break(text, worker_main.text_of(error))

    def _break(self, text, trace=None):
        """Break the pool: all calls fail, and the dispatcher ends all workers. Any thread.

        `trace` is the traceback of the cause, as text.
        """
        for task in self.scheduler.break_all(text) or ():
            error = BrokenProcessPool(text)
            error.__cause__ = trace and worker_main.trace_of(trace)
            self._settle(task, error)

    # The end.

    def shut_down(self) -> None:
        """Take no more calls, and end when all are done. Any thread, also in a finalizer: it takes
        no lock."""
        if os.getpid() == self.pid:
            self.scheduler.is_shut_down = True
            self.supervisor.wake()

    def kill(self, number: int) -> None:
        """Send all workers a signal; the pool breaks of it. Any thread."""
        self._break("its workers were ended by {}".format(signal.Signals(number).name))
        self.supervisor.send_signal(number)
        self.supervisor.wake()

    def join(self, patience: "Optional[float]" = None) -> None:
        """Wait until the pool has ended. Any thread; the dispatcher returns at once.

        Parameters
        ----------
        patience : float, optional
            For how many seconds the dispatcher may show no sign of life before it is given up.
        """
        supervisor = self.supervisor
        if supervisor.thread is threading.current_thread():
            return
        # Ctrl-C can leave a lock taken (see `release_lock`), also the condition of a future. Then
        # the dispatcher would wait for this thread, and this thread for the dispatcher.
        self.scheduler.release_lock()
        for task in self.scheduler.all_tasks():
            task.future.release()
        sign, since = None, time.monotonic()
        # (Not by `Thread.join`: before 3.12 Ctrl-C in it can leave the lock of a thread that has
        # ended taken, and the next join waits for ever. Should Ctrl-C come between `acquire` and
        # `release` here, other threads that wait see `_has_ended` half a second later.)
        while not self._has_ended:
            if supervisor.thread is None and not supervisor.is_starting():
                self._end()
            if self._end_lock.acquire(True, 0.5):
                self._end_lock.release()
            now, before = time.monotonic(), sign
            # A dispatcher that pickles something huge uses the processor.
            sign = supervisor.beats, round(time.process_time(), 1)
            if sign != before:
                since = now
            elif patience is not None and now - since > patience:
                self._give_up()
                return

    def _give_up(self):
        """Kill the workers, at process exit, of a dispatcher that is stuck: in a callback that
        waits for ever, say. `multiprocessing` would join them for ever."""
        _base.LOGGER.critical(
            "A process pool was given up at exit: its thread has done nothing for %d seconds "
            "(a callback of a future that waits for something?)", at_exit.STUCK,
        )  # fmt: skip
        self.supervisor.send_signal(signal.SIGKILL)

    def _end(self):
        """End the workers, and free everything. The dispatcher, as its last act; or a thread that
        joins a pool that has none."""
        closer = object()
        try:
            tasks = self.scheduler.close(closer)
            if tasks is None:
                return
            self.supervisor.end()
            self.settings.initargs = ()
            for task in tasks:
                # Added by a signal handler that came while workers were started.
                self._settle(task, RuntimeError("cannot schedule new futures after shutdown"))
            # Free what the workers held until their exit.
            _core.Arena.default().reap()
        finally:
            if self.scheduler.closer is closer:
                self._has_ended = True
                self._end_lock.release()
