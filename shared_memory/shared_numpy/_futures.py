"""A future that costs little as long as nobody waits for it.

Most of what a future of the standard library costs is its condition, which seven objects make
up, and the lists beside it. Most futures of a pool are done before anybody asks: they need none
of that. Here they get it when it is first asked for.
"""

import threading
from concurrent.futures import Future, _base

from . import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

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
            self.set_result(result)

    def result(self, timeout: "Optional[float]" = None) -> "Any":
        if self._state == _base.FINISHED and self._exception is None:
            return self._result
        try:
            return super().result(timeout)
        finally:
            # An exception has this frame.
            self = None  # type: ignore

    result.__doc__ = Future.result.__doc__

    def __reduce__(self) -> "Any":
        raise TypeError("a future cannot be pickled or copied")
