"""A manager of shared memory blocks.

The twin of `SharedMemoryManager` in CPython's ``multiprocessing.managers``, with
the blocks of `shared_numpy.shared_memory`. On 3.6 and 3.7 it behaves as 3.8's
does: the server ignores Ctrl-C, and misuse is a `ProcessError` (the base class
there uses assertions). Beyond it: registered types work (not so in 3.8), and a
manager that is passed to a spawned child is connected there.
"""

import signal
from contextlib import suppress
from multiprocessing import ProcessError
from multiprocessing import managers as _twin
from multiprocessing.managers import BaseManager, Server, State, dispatch

from . import _posixshmem, resource_tracker
from .shared_memory import ShareableList, SharedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, List, Tuple

    from .shared_memory import Item

__all__ = ["SharedMemoryManager"]

# Its server treats Ctrl-C and misuse as ours does.
_COMPLETE_BASE = hasattr(_twin, "SharedMemoryManager")


class SharedMemoryServer(Server):
    """The server of a `SharedMemoryManager`: it knows which blocks there are."""

    public = list(Server.public) + [
        "track_segment",
        "release_segment",
        "list_segments",
    ]

    def __init__(self, *args: "Any", **kwargs: "Any") -> None:
        super().__init__(*args, **kwargs)
        self._segments = []  # type: List[str]

    def track_segment(self, c: "Any", segment_name: str) -> None:
        """Take over a block: it is unlinked when the manager ends."""
        self._segments.append(segment_name)

    def release_segment(self, c: "Any", segment_name: str) -> None:
        """Unlink a block now.

        Raises
        ------
        ValueError
            The manager has no such block.
        """
        if segment_name not in self._segments:
            raise ValueError("this manager has no block {!r}".format(segment_name))
        self._segments.remove(segment_name)
        _destroy(segment_name)

    def list_segments(self, c: "Any") -> "List[str]":
        """Return the names of the blocks."""
        return list(self._segments)

    def shutdown(self, c: "Any") -> None:
        """Unlink all blocks and end the server."""
        while self._segments:
            # Whatever is wrong with one (its user unlinked it), the others go.
            with suppress(OSError):
                _destroy(self._segments.pop())
        super().shutdown(c)


def _destroy(name):
    """Unlink a block without attaching to it, which can fail."""
    _posixshmem.shm_unlink("/" + name)
    resource_tracker.unregister("/" + name, "shared_memory")


class SharedMemoryManager(BaseManager):
    """Makes blocks of shared memory that are all unlinked when it ends.

    Parameters
    ----------
    address, authkey, serializer, ctx
        As for ``multiprocessing.managers.BaseManager``.

    Raises
    ------
    ProcessError
        It is started twice, or used after its shutdown.

    Examples
    --------
    >>> with SharedMemoryManager() as manager:
    ...     block = manager.SharedMemory(1000)
    ...     items = manager.ShareableList([1, "two"])
    ...     block.buf[0] = items[0]

    Notes
    -----
    Blocks are made in the calling process; the server, a process of its own,
    remembers their names. It survives Ctrl-C, so that `shutdown` can run after
    it.
    """

    _Server = SharedMemoryServer

    def __init__(self, *args: "Any", **kwargs: "Any") -> None:
        # Before the server exists, so that the two have the same one.
        resource_tracker.ensure_running()
        super().__init__(*args, **kwargs)

    def __reduce__(self) -> "Tuple[Any, ...]":
        # The key travels to a process that is being spawned, and nowhere else.
        return _connected, (type(self), self._address, self._authkey, self._serializer)

    def get_server(self) -> SharedMemoryServer:
        """Return a server, to be run by its ``serve_forever`` in this process."""
        if self._state.value == State.STARTED:
            raise ProcessError("Already started SharedMemoryServer")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("SharedMemoryManager has shut down")
        return self._Server(
            self._registry, self._address, self._authkey, self._serializer
        )

    def SharedMemory(self, size: int) -> SharedMemory:
        """Make a block of `size` bytes that the manager unlinks at its end."""
        with self._connection() as connection:
            shm = SharedMemory(create=True, size=size)
            return _handed_over(connection, shm, shm)

    def ShareableList(self, sequence: "Iterable[Item]") -> ShareableList:
        """Make a list that the manager unlinks at its end."""
        with self._connection() as connection:
            sl = ShareableList(sequence)
            return _handed_over(connection, sl, sl.shm)

    def _connection(self):
        """Connect to the server; a ValueError if it is not started."""
        return self._Client(self._address, authkey=self._authkey)

    if not _COMPLETE_BASE:

        def start(self, initializer: "Any" = None, initargs: "Tuple[Any, ...]" = ()) -> None:
            """Start the server's process."""
            if self._state.value == State.STARTED:
                raise ProcessError("Already started server")
            if self._state.value == State.SHUTDOWN:
                raise ProcessError("Manager has shut down")
            super().start(initializer, initargs)

        def __enter__(self) -> "SharedMemoryManager":
            if self._state.value == State.INITIAL:
                self.start()
            if self._state.value == State.SHUTDOWN:
                raise ProcessError("Manager has shut down")
            return self

        @classmethod
        def _run_server(cls, *args, **kwargs):
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            super()._run_server(*args, **kwargs)


def _handed_over(connection, result, shm):
    """Return `result` once the server has taken over its block."""
    try:
        dispatch(connection, None, "track_segment", (shm.name,))
    except BaseException:
        shm.close()
        shm.unlink()
        raise
    return result


def _connected(cls, address, authkey, serializer):
    """Make a manager that uses the running server of another."""
    manager = cls(address, authkey, serializer)
    manager.connect()
    return manager
