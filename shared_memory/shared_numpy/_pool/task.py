"""A call of an executor, and its future."""

import enum
import os
from concurrent.futures import _base
from functools import partial

from .light_future import LightFuture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional


class State(enum.Enum):
    """Where a call is. Whether it can still be cancelled is its future's state."""

    # With the scheduler, until a worker has room for it.
    PENDING = 1
    # A worker is chosen; the dispatcher pickles the call, without the scheduler's lock.
    ASSIGNED = 2
    # In the worker's channel, or taken out of it by the worker.
    SENT = 3
    # Cancelled: nobody will do it. The last state.
    CANCELLED = 4


# (Before 3.11 each look-up of a member in its class is a call of Python code.)
PENDING, ASSIGNED, SENT, CANCELLED = State


class TaskFuture(LightFuture):
    """A future that can be cancelled until a worker has taken its call."""

    def __init__(self, pool):
        super().__init__()
        self._pool = pool.reference
        self._task = None  # type: Optional[Task]

    def cancel(self) -> bool:
        pool = self._pool()
        task = self._task
        try:
            # (A forked child must not cancel its parent's calls.)
            if pool is not None and task is not None and pool.pid == os.getpid():
                pool.scheduler.cancel(task)
            cancelled = super().cancel()
        finally:
            # Also if a signal handler raises something meanwhile.
            if task is not None and task.state is CANCELLED:
                self._notify()
        return cancelled

    def _notify(self):
        """Be cancelled, and wake the threads that wait; no worker has the call any more."""
        self._task = None
        super().cancel()
        # Two threads may cancel the future at a time: one of them notifies.
        with self._condition:
            if self._state == _base.CANCELLED:
                self.set_running_or_notify_cancel()


class Task:
    """A call, and its future. The scheduler's lock guards its state."""

    __slots__ = "number", "future", "call", "state", "copies", "deaths"

    def __init__(self, number, future, call):
        self.number = number
        self.future = future
        self.call = call
        self.state = PENDING
        # The shared copies that this call keeps alive, see `shared_copies.SharedCopies`.
        self.copies = ()  # type: Any
        # How many workers have died of it.
        self.deaths = 0

    @property
    def name(self):
        """The function's name, for error messages."""
        function = self.call[0]
        while isinstance(function, partial) and function.args and callable(function.args[0]):
            # A wrapper of this package, which calls the user's function.
            function = function.args[0]
        return getattr(function, "__qualname__", None) or repr(function)

    def has_begun(self):
        """Tell whether the future runs or is done: it cannot be cancelled any more."""
        return self.future._state != _base.PENDING

    def begin(self):
        """Have the future run, so that it cannot be cancelled any more."""
        if not self.has_begun() and self.state is not CANCELLED:
            self.future.begin()

    def return_to_pending(self):
        """Be pending again, without a worker; a cancelled call stays so."""
        if self.state is not CANCELLED:
            self.state = PENDING

    def forget_arguments(self):
        self.call = self.call[:1]

    def succeed(self, value):
        """Settle the future, which calls its callbacks: hold no lock."""
        self.future._task = None
        self.future.settle(value)

    def fail(self, error):
        """Fail the future, which calls its callbacks: hold no lock."""
        self.future._task = None
        self.future.fail(error)
