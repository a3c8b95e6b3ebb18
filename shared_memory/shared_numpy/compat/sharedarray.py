"""The names of ``SharedArray``, for programs written for it.

::

    import shared_numpy.compat.sharedarray as SharedArray

Arrays with ``shm://`` names are the named arrays of this package (`shared_numpy.create`): they go by
reference through queues, pools and pipes. Arrays with ``file://`` names are files in the format of
SharedArray, the items first: each package reads the files of the other.
"""

import collections
import contextlib
import ctypes
import errno
import mmap
import operator
import os
import struct

import numpy as np

from .. import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Tuple

__all__ = [
    "ArrayDesc",
    "MS_ASYNC",
    "MS_INVALIDATE",
    "MS_SYNC",
    "attach",
    "create",
    "delete",
    "list",
    "mlock",
    "msync",
    "munlock",
]

ArrayDesc = collections.namedtuple("ArrayDesc", ["name", "dtype", "dims"])
ArrayDesc.__doc__ = "An array in the result of `list`: its name (bytes), scalar type and shape."

# Linux's numbers.
MS_ASYNC, MS_INVALIDATE, MS_SYNC = 1, 2, 4

_FILE, _SHM = "file://", "shm://"

# Behind the items of a file: magic, bytes of all items, number of the type, bytes of an item, number
# of dimensions; then the lengths, padded to the most dimensions that numpy allows where the file was
# made: 64 in numpy 2, 32 before.
_TAIL = struct.Struct("=16sQiii")
_MAGIC = b"[SharedArray]".ljust(16, b"\0")
_DIMENSIONS = (64, 32)
_DIMENSIONS_HERE = 64 if int(np.__version__.split(".")[0]) >= 2 else 32

# Types that are determined by their number and size. (The numbers of other types are not fixed.)
_PLAIN = "?bhilqefdgFDGSUVBHILQ"


def create(name: str, shape: "Any", dtype: "Any" = float) -> "np.ndarray[Any, Any]":
    """Make an array of zeros under a name.

    Parameters
    ----------
    name : str
        ``shm://NAME`` or ``NAME`` in shared memory, ``file://PATH`` in a file.
    shape : int or tuple of int
    dtype : data-type
        In a file only types that number and size determine: no records, dates, or other byte
        orders.

    Returns
    -------
    numpy.ndarray
        It stays when the program ends, until `delete`.

    Raises
    ------
    OSError
        The name is taken, there is no room, or the prefix is another one.
    ValueError
        There can be no array of this dtype.
    """
    kind, rest = _split(name)
    dtype = np.dtype(dtype)
    if dtype.itemsize == 0:
        raise ValueError("the items of {!r} have no bytes".format(dtype))
    if kind == _SHM:
        return named.create(_SHM + rest, shape, dtype)
    if dtype.char not in _PLAIN or not dtype.isnative or dtype.names or dtype.subdtype:
        raise ValueError(
            "a file of SharedArray cannot tell what {!r} is: use a name in shared memory, or "
            "numpy.lib.format.open_memmap".format(dtype)
        )
    shape = tuple(map(operator.index, shape if np.iterable(shape) else (shape,)))
    if len(shape) > _DIMENSIONS_HERE or any(length < 0 for length in shape):
        raise ValueError("there can be no array of shape {}".format(shape))
    size = dtype.itemsize
    for length in shape:
        size *= length
    tail = _TAIL.pack(_MAGIC, size, dtype.num, dtype.itemsize, len(shape))
    tail += struct.pack("=%dq" % _DIMENSIONS_HERE, *(shape + (0,) * (_DIMENSIONS_HERE - len(shape))))
    with open(os.open(rest, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), "r+b") as file:
        try:
            _reserve(file.fileno(), size + len(tail))
            os.pwrite(file.fileno(), tail, size)
            return _array(file, False, dtype, shape)
        except BaseException:
            os.unlink(rest)
            raise


def attach(name: str, ro: bool = False) -> "np.ndarray[Any, Any]":
    """Return the array of a name.

    Parameters
    ----------
    name : str
        As in `create`.
    ro : bool
        Make it read-only.

    Returns
    -------
    numpy.ndarray
        On the same memory, or file, as in all processes that attach it.

    Raises
    ------
    OSError
        There is no file of this name, or it is no array.
    """
    kind, rest = _split(name)
    if kind == _SHM:
        with _no_array_is_an_os_error():
            return named.attach(_SHM + rest, readonly=bool(ro))
    with _opened(rest, os.O_RDONLY if ro else os.O_RDWR) as file:
        dtype, shape = _tail_of(file, name)
        return _array(file, bool(ro), dtype, shape)


def delete(name: str) -> None:
    """Remove the name of an array; processes that have the array keep it.

    Parameters
    ----------
    name : str
        As in `create`.

    Raises
    ------
    OSError
        There is no file of this name, or it is no array, and stays.
    """
    kind, rest = _split(name)
    if kind == _SHM:
        with _no_array_is_an_os_error():
            return named.delete(_SHM + rest)
    with _opened(rest, os.O_RDONLY) as file:
        _tail_of(file, name)
        os.unlink(rest)


def list() -> "List[ArrayDesc]":
    """Return the arrays in shared memory.

    Returns
    -------
    list of ArrayDesc
    """
    return [
        ArrayDesc(os.fsencode(each.name[len(_SHM) :]), each.dtype.type, each.shape)
        for each in named.list_named()
    ]


def msync(array: "np.ndarray[Any, Any]", flags: int) -> None:
    """Write an array's memory into its file, as ``msync(2)``; for ``file://`` names.

    Parameters
    ----------
    array : numpy.ndarray
    flags : int
        `MS_ASYNC` or `MS_SYNC`, and `MS_INVALIDATE`.

    Raises
    ------
    OSError
        The flags contradict each other, or the disk has an error.
    """
    _call("msync", array, flags)


def mlock(array: "np.ndarray[Any, Any]") -> None:
    """Keep an array's memory from being swapped out, as ``mlock(2)``.

    Raises
    ------
    OSError
        The process may not lock as much (``ulimit -l``).
    """
    _call("mlock", array)


def munlock(array: "np.ndarray[Any, Any]") -> None:
    """Undo `mlock`."""
    _call("munlock", array)


def _split(name):
    """Return the prefix of a name, and the rest of it."""
    if not isinstance(name, str):
        raise TypeError("the name of an array is a str, not {!r}".format(name))
    for prefix in (_FILE, _SHM):
        if name.startswith(prefix):
            return prefix, name[len(prefix) :]
    if "://" in name:
        text = "names begin with 'shm://', 'file://' or neither"
        raise OSError(errno.EINVAL, text, name)
    return _SHM, name


@contextlib.contextmanager
def _no_array_is_an_os_error():
    try:
        yield
    except ValueError as error:
        raise OSError(str(error)) from error


def _reserve(fd, size):
    """Set the size of a file and reserve its disk space, so that no later access fails (SIGBUS)."""
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        os.ftruncate(fd, size)  # This file system cannot reserve space.


def _opened(path, flags):
    named.refuse_lock_file(path, path)
    flags |= os.O_CLOEXEC | os.O_NONBLOCK
    return open(os.open(path, flags), "rb" if flags & 3 == os.O_RDONLY else "r+b", buffering=0)


def _tail_of(file, name):
    """Return the dtype and shape of the array in a file, checked."""
    whole = os.fstat(file.fileno()).st_size
    for most in _DIMENSIONS:
        at = whole - _TAIL.size - 8 * most
        if at < 0:
            continue
        tail = os.pread(file.fileno(), _TAIL.size + 8 * most, at)
        magic, size, number, itemsize, ndim = _TAIL.unpack_from(tail)
        # (Up to a page may lie between: some systems round the size of files up.)
        if magic != _MAGIC or not size <= at < size + mmap.PAGESIZE or not 0 <= ndim <= most:
            continue
        shape = struct.unpack_from("=%dq" % ndim, tail, _TAIL.size)  # type: Tuple[int, ...]
        code = next((each for each in _PLAIN if np.dtype(each).num == number), None)
        if code is None or any(length < 0 for length in shape):
            break
        count = 1
        for length in shape:
            count *= length
        unit = {"S": 1, "V": 1, "U": 4}.get(code)
        dtype = np.dtype(code if unit is None else "{}{}".format(code, itemsize // unit))
        if dtype.itemsize == itemsize and count * itemsize == size:
            return dtype, shape
        break
    raise OSError(errno.EINVAL, "no array that SharedArray could have made", name)


def _array(file, readonly, dtype, shape):
    access = mmap.ACCESS_READ if readonly else mmap.ACCESS_WRITE
    return np.ndarray(shape, dtype, mmap.mmap(file.fileno(), 0, access=access))


def _call(function, array, *arguments):
    """Call a function of the C library for the pages of an array."""
    if not isinstance(array, np.ndarray):
        raise TypeError("it takes an array, not {!r}".format(array))
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        raise ValueError("the items of the array do not lie side by side")
    address = array.__array_interface__["data"][0]
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    call = getattr(ctypes.CDLL(None, use_errno=True), function)
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * len(arguments)
    if array.nbytes and call(start, address - start + array.nbytes, *arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
