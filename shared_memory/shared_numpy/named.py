"""Arrays that unrelated programs find by name.

Each is a segment of its own, a file in /dev/shm, and stays until it is deleted::

    import shared_numpy as snp

    a = snp.create("shm://weights", (1000, 1000))    # in one program
    b = snp.attach("shm://weights")                  # in another

A new array is complete before it gets its name: nobody can see half of one, and a process
that is killed while it makes one leaves nothing. One that is to replace another needs a name
of its own first, by which the two are exchanged in one step; what a process leaves that is
killed right there is removed by the next that replaces one.

::

    byte 0     magic     8 bytes   "snpNAMED"
         8     version   u32
        12     length    u32       of the description
        16     data      u64       where the items start, a multiple of 4096
        24     size      u64       of the segment
        32     uuid      16 bytes  tells it from others that had or will have its name
        48     checksum  u32       CRC-32 of the description
        64     description         JSON: dtype, shape, order
"""

import collections
import errno
import fcntl
import io
import json
import mmap
import operator
import os
import stat
import struct
import weakref
import zlib

import numpy as np

from . import _core, _mapping, _room, transfer
from .arrays import ndarray, sized
from .errors import StaleHandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

__all__ = ["NamedArray", "attach", "create", "delete", "list_arrays"]

_FOLDER = "/dev/shm"
_PREFIX = "shm://"
_MODE = 0o600

# How names begin that arrays have while they replace others. Their makers hold a lock on them.
_TEMPORARY = ".snp-replacing-"
# How those begin that they have before they are whole, where a file cannot be without a name.
_MAKING = ".snp-making-"
_PAGE = 4096
_HEAD = struct.Struct("=8sIIQQ16sI")
_MAGIC = b"snpNAMED"
_VERSION = 1
_DESCRIPTION = 64

# What is mapped in this process: (uuid, readonly) -> segment.
_mapped = weakref.WeakValueDictionary()  # type: Any

NamedArray = collections.namedtuple("NamedArray", ["name", "dtype", "shape", "order"])
NamedArray.__doc__ = "What `list_arrays` tells about an array."


class Segment(mmap.mmap):
    """The memory of a named array; arrays on it keep it as their ``base``.

    Attributes
    ----------
    name : str
        The name that it was made or attached with.
    """

    name = ""
    head = None  # type: Any
    file = (-1, -1)
    readonly = False
    unlinked = False

    def unlink(self) -> None:
        """Remove the name, if it is still this segment's."""
        self.unlinked = True
        _unlink(self.name, self.head.uuid)

    def close(self) -> None:
        """Do nothing: arrays may lie here. The last of them takes it along."""


def _refer(array, segment, cls, handles):
    """Reduce an array to its segment's name and where it lies in the segment."""
    if segment.unlinked:
        raise ValueError("the array was unlinked: it cannot be sent any more")
    if _file_of(segment.name) != segment.file:
        raise StaleHandleError(
            "the array {!r} was deleted or replaced: here it stays, but it cannot be sent any "
            "more".format(_PREFIX + segment.name)
        )
    first = array.__array_interface__["data"][0]
    start = np.frombuffer(segment, "u1").__array_interface__["data"][0]
    offset = first - start if array.size else 0
    return _rebuild, (
        cls, segment.name, segment.head.uuid, segment.readonly, offset,
        array.dtype, array.shape, array.strides, transfer.extras_of(array),
    )  # fmt: skip


def _rebuild(cls, name, number, readonly, offset, dtype, shape, strides, extras):
    """Make the array that `_refer` took apart."""
    segment = _mapped.get((number, readonly))
    if segment is None:
        try:
            segment = _map(name, readonly)
        except FileNotFoundError:
            segment = None
        if segment is None or segment.head.uuid != number:
            raise StaleHandleError("the array {!r} was deleted".format(_PREFIX + name))
    array = np.ndarray.__new__(cls, shape, dtype, segment, offset, strides)
    return transfer.with_extras(array, extras)


transfer.register_memory(Segment, _refer)


# Descriptions.

_Head = collections.namedtuple("_Head", ["uuid", "data", "size", "dtype", "shape", "order"])


def _describe_dtype(dtype):
    """Return what `_dtype_of` makes the dtype of again, for JSON."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _describe_dtype(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [_describe_dtype(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
        "record": issubclass(dtype.type, np.record),
    }


def _dtype_of(description):
    """Return the dtype that was described; anything else is an error of some kind."""
    if isinstance(description, str):
        return np.dtype(description)
    if "base" in description:
        base = _dtype_of(description["base"])
        return np.dtype((base, tuple(description["shape"])))
    fields = {key: description[key] for key in ("names", "offsets", "itemsize", "aligned")}
    fields["formats"] = [_dtype_of(each) for each in description["formats"]]
    if any(title is not None for title in description["titles"]):
        fields["titles"] = description["titles"]
    dtype = np.dtype(fields)
    return np.dtype((np.record, dtype)) if description["record"] else dtype


def _write_head(dtype, shape, order):
    """Return the bytes before the items of a new array, and what they say."""
    description = json.dumps(
        {"dtype": _describe_dtype(dtype), "shape": list(shape), "order": order}
    ).encode()
    data = _data_behind(len(description))
    size = data + dtype.itemsize * _count(shape)
    if size >= 1 << 63:
        raise ValueError(
            "an array of shape {} with items of {} bytes is too large".format(shape, dtype.itemsize)
        )
    number = os.urandom(16)
    head = bytearray(data)
    _HEAD.pack_into(
        head, 0, _MAGIC, _VERSION, len(description), data, size, number, zlib.crc32(description)
    )
    head[_DESCRIPTION : _DESCRIPTION + len(description)] = description
    return bytes(head), _Head(number, data, size, dtype, shape, order)


def _data_behind(length):
    """Return where the items start behind a description of so many bytes."""
    return -(-(_DESCRIPTION + length) // _PAGE) * _PAGE


def _count(shape):
    count = 1
    for length in shape:
        count *= length
    return count


def _read_head(fd, name):
    """Return what lies before the items of an array, checked.

    Raises
    ------
    ValueError
        It is no array of this package, or not complete.
    """

    def foreign(why):
        return ValueError(
            "{!r} is no array that shared_numpy.create has made: {}".format(_PREFIX + name, why)
        )

    first = os.pread(fd, _PAGE, 0)
    if len(first) < _DESCRIPTION or first[:8] != _MAGIC or any(first[_HEAD.size : _DESCRIPTION]):
        raise foreign("it does not begin like one")
    _, version, length, data, size, number, checksum = _HEAD.unpack_from(first)
    if version != _VERSION:
        raise foreign("it is of version {}, this package knows {}".format(version, _VERSION))
    description = os.pread(fd, min(length, size), _DESCRIPTION)
    if len(description) != length or zlib.crc32(description) != checksum:
        raise foreign("its description is damaged")
    try:
        described = json.loads(description.decode())
        dtype = _dtype_of(described["dtype"])
        shape = tuple(described["shape"])
        order = described["order"]
        right = (
            not dtype.hasobject
            and all(type(each) is int and each >= 0 for each in shape)
            and order in ("C", "F")
            and data == _data_behind(length)
            and size == data + dtype.itemsize * _count(shape)
        )
    except (KeyError, TypeError, ValueError) as error:
        raise foreign("its description cannot be: {}".format(error)) from None
    if not right:
        raise foreign("its description cannot be")
    found = os.fstat(fd).st_size
    if found != size:
        raise foreign("it has {} bytes and should have {}".format(found, size))
    return _Head(number, data, size, dtype, shape, order)


# Files.


def _plain(name):
    """Return a name as it stands in /dev/shm."""
    if not isinstance(name, str):
        raise TypeError("the name of an array is a str, not {!r}".format(name))
    plain = name[len(_PREFIX) :] if name.startswith(_PREFIX) else name
    if "://" in plain:
        raise ValueError("{!r}: only names with 'shm://', or with nothing, are known".format(name))
    plain = plain.lstrip("/") if name.startswith(_PREFIX) else plain
    wrong = (
        not plain
        or plain in (".", "..")
        or "/" in plain
        or "\0" in plain
        or len(os.fsencode(plain)) > 255
    )
    if wrong:
        raise ValueError(
            "{!r}: a name has 1 to 255 bytes, none of them '/' or 0, and is not '.' or "
            "'..'".format(name)
        )
    return plain


def _path(name):
    return os.path.join(_FOLDER, name)


def _file_of(name):
    """Return what tells the file of a name from all others; None if there is none."""
    try:
        status = os.stat(_path(name), follow_symlinks=False)
    except OSError:
        return None
    return status.st_ino, status.st_dev


def _unlink(name, number):
    """Remove a name if it still is that of a certain array; tell whether it was."""
    try:
        head = _look_at(name)
    except (OSError, ValueError):
        return False
    if head.uuid != number:
        return False
    try:
        os.unlink(_path(name))
    except FileNotFoundError:
        return False
    return True


def _error(number, text, name):
    return OSError(number, text, _PREFIX + name)


def _open(name, writable=False):
    """Open the segment of an array; return the file and what it says."""
    flags = os.O_RDWR if writable else os.O_RDONLY
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # A file object: it closes itself, wherever an exception of a signal's handler comes.
        file = io.FileIO(_path(name), opener=lambda path, _: os.open(path, flags))
    except FileNotFoundError:
        raise _error(errno.ENOENT, "there is no array of this name", name) from None
    except PermissionError:
        raise _error(errno.EACCES, "the array is another user's, or read-only", name) from None
    except OSError as error:
        raise _error(error.errno, "it cannot be opened: " + error.strerror, name) from None
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("{!r} is no array: it is no file".format(_PREFIX + name))
        if status.st_uid != os.geteuid():
            text = "the array is another user's: {}".format(status.st_uid)
            raise _error(errno.EACCES, text, name)
        return file, _read_head(file.fileno(), name)
    except BaseException:
        file.close()
        raise


def _look_at(name):
    """Return what an array says of itself; refuse what is none, as `_open` does."""
    file, head = _open(name)
    file.close()
    return head


def _map_descriptor(fd, head, name, readonly):
    segment = _mapping.map_file(fd, head.size, Segment, readonly)
    segment.name, segment.head, segment.readonly = name, head, readonly
    status = os.fstat(fd)
    segment.file = status.st_ino, status.st_dev
    return _mapped.setdefault((head.uuid, readonly), segment)


def _map(name, readonly):
    file, head = _open(name, not readonly)
    with file:
        known = _mapped.get((head.uuid, readonly))
        return _map_descriptor(file.fileno(), head, name, readonly) if known is None else known


def _array(segment):
    head = segment.head
    return ndarray(head.shape, head.dtype, segment, head.data, order=head.order)


# What users call.


def create(
    name: str,
    shape: "Any",
    dtype: "Any" = float,
    order: str = "C",
    *,
    exist_ok: bool = False,
    replace: bool = False,
    fill: "Any" = None
) -> ndarray:
    """Make an array that other programs of this user find by its name.

    Parameters
    ----------
    name : str
        1 to 255 bytes without '/'; ``shm://`` may stand before it.
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        What the items are; none that hold references to objects.
    order : {"C", "F"}
        Whether the last or the first index varies fastest.
    exist_ok : bool
        If there is such an array already, of this dtype, shape and order, return that. So of
        several programs that begin at a time one makes the array, and all have it.
    replace : bool
        Take the name away from the array that has it, in one step: at each moment the name
        leads to one of the two. Processes that have the old one keep it, but can send it on
        no more (`StaleHandleError`).
    fill : array_like, optional
        What the items of a new array are before anybody sees it, broadcast to the shape; zeros
        by default.

    Returns
    -------
    ndarray
        It stays in shared memory until `delete`, whatever becomes of the programs
        that use it.

    Raises
    ------
    FileExistsError
        The name is taken; with `exist_ok`, by an array of another dtype, shape or order.
    OSError
        ENOSPC: there is no room for it. EACCES: another user's array has the name that is to
        be attached or replaced.
    TypeError
        Items would hold references to Python objects.
    ValueError
        `name`, `shape` or `order` cannot be, `fill` does not fit the shape; both `exist_ok` and
        `replace` are asked for; what is to be attached or replaced is no array, and is left as
        it is.

    See Also
    --------
    attach, delete, list_arrays

    Examples
    --------
    >>> import shared_numpy as snp
    >>> a = snp.create("shm://example-of-create", (2, 3))
    >>> b = snp.attach("example-of-create", readonly=True)
    >>> a[1, 2] = 7
    >>> float(b[1, 2])
    7.0
    >>> c = snp.create("example-of-create", 3, "i4", replace=True, fill=[1, 2, 3])
    >>> snp.create("example-of-create", 3, "i4", exist_ok=True).tolist(), float(b[1, 2])
    ([1, 2, 3], 7.0)
    >>> snp.delete("shm://example-of-create")
    """
    plain = _plain(name)
    dtype = sized(dtype)
    if dtype.hasobject:
        raise TypeError(
            "{} holds references to Python objects, which mean nothing to another "
            "process: such arrays cannot lie in shared memory".format(dtype)
        )
    if order not in ("C", "F"):
        raise ValueError("'order' must be 'C' or 'F', not {!r}".format(order))
    if not hasattr(shape, "__iter__"):
        shape = (shape,)
    shape = tuple(operator.index(length) for length in shape)
    if any(length < 0 for length in shape):
        raise ValueError("negative dimensions are not allowed: {}".format(shape))
    if exist_ok and replace:
        raise ValueError("an array that exists is either taken (exist_ok) or replaced, not both")
    head, described = _write_head(dtype, shape, order)
    found = _existing(plain, described, exist_ok, replace)
    if found is not None:
        return found
    with _room.in_folder():
        new = _new_file()
    with new as file:
        fd = file.fileno()
        _room.refuse_if_larger(fd, described.size, _PREFIX + plain, True)
        os.ftruncate(fd, described.size)
        _room.reserve(fd, _PREFIX + plain)
        os.pwrite(fd, head, 0)
        made = _array(_map_descriptor(fd, described, plain, False))
        if fill is not None:
            made[...] = fill
        while not (_link(file, plain) or replace and _replace(file, described, plain)):
            # Another process was faster. What it has made may be gone again.
            found = _existing(plain, described, exist_ok, replace)
            if found is not None:
                return found
    return made


class _NewFile(io.FileIO):
    """A file for an array in the making: without a name, or with one of `_MAKING`."""

    path = None  # type: Any

    def close(self) -> None:
        path, self.path = self.path, None
        if path is not None:
            _remove(os.path.basename(path))
        super().close()


def _new_file():
    """Open a new file, whatever the umask."""
    try:
        if not os.path.exists("/proc/self/fd"):
            # It could be given no name later.
            raise OSError(errno.EOPNOTSUPP, "no /proc")
        file = _NewFile(_FOLDER, "r+", opener=_open_unnamed)
    except OSError as error:
        # EISDIR: before Linux 3.11.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        _remove_left()
        file = _new_named_file()
    os.fchmod(file.fileno(), _MODE)
    return file


def _new_named_file():
    while True:
        path = _path(_MAKING + os.urandom(16).hex())
        file = _NewFile(path, "x+", opener=lambda path, flags: os.open(path, flags, _MODE))
        file.path = path
        fcntl.flock(file, fcntl.LOCK_EX)  # As in `_replace`.
        # Before it was locked it may have been taken for a dead process's.
        if os.path.exists(path):
            return file
        file.close()


def _open_unnamed(folder, _):
    return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE)


def _existing(plain, described, exist_ok, replace):
    """Return the array that `create` is to take instead of a new one, or None if it may make
    one; refuse what has the name and may neither be taken nor replaced."""
    if exist_ok:
        try:
            segment = _map(plain, False)
        except FileNotFoundError:
            return None
        if not _is_alike(segment.head, described):
            text = "there is an array of this name: {}; asked for was one of {}".format(
                _describe(segment.head), _describe(described)
            )
            raise _error(errno.EEXIST, text, plain)
        return _array(segment)
    if not os.path.lexists(_path(plain)):
        return None
    if not replace:
        raise _error(errno.EEXIST, "there is something of this name", plain)
    try:
        _look_at(plain)
    except FileNotFoundError:
        pass
    return None


def _is_alike(one, other):
    same_order = one.order == other.order or len(one.shape) < 2
    return one.dtype == other.dtype and one.shape == other.shape and same_order


def _describe(head):
    return "shape {}, dtype {} and order {!r}".format(head.shape, head.dtype, head.order)


def _link(file, name):
    """Give a new file a name; tell whether nobody had that."""
    fd = file.fileno()
    source = file.path or "/proc/self/fd/{}".format(fd)
    try:
        # (With a folder's descriptor, though it has no say: else the link of /proc itself would
        # be linked.)
        os.link(source, _path(name), src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        return False
    return True


def _replace(file, head, name):
    """Give a new array the name that another has; tell whether there still was one."""
    _remove_left()
    temporary = _TEMPORARY + head.uuid.hex()
    fcntl.flock(file, fcntl.LOCK_EX)  # While it is held, nobody takes the file for a dead one's.
    try:
        _link(file, temporary)
        try:
            _rename(temporary, name, True)
        except FileNotFoundError:
            return False
        return True
    finally:
        # Also if a signal handler's exception came anywhere in between.
        _settle(temporary, head, name)


def _settle(temporary, head, name):
    """Remove what has the temporary name of an array: itself, or the one that it has replaced.
    If that is of another kind, it gets its name back, and an error says so."""
    try:
        _look_at(temporary)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        # It came after `_existing` had looked.
        while True:
            try:
                _rename(temporary, name, True)
                break
            except FileNotFoundError:  # Somebody has deleted ours: nobody has the name.
                pass
            try:
                _rename(temporary, name, False)
                break
            except FileExistsError:  # Somebody has made another one.
                pass
        _unlink(temporary, head.uuid)
        raise
    _remove(temporary)


def _remove_left():
    """Remove what processes have left that were killed while they made or replaced an array."""
    for name in os.listdir(_FOLDER):
        try:
            if name.startswith(_TEMPORARY):
                file, _ = _open(name)
            elif name.startswith(_MAKING):
                # (FIFOs and links are nobody's of ours.)
                flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
                file = open(os.open(_path(name), flags), "rb", buffering=0)
                if os.fstat(file.fileno()).st_uid != os.geteuid():
                    file.close()
                    continue
            else:
                continue
        except (OSError, ValueError):
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # Its maker is at it.
            _remove(name)


def _remove(name):
    try:
        os.unlink(_path(name))
    except FileNotFoundError:
        pass


def _rename(old, new, exchange):
    try:
        _core.rename(os.fsencode(_path(old)), os.fsencode(_path(new)), exchange)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL):
            raise
        text = "only Linux 3.15 and later replace an array in one step: delete it first"
        raise _error(error.errno, text, new) from None


def attach(name: str, readonly: bool = False) -> ndarray:
    """Return the array that was made under a name.

    Parameters
    ----------
    name : str
        As given to `create`.
    readonly : bool
        Map its memory so that this process cannot write to it.

    Raises
    ------
    FileNotFoundError
        There is no array of this name.
    PermissionError
        It is another user's.
    ValueError
        What has this name is no array, or not complete.

    See Also
    --------
    create
    """
    return _array(_map(_plain(name), readonly))


def take(name: str) -> "np.ndarray[Any, Any]":
    """Return the array of a name as ordinary memory, and delete the name.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        As in `attach`.
    """
    plain = _plain(name)
    file, head = _open(plain, writable=True)
    with file:
        memory = _mapping.map_file(file.fileno(), head.size)
    if not _unlink(plain, head.uuid):
        raise _error(errno.ENOENT, "another process has deleted the array", plain)
    return np.ndarray(head.shape, head.dtype, memory, head.data, order=head.order)


def delete(name: str) -> None:
    """Remove the name of an array; its memory is freed with the last who has it.

    Parameters
    ----------
    name : str
        As given to `create`.

    Raises
    ------
    FileNotFoundError
        There is no array of this name.
    PermissionError
        It is another user's.
    ValueError
        What has this name is no array: it is left as it is.

    See Also
    --------
    create
    """
    plain = _plain(name)
    _look_at(plain)
    try:
        os.unlink(_path(plain))
    except FileNotFoundError:
        raise _error(errno.ENOENT, "there is no array of this name", plain) from None


def list_arrays() -> "List[NamedArray]":
    """Return what named arrays this user has on this machine.

    Returns
    -------
    list of NamedArray
        Their ``name`` (with ``shm://``), ``dtype``, ``shape`` and ``order``, in the
        order of the names. What is no array is not told.

    See Also
    --------
    create
    """
    found = []
    for name in sorted(os.listdir(_FOLDER)):
        if name.startswith(_TEMPORARY):
            continue
        try:
            head = _look_at(name)
        except (OSError, ValueError):
            continue
        found.append(NamedArray(_PREFIX + name, head.dtype, head.shape, head.order))
    return found
