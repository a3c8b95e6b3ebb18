"""The names of ``pyarraypool``, for programs written for it.

::

    import shared_numpy.compat.pyarraypool as pyarraypool

Transferable arrays lie in the arena of the process, as all shared arrays. `ShmObjectPool` adds a
number for each object, by which other processes of the same pool find it: a named array, whose name
consists of the pool's prefix and the number, contains the place of the object and its arena.
"""

import hashlib
import operator
import os
import struct
import tempfile
import weakref
import zlib
from contextlib import contextmanager
from typing import Union

import numpy as np

from .. import _core, named
from .._pickling import by_reference, copies, pickler
from ..arrays import ndarray
from ..errors import StaleHandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Optional

MemorySizeType = Union[str, int]

__all__ = [
    "PoolAlreadyExists",
    "PoolNotRunning",
    "ShmObjectPool",
    "cleanup_shm",
    "configure_global_pool",
    "get_reusable_pool",
    "make_transferable",
    "ndarrayproxy",
    "object_pool",
    "object_pool_context",
    "start_pool",
    "stop_pool",
]


class PoolAlreadyExists(Exception):
    """The pool was started before."""


class PoolNotRunning(Exception):
    """The pool was not started, and does not start by itself."""


class ndarrayproxy(ndarray):
    """An array in shared memory that is pickled by reference.

    Views and slices of it can be sent, too. Results of arithmetic are plain arrays.
    """

    @property
    def python_id(self) -> int:
        """The number by which pools find the array's memory; 0 if it is not shared."""
        block = by_reference.block_of(self)
        if block is None:
            return 0
        digest = hashlib.blake2b(block.name.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big") >> 1
        if _published.get(number) != os.getpid():
            _publish(self, block, number)
        return number

    def __reduce_ex__(self, protocol: int) -> "Any":
        if by_reference.memory_of(self) is None:
            return super().__reduce_ex__(protocol)
        return by_reference.reduce_view(self)


# The numbers of arrays that were told, and by which process.
_published = {}  # type: Dict[int, int]


def _publish(array, block, number):
    pool = get_reusable_pool()
    owner = array
    while type(owner.base) is not _core.Block:
        owner = owner.base
    size = owner.nbytes
    try:
        _Entry.create(pool._name(number), block.name, b"", size)
    except FileExistsError:
        pass  # Another process has.
    _published[number] = os.getpid()
    # (With the last view of the memory.)
    weakref.finalize(owner, _withdraw, pool, number, os.getpid())


def _withdraw(pool, number, pid):
    if pid == os.getpid():
        _published.pop(number, None)
        _delete(pool._name(number))


def make_transferable(arr: "Any", *, transfer_required: bool = True) -> ndarrayproxy:
    """Copy an array into shared memory.

    Parameters
    ----------
    arr : array_like
        Its items keep their order. A transferable array is returned itself.
    transfer_required : bool
        Has no effect: the memory exists as long as an array or a pickled reference to it.

    Returns
    -------
    ndarrayproxy
        It goes to other processes by reference.

    Raises
    ------
    PoolNotRunning
        See `get_reusable_pool`.
    TypeError
        Items hold references to Python objects.
    """
    get_reusable_pool()
    if type(arr) is ndarrayproxy and arr.is_shared():
        return arr
    return copies.copy_to_shared(np.asarray(arr), ndarrayproxy)


def _arena_of(block):
    home = block.rpartition("/")[0]
    arena = _core.Arena.default()
    return arena if arena.name == home else _core.Arena.attach(home)


class _Entry:
    """The place of an object, in a named array of the pool."""

    # length of the name, of the handle, bytes of the object
    HEAD = struct.Struct("=HHQ")

    def __init__(self, array):
        self.array = array
        data = array.tobytes()
        name, handle, self.size = self.HEAD.unpack_from(data)
        start = self.HEAD.size
        self.block = data[start : start + name].decode()
        self.handle = data[start + name : start + name + handle]

    def delete(self):
        """Remove the name of the entry, if no other entry has it by now."""
        self.array.unlink()

    @classmethod
    def create(cls, name, block, handle, size):
        data = cls.HEAD.pack(len(block), len(handle), size) + block.encode() + handle
        named.create(name, len(data), "u1", fill=np.frombuffer(data, "u1"))

    @classmethod
    def read(cls, name):
        """Return the entry of a name, or None."""
        try:
            return cls(named.attach(name))
        except (FileNotFoundError, struct.error, UnicodeDecodeError):
            return None

    def find(self):
        """Return the block, or None if it is gone."""
        try:
            arena = _arena_of(self.block)
            arena.reap()  # (Free the blocks of killed processes.)
            return arena.find(self.block)
        except (StaleHandleError, FileNotFoundError):
            return None

    def is_abandoned(self):
        """Tell whether it waits for a transfer, and no other process is there for it."""
        try:
            arena = _arena_of(self.block)
            arena.reap()
            others = arena.stats()["processes"] > 1
        except (StaleHandleError, FileNotFoundError):
            return False
        return bool(self.handle) and not others and arena.name != _core.Arena.default().name


_TAKEN = "there is an object of the number {} already"


class ShmObjectPool:
    """Memory that processes find by numbers.

    Parameters
    ----------
    slot_count, data_size : int
        Make no difference: the pool grows as it is needed.
    path : str
        Pools of the same path are one.
    """

    def __init__(
        self,
        *,
        slot_count: int = 5000,
        data_size: int = 524288000,
        path: str = "pyarraypool.seg"
    ) -> None:
        self._prefix = "pyarraypool-{:08x}-".format(zlib.crc32(os.path.abspath(path).encode()))
        # The objects that this process is attached to, once for each time.
        self._attached = {}  # type: Dict[int, List[Any]]
        self._touched = set()  # type: set
        self._pid = os.getpid()

    def _name(self, number):
        return self._prefix + str(operator.index(number))

    def add_object(self, python_id: int, request_size: int) -> memoryview:
        """Allocate memory for an object, which this process is attached to.

        Parameters
        ----------
        python_id : int
            Its number.
        request_size : int
            Its size in bytes.

        Returns
        -------
        memoryview
            Of so many bytes, whose values are undefined.

        Raises
        ------
        ValueError
            There is an object of this number, or `request_size` is negative.
        ArenaFullError
            /dev/shm has no room for it.
        """
        name = self._name(python_id)
        known = _Entry.read(name)
        if known is not None:
            if known.find() is not None:
                raise ValueError(_TAKEN.format(python_id))
            known.delete()
        block = _core.Arena.default().alloc(request_size)
        handles = []  # type: List[bytes]
        block.sending(handles)
        try:
            _Entry.create(name, block.name, handles[0], request_size)
        except BaseException as error:
            pickler.cancel(handles)
            if isinstance(error, FileExistsError):
                raise ValueError(_TAKEN.format(python_id)) from None
            raise
        return self._attach(python_id, block, request_size)

    def attach_object(self, python_id: int) -> memoryview:
        """Return the memory of an object; it stays until as many `detach_object`.

        Raises
        ------
        KeyError
            There is no such object.
        """
        entry = _Entry.read(self._name(python_id))
        block = None
        if entry is not None and entry.handle:
            # This may be the transfer that the object waits for.
            try:
                block = _core.receive(entry.handle)
            except (StaleHandleError, FileNotFoundError):
                block = None
        elif entry is not None:
            block = entry.find()
        if block is None:
            raise KeyError("there is no object of the number {}".format(python_id))
        return self._attach(python_id, block, entry.size)

    def _attach(self, number, block, size):
        self._attached.setdefault(number, []).append(block)
        self._touched.add(number)
        return _view(block, size)

    def detach_object(self, python_id: int) -> None:
        """Let go of an object; its memory is freed when no process is attached.

        Raises
        ------
        KeyError
            This process is not attached to it.
        """
        held = self._attached.get(python_id)
        if not held:
            raise KeyError("not attached to the object {}".format(python_id))
        held.pop()
        if not held:
            del self._attached[python_id]
        self._tidy(python_id)

    def set_object_releasable(self, python_id: int) -> None:
        """Do not wait for a first transfer to free an object.

        Raises
        ------
        KeyError
            There is no such object.
        """
        entry = _Entry.read(self._name(python_id))
        if entry is None:
            raise KeyError("there is no object of the number {}".format(python_id))
        if entry.handle:
            _core.cancel(entry.handle)
        self._tidy(python_id)

    def memview_of(self, python_id: int) -> "Optional[memoryview]":
        """Return the memory of an object, or None if there is none."""
        entry = _Entry.read(self._name(python_id))
        block = None if entry is None else entry.find()
        return None if block is None else _view(block, entry.size)

    def dump(self) -> str:
        """Describe the objects of the pool, one on a line."""
        lines = []
        for name in self._names():
            entry = _Entry.read(name)
            state = "gone" if entry is None or entry.find() is None else "alive"
            if entry is not None:
                number = name[len(self._prefix) :]
                lines.append(
                    "{}: {} bytes in {}, {}".format(number, entry.size, entry.block, state)
                )
        return "\n".join(lines)

    def _close(self):
        self._attached.clear()
        for number in self._touched:
            self._tidy(number)

    def _names(self):
        names = (each.name[len("shm://") :] for each in named.list_named())
        return [name for name in names if name.startswith(self._prefix)]

    def _tidy(self, number):
        self._forget_if_gone(self._name(number))

    def _forget_if_gone(self, name):
        """Remove the entry of an object that does not exist any more."""
        entry = _Entry.read(name)
        if entry is None:
            _delete(name)
        elif entry.find() is None:
            entry.delete()


def _view(block, size):
    return memoryview(block.array(block.nbytes, "u1"))[:size]


def _delete(name):
    try:
        named.delete(name)
    except FileNotFoundError:
        pass  # Another process has.


# The pool of this process, and how it is to be started.
_pool = None  # type: Optional[ShmObjectPool]
_link_path = os.path.join(tempfile.gettempdir(), "pyarraypool.seg")
_slot_count = 10000
_data_size = 512 << 20
_autostart = True


def get_reusable_pool() -> ShmObjectPool:
    """Return the pool of this process, which is started if it was not.

    Raises
    ------
    PoolNotRunning
        It was not, and ``configure_global_pool(autostart=False)`` was called.
    """
    if _pool is None:
        if not _autostart:
            raise PoolNotRunning("call start_pool, or configure_global_pool(autostart=True)")
        start_pool()
    return _pool  # type: ignore


def start_pool() -> None:
    """Start the pool of this process.

    Raises
    ------
    PoolAlreadyExists
        It was started. (A forked child may start its own.)
    """
    global _pool
    if _pool is not None and _pool._pid == os.getpid():
        raise PoolAlreadyExists("the pool of this process was started before")
    _pool = ShmObjectPool(path=_link_path, data_size=_data_size, slot_count=_slot_count)


def stop_pool() -> None:
    """Stop the pool of this process, which lets go of its objects; arrays stay good."""
    global _pool
    pool, _pool = _pool, None
    if pool is not None and pool._pid == os.getpid():
        pool._close()


def configure_global_pool(
    *,
    link_path: "Any" = None,
    slot_count: "Optional[int]" = None,
    data_size: "Optional[MemorySizeType]" = None,
    autostart: "Optional[bool]" = None
) -> None:
    """Set how the pool is started.

    Parameters
    ----------
    link_path : path or str, optional
        Pools of the same path are one.
    slot_count : int, optional
        Has no effect: the pool grows.
    data_size : int or str, optional
        Has no effect, but is checked: a number of bytes, with "K", "M" or "G".
    autostart : bool, optional
        The pool starts by itself when it is needed.

    Raises
    ------
    ValueError
        `data_size` is not of this form.
    """
    global _link_path, _slot_count, _data_size, _autostart
    size = None if data_size is None else _parse_datasize_to_bytes(data_size)
    if link_path is not None:
        _link_path = str(link_path)
    if slot_count is not None:
        _slot_count = slot_count
    if size is not None:
        _data_size = size
    if autostart is not None:
        _autostart = autostart


def _parse_datasize_to_bytes(value: "MemorySizeType") -> int:
    factors = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    factor = 1
    number = value  # type: Any
    if isinstance(value, str) and value[-1:] in factors:
        factor, number = factors[value[-1]], value[:-1]
    size = int(float(number) * factor)
    if size <= 0:
        raise ValueError("pool size cannot be null or less", value)
    return size


@contextmanager
def object_pool_context() -> "Iterator[None]":
    """Start the pool, and stop it at the end of the ``with`` statement."""
    start_pool()
    try:
        yield
    finally:
        stop_pool()


object_pool = object_pool_context


def cleanup_shm() -> None:
    """Remove objects of the pool that killed programs have left.

    Objects that a process uses stay.
    """
    pool = ShmObjectPool(path=_link_path)
    for name in pool._names():
        entry = _Entry.read(name)
        if entry is not None and entry.is_abandoned():
            pickler.cancel([entry.handle])
        pool._forget_if_gone(name)
