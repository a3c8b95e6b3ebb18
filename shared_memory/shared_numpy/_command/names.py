"""How what is in shared memory is called, and the folders in which it lies."""

import os

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

SHM = "/dev/shm"


def folders() -> "List[str]":
    """Return the folders to look in, each once, whatever its paths are.

    Raises
    ------
    ValueError
        SHARED_NUMPY_DIR cannot be a folder for shared memory.
    """
    found = {}  # type: Dict[Any, str]
    for path in (SHM, _core.folder()):
        if path is not None:
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def full_name(name: str) -> str:
    """Return what a user calls something as `Item.name` has it.

    A name without a folder is looked for in the folder that the environment says first, then in
    /dev/shm, as `attach` does. Also the name of an arena's lock file leads to the arena.

    Parameters
    ----------
    name : str
        A name or a path, with ``shm://`` or without.

    Raises
    ------
    ValueError
        SHARED_NUMPY_DIR cannot be a folder for shared memory.
    """
    name = name[len("shm://") :] if name.startswith("shm://") else name
    folder, plain = os.path.split(name)
    if not plain:
        return name
    parent = status_of(folder, follow=True) if folder else None
    stem = without_suffix(plain)
    for place in reversed(folders()):
        if folder and not (parent and os.path.samestat(parent, os.stat(place))):
            continue
        path = os.path.join(place, plain)
        if stem != plain and os.path.lexists(path):
            plain = stem
        elif not any(os.path.lexists(path + suffix) for suffix in ("", _core.LOCK_SUFFIX)):
            continue
        return plain if place == SHM else os.path.join(place, plain)
    return name


def without_suffix(name: str) -> str:
    """Return the name or path of an arena's memory for that of its lock file; others as they are."""
    is_lock = name.endswith(_core.LOCK_SUFFIX) and os.path.basename(name) != _core.LOCK_SUFFIX
    return name[: -len(_core.LOCK_SUFFIX)] if is_lock and is_text(name) else name


def lock_of(path: str) -> "Optional[os.stat_result]":
    """Return the status of the lock file that an arena at a path has, or None."""
    return status_of(path + _core.LOCK_SUFFIX) if is_text(path) else None


def is_text(name: str) -> bool:
    """Tell whether an arena may have a name: others may have bytes in it that are no characters."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return bool(os.path.basename(name))


def file_at(path: str) -> "Optional[Tuple[int, int]]":
    """Return the device and the inode of what is at a path, or None."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def status_of(path: str, follow: bool = False) -> "Optional[os.stat_result]":
    """Return the status of what is at a path, of a link itself unless it is followed; or None."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError:
        return None
