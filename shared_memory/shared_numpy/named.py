"""Arrays that unrelated programs find by name.

Each is a segment of its own, a file in /dev/shm, and stays until it is deleted::

    import shared_numpy as snp

    a = snp.create("shm://weights", (1000, 1000))    # in one program
    b = snp.attach("shm://weights")                  # in another

A new array is complete before it gets its name: nobody can see half of one, and a process
that is killed while it makes one leaves nothing. One that is to replace another needs a name
of its own first, by which the two are exchanged in one step; what a process leaves that is
killed right there is removed by the next that replaces one.

Another folder than /dev/shm is chosen by ``SHARED_NUMPY_DIR``, or an argument.

The file begins with numpy's own header, so that ``np.load("/dev/shm/weights", mmap_mode="r")``
reads it; `named_layout` draws its bytes.
"""

import errno
import fcntl
import io
import mmap
import operator
import os
import stat
import weakref
from typing import NamedTuple

import numpy as np

from . import _core, _reduce
from ._pickling import by_reference
from ._system import file_mapping, leftovers, named_layout, shm_space
from .arrays import ndarray, sized
from .errors import StaleHandleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple

__all__ = ["NamedArray", "attach", "create", "delete", "get_include", "list_named"]

_FOLDER = "/dev/shm"
_PREFIX = "shm://"
_MODE = 0o600

# How names begin that arrays have while they replace others. Their makers hold a lock on them.
_TEMPORARY = ".snp-replacing-"
# How those begin that they have before they are whole, where a file cannot be without a name.
_MAKING = ".snp-making-"

# What is mapped in this process: (uuid, readonly) -> segment.
_mapped = weakref.WeakValueDictionary()  # type: Any


class NamedArray(NamedTuple):
    """What `list_named` tells about an array."""

    name: str
    dtype: "np.dtype[Any]"
    shape: "Tuple[int, ...]"
    order: str



class Segment(mmap.mmap):
    """The memory of a named array; arrays on it keep it as their ``base``.

    Attributes
    ----------
    name : str
        The name that it was made or attached with; the path of its file, if that does not lie
        in /dev/shm.
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
    return _reduce.named_array, (
        cls, segment.name, segment.head.uuid, segment.readonly, offset,
        array.dtype, array.shape, array.strides, by_reference.extras_of(array),
    )  # fmt: skip


def rebuild(cls, name, number, readonly, offset, dtype, shape, strides, extras):
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
    return by_reference.with_extras(array, extras)


by_reference.register_memory(Segment, _refer)


# Files.


# Where an array's file is, `_path` tells by its name in this module: that is the file's name in
# /dev/shm, or the whole path of one in another folder.


def _split(name):
    """Return the folder, or None, and the plain name of what a caller has given as a name."""
    if not isinstance(name, str):
        raise TypeError("the name of an array is a str, not {!r}".format(name))
    plain = name[len(_PREFIX) :] if name.startswith(_PREFIX) else name
    if "://" in plain:
        raise ValueError("{!r}: only names with 'shm://', or with nothing, are known".format(name))
    folder = None
    if plain.startswith("/") and plain.rindex("/") > 0:
        folder, plain = os.path.split(plain)
        folder = _core.folder(folder) or _FOLDER
    elif name.startswith(_PREFIX):
        plain = plain.lstrip("/")
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
    return folder, plain


def _new_name(name, directory):
    """Return the name for an array that is to be made."""
    folder, plain = _split(name)
    if folder is not None and directory is not None:
        raise ValueError("{!r} has a folder, so 'directory' has no meaning".format(name))
    return _named_in(folder or _core.folder(directory), plain)


def _find(name, directory):
    """Return the name of an array that may be there."""
    folder, plain = _split(name)
    if folder is None and directory is None:
        return _find_in(_core.folder(), plain)
    return _new_name(name, directory)


def _find_in(first, plain):
    """Return the name of what a plain name leads to: in the first folder, or else in /dev/shm."""
    found = _named_in(first, plain)
    return found if os.path.lexists(_path(found)) else plain


def _named_in(folder, plain):
    return plain if folder in (None, _FOLDER) else os.path.join(folder, plain)


def _beside(name, plain):
    """Return the name of what is in the folder of another array."""
    return os.path.join(os.path.dirname(name), plain)


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
        if os.path.isabs(name) and not _core.is_on_tmpfs(file.fileno()):
            raise ValueError("{!r} is no array: it is not on a tmpfs".format(_PREFIX + name))
        return file, _read(file.fileno(), status.st_size, name)
    except BaseException:
        file.close()
        raise


def _read(fd, size, name):
    try:
        return named_layout.read(lambda length, at: os.pread(fd, length, at), size)
    except ValueError as error:
        text = "{!r} is no array that shared_numpy.create has made: {}"
        raise ValueError(text.format(_PREFIX + name, error)) from None


def _look_at(name):
    """Return what an array says of itself; refuse what is none, as `_open` does."""
    file, head = _open(name)
    file.close()
    return head


def _map_descriptor(fd, head, name, readonly):
    segment = file_mapping.map_file(fd, head.size, Segment, readonly)
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
    fill: "Any" = None,
    directory: "Optional[Any]" = None
) -> ndarray:
    """Make an array that other programs of this user find by its name.

    Parameters
    ----------
    name : str
        1 to 255 bytes without '/'; ``shm://`` may stand before it.
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        What the items are; none that hold references to objects. One that is an array adds its
        lengths to `shape`.
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
    directory : str or path-like, optional
        The folder to make it in, on a tmpfs; by default what the environment variable
        ``SHARED_NUMPY_DIR`` says, or else /dev/shm.

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
        Items would hold references to Python objects, or are of a dtype of another
        package than numpy, which programs without that would take for something else.
    ValueError
        `name`, `shape`, `order` or `directory` cannot be, `fill` does not fit the shape; both `exist_ok` and
        `replace` are asked for; what is to be attached or replaced is no array, and is left as
        it is.

    See Also
    --------
    attach, delete, list_named

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
    leftovers.clean_once()
    plain = _new_name(name, directory)
    dtype = sized(dtype)
    if not hasattr(shape, "__iter__"):
        shape = (shape,)
    shape = tuple(operator.index(length) for length in shape)
    while dtype.subdtype is not None:  # As in any new array.
        dtype, shape = dtype.subdtype[0], shape + dtype.subdtype[1]
    if dtype.hasobject:
        raise TypeError(
            "{} holds references to Python objects, which mean nothing to another "
            "process: such arrays cannot lie in shared memory".format(dtype)
        )
    if order not in ("C", "F"):
        raise ValueError("'order' must be 'C' or 'F', not {!r}".format(order))
    if any(length < 0 for length in shape):
        raise ValueError("negative dimensions are not allowed: {}".format(shape))
    if exist_ok and replace:
        raise ValueError("an array that exists is either taken (exist_ok) or replaced, not both")
    described, head, tail = named_layout.lay_out(dtype, shape, order)
    found = _existing(plain, described, exist_ok, replace)
    if found is not None:
        return found
    with shm_space.in_folder():
        new = _new_file(plain)
    with new as file:
        fd = file.fileno()
        shm_space.refuse_if_larger(fd, described.size, _PREFIX + plain, True)
        os.ftruncate(fd, described.size)
        shm_space.reserve(fd, _PREFIX + plain)
        os.pwrite(fd, head, 0)
        os.pwrite(fd, tail, described.size - len(tail))
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
            _remove(path)
        super().close()


def _new_file(name):
    """Open a new file where one of a name will be, whatever the umask."""
    try:
        if not os.path.exists("/proc/self/fd"):
            # It could be given no name later.
            raise OSError(errno.EOPNOTSUPP, "no /proc")
        file = _NewFile(os.path.dirname(_path(name)), "r+", opener=_open_unnamed)
    except OSError as error:
        # EISDIR: before Linux 3.11.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        _remove_left(name)
        file = _new_named_file(name)
    os.fchmod(file.fileno(), _MODE)
    return file


def _new_named_file(name):
    while True:
        path = _path(_beside(name, _MAKING + os.urandom(16).hex()))
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
    _remove_left(name)
    temporary = _beside(name, _TEMPORARY + head.uuid.hex())
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


def _remove_left(beside):
    """Remove what processes have left that were killed while they made or replaced an array."""
    for plain in os.listdir(os.path.dirname(_path(beside))):
        name = _beside(beside, plain)
        try:
            if plain.startswith(_TEMPORARY):
                file, _ = _open(name)
            elif plain.startswith(_MAKING):
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


def attach(name: str, readonly: bool = False, directory: "Optional[Any]" = None) -> ndarray:
    """Return the array that was made under a name.

    Parameters
    ----------
    name : str
        As given to `create`.
    readonly : bool
        Map its memory so that this process cannot write to it.
    directory : str or path-like, optional
        The folder where it is. By default it is looked for in the one that the environment
        variable ``SHARED_NUMPY_DIR`` names, and then in /dev/shm.

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
    return _array(_map(_find(name, directory), readonly))


def take(name: str, directory: "Optional[Any]" = None) -> "np.ndarray[Any, Any]":
    """Return the array of a name as ordinary memory, and delete the name.

    Raises
    ------
    FileNotFoundError, PermissionError, ValueError
        As in `attach`.
    """
    plain = _find(name, directory)
    file, head = _open(plain, writable=True)
    with file:
        memory = file_mapping.map_file(file.fileno(), head.size)
    if not _unlink(plain, head.uuid):
        raise _error(errno.ENOENT, "another process has deleted the array", plain)
    return np.ndarray(head.shape, head.dtype, memory, head.data, order=head.order)


def delete(name: str, directory: "Optional[Any]" = None) -> None:
    """Remove the name of an array; its memory is freed with the last who has it.

    Parameters
    ----------
    name : str
        As given to `create`.
    directory : str or path-like, optional
        As in `attach`.

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
    plain = _find(name, directory)
    _look_at(plain)
    try:
        os.unlink(_path(plain))
    except FileNotFoundError:
        raise _error(errno.ENOENT, "there is no array of this name", plain) from None


def list_named(directory: "Optional[Any]" = None) -> "List[NamedArray]":
    """Return what named arrays this user has on this machine.

    Parameters
    ----------
    directory : str or path-like, optional
        The folder to look in, instead of the one that the environment variable
        ``SHARED_NUMPY_DIR`` names and /dev/shm.

    Returns
    -------
    list of NamedArray
        Their ``name`` (with ``shm://``), ``dtype``, ``shape`` and ``order``, in the
        order of the names. What is no array is not told. By its name `attach` finds an array
        without a directory: it is the path of the file where the plain one leads elsewhere.

    See Also
    --------
    create
    """
    first = _core.folder() or _FOLDER
    folders = {first, _FOLDER} if directory is None else {_core.folder(directory) or _FOLDER}
    found = {}
    for folder in folders:
        for plain in os.listdir(folder):
            name = _named_in(folder, plain)
            if plain.startswith(_TEMPORARY):
                continue
            try:
                head = _look_at(name)
            except (OSError, ValueError):
                continue
            is_found = name == _find_in(first, plain)
            told = plain if is_found else os.path.join(folder, plain)
            found[_PREFIX + told] = head
    return [
        NamedArray(name, head.dtype, head.shape, head.order)
        for name, head in sorted(found.items(), key=lambda item: item[0])
    ]


def get_include() -> str:
    """Return the folder of ``shared_numpy.h``, by which C and C++ attach named arrays.

    Returns
    -------
    str
        For the compiler's option ``-I``; the header needs no library.

    See Also
    --------
    create

    Examples
    --------
    >>> import os
    >>> import shared_numpy as snp
    >>> os.listdir(snp.get_include())
    ['shared_numpy.h']
    """
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")
