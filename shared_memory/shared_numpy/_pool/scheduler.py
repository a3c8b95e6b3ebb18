"""Which worker does which call: the bookkeeping of a pool.

::

    add --> PENDING --assign--> ASSIGNED --send--> SENT --answered--> (gone)
               ^                    |                |
               +------requeue-------+                |
               +------remove_worker------------------+   its worker has died
                                     steal: SENT at another worker

Each worker has the call that it does and some that wait in its channel, as many as it does in
some milliseconds; an idle worker steals from the fullest one.

Nothing here waits, pickles, or calls code of the user. A message is put into a worker's channel
without waiting, in the same critical section that records it.
"""

import collections
import threading
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from ..errors import ArenaFullError
from . import at_exit
from .task import ASSIGNED, CANCELLED, SENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Tuple

    from .settings import Settings
    from .task import Task
    from .worker_process import WorkerProcess

# A worker has at least and at most so many calls, and enough for so many seconds.
LEAST, _MOST, _AHEAD = 2, 32, 0.002

# How much of the mean duration of a call is the last one's: the mean follows changes.
_NEWEST = 0.2


class Scheduler:
    """The calls and workers of a pool.

    `lock` guards all attributes; only `is_shut_down` is set without it, since a finalizer may do
    that. Methods take the lock themselves, but those that end in ``_locked``: their caller holds
    it. It is reentrant, since a signal handler that submits or cancels may run
    inside any of them. Methods are for any thread, unless they say "dispatcher": it is the only
    one to assign, send and answer calls.
    """

    def __init__(self, settings: "Settings") -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self.pending = collections.deque()  # type: Deque[Task]
        self.workers = {}  # type: Dict[int, WorkerProcess]
        # The mean duration of a call, in seconds.
        self.mean = None  # type: Optional[float]
        # There was no room for a call: it is sent when another one is done.
        self.is_full = False
        # Why the pool takes no calls any more: it is broken, for this reason; it is shut down, and
        # ends when its calls are done; it has ended, by the thread that has this token.
        self.broken = None  # type: Optional[str]
        self.is_shut_down = False
        self.closer = None  # type: Any

    # Calls come, and are sent.

    def add(self, task: "Task") -> None:
        """Take a new call.

        Raises
        ------
        BrokenProcessPool, RuntimeError
            No calls are taken any more.
        """
        with self.lock:
            if self.broken is not None:
                raise BrokenProcessPool(self.broken)
            if self.is_shut_down or at_exit.has_begun():
                over = "interpreter shutdown" if at_exit.has_begun() else "shutdown"
                raise RuntimeError("cannot schedule new futures after " + over)
            self.pending.append(task)

    def discard(self, task: "Optional[Task]") -> None:
        """Forget a pending call."""
        with self.lock, suppress(ValueError):
            self.pending.remove(task)  # type: ignore

    def assign(self) -> "Optional[Tuple[WorkerProcess, Task]]":
        """Choose a worker for the next call; None if there is none with room. Dispatcher."""
        with self.lock:
            while True:
                worker = self._free_worker_locked()
                if worker is None:
                    return None
                task = self.pending.popleft()
                if task.state is not CANCELLED:
                    break
            if not worker.tasks:
                task.begin()
            task.state = ASSIGNED
            worker.tasks[task.number] = task
            return worker, task

    def can_assign(self) -> bool:
        """Tell whether a call is pending and a worker has room for it."""
        with self.lock:
            return self._free_worker_locked() is not None

    def _free_worker_locked(self):
        """Return the worker with the fewest calls; None if all have enough, or none is pending."""
        if not self.pending or self.is_full:
            return None
        room = LEAST
        if self.mean is not None:
            room = max(room, min(_MOST, int(_AHEAD / max(self.mean, 1e-6))))
        best = None
        for worker in self.workers.values():
            load = len(worker.tasks)
            has_room = load < room and worker.calls_left != load
            if has_room and (worker.is_up or worker.has_started()):
                room, best = load, worker
                if not load:
                    break
        return best

    def send(
        self, worker: "WorkerProcess", task: "Task", stream: bytes, handles: "List[bytes]"
    ) -> None:
        """Put a pickled call into its worker's channel, unless the worker has died meanwhile, or
        the call was cancelled. Dispatcher.

        The channel takes the handles that it answers for out of `handles`; the caller cancels
        the rest.

        Raises
        ------
        ArenaFullError
            There is no room for it.
        """
        with self.lock:
            if worker.tasks.get(task.number) is task and task.state is ASSIGNED:
                worker.requests.put(stream, handles, 0)
                task.state = SENT
                if not self.settings.retries:
                    task.forget_arguments()

    def requeue(self, worker: "WorkerProcess", task: "Task") -> bool:
        """Have a call that found no room pending again; False if no other call is being done,
        whose end would make room. Dispatcher."""
        with self.lock:
            if not any(each.is_working_locked() for each in self.workers.values()):
                return False
            self.is_full = True
            if worker.tasks.pop(task.number, None) is not None:
                task.return_to_pending()
                self.pending.appendleft(task)
            return True

    def unassign(self, worker: "WorkerProcess", task: "Task") -> bool:
        """Take a call that cannot be sent from its worker; False if it is not there. Dispatcher."""
        with self.lock:
            if worker.tasks.pop(task.number, None) is None:
                return False
            task.begin()
            return True

    def cancel(self, task: "Task") -> bool:
        """Cancel a call; False if a worker has taken it, or it is over."""
        with self.lock:
            if task.state is CANCELLED or task.has_begun():
                return False
            for worker in self.workers.values():
                if worker.tasks.get(task.number) is not task:
                    continue
                if task.state is SENT and not worker.unsend_locked(task):
                    task.begin()
                    return False
                worker.tasks.pop(task.number, None)
            task.state = CANCELLED
            return True

    def balance(self) -> "List[Tuple[Task, BaseException]]":
        """Give idle workers calls that wait at others. Dispatcher.

        Returns
        -------
        list
            Calls that were lost, since neither worker's channel had room, and why: the caller
            has to fail them, without the lock.
        """
        lost = []  # type: List[Tuple[Task, BaseException]]
        with self.lock:
            if self.pending:
                return lost
            for thief in self.workers.values():
                if thief.tasks or thief.calls_left == 0 or not thief.is_up:
                    continue
                victim = max(self.workers.values(), key=lambda worker: len(worker.tasks))
                share = len(victim.tasks) // 2
                if thief.calls_left is not None:
                    share = min(share, thief.calls_left)
                while share > 0 and self._steal_locked(thief, victim, lost):
                    share -= 1
        return lost

    def _steal_locked(self, thief, victim, lost):
        """Move the first call that a worker has not read to another one; False if there is none,
        or no room."""
        for number, message in victim.take_unread_locked(1):
            task = victim.tasks.pop(number)
            # Where the thief's channel has no room, the call goes back, behind the others.
            for worker in (thief, victim):
                try:
                    worker.requests.put_unopened(message)
                except ArenaFullError as error:
                    why = error
                    continue
                if worker is thief and not worker.tasks:
                    task.begin()
                worker.tasks[number] = task
                return worker is thief
            task.begin()
            lost.append((task, why))
        return False

    # Calls are answered.

    def answered(self, worker_number: int, number: int, seconds: float) -> "Optional[Task]":
        """Return the call that a worker has answered, and forget it. Dispatcher."""
        with self.lock:
            worker = self.workers.get(worker_number)
            task = worker and worker.tasks.pop(number, None)
            if worker and worker.calls_left is not None:
                worker.calls_left -= 1
            if worker and task:
                task.begin()
                # The worker does the next one now.
                following = next(iter(worker.tasks.values()), None)
                if following is not None:
                    following.begin()
            self.is_full = False
            mean = seconds if self.mean is None else self.mean
            self.mean = (1 - _NEWEST) * mean + _NEWEST * seconds
            return task

    # Workers come and go.

    def count_missing_locked(self, has_dispatcher: bool) -> int:
        """Return how many workers are to be started."""
        missing = self.settings.workers - len(self.workers)
        if has_dispatcher or not self.settings.starts_all:
            idle = sum(1 for worker in self.workers.values() if not worker.tasks)
            missing = min(missing, len(self.pending) - idle)
        return missing

    def add_worker(self, number: int, worker: "WorkerProcess") -> None:
        with self.lock:
            self.workers[number] = worker

    def forget_worker(self, number: int) -> None:
        """Forget a worker that was never started."""
        with self.lock:
            self.workers.pop(number, None)

    def take_workers(self) -> "List[WorkerProcess]":
        """Forget all workers, which are about to be ended; return them."""
        with self.lock:
            workers, self.workers = list(self.workers.values()), {}
            return workers

    def started_workers(self) -> "List[Tuple[int, WorkerProcess]]":
        """Return the workers whose process exists, by number."""
        with self.lock:
            workers = [each for each in self.workers.items() if each[1].has_started()]
            for _, worker in workers:
                # `cancel` was left by an exception of a signal handler before it could.
                for number in [n for n, task in worker.tasks.items() if task.state is CANCELLED]:
                    del worker.tasks[number]
            return workers

    def remove_worker(
        self, number: int, worker: "WorkerProcess"
    ) -> "Tuple[List[Task], List[Task]]":
        """Forget a worker that has exited; its calls are pending again. Dispatcher.

        Returns
        -------
        taken : list of Task
            Those that it had read: one of them may have killed it.
        failed : list of Task
            Those of them that have killed more workers than retries allow; not pending.
        """
        with self.lock:
            self.workers.pop(number, None)
            unread = {number for number, _ in worker.take_unread_locked()}
            tasks = list(worker.tasks.values())
            worker.tasks.clear()
            worker.requests.close()
            self.is_full = False
            taken = [task for task in tasks if task.state is SENT and task.number not in unread]
            for task in taken:
                task.deaths += 1
            failed = [task for task in taken if 0 < self.settings.retries < task.deaths]
            for task in reversed(tasks):
                task.return_to_pending()
                if task not in failed:
                    self.pending.appendleft(task)
        return taken, failed

    # The end.

    def break_all(self, reason: str) -> "Optional[List[Task]]":
        """Take no more calls; return those that are to fail, or None if it is broken already."""
        with self.lock:
            if self.broken is not None:
                return None
            self.broken = reason
            tasks = list(self.pending)
            self.pending.clear()
            for worker in self.workers.values():
                tasks += worker.tasks.values()
                worker.tasks.clear()
            tasks = [task for task in tasks if task.state is not CANCELLED]
            for task in tasks:
                task.begin()
            return tasks

    def all_tasks(self) -> "List[Task]":
        """Return the calls that have no answer yet, first those that workers have."""
        with self.lock:
            # (Not in the `return`: an exception of a signal handler between the call and the exit
            # of the `with` statement would leave the lock taken.)
            tasks = self._all_tasks_locked()
        return tasks

    def _all_tasks_locked(self):
        tasks = [task for worker in self.workers.values() for task in worker.tasks.values()]
        return tasks + list(self.pending)

    def is_done(self) -> bool:
        """Tell whether there is nothing left to do, and nothing will come."""
        with self.lock:
            if self.broken is not None:
                return True
            if not (self.is_shut_down or at_exit.has_begun()) or self.pending:
                return False
            return not any(worker.tasks for worker in self.workers.values())

    def close(self, closer: object) -> "Optional[List[Task]]":
        """Be closed by a thread; return the pending calls, or None if another thread was first.

        `self.closer` tells which: also if an exception of a signal handler comes meanwhile.
        """
        with self.lock:
            if self.closer is not None:
                return None
            self.closer = closer
            tasks = list(self.pending)
            self.pending.clear()
            return tasks

    def release_lock(self) -> None:
        """Release the lock as often as this thread has taken it.

        Before 3.10 an exception of a signal handler can end a ``with`` statement and skip its
        exit, which leaves the lock taken.
        """
        while self.lock._is_owned():  # type: ignore
            self.lock.release()

    def reset_in_child(self) -> None:
        """Make a new lock in a forked child, as a thread of the parent may hold the old one; and
        release the shared copies that the parent's calls keep alive."""
        self.lock = threading.RLock()
        for task in self._all_tasks_locked():
            task.copies = ()
