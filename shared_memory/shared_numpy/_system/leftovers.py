"""What the managers of killed programs left.

A manager has a number, and a file ``snpmgr-NUMBER.snp-manager`` in /dev/shm, on which its program
holds a lock (of ``flock``) and for whose lock its server waits. All that is made through the
manager has a name that begins with ``snpmgr-NUMBER-``. The kernel takes a lock back when the last
process that holds it is gone, however it went. So where the lock is free the manager is over:
mostly its server has removed everything then, the file last. If that was killed, too, the next
program does it.

A process's number says nothing here: it may be another process's by now, or mean nothing in this
container.
"""

import fcntl
import io
import os
import stat
import sys
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

_FOLDER = "/dev/shm"
_PREFIX = "snpmgr-"
_SUFFIX = ".snp-manager"

# Whether a manager's file has a name here, by which other programs find it.
HAS_NAMES = sys.platform.startswith("linux")

_swept = False


def file_of(number: str) -> str:
    """Return the name of a manager's file, as it stands in /dev/shm."""
    return _PREFIX + number + _SUFFIX


def prefix_of(number: str) -> str:
    """Return how the names begin of what a manager makes."""
    return _PREFIX + number + "-"


def is_named(fd: int, name: str) -> bool:
    """Tell whether a name in /dev/shm still is that of an open file."""
    try:
        named = os.stat(os.path.join(_FOLDER, name), follow_symlinks=False)
    except OSError:
        return False
    opened = os.fstat(fd)
    return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)


def clean_once() -> None:
    """Sweep, unless this process or its parent has done so."""
    global _swept
    if not _swept:
        _swept = True
        clean()


def clean() -> "List[str]":
    """Remove what managers have made whose programs and servers were killed; return the names."""
    removed = []  # type: List[str]
    if HAS_NAMES:
        for name in _names():
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                # Another user's, in use, or gone meanwhile.
                with suppress(OSError):
                    removed += _clean_one(name)
    return removed


def _names():
    try:
        return os.listdir(_FOLDER)
    except OSError:
        return []  # There is no /dev/shm, or it must not be read.


def _clean_one(name):
    """Remove what a manager has made, and its file, if nobody has a lock on that."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    path = os.path.join(_FOLDER, name)
    # A file object: it closes itself, wherever an exception of a signal's handler comes.
    with io.FileIO(path, opener=lambda path, _: os.open(path, flags)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            return []
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        # (Its maker, which may be about to lock it, sees that it has lost its name.)
        if not is_named(file.fileno(), name):
            return []
        removed = clear(name[len(_PREFIX) : -len(_SUFFIX)])
        os.unlink(path)
    return removed


def clear(number: str) -> "List[str]":
    """Remove what a manager has made, but for its file; return the names."""
    removed = []
    for name in _names():
        if name.startswith(prefix_of(number)):
            with suppress(OSError):
                os.unlink(os.path.join(_FOLDER, name))
                removed.append(name)
    return removed
