"""A call of an executor, and its future."""

import os
from concurrent.futures import _base
from functools import partial

from .light_future import LightFuture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional


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


class Task:
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
        # The shared copies that this call keeps alive, see `shared_copies.SharedCopies`.
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
