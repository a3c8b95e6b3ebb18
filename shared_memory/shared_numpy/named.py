"""Arrays that unrelated programs find by name.

Each is a segment of its own, a file in /dev/shm, and stays until it is deleted::

    import shared_numpy as snp

    a = snp.create("shm://weights", (1000, 1000))    # in one program
    b = snp.attach("shm://weights")                  # in another

A new array gets its name when it is complete: no process sees half of one, and a process that is
killed while it makes one leaves nothing behind. An array that replaces another one first gets a
temporary name; then the kernel exchanges the two names in one step. If a process is killed in
between, the next replacement in the folder removes its temporary file.

``SHARED_NUMPY_DIR``, or an argument, chooses another folder than /dev/shm.

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

# Prefix of the temporary name of an array that replaces another. Its maker holds an flock on it.
_TEMPORARY = ".snp-replacing-"
# Prefix of the name of an incomplete array, on systems without nameless files (O_TMPFILE). As above.
_MAKING = ".snp-making-"

# The segments that are mapped in this process, by (uuid, readonly).
_mapped = weakref.WeakValueDictionary()  # type: Any


class NamedArray(NamedTuple):
    """An array in the result of `list_named`."""

    name: str
    dtype: "np.dtype[Any]"
    shape: "Tuple[int, ...]"
    order: str



class Segment(mmap.mmap):
    """The memory of a named array; it is the ``base`` of arrays on it.

    Attributes
    ----------
    name : str
        The name by which it was made or attached; the path of its file if that is not in
        /dev/shm.
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
        """Do nothing: arrays may lie here. It is unmapped with the last of them."""


def _refer(array, segment, cls, handles):
    """Reduce an array to the name of its segment, and its place in the segment."""
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
    """Make an array of the parts of `_refer`."""
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


# In this module the "name" of an array is the name of its file in /dev/shm, or the whole path of a
# file in another folder. `_path` returns the path of either.


def _split(name):
    """Split the argument `name` of a public function into its folder, or None, and the plain name."""
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
        or plain.endswith(_core.LOCK_SUFFIX)
    )
    if wrong:
        raise ValueError(
            "{!r}: a name has 1 to 255 bytes, none of them '/' or 0, is not '.' or '..', and does "
            "not end with '{}', as the lock files of arenas do".format(name, _core.LOCK_SUFFIX)
        )
    return folder, plain


def _new_name(name, directory):
    """Return the name of a new array."""
    folder, plain = _split(name)
    if folder is not None and directory is not None:
        raise ValueError("{!r} has a folder, so 'directory' has no meaning".format(name))
    return _named_in(folder or _core.folder(directory), plain)


def _find(name, directory):
    """Return the name of an array that may exist."""
    folder, plain = _split(name)
    if folder is None and directory is None:
        return _find_in(_core.folder(), plain)
    return _new_name(name, directory)


def _find_in(first, plain):
    """Return the name that a plain name stands for: in the first folder if it exists there, else in
    /dev/shm."""
    found = _named_in(first, plain)
    return found if os.path.lexists(_path(found)) else plain


def _named_in(folder, plain):
    return plain if folder in (None, _FOLDER) else os.path.join(folder, plain)


def _beside(name, plain):
    """Return a name in the folder of another array."""
    return os.path.join(os.path.dirname(name), plain)


def _path(name):
    return os.path.join(_FOLDER, name)


def _file_of(name):
    """Return the inode and device of an array's file; None if there is none."""
    try:
        status = os.stat(_path(name), follow_symlinks=False)
    except OSError:
        return None
    return status.st_ino, status.st_dev


def _unlink(name, number):
    """Remove a name if the array with this uuid still has it; tell whether it had."""
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


def refuse_lock_file(path: str, told: str) -> None:
    """Raise FileNotFoundError, which names the file as `told`, if a path is that of an arena's lock
    file.

    It may be of an arena of this process, which a closed descriptor of the file would have counted
    among the dead: the kernel releases all locks of the process on it.
    """
    if path.endswith(_core.LOCK_SUFFIX):
        text = "there is no array of this name, which is that of an arena's lock file"
        raise FileNotFoundError(errno.ENOENT, text, told)


def _open(name, writable=False):
    """Open the file of an array; return the file and its layout. The file of anything else is
    refused."""
    refuse_lock_file(name, _PREFIX + name)
    flags = os.O_RDWR if writable else os.O_RDONLY
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        # (A file object closes its descriptor, wherever a signal handler raises.)
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
    """Return the layout of an array; refuse other files as `_open` does."""
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
        mapped = _mapped.get((head.uuid, readonly))
        return _map_descriptor(file.fileno(), head, name, readonly) if mapped is None else mapped


def _array(segment):
    head = segment.head
    return ndarray(head.shape, head.dtype, segment, head.data, order=head.order)


# Public functions.


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
        1 to 255 bytes without '/', not ending with ``.snp-lock``; ``shm://`` may stand before it.
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        The type of the items; not one with references to Python objects. A dtype of sub-arrays adds
        its dimensions to `shape`.
    order : {"C", "F"}
        Whether the last or the first index varies fastest.
    exist_ok : bool
        If an array of this name, dtype, shape and order exists, return that. So of several programs
        that start at the same time one makes the array, and all get it.
    replace : bool
        Replace an array of this name in one step: at each moment the name leads to one of the two.
        Processes that have the old array keep it, but cannot send it any more
        (`StaleHandleError`).
    fill : array_like, optional
        The items of a new array, broadcast to the shape, set before another process can see it;
        zeros by default.
    directory : str or path-like, optional
        The folder, on a tmpfs; by default the one in the environment variable
        ``SHARED_NUMPY_DIR``, or else /dev/shm.

    Returns
    -------
    ndarray
        It stays in shared memory until `delete`, also after all programs that use it have ended.

    Raises
    ------
    FileExistsError
        The name is taken; with `exist_ok`, by an array of another dtype, shape or order.
    OSError
        ENOSPC: there is no room for it. EACCES: the array to attach or replace belongs to another
        user.
    TypeError
        Items would hold references to Python objects, or have a dtype of another package than
        numpy, which a program without that package would misinterpret.
    ValueError
        `name`, `shape`, `order` or `directory` is not valid; `fill` does not fit the shape; both
        `exist_ok` and `replace` are given; or the file to attach or replace is no array, and stays
        as it is.

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
        shm_space.refuse_if_larger(
            fd, described.size, _PREFIX + plain, True, shm_space.NAMED_ARRAY
        )
        os.ftruncate(fd, described.size)
        shm_space.reserve(fd, _PREFIX + plain, shm_space.NAMED_ARRAY)
        os.pwrite(fd, head, 0)
        os.pwrite(fd, tail, described.size - len(tail))
        made = _array(_map_descriptor(fd, described, plain, False))
        if fill is not None:
            made[...] = fill
        while not (_link(file, plain) or replace and _replace(file, described, plain)):
            # Race: another process has taken the name first; it may have deleted its array already.
            found = _existing(plain, described, exist_ok, replace)
            if found is not None:
                return found
    return made


class _NewFile(io.FileIO):
    """The file of an incomplete array: without a name, or with one of `_MAKING`."""

    path = None  # type: Any

    def close(self) -> None:
        path, self.path = self.path, None
        if path is not None:
            _remove(path)
        super().close()


def _new_file(name):
    """Open a new file in the folder of a name; its mode does not depend on the umask."""
    try:
        if not os.path.exists("/proc/self/fd"):
            # Without /proc a nameless file cannot get a name later.
            raise OSError(errno.EOPNOTSUPP, "no /proc")
        file = _NewFile(os.path.dirname(_path(name)), "r+", opener=_open_unnamed)
    except OSError as error:
        # (EISDIR: Linux before 3.11, which has no O_TMPFILE.)
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
        # Race: before the lock, `_remove_left` may have taken it for the file of a killed process.
        if os.path.exists(path):
            return file
        file.close()


def _open_unnamed(folder, _):
    return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, _MODE)


def _existing(plain, described, exist_ok, replace):
    """Return the existing array that `create` returns, or None if it may make one. Raise if the name
    is taken, and may not be attached or replaced."""
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
    try:
        head = _look_at(plain)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if replace:
            raise
        reason = error.strerror if isinstance(error, OSError) else error
        text = "the name is taken ({}): choose another name".format(reason)
        raise _error(errno.EEXIST, text, plain) from None
    if not replace:
        text = (
            "there is an array of this name ({}): exist_ok=True returns it, replace=True replaces "
            "it, shared_numpy.delete() deletes it".format(_describe(head))
        )
        raise _error(errno.EEXIST, text, plain)
    return None


def _is_alike(one, other):
    same_order = one.order == other.order or len(one.shape) < 2
    return one.dtype == other.dtype and one.shape == other.shape and same_order


def _describe(head):
    return "shape {}, dtype {} and order {!r}".format(head.shape, head.dtype, head.order)


def _link(file, name):
    """Give a new file a name; False if the name exists."""
    fd = file.fileno()
    source = file.path or "/proc/self/fd/{}".format(fd)
    try:
        # (`src_dir_fd` makes Python call linkat, which follows the symbolic link in /proc; `link`
        # would make a hard link to the symbolic link itself.)
        os.link(source, _path(name), src_dir_fd=fd, follow_symlinks=True)
    except FileExistsError:
        return False
    return True


def _replace(file, head, name):
    """Exchange the names of a new array and an existing one; False if that does not exist any more."""
    _remove_left(name)
    temporary = _beside(name, _TEMPORARY + head.uuid.hex())
    fcntl.flock(file, fcntl.LOCK_EX)  # Tells `_remove_left` of other processes that we live.
    try:
        _link(file, temporary)
        try:
            _rename(temporary, name, True)
        except FileNotFoundError:
            return False
        return True
    finally:
        # (Also if a signal handler raises at any step above.)
        _settle(temporary, head, name)


def _settle(temporary, head, name):
    """Remove the file with the temporary name: the new array, or the one that it has replaced. If
    the replaced file is no array, it gets its name back, and the error is raised."""
    try:
        _look_at(temporary)
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        # Race: the file got its name after `_existing` had looked.
        while True:
            try:
                _rename(temporary, name, True)
                break
            except FileNotFoundError:  # Another process has deleted our array: the name is free.
                pass
            try:
                _rename(temporary, name, False)
                break
            except FileExistsError:  # Another process has made an array of this name.
                pass
        _unlink(temporary, head.uuid)
        raise
    _remove(temporary)


def _remove_left(beside):
    """Remove the files of processes that were killed while they made or replaced an array."""
    for plain in os.listdir(os.path.dirname(_path(beside))):
        name = _beside(beside, plain)
        try:
            if plain.startswith(_TEMPORARY):
                file, _ = _open(name)
            elif plain.startswith(_MAKING):
                # (O_NONBLOCK for FIFOs, O_NOFOLLOW for symbolic links: neither is ours.)
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
                continue  # Its maker lives.
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
    """Return the array of a name.

    Parameters
    ----------
    name : str
        As given to `create`.
    readonly : bool
        Map its memory so that this process cannot write to it.
    directory : str or path-like, optional
        Its folder. By default the one in the environment variable ``SHARED_NUMPY_DIR`` is searched,
        then /dev/shm.

    Raises
    ------
    FileNotFoundError
        There is no array of this name.
    PermissionError
        It belongs to another user.
    ValueError
        The file of this name is no array, or is incomplete.

    See Also
    --------
    create
    """
    return _array(_map(_find(name, directory), readonly))


def take(name: str, directory: "Optional[Any]" = None) -> "np.ndarray[Any, Any]":
    """Return the array of a name, which becomes this process's own, and delete the name.

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
    """Remove the name of an array; its memory is freed when no process uses it any more.

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
        It belongs to another user.
    ValueError
        The file of this name is no array, and stays as it is.

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
    """Return the named arrays of this user on this machine.

    Parameters
    ----------
    directory : str or path-like, optional
        The folder to search, instead of the one in the environment variable ``SHARED_NUMPY_DIR``
        and /dev/shm.

    Returns
    -------
    list of NamedArray
        Their ``name`` (with ``shm://``), ``dtype``, ``shape`` and ``order``, sorted by name. Other
        files are left out. `attach` finds an array by this name without `directory`: if the plain
        name leads to another array, it is the path of the file.

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
    """Return the folder of ``shared_numpy.h``, with which C and C++ programs attach named arrays.

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
