"""A future that costs little as long as no thread waits for it.

Most of the cost of a future of the standard library is its condition, which consists of seven
objects, and the lists beside it. Most futures of a pool are done before any thread asks for their
result, and need none of that. A `LightFuture` makes these attributes when they are first used.
"""

import sys
import threading
from concurrent.futures import Future, _base

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# After so many seconds a locked condition counts as abandoned. Threads hold it for microseconds;
# but `Condition.__exit__` is Python code, and Ctrl-C in it can leave the lock taken for ever.
_LONGEST_HOLD = 5

# Attributes that are made at their first use.
_MADE = {"_condition": threading.Condition, "_waiters": list, "_done_callbacks": list}


class LightFuture(Future):
    """A future that has no condition until a thread uses it."""

    _result = None  # type: Any
    _exception = None  # type: Optional[BaseException]
    # A thread may wait for it: `_core.settle` then leaves it to `set_result`.
    _is_watched = False

    def __init__(self) -> None:
        # (Without the base's, which makes the condition. The state is set here, so that
        # `_core.settle` can change it without an allocation.)
        self._state = _base.PENDING

    def __getattr__(self, name: str) -> "Any":
        # Called only for attributes that do not exist yet.
        make = _MADE.get(name)
        if make is None:
            raise AttributeError(
                "{!r} object has no attribute {!r}".format(type(self).__name__, name)
            )
        # Race with `settle`: the flag is set before any thread can lock the condition and look at
        # the state.
        self._is_watched = True
        return self.__dict__.setdefault(name, make())

    def begin(self) -> None:
        """Become running, unless it is cancelled. The caller excludes a concurrent `cancel`."""
        if self._state == _base.PENDING:
            self._state = _base.RUNNING

    def settle(self, result: "Any") -> None:
        """Set the result, as `set_result` does. Dispatcher."""
        if not _core.settle(self, result, _base.RUNNING, _base.FINISHED):
            self._free_condition()
            self.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Set the exception, as `set_exception` does."""
        self._free_condition()
        self.set_exception(error)

    def _free_condition(self):
        """Release the condition if the thread that has it locked will never do so."""
        condition = self._condition
        # (Second by second: if SIGSTOP stops the process meanwhile, that does not count as waiting.)
        for _ in range(_LONGEST_HOLD):
            if condition.acquire(timeout=1):
                condition.release()
                return
        try:
            condition._release_save()
        except RuntimeError:
            # Another thread has released it just now. Or only its owner may do so: from 3.14 on.
            lock = condition._lock
            if sys.version_info >= (3, 14) and lock.locked():
                lock._at_fork_reinit()

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:
                # In the main thread KeyboardInterrupt and SystemExit end the program (Ctrl-C while
                # it cancels a future). In the dispatcher they would end the pool.
                is_main = threading.current_thread() is threading.main_thread()
                if is_main and not isinstance(error, Exception):
                    raise
                _base.LOGGER.exception("exception calling callback for %r", self)

    def result(self, timeout: "Optional[float]" = None) -> "Any":
        if self._state == _base.FINISHED and self._exception is None:
            return self._result
        try:
            return self._wait(super().result, timeout)
        finally:
            # The traceback of an exception refers to this frame, which must not refer to the
            # future in turn.
            self = None  # type: ignore

    def exception(self, timeout: "Optional[float]" = None) -> "Optional[BaseException]":
        try:
            return self._wait(super().exception, timeout)
        finally:
            self = None  # type: ignore

    result.__doc__, exception.__doc__ = Future.result.__doc__, Future.exception.__doc__

    def _wait(self, method, timeout):
        """Call a method that waits; release the condition also if Ctrl-C interrupts the method.
        Otherwise the dispatcher would wait for it (see `_LONGEST_HOLD`)."""
        condition = self._condition
        was_mine = condition._is_owned()
        try:
            return method(timeout)
        finally:
            if not was_mine:
                self.release()
            self = method = None  # type: ignore

    def release(self) -> None:
        """Release the condition as often as this thread has acquired it."""
        condition = self.__dict__.get("_condition")
        while condition is not None and condition._is_owned():
            condition.release()

    def __reduce__(self) -> "Any":
        raise TypeError("a future cannot be pickled or copied")
