"""What lies in shared memory: each file is looked at without mapping, joining or changing anything."""

import os
import re
import stat
import time

from .. import _core
from .items import (
    ARENA,
    JOBLIB,
    MANAGER,
    NAMED,
    SEGMENT,
    SEMAPHORE,
    TORCH,
    UNKNOWN,
    Item,
    Process,
)
from .names import is_text, lock_of, without_suffix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Set

# What tells one start of the machine from another. (Without /proc nothing does.)
_BOOT = "/proc/sys/kernel/random/boot_id"

# An arena without its magic number that is younger may be in the making, in seconds.
_IN_THE_MAKING = 10
# How many files of a folder that is no file itself are counted.
_MOST_FILES = 100000


_ARENA_NAME = re.compile(r"snp-(?P<program>[A-Za-z0-9_.]*)-(?P<pid>[0-9a-f]+)-[0-9a-f]{8}\Z")
# Kinds by the beginnings of names, and where the maker's number is.
_PATTERNS = (
    (MANAGER, re.compile(r"snpmgr-")),
    (NAMED, re.compile(r"\.snp-(making|replacing)-")),
    (SEGMENT, re.compile(r"psm_[0-9a-f]+\Z")),
    (JOBLIB, re.compile(r"sem\.loky-(?P<pid>[0-9]+)-")),
    (JOBLIB, re.compile(r"joblib_memmapping_folder_(?P<pid>[0-9]+)_")),
    (JOBLIB, re.compile(r"loky-(?P<pid>[0-9]+)-")),
    (SEMAPHORE, re.compile(r"sem\.")),
    (TORCH, re.compile(r"torch_(?P<pid>[0-9]+)_")),
)


def look_at(folder: str, plain: str, name: str, inside: "Set[Any]") -> "Optional[Item]":
    """Look at one file; return None if it is gone, or is a folder that is surveyed itself."""
    path = os.path.join(folder, plain)
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    if (status.st_dev, status.st_ino) in inside:
        return None
    kind, maker = _kind_by_name(plain)
    item = Item(kind, name, path, status)
    item.maker = None if maker is None else Process(maker, "maker", alive=None)
    if stat.S_ISDIR(status.st_mode):
        _count_folder(item, inside)
    elif not stat.S_ISREG(status.st_mode):
        item.note = "not a file: a link, pipe, socket or device"
    elif without_suffix(plain) != plain:
        item.kind, item.name, item.path = ARENA, without_suffix(name), without_suffix(path)
        pid = _kind_by_name(without_suffix(plain))[1]
        item.maker = None if pid is None else Process(pid, "maker", alive=None)
        item.note = _unfinished(item)
    else:
        return _look_into(item)
    return item


def _kind_by_name(plain):
    """Return the kind that a name tells, and its maker's number or None."""
    match = _ARENA_NAME.match(plain)
    if match:
        return ARENA, int(match.group("pid"), 16)
    for kind, pattern in _PATTERNS:
        match = pattern.match(plain)
        if match:
            pid = match.groupdict().get("pid")
            return kind, None if pid is None else int(pid)
    return UNKNOWN, None


def _count_folder(item, inside):
    """Add up what lies in a folder, but for folders that are surveyed themselves."""
    waiting, counted = [item.path], 0
    while waiting and counted < _MOST_FILES:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            item.note = "not all of it may be read"
            continue
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            file = status.st_dev, status.st_ino
            if file in inside or file in item.files:
                continue
            counted += 1
            item.size += status.st_blocks * 512
            item.files.append(file)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(entry.path)
            else:
                item.apparent += status.st_size
    item.note = item.note or "a folder with {:,} files".format(counted)


def _look_into(item):
    """Look at what lies in a file; return the item, or None if the file is gone.

    Each read is of the file that was opened: another one may get its name at any time.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    status = lock_of(item.path)
    lock = None if status is None else (status.st_dev, status.st_ino)
    try:
        fd = os.open(item.path, flags)
    except FileNotFoundError:
        return None
    except OSError:
        item.note = "it may not be read"
        if lock is not None:
            item.kind = ARENA
            item.files.append(lock)
        return item
    try:
        item = _same_item(item, os.fstat(fd))
        start = os.pread(fd, 8, 0)
        end = os.pread(fd, 88, item.apparent - 88)[:8] if item.apparent >= 88 else b""
        if start == b"snpARENA" or lock is not None:
            if lock is not None:
                item.files.append(lock)
            return _look_at_arena(item)
        if b"snpNAMED" in (start, end):
            _read_layout(item, fd)
    finally:
        os.close(fd)
    return item


def _same_item(item, status):
    """Return the item of the file that was opened, which may be another than before."""
    opened = Item(item.kind, item.name, item.path, status)
    opened.maker = item.maker
    return opened


def _read_layout(item, fd):
    """Read the description of a named array."""
    # (It needs numpy, which nothing else here does.)
    from .._system import named_layout

    if item.kind == UNKNOWN:
        item.kind = NAMED
    try:
        layout = named_layout.read(lambda length, at: os.pread(fd, length, at), item.apparent)
    except ValueError as error:
        item.note = str(error)
        item.damaged = "version" not in item.note
        return
    item.dtype, item.shape, item.order = str(layout.dtype), tuple(layout.shape), layout.order


def _look_at_arena(item):
    if not is_text(item.path):
        item.note = "it begins as an arena does, but no arena has bytes in its name that are no text"
        return item
    item.kind = ARENA
    try:
        item.look = look = _core.look_at_arena(item.path)
    except FileNotFoundError:
        return None
    except OSError as error:
        item.note = "it may not be read: {}".format(error.strerror)
        return item
    if look["same_lock_file"] is False:
        # (Its members' locks are on another file: that nobody has one on this proves nothing.)
        look["any_locked"] = look["any_locked"] or None
        for member in look["members"]:
            member["locked"] = member["locked"] or None
    kind = look["kind"]
    lock = lock_of(item.path)
    if lock is not None:
        # (Nobody writes to the lock file: it is as old as the arena.)
        item.age = max(0.0, time.time() - lock.st_mtime)
    if kind == "other" or (kind == "unfinished" and lock is None):
        item.kind, item.look = UNKNOWN, None
        if lock is not None:
            item.note = "it lies where the memory of an arena belongs, and is none"
        return item
    if kind == "unfinished":
        item.note = _unfinished(item)
    elif kind == "other version":
        item.note = "made by another build of the package"
        if look["version"] is not None:
            item.note = "made by another version of the package, in format {}".format(look["version"])
    elif kind == "damaged":
        item.damaged, item.note = True, look["why"]
    else:
        item.blocks, item.handles = look["blocks"], look["handles"]
        _judge(item, look)
    return item


def _judge(item, look):
    """Say what contradicts itself in an arena of this version."""
    if look["poisoned"]:
        item.damaged, item.note = True, "a process found a contradiction in it: no operation works"
    elif look["odd"]:
        item.damaged, item.note = True, look["odd"][0]
    elif look["same_lock_file"] is False:
        item.damaged, item.note = True, "its lock file was replaced"
    elif look["same_lock_file"] is None:
        item.note = "its lock file is gone: it is being removed, or was removed in part"
    elif not look["same_boot"] and os.access(_BOOT, os.R_OK):
        item.note = "made before the machine was started, or on another machine"


def _unfinished(item):
    if item.age < _IN_THE_MAKING:
        return "not finished: it is being made or removed"
    return "not finished: its maker, or the process that removed it, was killed"
