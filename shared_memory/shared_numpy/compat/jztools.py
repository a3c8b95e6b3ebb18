"""The names of ``jztools.shared_memory``, for programs written for it.

::

    from shared_numpy.compat.jztools import XSharedMemoryManager, xndarray

A manager has an arena of its own, in which its arrays lie. An array is freed when nothing refers to
it in any process. So only the scope None has an effect of its own: the manager's server holds a
reference to the array until it is released.
"""

import weakref
from contextlib import suppress
from multiprocessing import ProcessError, context, util
from multiprocessing.managers import State, dispatch

import numpy as np

from .. import _core
from .._pickling import by_reference, registry
from .._pickling.copies import order_of
from ..arrays import ndarray
from ..managers import SharedMemoryManager, SharedMemoryServer
from ..shared_memory import SharedMemory

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

__all__ = ["InvalidAsXndarray", "XSharedMemoryManager", "xndarray"]

_SCOPES = ("local", "remote", None)

# The scope of an array in the process that receives it.
_ARRIVES_AS = {"local": None, "remote": "local", None: None}  # type: Dict[Any, Any]

# The managers that this process knows, by the names of their arenas.
_managers = weakref.WeakValueDictionary()  # type: Any


class InvalidAsXndarray(Exception):
    """An object cannot be viewed as an `xndarray`."""

    def __init__(self, obj: "Any") -> None:
        super().__init__("Cannot view type `{}` as an `xndarray`.".format(type(obj).__name__))


class _Server(SharedMemoryServer):
    """A server that can hold references to arrays."""

    public = SharedMemoryServer.public + ["arena", "pin", "unpin"]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._arena = None
        self._pins = {}

    def arena(self, c, name=None):
        """Set, or return, the name of the manager's arena."""
        self._arena = name or self._arena
        return self._arena

    def pin(self, c, handle):
        """Hold an array until it is unpinned, or the manager ends."""
        block = _core.receive(handle)
        self._pins[block.name] = block

    def unpin(self, c, name):
        """Hold an array no more."""
        self._pins.pop(name, None)


class XSharedMemoryManager(SharedMemoryManager):
    """A manager of shared arrays, which can be handed to child processes.

    Parameters
    ----------
    *args, **kwargs
        As for ``multiprocessing.managers.BaseManager``.

    Notes
    -----
    When it ends, its arrays can be sent and found no more; those that a process has
    stay good there.

    Examples
    --------
    >>> from shared_numpy.compat.jztools import XSharedMemoryManager
    >>> with XSharedMemoryManager() as smm:
    ...     x = smm.empty(10)
    ...     x[:] = 1
    ...     float(x[2:].sum()), smm._list_tracked_segments() == [x.shared_memory.name]
    (8.0, True)
    """

    _Server = _Server
    _arena = None  # type: Any

    def start(self, initializer: "Any" = None, initargs: "Tuple[Any, ...]" = ()) -> None:
        """Start the server's process."""
        super().start(initializer, initargs)
        self._arena = arena = _core.Arena.create()
        self._ask("arena", arena.name)
        _managers[arena.name] = self
        server, ending = self.shutdown, util.Finalize(self, _end, (arena,))

        def shutdown():
            server()
            ending()

        self.shutdown = shutdown  # type: ignore

    def connect(self) -> None:
        """Connect to the server of a running manager."""
        super().connect()
        self._arena = _core.Arena.attach(self._ask("arena"))
        _managers.setdefault(self._arena.name, self)

    def __reduce__(self) -> "Tuple[Any, ...]":
        if self._arena is None:
            return super().__reduce__()
        self._open()
        # (Pickling `authkey` fails, except for a process that is being spawned. A forked child has
        # its parent's.)
        key = self._authkey if context.get_spawning_popen() is not None else None
        return _manager_of, (self._arena.name, self._address, key)

    def from_ndarray(self, arr: "Any", **kwargs: "Any") -> "xndarray":
        """Copy an array into shared memory; see `xndarray.from_ndarray`."""
        return xndarray.from_ndarray(self, arr, **kwargs)

    def empty(self, *args: "Any", **kwargs: "Any") -> "xndarray":
        """Make an array that is not initialised; see `xndarray.empty`."""
        return xndarray.empty(self, *args, **kwargs)

    def list_tracked_segments(self) -> "List[str]":
        """Return the names of the manager's shared memory: of its arrays, and of its blocks."""
        arena = self._open()
        arena.reap()
        names = self._ask("list_segments")
        return names + [each for each in arena.blocks() if each not in _released]

    _list_tracked_segments = list_tracked_segments

    def _open(self):
        """Return the arena; ProcessError if the manager does not run."""
        if self._arena is None or self._arena.closed:
            raise ProcessError("the manager was not started, or has ended")
        return self._arena

    def _ask(self, method, *args):
        try:
            with self._connection() as connection:
                return dispatch(connection, None, method, args)
        except (OSError, EOFError) as error:
            raise ProcessError("the manager's server does not answer: {}".format(error)) from None


def _end(arena):
    arena.unlink()
    arena.close()


def _manager_of(name, address, key=None):
    """Return the manager of an arena; in a child, a new one that uses the same server."""
    manager = _managers.get(name)
    if manager is None:
        manager = XSharedMemoryManager(address, key)
        manager._arena = _core.Arena.attach(name)
        manager._state.value = State.STARTED
        _managers[name] = manager
    return manager


class _Segment:
    """The shared memory of an array.

    Attributes
    ----------
    name : str
        The name by which processes find it; each array has its own.
    size : int
        The size in bytes, at least that of the array.
    buf : memoryview
        The bytes.
    """

    def __init__(self, block):
        self._block = block
        self.name = block.name
        self.size = block.nbytes

    @property
    def buf(self):
        return memoryview(self._block.array(self.size, "u1"))

    def close(self):
        """Do nothing: the memory is released with the last array on it."""

    def unlink(self):
        """Refuse to send the memory from now on."""
        self._block.unlink()

    def __repr__(self):
        return "<shared memory {!r} of {} bytes>".format(self.name, self.size)


# The names of arrays that were released, and still exist in this process.
_released = set()  # type: set


class _Home:
    """The manager and the memory that an array and its views have in common."""

    __slots__ = ("manager", "segment", "start")

    def __init__(self, manager, segment=None):
        self.manager, self.segment = manager, segment
        self.start = None
        if segment is not None:
            self.start = np.frombuffer(segment.buf, "u1").__array_interface__["data"][0]

    def has(self, array):
        """Tell whether an array lies in the segment."""
        if self.start is None:
            return False
        place = array.__array_interface__["data"][0] - self.start
        return 0 <= place <= self.segment.size


class xndarray(ndarray):
    """A numpy array in the shared memory of a manager.

    It is pickled by reference, and so are its slices. Indexing with lists or masks gives a copy
    that is not shared, of this class too; arithmetic gives ``numpy.ndarray``.

    Parameters
    ----------
    sh_mem : str, SharedMemory, the attribute `shared_memory` of an array, or None
        The memory, or its name. None for an array without items.
    manager : XSharedMemoryManager
        The manager of the memory.
    shape, dtype, offset, strides
        As for ``numpy.ndarray``.
    scope : {"local", "remote", None}
        "local": the memory is freed when no array, and no pickled reference, refers to it any more.
        "remote": the same; in the receiver it is "local". None: in addition, not before `release`,
        or the end of the manager.

    Raises
    ------
    ValueError
        `scope` is none of these, or the array would lie outside of the memory.
    TypeError
        `sh_mem` is none of these.
    StaleHandleError, FileNotFoundError
        The memory does not exist any more.
    """

    _home = None  # type: Optional[_Home]
    _scope = None  # type: Optional[str]

    def __new__(  # type: ignore
        cls,
        sh_mem: "Any",
        manager: XSharedMemoryManager,
        shape: "Any",
        dtype: "Any",
        offset: int,
        strides: "Any",
        scope: "Optional[str]" = "local",
        **kwargs: "Any"
    ) -> "xndarray":
        _check_scope(scope)
        if sh_mem is None:
            out = np.ndarray.__new__(cls, shape, dtype)
            if out.size:
                raise ValueError("an array of {} items needs memory: sh_mem".format(out.size))
            out._home = _Home(manager)
            return out
        block = None
        if isinstance(sh_mem, str):
            if "/" in sh_mem.lstrip("/"):
                block = manager._open().find(sh_mem)
            else:
                sh_mem = SharedMemory(sh_mem, track=False)
        elif isinstance(sh_mem, _Segment):
            block = sh_mem._block
        elif not (hasattr(sh_mem, "buf") and hasattr(sh_mem, "name")):
            raise TypeError("sh_mem is shared memory or its name, not {!r}".format(sh_mem))
        if block is None:
            out = np.ndarray.__new__(cls, shape, dtype, sh_mem.buf, offset, strides)
            out._home = _Home(manager, sh_mem)
            out._scope = scope
            return out
        out = block.array(shape, dtype, strides, offset, cls)
        out._home = _Home(manager)
        out.scope = scope
        return out

    def __array_finalize__(self, obj: "Any") -> None:
        # (A view has no scope of its own: it keeps the memory all the same.)
        self._home = getattr(obj, "_home", None)

    @property
    def scope(self) -> "Optional[str]":
        """When the memory is freed: "local", "remote" or None. It can be set."""
        return self._scope

    @scope.setter
    def scope(self, scope: "Optional[str]") -> None:
        _check_scope(scope)
        block = by_reference.block_of(self)
        if block is not None and self._home is not None:
            if scope is None:
                handle = block.arena.send(block)
                try:
                    self._home.manager._ask("pin", handle)
                finally:
                    _core.cancel(handle)
            elif self._scope is None and "_scope" in self.__dict__:
                with suppress(ProcessError):  # The server is gone, with its references.
                    self._home.manager._ask("unpin", block.name)
        self._scope = scope

    @property
    def shared_memory_manager(self) -> "Optional[XSharedMemoryManager]":
        """The manager of the array, or of the one that it is a view of."""
        return None if self._home is None else self._home.manager

    @property
    def shared_memory(self) -> "Any":
        """The shared memory of the array, the same for all its views; None if it has none."""
        home = self._home
        if home is None or not self.is_shared():
            return None
        if home.segment is None:
            home.segment = _Segment(by_reference.block_of(self))
        return home.segment

    def is_shared(self) -> bool:
        """Tell whether the array lies in shared memory."""
        if by_reference.memory_of(self) is not None:
            return True
        return self._home is not None and self._home.has(self)

    def release(self) -> None:
        """Release the memory: this process cannot send the array any more.

        The memory is freed with the last array on it, in any process; until then arrays stay valid.
        """
        segment = self.shared_memory
        if segment is None or self._home is None:
            return
        manager = self._home.manager
        block = by_reference.block_of(self)
        with suppress(ProcessError):  # The server is gone, with its references.
            if block is None:
                manager._ask("release_segment", segment.name)
            else:
                manager._ask("unpin", segment.name)
        if block is not None:
            segment.unlink()
            if segment.name not in _released:
                _released.add(segment.name)
                weakref.finalize(segment, _released.discard, segment.name).atexit = False

    def unlink(self) -> None:
        """The same as `release`."""
        self.release()

    def as_ndarray(self) -> "np.ndarray[Any, Any]":
        """Return a copy of the array in memory that is not shared."""
        return self.copy_local()

    def copy(self, order: "Any" = "C") -> "Any":
        """Return a copy in new shared memory of the manager."""
        if not self.is_shared() or self._home is None:
            return np.asarray(self).copy(order)
        plain = np.asarray(self)
        if order is None or order in ("K", "A", "k", "a"):
            order = order_of(plain)
        out = xndarray.empty(self._home.manager, self.shape, self.dtype, order)
        np.copyto(np.asarray(out), plain)
        return out

    def __copy__(self) -> "Any":
        return self.copy("K")

    def __deepcopy__(self, memo: "Any") -> "Any":
        return self.copy("K")

    def __getitem__(self, key: "Any") -> "Any":
        found = super().__getitem__(key)
        if isinstance(found, xndarray) and not found.is_shared():
            found._home = None  # A copy: no manager's.
        return found

    @classmethod
    def from_ndarray(
        cls, manager: XSharedMemoryManager, arr: "Any", **kwargs: "Any"
    ) -> "xndarray":
        """Copy an array into new shared memory.

        Parameters
        ----------
        manager : XSharedMemoryManager
            The manager of the memory.
        arr : array_like
            The original; its order is kept.
        **kwargs
            As for `empty`.
        """
        arr = np.asarray(arr)
        kwargs.setdefault("order", order_of(arr))
        out = cls.empty(manager, arr.shape, arr.dtype, **kwargs)
        np.copyto(np.asarray(out), arr)
        return out

    @classmethod
    def empty(
        cls,
        manager: XSharedMemoryManager,
        shape: "Any",
        dtype: "Any" = float,
        order: str = "C",
        scope: "Optional[str]" = "local",
    ) -> "xndarray":
        """Make an array in new shared memory that is not initialised.

        Parameters
        ----------
        manager : XSharedMemoryManager
            The manager of the memory.
        shape, dtype, order
            As for ``numpy.empty``.
        scope : {"local", "remote", None}
            See the class.

        Raises
        ------
        ProcessError
            The manager was not started, or has ended.
        ArenaFullError
            /dev/shm has no room for it.
        """
        _check_scope(scope)
        out = manager._open().empty(shape, dtype, order, cls)
        out._home = _Home(manager)
        by_reference.block_of(out).name  # From now on it is listed, and can be found.
        if scope is None:
            out.scope = None
        else:
            out._scope = scope
        return out

    def __reduce_ex__(self, protocol: int) -> "Any":
        return _reduce(self)

    def __reduce__(self) -> "Any":
        return _reduce(self)


def _check_scope(scope):
    if scope not in _SCOPES:
        raise ValueError("scope must be 'local', 'remote' or None, not {!r}".format(scope))


def _reduce(array, handles=None):
    """Reduce an array to a handle of its memory and where it lies in it."""
    home = array._home
    block = by_reference.block_of(array)
    if home is None or not array.is_shared():
        return np.array, (np.asarray(array),)
    dtype = array.dtype
    scope = _ARRIVES_AS[array.scope]
    if block is None:
        offset = array.__array_interface__["data"][0] - home.start
        return xndarray, (
            home.segment.name, home.manager, array.shape, dtype, offset, array.strides, scope
        )  # fmt: skip
    manager = home.manager
    offset = array.__array_interface__["data"][0] - block.address if array.size else 0
    if dtype.isbuiltin == 1 and dtype.metadata is None:
        dtype = dtype.str
    return _load, (
        by_reference.send(block, handles), array.shape, dtype, array.strides, offset,
        scope, array.flags.writeable, manager._address,
    )  # fmt: skip


def _load(handle, shape, dtype, strides, offset, scope, writeable, address):
    """Make the array that `_reduce` took apart."""
    block = _core.receive(getattr(handle, "handle", handle))
    array = block.array(shape, dtype, strides, offset, xndarray)
    array._home = _Home(_manager_of(block.arena.name, address))
    array._scope = scope
    if not writeable:
        array.flags.writeable = False
    return array


registry.register(xndarray, _reduce)
