"""Removes the blocks of managers whose programs and servers were killed.

A manager has a random number, and a file ``snpmgr-NUMBER.snp-manager`` in /dev/shm. Its program holds
a lock (of ``flock``) on the file, and its server waits for that lock. The names of all blocks of the
manager begin with ``snpmgr-NUMBER-``. The kernel releases a lock when the last process that holds it
has exited, also by a signal. So a free lock means that the manager has ended: as a rule its server has
removed all its blocks, then the file. If the server was killed, too, the next program does that, or
``shared-numpy clean``, unless a process is seen that still has one of the blocks: that may have others
open them by their names. While it has them, to remove the names would bring back no memory.

(A pid in the name would not do: it may be another process's by now, or unknown in this container.)
"""

import fcntl
import io
import os
import stat
import sys
from contextlib import contextmanager, suppress

from .. import _core
from . import records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

_FOLDER = "/dev/shm"
_PREFIX = "snpmgr-"
_SUFFIX = ".snp-manager"

# Whether the file of a manager has a name on this system, by which other programs find it.
HAS_NAMES = sys.platform.startswith("linux")

_swept = False


def file_of(number: str) -> str:
    """Return the name of a manager's file in /dev/shm."""
    return _PREFIX + number + _SUFFIX


def prefix_of(number: str) -> str:
    """Return the prefix of the names of a manager's blocks."""
    return _PREFIX + number + "-"


def number_of(name: str) -> str:
    """Return the number of a manager from the name of its file or of one of its blocks."""
    return name[len(_PREFIX) :].partition("-" if not name.endswith(_SUFFIX) else ".")[0]


def has_file(number: str) -> bool:
    """Tell whether there is the file of a manager."""
    return os.path.lexists(os.path.join(_FOLDER, file_of(number)))


def is_named(fd: int, name: str) -> bool:
    """Tell whether a name in /dev/shm still belongs to an open file."""
    try:
        named = os.stat(os.path.join(_FOLDER, name), follow_symlinks=False)
    except OSError:
        return False
    opened = os.fstat(fd)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)


def clean_once() -> None:
    """Call `clean`, unless this process or its parent has done so."""
    global _swept
    if not _swept:
        _swept = True
        clean()


def clean() -> "List[str]":
    """Remove the blocks of managers whose programs and servers were killed; return the names."""
    removed = []  # type: List[str]
    # (OSError: no descriptor is left. The next program does it.)
    with suppress(OSError):
        names = _names() if HAS_NAMES else []
        for name in names:
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                # (OSError: it belongs to another user, is in use, or is gone meanwhile.)
                with suppress(OSError):
                    removed += clean_one(name)
    records.note_cleaning(removed)
    return removed


def _names():
    try:
        return os.listdir(_FOLDER)
    except (FileNotFoundError, PermissionError):
        return []  # There is no /dev/shm, or this user may not read it.


def clean_one(name: str) -> "List[str]":
    """Remove the blocks of one manager, and its file, if no process has a lock on the file.

    Parameters
    ----------
    name : str
        The name of its file in /dev/shm.

    Returns
    -------
    list of str
        The names of the blocks that were removed.

    Raises
    ------
    OSError
        The manager lives (BlockingIOError), or its file cannot be opened; or the system lacks
        descriptors to tell.
    """
    with _locked(name) as found:
        if not found or _is_used(number_of(name)):
            return []
        removed = clear(number_of(name))
        os.unlink(os.path.join(_FOLDER, name))
    return removed


def is_deserted(name: str) -> bool:
    """Tell whether `clean_one` would remove what a manager has left."""
    try:
        with _locked(name) as found:
            return found and not _is_used(number_of(name))
    except OSError:
        return False


def _is_used(number):
    """Tell whether a process is seen to have a block of a manager mapped or open."""
    blocks = set()
    for name in _names():
        if name.startswith(prefix_of(number)):
            with suppress(OSError):
                status = os.stat(os.path.join(_FOLDER, name), follow_symlinks=False)
                blocks.add((status.st_dev, status.st_ino))
    if not blocks or not hasattr(_core, "list_processes"):
        return False
    try:
        processes, _ = _core.list_processes(sorted({device for device, _ in blocks}))
    except (FileNotFoundError, PermissionError):
        return False  # There is no /proc: nobody is seen.
    return any((file[0], file[1]) in blocks for each in processes for file in each["files"])


@contextmanager
def _locked(name):
    """Lock a manager's file; the value tells whether it is a deserted manager's of this user."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    path = os.path.join(_FOLDER, name)
    # (A file object closes its descriptor, wherever a signal handler raises.)
    with io.FileIO(path, opener=lambda path, _: os.open(path, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            yield False
            return
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Race: its maker may be about to lock it; then it sees that the file has lost its name.
        yield is_named(file.fileno(), name)


def clear(number: str) -> "List[str]":
    """Remove the blocks of a manager, but not its file; return the names.

    Raises
    ------
    OSError
        They cannot be listed, for want of descriptors.
    """
    removed = []
    for name in _names():
        if name.startswith(prefix_of(number)):
            with suppress(OSError):
                os.unlink(os.path.join(_FOLDER, name))
                removed.append(name)
    return removed
