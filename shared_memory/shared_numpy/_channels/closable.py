"""What queues and ring buffers have in common: each process opens them, and may close them."""

from multiprocessing import util

from .._system.generics import Subscriptable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def within(timeout: "Optional[float]") -> str:
    """Return how an error tells the time that a call has waited, in seconds; with a space before."""
    return " within {:g} s".format(max(0.0, float(timeout))) if timeout else ""


class Closable(Subscriptable):
    """An object on a channel. A subclass defines `_watch`, which each process runs once."""

    _closed = False

    def _begin(self):
        """Begin to use the object in a process: at its creation, and where it is unpickled."""
        self._watch()
        # (A forked child has forgotten the finalizers of its parent.)
        util.register_after_fork(self, _watch_in_child)

    def _watch(self):
        raise NotImplementedError

    def _check_open(self):
        if self._closed:
            raise ValueError("this {} is closed in this process".format(type(self).__name__))

    def _explain(self, error):
        """Raise ValueError if another thread has closed the object, and `error` is why a call that
        was under way has failed."""
        if self._closed and isinstance(error, OSError):
            raise ValueError(
                "this {} was closed in this process meanwhile".format(type(self).__name__)
            ) from None


def _watch_in_child(closable):
    closable._watch()
