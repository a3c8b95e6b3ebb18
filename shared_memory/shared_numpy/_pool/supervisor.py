"""The worker processes of a pool: they are started, watched, joined and ended here.

A start or a join can take long, or hang: a ``Process`` of the user's context, a fork server that
is stopped, a process that the kernel does not let die. So no method here holds the scheduler's
lock while it starts a process, waits for one, or sends one a signal. Two threads that want to
start workers are kept apart by a claim instead of a lock: the second one does not wait, it leaves
the start to the first.
"""

import itertools
import os
import signal
import threading
import time
from contextlib import suppress
from functools import partial
from multiprocessing import connection

from .. import _channels, _reduce
from . import at_exit, worker_main
from .exit_watch import ExitWatch
from .worker_process import WorkerProcess

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, List, Optional

    from .scheduler import Scheduler
    from .settings import Settings

# The processes of workers are polled every so many seconds, since a child of a dead worker may have
# inherited its sentinel's other end, which then stays open; and their sentinels so often, where
# `ExitWatch` does not work.
_POLL_PROCESSES, _POLL_SENTINELS = 1.0, 0.05

# After SIGTERM the workers of a pool have so many seconds in all to exit. Those that are left one
# second before the end get SIGKILL.
GRACE = 5.0

# A worker exits within so many seconds after its sentinel says that it has. One that lives on has
# closed the sentinel together with its other descriptors.
_EXITING = 0.2


class Supervisor:
    """The worker processes, and the thread that serves them.

    The claim is taken with the scheduler's lock held; only the thread that has it sets `thread` and
    gives it back. No method may be called with that lock held.
    """

    def __init__(self, settings: "Settings", scheduler: "Scheduler") -> None:
        self.settings = settings
        self.scheduler = scheduler
        self.pid = os.getpid()
        # A spinning process occupies a processor that a worker may need.
        self._spins = len(os.sched_getaffinity(0)) > settings.workers + 1
        # All workers answer through one channel.
        self.replies = self._channel()
        # (An answer names its worker by 32 bits.)
        self._numbers = itertools.count(1)
        # The id of the thread that starts workers; None if none does. Each call makes a list of its
        # own, so that a signal handler in the same thread does not take the claim for its own.
        self.claim = None  # type: Optional[List[int]]
        # The dispatcher.
        self.thread = None  # type: Optional[threading.Thread]
        # Counts on as long as the dispatcher is alive: at process exit a stuck one is given up.
        self.beats = 0
        self._exit_watch = ExitWatch(self.wake)
        # Times of the last sentinel poll, and of the last `has_exited` check.
        self._polled = self._checked = 0.0

    def _channel(self):
        channel = _channels.channel(ctx=self.settings.context)
        channel.spin = self._spins
        return channel

    def wake(self) -> None:
        """Have the dispatcher look again. Any thread, also in a finalizer: it takes no lock."""
        if self.scheduler.closer is None and os.getpid() == self.pid:
            # (If the channel is full the dispatcher is awake.)
            with suppress(OSError):
                self.replies.put(worker_main.REPLY.pack(0, 0, worker_main.WAKE, 0.0), [], 0)

    # Starts.

    def start_missing(
        self, serve: "Callable[[], None]", on_failure: "Callable[[BaseException], None]"
    ) -> None:
        """Start the workers that are missing, and the dispatcher's thread. Any thread; if another
        one does so already, it returns at once.

        Parameters
        ----------
        serve : callable
            What the dispatcher's thread runs.
        on_failure : callable
            Called with the exception of a start, before that is raised: while no other thread
            starts anything.
        """
        claim = [threading.get_ident()]
        try:
            while True:
                step = self._next_start(claim, serve)
                if step is None:
                    return
                step()
        except BaseException as error:
            on_failure(error)
            raise
        finally:
            if self.claim is claim:
                self.claim = None

    def _next_start(self, claim, serve):
        """Return the function that starts what is missing; None if nothing is, or another thread
        starts it.

        Only the thread with the claim starts anything. It gives the claim back in the same
        critical section in which it sees that nothing is missing: a call that is added later
        finds it free.
        """
        scheduler = self.scheduler
        with scheduler.lock:
            # (A signal handler may run here in the thread that has the claim, and submit.)
            is_free = self.claim is None or self.claim is claim
            if not is_free or scheduler.broken is not None or scheduler.closer is not None:
                return None
            self.claim = claim
            if scheduler.count_missing_locked(self.thread is not None) > 0:
                return self._start_worker
            if self.thread is None:
                step = partial(self.start_dispatcher, serve)
                return step
            self.claim = None
            return None

    def is_starting(self) -> bool:
        """Tell whether another thread starts workers."""
        claim = self.claim
        return claim is not None and claim != [threading.get_ident()]

    def start_dispatcher(self, serve: "Callable[[], None]") -> None:
        """Start the dispatcher's thread. The thread that has the claim."""
        thread = threading.Thread(target=serve, name="ExecutorDispatcher", daemon=True)
        self.thread = thread
        try:
            thread.start()
        except BaseException:
            # There is no thread; or Ctrl-C came while `start` waited for it to begin: then it
            # sees that it is not wanted, unless it has begun already (see `begin_serving`).
            with self.scheduler.lock:
                if not self.beats:
                    self.thread = None
            raise

    def begin_serving(self) -> bool:
        """Tell whether this thread is the dispatcher; false if its start was interrupted."""
        with self.scheduler.lock:
            if self.thread is not threading.current_thread():
                return False
            self.beats += 1
        self._exit_watch.start()
        return True

    def _start_worker(self):
        """Start a worker. The thread that has the claim."""
        scheduler, settings = self.scheduler, self.settings
        method = settings.context.get_start_method()
        number, requests = next(self._numbers), self._channel()
        process = settings.context.Process(
            target=_reduce.worker,
            args=(
                number,
                _channels.ChannelArgument(requests),
                _channels.ChannelArgument(self.replies),
                settings.results.threshold,
                settings.results.copied,
                settings.gives_results,
                settings.calls_per_worker,
                settings.initializer,
                settings.initargs,
            ),
        )
        worker = WorkerProcess(
            process, requests, settings.calls_per_worker, method != "forkserver"
        )
        # A worker inherits this mask: Ctrl-C waits until it has a handler (`_Interrupts`). A fork
        # server would inherit it, too, and hand it on to the children of others.
        blocked = [] if method == "forkserver" else [signal.SIGINT]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
            scheduler.add_worker(number, worker)
            process.start()
            self._exit_watch.add(process.sentinel)
        except BaseException:
            # A process that exists stays, whatever was raised after its start. One whose `start`
            # was interrupted before its pid is known is told to stop.
            if process.pid is None:
                scheduler.forget_worker(number)
                worker.tell_to_stop()
                requests.let_go()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            with scheduler.lock:
                is_late = worker.is_late and worker.has_started()
            if is_late:
                # `end_workers` has run meanwhile, and could not wait for this one.
                self.end_workers([worker])
                self.replies.close()
        self.wake()

    # Deaths.

    def await_reply(self) -> None:
        """Wait until there is a reply, or a worker has exited, or it is time for `find_exited`.
        Dispatcher."""
        self.replies.poll(_POLL_PROCESSES if self._exit_watch.works else _POLL_SENTINELS)

    def find_exited(self) -> "List[int]":
        """Return the numbers of workers that have exited, if one has, or the last poll was a while
        ago. Dispatcher."""
        watch, now = self._exit_watch, time.monotonic()
        pause = _POLL_PROCESSES if watch.works else _POLL_SENTINELS
        if not watch.has_seen and now - self._polled < pause:
            return []
        # (Before the look: an exit after it is seen by the next one.)
        watch.has_seen = False
        self._polled = now
        workers = self.scheduler.started_workers()
        sentinels = {worker.process.sentinel: number for number, worker in workers}
        found = {sentinels[sentinel] for sentinel in connection.wait(list(sentinels), 0)}
        if now - self._checked > _POLL_PROCESSES:
            # A child of the worker may keep the sentinel open.
            self._checked = now
            found.update(number for number, worker in workers if worker.has_exited())
        return sorted(found)

    def ensure_exited(self, worker: "WorkerProcess") -> "Optional[str]":
        """Wait until a worker has exited whose sentinel says so. Dispatcher.

        A process that is still alive has closed its end of the sentinel (a library that turns the
        process into a daemon does that). Its exit could not be noticed any more, and other code
        would take it for dead already, so it is killed.

        Returns
        -------
        str or None
            How the error message names this death.
        """
        self._exit_watch.remove(worker.process.sentinel)
        if not self.await_exits([worker], _EXITING):
            return None
        worker.send_signal(signal.SIGKILL)
        self.await_exits([worker], GRACE)
        return "was killed, since it had closed its file descriptors"

    def await_exits(
        self, workers: "Iterable[WorkerProcess]", seconds: float
    ) -> "List[WorkerProcess]":
        """Wait until workers have exited, for so many seconds in all; return those that have not.

        (`Process.join` with a timeout waits for the sentinel, which the worker's own children
        keep open.)
        """
        workers = list(workers)
        end, pause = time.monotonic() + seconds, 0.001
        while True:
            workers = [worker for worker in workers if not worker.has_exited()]
            if not workers or time.monotonic() >= end:
                return workers
            self.beats += 1
            time.sleep(pause)
            pause = min(2 * pause, 0.05)

    # The end.

    def send_signal(self, number: int) -> None:
        """Send all workers a signal. Any thread; without the lock, also if the dispatcher is stuck
        with it."""
        for worker in list(self.scheduler.workers.values()):
            worker.send_signal(number)

    def end_workers(self, workers: "Optional[List[WorkerProcess]]" = None) -> None:
        """End some workers, or all: asked first, then by SIGTERM, then by SIGKILL. The dispatcher,
        or a thread that sees that there is none.

        One whose process does not exist yet is marked as late: the thread that starts it ends it.
        """
        if workers is None:
            workers = self.scheduler.take_workers()
        with self.scheduler.lock:
            for worker in workers:
                worker.is_late = not worker.has_started()
        left = workers = [worker for worker in workers if not worker.is_late]
        if self.scheduler.broken is None:
            told = [worker for worker in workers if worker.tell_to_stop()]
            # A worker joins threads and children of its own first: for as long as it takes, but
            # not at the exit of this process.
            since = time.monotonic()
            while told and not (
                at_exit.has_begun() and time.monotonic() - since > at_exit.STUCK
            ):
                told = self.await_exits(told, 1)
            left = [worker for worker in workers if not worker.has_exited()]
        for worker in left:
            worker.send_signal(signal.SIGTERM)
        left = self.await_exits(left, GRACE - 1)
        for worker in left:
            worker.send_signal(signal.SIGKILL)
        # (A process that survives SIGKILL is stuck in a system call.)
        self.await_exits(left, 1)
        for worker in workers:
            worker.process.join(0)
            worker.requests.close()

    def end(self) -> None:
        """End all workers, and close the channel of their answers. As `end_workers`."""
        # Another thread may be starting a worker that is not needed any more. If that hangs,
        # the worker is ended when it is there.
        deadline = time.monotonic() + GRACE
        while self.is_starting() and time.monotonic() < deadline:
            self.beats += 1
            time.sleep(0.01)
        self._exit_watch.stop()
        self.end_workers()
        if not self.is_starting():
            self.replies.close()

    def reset_in_child(self, process: "Any") -> None:
        """Let go of the channels in a forked child, the worker of this `process` or another one."""
        self._exit_watch.let_go()
        workers = list(self.scheduler.workers.values())
        for worker in workers:
            if worker.process is not process:
                worker.requests.let_go()
        if all(worker.process is not process for worker in workers):
            self.replies.let_go()
