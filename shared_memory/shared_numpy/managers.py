"""A manager of shared memory blocks.

The twin of `SharedMemoryManager` in CPython's ``multiprocessing.managers``, with the blocks of
`shared_numpy.shared_memory`. On 3.6 and 3.7 it behaves as that of 3.8: the server ignores Ctrl-C, and
misuse raises `ProcessError` (the base class there uses assertions). What it adds:

* Registered types work (not in 3.8).
* A manager that is passed to a spawned child is connected there.
* When a program is killed, its server unlinks its blocks and exits. If the server is killed, too,
  the next program that uses the package removes the blocks (`leftovers`).
"""

import fcntl
import mmap
import os
import signal
import tempfile
import threading
from contextlib import contextmanager, suppress
from multiprocessing import ProcessError
from multiprocessing import managers as _twin
from multiprocessing import util
from multiprocessing.connection import Connection
from multiprocessing.managers import BaseManager, Server, State, dispatch

from . import _reduce, resource_tracker
from ._system import exit_order, leftovers, posixshmem
from .shared_memory import ShareableList, SharedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, List, Optional, Tuple, TypeVar

    from .shared_memory import Item

    _Manager = TypeVar("_Manager", bound="SharedMemoryManager")

__all__ = ["SharedMemoryManager"]

# The base class treats Ctrl-C and misuse as described above.
_COMPLETE_BASE = hasattr(_twin, "SharedMemoryManager")


class SharedMemoryServer(Server):
    """The server of a `SharedMemoryManager`: it has the names of the blocks."""

    public = list(Server.public) + [
        "track_segment",
        "release_segment",
        "list_segments",
        "tell_number",
    ]

    def __init__(self, *args: "Any", **kwargs: "Any") -> None:
        super().__init__(*args, **kwargs)
        self._segments = []  # type: List[str]
        self._is_over = False

    def accepter(self) -> None:
        """Serve; and end when the program is gone that has started this server."""
        if _program is not None:
            threading.Thread(target=self._end_with_program, daemon=True).start()
        super().accepter()

    def _end_with_program(self):
        # The program has locked the file; see `_lock_program_file`.
        fcntl.flock(_program.fileno(), fcntl.LOCK_EX)
        self._destroy_all()
        # (OSError: they cannot be listed. The file tells the next program of them.)
        with suppress(OSError):
            if _number is not None:
                # Blocks that the program made, and had not handed over, when it was killed.
                for name in leftovers.clear(_number):
                    # (They may be registered; registering twice is the same as once.)
                    resource_tracker.register("/" + name, "shared_memory")
                    resource_tracker.unregister("/" + name, "shared_memory")
            _remove_file(_number)
        self.stop_event.set()

    def track_segment(self, c: "Any", segment_name: str) -> None:
        """Take over a block: the server unlinks it when the manager ends."""
        self._segments.append(segment_name)
        if self._is_over:
            # Race: another thread asked for it while the server began to shut down.
            self._destroy_all()

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

    def tell_number(self, c: "Any") -> "Optional[str]":
        """Return the number that names the manager's blocks; None if it has none."""
        return _number

    def shutdown(self, c: "Any") -> None:
        """Unlink all blocks and end the server."""
        self._destroy_all()
        _remove_file(_number)
        super().shutdown(c)

    def _destroy_all(self):
        self._is_over = True
        # (IndexError: two threads run this if the program is killed while it shuts the server down.)
        with suppress(IndexError):
            while True:
                # (The user may have unlinked a block; the others are unlinked all the same.)
                with suppress(OSError):
                    _destroy(self._segments.pop())


def _destroy(name):
    """Unlink a block. (Attaching to it, as the standard library does, could fail.)"""
    posixshmem.shm_unlink("/" + name)
    resource_tracker.unregister("/" + name, "shared_memory")


def _remove_file(number):
    """Remove the name of a manager's file, if it still exists."""
    if number is not None:
        with suppress(FileNotFoundError):
            _destroy(leftovers.file_of(number))


# In a server: the file that its program locks as long as it lives, and the manager's number.
_program = None  # type: Optional[Connection]
_number = None  # type: Optional[str]
# The locks of this process's managers, see `_lock_program_file`.
_file_locks = {}  # type: dict


def _lock_program_file(manager):
    """Lock a file for as long as this process or a fork of it lives.

    Returns a second open file description of it: a process that waits for its lock gets it when
    they are gone. The lock (of ``flock``) belongs to the first open file description, which exists
    as long as a process has a descriptor or a mapping of it. Forks inherit both, and a daemon that
    closes all descriptors keeps the mapping; a program that replaces this one by ``exec`` has
    neither. (PR_SET_PDEATHSIG is no alternative: it follows a thread, and does not work for a
    daemon.)
    """
    locked, watched, number = _open_locked()
    os.ftruncate(locked.fileno(), 1)
    manager._locked_file, manager._number = locked, number
    key = object()
    _file_locks[key] = locked, mmap.mmap(locked.fileno(), 1)
    # (Not in forks: they may have closed the descriptors, whose numbers are other files' then.)
    util.Finalize(manager, _file_locks.pop, (key, None))
    # After the finalizer of the base class, which shuts the server down: it may have been killed.
    util.Finalize(manager, _remove_file, (number,), exitpriority=exit_order.MANAGERS)
    return watched


def _open_locked():
    """Open a new file twice, and lock it by the first descriptor; return both, and its number."""
    if not leftovers.HAS_NAMES:
        # (macOS has no locks on shared memory.)
        fd, path = tempfile.mkstemp()
        try:
            locked, watched = Connection(fd), Connection(os.open(path, os.O_RDWR))
        finally:
            os.unlink(path)
        fcntl.flock(locked.fileno(), fcntl.LOCK_SH)
        return locked, watched, None
    while True:
        number = os.urandom(8).hex()
        name = "/" + leftovers.file_of(number)
        # If this process is killed before there is a server, the tracker removes the file.
        resource_tracker.register(name, "shared_memory")
        try:
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
            locked = Connection(posixshmem.shm_open(name, flags, 0o600))
            watched = Connection(posixshmem.shm_open(name, os.O_RDWR))
            fcntl.flock(locked.fileno(), fcntl.LOCK_SH)
            if leftovers.is_named(locked.fileno(), name[1:]):
                return locked, watched, number
        except FileNotFoundError:
            pass
        except BaseException:
            with suppress(FileNotFoundError):
                posixshmem.shm_unlink(name)
            resource_tracker.unregister(name, "shared_memory")
            raise
        # Race: before the lock, another program has taken it for the file of a killed manager.
        resource_tracker.unregister(name, "shared_memory")


def begin_server(watched, number, initializer, initargs):
    """The initializer of a server: it watches the program's lock, and holds none itself."""
    global _program, _number
    _program, _number = watched, number
    for locked, mapping in _file_locks.values():
        locked.close()
        mapping.close()
    _file_locks.clear()
    if initializer is not None:
        initializer(*initargs)


class SharedMemoryManager(BaseManager):
    """Makes blocks of shared memory, and unlinks all of them when it ends.

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
    The calling process makes the blocks; the server, a process of its own, has their names. It
    survives Ctrl-C, so that `shutdown` can run afterwards, and exits when the program and all its
    forks are gone, also if they were killed.
    """

    _Server = SharedMemoryServer
    _locked_file = None  # Keeps the server running: here, and in processes that get the manager.
    _number = None  # Part of the names of its blocks; None if they have ordinary names.

    def __init__(self, *args: "Any", **kwargs: "Any") -> None:
        # Before the server exists, so that both have the same tracker.
        resource_tracker.ensure_running()
        super().__init__(*args, **kwargs)

    def __reduce__(self) -> "Tuple[Any, ...]":
        # (Pickling `authkey` fails, except for a process that is being spawned.)
        arguments = self._address, self._authkey, self._serializer, self._locked_file
        return _reduce.manager, (type(self),) + arguments

    def get_server(self) -> SharedMemoryServer:
        """Return a server; its ``serve_forever`` runs it in this process."""
        if self._state.value == State.STARTED:
            raise ProcessError("Already started SharedMemoryServer")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("SharedMemoryManager has shut down")
        return self._Server(
            self._registry, self._address, self._authkey, self._serializer
        )

    def SharedMemory(self, size: int) -> SharedMemory:
        """Make a block, which the manager unlinks when it ends.

        Parameters
        ----------
        size : int
            Its length in bytes.
        """
        with self._connection() as connection:
            shm = SharedMemory(self._new_name(), create=True, size=size)
            return _handed_over(connection, shm, shm)

    def ShareableList(self, sequence: "Iterable[Item]") -> ShareableList:
        """Make a list, which the manager unlinks when it ends.

        Parameters
        ----------
        sequence : iterable
            Its items, as for `shared_numpy.ShareableList`.
        """
        with self._connection() as connection:
            sl = ShareableList(sequence, name=self._new_name())
            return _handed_over(connection, sl, sl.shm)

    def connect(self) -> None:
        """Connect to a server that runs already."""
        super().connect()
        with self._connection() as connection:
            # (A server of the standard library has no number.)
            with suppress(_twin.RemoteError):
                self._number = dispatch(connection, None, "tell_number")

    def _new_name(self):
        """Return a name for a new block; None for an ordinary one."""
        if self._number is None:
            return None
        return leftovers.prefix_of(self._number) + os.urandom(8).hex()

    @contextmanager
    def _connection(self):
        """Connect to the server; ValueError if it is not started.

        Process exit waits until a block that is made meanwhile is handed over to the server.
        """
        try:
            with exit_order.awaited():
                with self._Client(self._address, authkey=self._authkey) as connection:
                    yield connection
        except (EOFError, OSError):
            if exit_order.is_forsaken():
                # The server has ended with the program.
                exit_order.stay()
            raise

    def start(self, initializer: "Any" = None, initargs: "Tuple[Any, ...]" = ()) -> None:
        """Start the server's process.

        Parameters
        ----------
        initializer : callable, optional
            Called in that process before anything else.
        initargs : tuple
            Its arguments.

        Raises
        ------
        ProcessError
            The server was started before.
        TypeError
            `initializer` is not callable.
        """
        if self._state.value == State.STARTED:
            raise ProcessError("Already started server")
        if self._state.value == State.SHUTDOWN:
            raise ProcessError("Manager has shut down")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable, not {!r}".format(initializer))
        leftovers.clean_once()
        # (Nothing would shut down a server that is started after process exit has begun.)
        with exit_order.awaited(), _lock_program_file(self) as watched:
            super().start(_reduce.begin_server, (watched, self._number, initializer, initargs))

    if not _COMPLETE_BASE:

        def __enter__(self: "_Manager") -> "_Manager":
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


def connected(cls, address, authkey, serializer, locked):
    """Make a manager of the running server of another one, and keep the server running."""
    manager = cls(address, authkey, serializer)
    manager._locked_file = locked
    manager.connect()
    return manager
