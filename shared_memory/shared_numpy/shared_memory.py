"""Shared memory for direct access across processes.

The twin of CPython's ``multiprocessing.shared_memory``: on 3.6 and 3.7 it
behaves as 3.8's does, on every later version as that version's, and segments
and lists made by either open in the other. What it does better:

* A segment that a failing constructor made is removed again, and attaching
  never removes anything.
* ``SharedMemory(create=True)`` refuses what cannot fit, or takes its memory at
  once (`reserve`), where a write would end the process with SIGBUS later.
* An array made with ``np.ndarray(buffer=shm.buf)`` keeps the memory that it
  shows: using it after ``shm.close()`` is safe.
* `ShareableList` sizes text by its encoded length, checks indices on both
  sides, and an assignment that fails changes nothing. Access to an item takes
  the same time wherever it is.
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
_SHM_SAFE_NAME_LENGTH = 14  # FreeBSD's limit, the smallest that is known.

_CREATE_EXCLUSIVELY = os.O_CREAT | os.O_EXCL


def _make_filename():
    """Return a random name, with its slash, for a new segment."""
    digits = _SHM_SAFE_NAME_LENGTH - len(_SHM_NAME_PREFIX)
    return _SHM_NAME_PREFIX + os.urandom(digits // 2).hex()


def _is_exported(mapping):
    """Tell whether a buffer of `mapping`, an `mmap.mmap`, is in use."""
    # There is no way to ask but to try. A resize looks for exports first and
    # refuses a negative size next, so that it never comes to resizing.
    try:
        mapping.resize(-1)
    except BufferError:
        return True
    except (ValueError, TypeError, SystemError):
        pass
    return False


# Mappings that outlive their `SharedMemory`, and what each is kept for.
_kept = {}  # type: dict


def _keep(mapping, view):
    """Keep `mapping` for as long as the released memoryview `view` lives.

    Before 1.22, ``np.frombuffer(shm.buf)`` refers to nothing but that object, and
    whether a view has such users cannot be seen.
    """
    key = object()
    _kept[key] = weakref.ref(view, lambda _: _kept.pop(key)), mapping


def _unregister(registered):
    """Take back the registration of names, which may have been interrupted."""
    while registered:
        # Whether the tracker was told is not known; to tell it twice is like once.
        resource_tracker.register(registered[-1], "shared_memory")
        resource_tracker.unregister(registered[-1], "shared_memory")
        registered.pop()


class SharedMemory:
    """A block of memory that processes share by its name.

    Parameters
    ----------
    name : str, optional
        The segment's name; a new one is made up if it is None.
    create : bool
        Make a new segment, or attach to an existing one.
    size : int
        Bytes of a new segment. Attaching takes the size that there is.
    track : bool
        Whether the resource tracker, a process that outlives the process
        tree, shall remove the segment at the tree's end if nobody has. Switch
        it off when attaching to what another program owns.
    reserve : bool, optional
        None: refuse to create what does not fit the memory that is free now.
        False: check nothing; a write may end the process with SIGBUS when
        memory runs out. True: take all the memory now, so that no later write
        can fail; on attaching, the memory that the segment still lacks.

    Attributes
    ----------
    name : str
        What another process attaches by.
    size : int
        Bytes.
    buf : memoryview or None
        The memory; None after `close`.

    Raises
    ------
    ValueError
        `size` is negative, or zero with `create`; there is no name to attach
        to; the name has an embedded NUL; the existing segment is empty.
    FileExistsError, FileNotFoundError
        A segment to create exists, or one to attach to does not.
    OSError
        The segment cannot be had. ENOSPC: it does not fit; nothing was made.

    Notes
    -----
    `close` ends this instance's use of the memory; `unlink` removes the name,
    once for all processes, and the memory goes with its last user.

    ``np.ndarray(shape, dtype, buffer=shm.buf)`` keeps the memory mapped for as
    long as the array, or a view of it, lives, whatever is closed meanwhile.
    Slices and other views of `buf` itself make `close` raise `BufferError`.
    """

    # Subclasses may override these two.
    _flags = os.O_RDWR
    _mode = 0o600

    # What an instance has whose constructor did not get far.
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
        # A subclass may have switched it off for all its instances.
        self._track = bool(track and self._track)

        # An exception raised by a signal handler can arrive between any two
        # bytecodes. The descriptor is noted by the call that gets it, with no
        # bytecode between, and a name before it is registered, so that the
        # handler below always knows of them.
        opened = []  # type: list
        registered = []  # type: list
        try:
            with shm_space.in_folder() if create else suppress():
                self._open(name, opened, registered)
            self._fd = opened[0]
            if self._track and exclusive and not registered:
                # At once: until then a kill of all processes leaves the segment.
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

        Its descriptor is appended to `opened`. A random name is registered before
        it exists, since nobody else can have it: a process that is killed right
        after the call leaves no segment that the tracker does not know.
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
            # Whoever still has a view keeps the mapping.
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

        Arrays that were made from `buf` keep the mapping until the last of
        them is gone. The segment itself stays until `unlink`.

        Raises
        ------
        BufferError
            Slices or other views of `buf` exist. `buf` is None already, and
            closing again succeeds when they are gone.
        """
        # Other threads may be closing it, too.
        buf, mapping = self._buf, self._mmap
        if buf is not None:
            buf.release()
            view = weakref.ref(buf)
            self._buf = buf = None
            buf = view()
            if buf is not None:
                _keep(mapping, buf)
        if mapping is not None:
            exported = _is_exported(mapping)
            mapping = None  # The traceback of the error must not keep it.
            if exported:
                raise BufferError("cannot close exported pointers exist")
            # Not closed but let go: an array may refer to it.
            self._mmap = None
        self._close_descriptor()

    def _close_descriptor(self):
        if self._fd >= 0:
            # Taken out in one step, so that no two threads close the same number.
            fd = vars(self).pop("_fd", -1)
            if fd >= 0:
                os.close(fd)

    def unlink(self) -> None:
        """Remove the segment's name, so that nobody can attach any more.

        The memory is freed when its last user has closed it. Call it once, in
        one of the processes.

        Raises
        ------
        FileNotFoundError
            There is no such segment (any more).
        """
        if self._name is not None:
            posixshmem.shm_unlink(self._name)
            if self._track:
                resource_tracker.unregister(self._name, "shared_memory")


# Readers of the items that fill one word, by their format in the segment.
_WORD = struct.Struct("8s")
_READERS = {
    list_layout.FORMAT[kind]: list_layout.FIXED[kind].unpack_from
    for kind in (int, float, bool)
}
_NONE = list_layout.FORMAT[type(None)]


class ShareableList:
    """A list of simple values in a block of shared memory.

    Its length is fixed. An item can be replaced by one of another type, and a
    string by any whose UTF-8 encoding fits the room of the first: at least the
    bytes of its own, rounded up to a multiple of 8.

    Parameters
    ----------
    sequence : iterable, optional
        The items of a new list: int (64 bits), float, bool, str, bytes or None. A scalar of
        numpy's is stored as its Python value.
    name : str, optional
        The segment's name: of the new list or, without `sequence`, of the
        existing one to attach to. By default a new one is made up.

    Attributes
    ----------
    shm : SharedMemory
        The segment; call its `close` and `unlink` when done.

    Raises
    ------
    KeyError
        An item is of another type.
    TypeError
        An item is a scalar of numpy's that has no value of these types: a date, a complex
        number, a number of more than 64 bits.
    struct.error
        An int does not fit 64 bits.
    ValueError
        The existing segment holds no list; a string is longer than 10 MB.
    OSError
        As for `SharedMemory`.

    Notes
    -----
    Trailing NUL characters of str and bytes items are lost. Access is not
    synchronised: replacing an item while another process reads it can give
    that process a mixture, and so can an exception that a signal handler
    raises in the middle.

    CPython changed the layout with 3.9. A list is laid out as the running
    interpreter does it, and opens on versions with the same layout; on others
    it is refused with a ValueError, unless it is empty.
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
        # It is iterated over by its items, as 3.8's is.
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
        # struct refuses a string that reaches out of the segment.
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
        # All that can fail comes before the first byte is written.
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
        """Return the `struct` format of an item, as CPython's tests ask it."""
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
        """Return how many items equal `value`."""
        return sum(value == item for item in self)

    def index(self, value: object) -> int:
        """Return the position of the first item that equals `value`.

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
