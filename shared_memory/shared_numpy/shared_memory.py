"""Shared memory for direct access across processes.

The twin of CPython's ``multiprocessing.shared_memory``. On 3.6 and 3.7 it behaves as that of 3.8, on
later versions as that of the running interpreter. Each opens segments and lists of the other. The
differences:

* If the constructor fails, it removes a segment that it has made; attaching never removes one.
* ``SharedMemory(create=True)`` refuses a size that does not fit, or takes the memory at once
  (`reserve`). Otherwise a later write would kill the process with SIGBUS.
* An array ``np.ndarray(buffer=shm.buf)`` keeps its memory mapped: using it after ``shm.close()`` is
  safe.
* `ShareableList` sizes text by its encoded length, checks indices on both sides, and an assignment
  that fails changes nothing. Access takes the same time for each item.
* ``track=False``, as in CPython 3.13, on every version.
"""

import os
import struct
import sys
import types
import weakref
from contextlib import suppress
from functools import partial
from operator import index as as_integer

from . import resource_tracker
from ._system import file_mapping, leftovers, list_layout, posixshmem, shm_space
from ._system.interruptions import append_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator, Optional, Tuple, Union

    Item = Union[int, float, bool, str, bytes, None]

__all__ = ["SharedMemory", "ShareableList"]

# CPython's tests ask for these three by name.
_USE_POSIX = True
_SHM_NAME_PREFIX = "/psm_"
_SHM_SAFE_NAME_LENGTH = 14  # The limit of FreeBSD, the smallest known.

_CREATE_EXCLUSIVELY = os.O_CREAT | os.O_EXCL


def _make_filename():
    """Return a random name, with its slash, for a new segment."""
    digits = _SHM_SAFE_NAME_LENGTH - len(_SHM_NAME_PREFIX)
    return _SHM_NAME_PREFIX + os.urandom(digits // 2).hex()


def _is_exported(mapping):
    """Tell whether an `mmap.mmap` has exported buffers."""
    # `mmap` does not tell. Its `resize` checks for exports first, then refuses a negative size: so
    # this call never resizes.
    try:
        mapping.resize(-1)
    except BufferError:
        return True
    except (ValueError, TypeError, SystemError):
        pass
    return False


# Mappings that outlive their `SharedMemory`, each with a weak reference to a memoryview.
_outliving = {}  # type: dict


def _keep_mapped(mapping, view):
    """Keep a mapping for as long as the released memoryview `view` lives.

    Before numpy 1.22, the array of ``np.frombuffer(shm.buf)`` refers to the memoryview alone, and
    nothing tells whether a memoryview has such users.
    """
    key = object()
    _outliving[key] = weakref.ref(view, lambda _: _outliving.pop(key)), mapping


def _unregister(registered):
    """Undo the registration of names, which an exception may have interrupted."""
    while registered:
        # The tracker may know the name or not: registering twice is the same as once.
        resource_tracker.register(registered[-1], "shared_memory")
        resource_tracker.unregister(registered[-1], "shared_memory")
        registered.pop()


class SharedMemory:
    """A block of memory that processes share by its name.

    Parameters
    ----------
    name : str, optional
        The segment's name; by default a new random one.
    create : bool
        True: make a new segment. False: attach to an existing one.
    size : int
        The size of a new segment in bytes. It is ignored for an existing one.
    track : bool
        Whether the resource tracker, a process that outlives the process tree, removes the segment
        when the whole tree has ended. Use False to attach to the segment of another program.
    reserve : bool, optional
        None: refuse to create a segment that does not fit into the memory that is free now. False:
        check nothing; if memory runs out, a write kills the process with SIGBUS. True: take all the
        memory now, so that no later write can fail; on attaching, the memory that the segment
        still lacks.

    Attributes
    ----------
    name : str
        The name by which another process attaches.
    size : int
        The size in bytes.
    buf : memoryview or None
        The memory; None after `close`.

    Raises
    ------
    ValueError
        `size` is negative, or zero with `create`; `name` is missing without `create`, or contains
        a NUL; the existing segment is empty.
    FileExistsError, FileNotFoundError
        The segment to create exists, or the segment to attach does not.
    OSError
        The system refuses the segment. ENOSPC: it does not fit, and was not made.

    Notes
    -----
    `close` ends the use of the memory by this instance. `unlink` removes the name, once for all
    processes; the memory is freed when the last of them has closed it.

    ``np.ndarray(shape, dtype, buffer=shm.buf)`` keeps the memory mapped as long as the array, or a
    view of it, exists, also after `close`. Slices and other views of `buf` itself make `close` raise
    `BufferError`.
    """

    # Subclasses may override these two.
    _flags = os.O_RDWR
    _mode = 0o600

    # For instances whose constructor has failed early.
    _name = None
    _size = 0
    _fd = -1
    _mmap = None
    _buf = None
    _track = True

    def __init__(
        self,
        name: "Optional[str]" = None,
        create: bool = False,
        size: int = 0,
        *,
        track: bool = True,
        reserve: "Optional[bool]" = None
    ) -> None:
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = _CREATE_EXCLUSIVELY | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        exclusive = bool(self._flags & os.O_EXCL)
        if name is None and not exclusive:
            raise ValueError("'name' can only be None if create=True")
        if reserve is not None and not isinstance(reserve, bool):
            raise TypeError(
                "'reserve' must be None, False or True, not {!r}".format(reserve)
            )
        leftovers.clean_once()
        # (A subclass may switch it off for all its instances.)
        self._track = bool(track and self._track)

        # A signal handler can raise between any two bytecodes. The descriptor is recorded by the
        # call that opens it (`interruptions`), and a name before it is registered: so the handler
        # below knows both.
        opened = []  # type: list
        registered = []  # type: list
        try:
            with shm_space.in_folder() if create else suppress():
                self._open(name, opened, registered)
            self._fd = opened[0]
            if self._track and exclusive and not registered:
                # At once: if all processes are killed before, the segment stays.
                self._register(registered)
            if create:
                self._allocate(size, reserve)
            if reserve:
                shm_space.reserve(self._fd, self._name)
            self._mmap = file_mapping.map_file(self._fd, os.fstat(self._fd).st_size)
            self._size = len(self._mmap)
            self._buf = memoryview(self._mmap)
            if self._track and not exclusive:
                resource_tracker.register(self._name, "shared_memory")
        except BaseException:
            path = self._name
            self._buf = self._mmap = self._name = None
            vars(self).pop("_fd", None)
            for fd in opened:
                os.close(fd)
            if exclusive and opened:
                with suppress(FileNotFoundError):
                    posixshmem.shm_unlink(path)
            _unregister(registered)
            raise

    def _open(self, name, opened, registered):
        """Open the segment, under a new random name if `name` is None.

        Its descriptor is appended to `opened`. A random name is registered before it exists, since no
        other process uses it: so the tracker knows the segment even if the process is killed right
        after the system call.
        """
        while True:
            self._name = _make_filename() if name is None else "/" + name
            if name is None and self._track:
                if os.access("/dev/shm" + self._name, os.F_OK):
                    continue
                self._register(registered)
            try:
                append_result(opened, posixshmem.shm_open, self._name, self._flags, self._mode)
                return
            except FileExistsError:
                if name is not None:
                    raise
                _unregister(registered)

    def _register(self, registered):
        resource_tracker.check(self._name, "shared_memory")
        registered.append(self._name)
        resource_tracker.register(self._name, "shared_memory")

    def _allocate(self, size, reserve):
        """Give a new segment its size, if there is room for it."""
        os.ftruncate(self._fd, size)
        if reserve is not False:
            shm_space.refuse_if_larger(self._fd, size, self._name)

    def __del__(self, is_finalizing=sys.is_finalizing):
        # Process exit closes everything, and at interpreter shutdown what `close` uses may be
        # gone before this instance is.
        if is_finalizing():
            return
        try:
            self.close()
        except (BufferError, OSError):
            # (Views exist: they keep the mapping.)
            self._close_descriptor()

    def __reduce__(self) -> "Tuple[Any, ...]":
        return type(self), (self.name, False, self.size)

    def __repr__(self) -> str:
        return "{}({!r}, size={})".format(type(self).__name__, self.name, self.size)

    @property
    def buf(self) -> memoryview:
        """The segment's bytes, writable; None after `close`."""
        return self._buf  # type: ignore

    @property
    def name(self) -> str:
        """The name that other processes attach by."""
        name = self._name
        if name is not None and name.startswith("/"):
            return name[1:]
        return name

    @property
    def size(self) -> int:
        """The segment's size in bytes."""
        return self._size

    def close(self) -> None:
        """End this instance's access to the memory. Idempotent.

        Arrays made from `buf` keep the mapping until the last of them is gone. The segment itself
        stays until `unlink`.

        Raises
        ------
        BufferError
            Slices or other views of `buf` exist. `buf` is None all the same, and closing again
            succeeds when they are gone.
        """
        # (In local variables: another thread may close it at the same time.)
        buf, mapping = self._buf, self._mmap
        if buf is not None:
            buf.release()
            view = weakref.ref(buf)
            self._buf = buf = None
            buf = view()
            if buf is not None:
                _keep_mapped(mapping, buf)
        if mapping is not None:
            exported = _is_exported(mapping)
            mapping = None  # (The traceback of the error refers to this frame.)
            if exported:
                raise BufferError("cannot close exported pointers exist")
            # Released, not closed: an array may refer to it.
            self._mmap = None
        self._close_descriptor()

    def _close_descriptor(self):
        if self._fd >= 0:
            # Race: taken out in one step, so that two threads do not close the same descriptor.
            fd = vars(self).pop("_fd", -1)
            if fd >= 0:
                os.close(fd)

    def unlink(self) -> None:
        """Remove the segment's name, so that no process can attach any more.

        The memory is freed when the last process has closed it. Call it once, in one of the
        processes.

        Raises
        ------
        FileNotFoundError
            There is no such segment (any more).
        """
        if self._name is not None:
            posixshmem.shm_unlink(self._name)
            if self._track:
                resource_tracker.unregister(self._name, "shared_memory")


# Functions that read an item of one word, by its format in the segment.
_WORD = struct.Struct("8s")
_READERS = {
    list_layout.FORMAT[kind]: list_layout.FIXED[kind].unpack_from
    for kind in (int, float, bool)
}
_NONE = list_layout.FORMAT[type(None)]


class ShareableList:
    """A list of simple values in a block of shared memory.

    Its length is fixed. An item can be replaced by one of another type, and a string by another one
    whose UTF-8 encoding fits into the room of the first: its own length, rounded up to a multiple
    of 8.

    Parameters
    ----------
    sequence : iterable, optional
        The items of a new list: int (64 bits), float, bool, str, bytes or None. A scalar of numpy is
        stored as its Python value.
    name : str, optional
        The segment's name: of the new list or, without `sequence`, of an existing one. By default a
        new random one.

    Attributes
    ----------
    shm : SharedMemory
        The segment; call its `close` and `unlink` when done.

    Raises
    ------
    KeyError
        An item is of another type.
    TypeError
        An item is a scalar of numpy without a value of these types: a date, a complex number, a
        number of more than 64 bits.
    struct.error
        An int does not fit 64 bits.
    ValueError
        The existing segment contains no list; a string is longer than 10 MB.
    OSError
        As for `SharedMemory`.

    Notes
    -----
    Trailing NUL characters of str and bytes items are lost. Access is not synchronised: if an item is
    replaced while another process reads it, or if a signal handler raises in the middle, a reader
    can get a mixture.

    CPython changed the layout with 3.9. A list has the layout of the running interpreter, and opens
    on versions with the same layout; others refuse it with a ValueError, unless it is empty.
    """

    def __init__(
        self, sequence: "Optional[Iterable[Item]]" = None, *, name: "Optional[str]" = None
    ) -> None:
        attach = sequence is None and name is not None
        if not attach:
            content = list_layout.pack([] if sequence is None else list(sequence))
        self.shm = SharedMemory.__new__(SharedMemory)
        try:
            if attach:
                self.shm.__init__(name)  # type: ignore
            else:
                self.shm.__init__(name, create=True, size=len(content))  # type: ignore
                self.shm.buf[: len(content)] = content  # type: ignore
            self._offsets = list_layout.offsets(self.shm.buf)
        except BaseException:
            made = self.shm.buf is not None and not attach
            self.shm.close()
            if made:
                self.shm.unlink()
            raise
        self._length = len(self._offsets) - 1
        self._formats = self._offsets[-1]
        self._codes = self._formats + 8 * self._length

    if TYPE_CHECKING:
        # (Iteration goes by `__getitem__`, as in 3.8.)
        def __iter__(self) -> "Iterator[Any]": ...

    def __getitem__(self, position: int) -> "Any":
        position = as_integer(position)
        if position < 0:
            position += self._length
        if not 0 <= position < self._length:
            raise IndexError("index out of range")
        buffer = self.shm.buf
        (form,) = _WORD.unpack_from(buffer, self._formats + 8 * position)
        if form in _READERS:
            return _READERS[form](buffer, self._offsets[position])[0]
        if form == _NONE:
            return None
        form = form.rstrip(b"\0")
        if not (form.endswith(b"s") and form[:-1].isdigit()):
            raise ValueError(
                "item {} of the list in {!r} has the unknown format {!r}: the segment "
                "is no ShareableList, or was overwritten".format(
                    position, self.shm.name, form
                )
            )
        # (`struct` refuses a string that would reach beyond the segment.)
        (value,) = struct.unpack_from(form, buffer, self._offsets[position])
        value = value.rstrip(b"\0")
        if buffer[self._codes + position] == list_layout.CODE[str]:
            return value.decode("utf-8")
        return value

    def __setitem__(self, position: int, value: "Item") -> None:
        position = as_integer(position)
        if position < 0:
            position += self._length
        if not 0 <= position < self._length:
            raise IndexError("assignment index out of range")
        # Every step that can fail comes before the first write.
        start, end = self._offsets[position : position + 2]
        form, code, packed = list_layout.pack_item(value, end - start)
        buffer = self.shm.buf
        _WORD.pack_into(buffer, self._formats + 8 * position, form)
        buffer[self._codes + position] = code
        buffer[start : start + len(packed)] = packed

    def __len__(self) -> int:
        return list_layout.count(self.shm.buf)

    def __reduce__(self) -> "Tuple[Any, ...]":
        return partial(type(self), name=self.shm.name), ()

    def __repr__(self) -> str:
        return "{}({}, name={!r})".format(
            type(self).__name__, list(self), self.shm.name
        )

    def _get_packing_format(self, position):
        """Return the `struct` format of an item. (CPython's tests call it.)"""
        if position < 0:
            position += self._length
        if not 0 <= position < self._length:
            raise IndexError("Requested position out of range.")
        (form,) = _WORD.unpack_from(self.shm.buf, self._formats + 8 * position)
        return form.rstrip(b"\0").decode("utf-8")

    @property
    def format(self) -> str:
        """The `struct` format of all items, one after the other."""
        return "".join(map(self._get_packing_format, range(self._length)))

    def count(self, value: object) -> int:
        """Return how many items equal a value.

        Parameters
        ----------
        value : object
            The value.
        """
        return sum(value == item for item in self)

    def index(self, value: object) -> int:
        """Return the position of the first item that equals a value.

        Parameters
        ----------
        value : object
            The value.

        Raises
        ------
        ValueError
            There is none.
        """
        for position, item in enumerate(self):
            if value == item:
                return position
        if sys.version_info >= (3, 14):
            raise ValueError("ShareableList.index(x): x not in list")
        raise ValueError("{!r} not in this container".format(value))

    if hasattr(types, "GenericAlias"):
        __class_getitem__ = classmethod(types.GenericAlias)
