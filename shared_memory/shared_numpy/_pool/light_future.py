"""A future that costs little as long as nobody waits for it.

Most of what a future of the standard library costs is its condition, which seven objects make
up, and the lists beside it. Most futures of a pool are done before anybody asks: they need none
of that. Here they get it when it is first asked for.
"""

import sys
import threading
from concurrent.futures import Future, _base

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# For how many seconds the condition of a future may be held. All that hold one do so for
# moments; but Ctrl-C can come as one of them leaves its `with` statement (`Condition.__exit__`
# is a function of Python's), so that nobody ever releases it.
_LONGEST_HOLD = 5

# What is made when it is first asked for.
_MADE = {"_condition": threading.Condition, "_waiters": list, "_done_callbacks": list}


class LightFuture(Future):
    """A future without a condition until somebody asks for it."""

    _result = None  # type: Any
    _exception = None  # type: Optional[BaseException]
    # Whether somebody may wait for it.
    _is_watched = False

    def __init__(self) -> None:
        # (Instead of the base's, which makes all that. The state is set here, since
        # `_core.settle` must allocate nothing to change it.)
        self._state = _base.PENDING

    def __getattr__(self, name: str) -> "Any":
        # What is not there yet.
        make = _MADE.get(name)
        if make is None:
            raise AttributeError(
                "{!r} object has no attribute {!r}".format(type(self).__name__, name)
            )
        # Before anybody has the condition, and looks at the state with it held.
        self._is_watched = True
        return self.__dict__.setdefault(name, make())

    def begin(self) -> None:
        """Be running, unless it was cancelled; nobody may cancel it meanwhile."""
        if self._state == _base.PENDING:
            self._state = _base.RUNNING

    def settle(self, result: "Any") -> None:
        """Have a result, as by `set_result`."""
        if not _core.settle(self, result, _base.RUNNING, _base.FINISHED):
            self._free_condition()
            self.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Have an exception, as by `set_exception`."""
        self._free_condition()
        self.set_exception(error)

    def _free_condition(self):
        """Release the condition if it is locked and nobody will."""
        condition = self._condition
        # (In parts: a process that was stopped meanwhile has not held it for so long.)
        for _ in range(_LONGEST_HOLD):
            if condition.acquire(timeout=1):
                condition.release()
                return
        try:
            condition._release_save()
        except RuntimeError:
            # Somebody has freed it just now; or, since 3.14, its owner alone may.
            lock = condition._lock
            if sys.version_info >= (3, 14) and lock.locked():
                lock._at_fork_reinit()

    def _invoke_callbacks(self) -> None:
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:
                # In the main thread these end the program (Ctrl-C while it cancels a future). In
                # another one they would end that, with all other calls.
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
            # An exception has this frame.
            self = None  # type: ignore

    def exception(self, timeout: "Optional[float]" = None) -> "Optional[BaseException]":
        try:
            return self._wait(super().exception, timeout)
        finally:
            self = None  # type: ignore

    result.__doc__, exception.__doc__ = Future.result.__doc__, Future.exception.__doc__

    def _wait(self, method, timeout):
        """Call a method that waits, and have the condition released whatever comes between: else
        the pool waits for it when the call is done, see `_LONGEST_HOLD`."""
        condition = self._condition
        was_mine = condition._is_owned()
        try:
            return method(timeout)
        finally:
            if not was_mine:
                self.release()
            self = method = None  # type: ignore

    def release(self) -> None:
        """Release the condition as often as this thread has locked it."""
        condition = self.__dict__.get("_condition")
        while condition is not None and condition._is_owned():
            condition.release()

    def __reduce__(self) -> "Any":
        raise TypeError("a future cannot be pickled or copied")
