"""A thread that sleeps until a worker process exits."""

import os
import select
import threading
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional


def _call_nobody():
    pass


class ExitWatch:
    """Calls a function when one of some processes exits, from a thread of its own.

    A process's sentinel becomes readable when the process exits. Each is reported once; which one
    it was the caller finds out.

    Parameters
    ----------
    on_exit : callable
        Called without arguments, after `has_seen` was set.

    Attributes
    ----------
    works : bool
        False if there is no thread or no epoll (eventlet and gevent take that away): then the
        caller has to look at the sentinels itself, now and then.
    has_seen : bool
        A process has exited. The caller sets it back before it looks.
    """

    def __init__(self, on_exit: "Callable[[], None]") -> None:
        self._on_exit = on_exit
        self._epoll = None  # type: Any
        # A byte in this pipe ends the thread.
        self._pipe = []  # type: List[int]
        self._thread = None  # type: Optional[threading.Thread]
        self._is_over = False
        self.works = self.has_seen = False

    def add(self, sentinel: int) -> None:
        """Watch one more process."""
        if self._is_over:
            return
        try:
            if self._epoll is None:
                self._epoll = select.epoll()
            self._epoll.register(sentinel, select.EPOLLIN | select.EPOLLONESHOT)
        except (AttributeError, OSError, ValueError):
            # There is no epoll, or the program has closed all its descriptors.
            self.works = False
            self._is_over = True

    def remove(self, sentinel: int) -> None:
        """Watch a process no longer. To be called before the sentinel is closed: a child of this
        process may have it open, too, and then epoll keeps it."""
        if self._epoll is not None:
            with suppress(OSError, ValueError):
                self._epoll.unregister(sentinel)

    def start(self) -> None:
        """Start the thread."""
        if self._epoll is None or self._is_over:
            return
        try:
            self._pipe.extend(os.pipe())
            self._epoll.register(self._pipe[0], select.EPOLLIN)
            thread = threading.Thread(target=self._run, name="ExecutorExitWatch", daemon=True)
            thread.start()
        except (OSError, ValueError, RuntimeError):
            return  # No descriptor, or no thread, can be had.
        self._thread = thread
        self.works = not self._is_over

    def _run(self):
        """Be the thread."""
        while not self._is_over:
            try:
                self._epoll.poll()
            except (OSError, ValueError):
                # Something has closed its descriptor.
                self.works = False
                self._is_over = True
            self.has_seen = True
            self._on_exit()

    def stop(self) -> None:
        """End the thread, and close the descriptors."""
        self.works = False
        self._is_over = True
        thread, self._thread = self._thread, None
        if thread is not None:
            with suppress(OSError):
                os.write(self._pipe[1], b"\0")
                thread.join()
        self.let_go()

    def let_go(self) -> None:
        """Close the descriptors in a forked child, where there is no such thread."""
        self.works = False
        self._is_over = True
        # It may refer to this object: then both would wait for the garbage collector.
        self._on_exit = _call_nobody
        if self._epoll is not None:
            self._epoll.close()
        while self._pipe:
            with suppress(OSError):
                os.close(self._pipe.pop())
