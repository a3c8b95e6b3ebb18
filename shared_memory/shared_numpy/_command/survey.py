"""What is in shared memory, whose it is, and whether anybody uses it.

`survey` looks at the files in /dev/shm and in the folder that SHARED_NUMPY_DIR says. It joins no
arena, takes no lock and changes nothing. It is a picture of a moment: files come and go while it
looks, and one that goes is left out.

How it knows who uses a file:

* `/proc` tells which processes have mapped or opened it. That is complete only in the machine's first
  namespace of processes, and for a user who may read every process: `Survey.sees_all`.
* The processes of an arena lock bytes of its lock file. The kernel tells of these locks across
  namespaces and users, so an arena is known to be in use, or orphaned, wherever its lock file can be
  opened.
"""

import os
import re
import stat
import time

from .. import _core

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

__all__ = ["KINDS", "Item", "Process", "Survey", "survey"]

_SHM = "/dev/shm"
# What tells one start of the machine from another. (Without /proc nothing does.)
_BOOT = "/proc/sys/kernel/random/boot_id"

# Kinds.
ARENA = "arena"
NAMED = "named array"
MANAGER = "manager"
SEGMENT = "segment"  # Of the standard library's `shared_memory`, or of this package's twin of it.
SEMAPHORE = "semaphore"
TORCH = "torch"
JOBLIB = "joblib"
UNKNOWN = "unknown"
KINDS = (ARENA, NAMED, MANAGER, SEGMENT, SEMAPHORE, TORCH, JOBLIB, UNKNOWN)

# States.
IN_USE = "in use"  # A process has it.
ORPHANED = "orphaned"  # No process has it, and none will.
UNUSED = "unused"  # No process has it now; it is made to stay until it is deleted.
NOT_KNOWN = "unknown"  # It cannot be seen from here.

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


class Process:
    """A process that uses, or has made, something in shared memory.

    Attributes
    ----------
    pid : int or None
        Its number as ``/proc`` has it; for a process that is not seen there, as it numbers itself.
    command : str or None
        Its command line, if it is seen.
    uid : int or None
        Its user, if it is seen.
    alive : bool or None
        Whether it lives; None if that is not known.
    elsewhere : bool
        Whether it is known to live and not seen: in another namespace of processes.
    slot : int or None
        Its place in the arena, for a member of one.
    how : str
        ``"member"`` of an arena, ``"mapped"``, ``"open"``, or ``"maker"``.
    """

    __slots__ = ("pid", "command", "uid", "alive", "elsewhere", "slot", "how")

    def __init__(
        self,
        pid: "Optional[int]",
        how: str,
        command: "Optional[str]" = None,
        uid: "Optional[int]" = None,
        alive: "Optional[bool]" = True,
        elsewhere: bool = False,
        slot: "Optional[int]" = None,
    ) -> None:
        self.pid, self.how, self.command, self.uid = pid, how, command, uid
        self.alive, self.elsewhere, self.slot = alive, elsewhere, slot

    def as_dict(self) -> "Dict[str, Any]":
        return {name: getattr(self, name) for name in self.__slots__}

    def describe(self) -> str:
        """Return its number and what is to be known of it, as in a table's cell."""
        text = "?" if self.pid is None else str(self.pid)
        if self.elsewhere:
            return text + " (elsewhere)"
        if self.alive is None:
            return text + " (unknown)"
        return text if self.alive else text + " (dead)"


class Item:
    """Something in shared memory: a file or a folder, or the two files of an arena.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    name : str
        The name of its file; its whole path if that is not in /dev/shm.
    path : str
        The path of its file, of an arena's memory.
    size, apparent : int
        The bytes that have memory, and the length of the file.
    uid : int
        Its owner.
    dtype, shape, order : str, tuple of int, str, or None
        Of an array.
    maker : Process or None
        The process that has made it, if its name tells.
    users : list of Process
        The processes that use it, and the members of an arena that have died and are not reaped yet.
    age : float
        Seconds since it was made, or last written to by a system call.
    blocks, handles : int or None
        Of an arena: its blocks, and the handles in flight.
    state : str
        ``"in use"``, ``"orphaned"``, ``"unused"`` (made to stay, and nobody has it now) or
        ``"unknown"``.
    damaged : bool
        Whether what lies in it contradicts itself.
    note : str
        What else is to be said of it, or "".
    look : dict or None
        What the tables of an arena say: `_core.look_at_arena`.
    """

    __slots__ = (
        "kind", "name", "path", "size", "apparent", "uid", "dtype", "shape", "order", "maker",
        "users", "age", "blocks", "handles", "state", "damaged", "note", "look", "files",
    )  # fmt: skip

    def __init__(self, kind: str, name: str, path: str, status: os.stat_result) -> None:
        self.kind, self.name, self.path = kind, name, path
        self.size, self.apparent = status.st_blocks * 512, status.st_size
        self.uid = status.st_uid
        self.age = max(0.0, time.time() - min(status.st_mtime, status.st_ctime))
        self.dtype = self.shape = self.order = None  # type: Any
        self.maker = None  # type: Optional[Process]
        self.users = []  # type: List[Process]
        self.blocks = self.handles = None  # type: Optional[int]
        self.state, self.damaged, self.note = NOT_KNOWN, False, ""
        self.look = None  # type: Optional[Dict[str, Any]]
        # The device and inode of each file of it.
        self.files = [(status.st_dev, status.st_ino)]

    def as_dict(self) -> "Dict[str, Any]":
        """Return it as JSON has it."""
        left_out = ("look", "files", "maker", "users")
        told = {name: getattr(self, name) for name in self.__slots__ if name not in left_out}
        told["age"] = round(self.age, 3)
        told["shape"] = None if self.shape is None else list(self.shape)
        told["maker"] = None if self.maker is None else self.maker.as_dict()
        told["users"] = [user.as_dict() for user in self.users]
        return told


class Survey:
    """What `survey` has found.

    Attributes
    ----------
    items : list of Item
        Sorted by name.
    sees_all : bool
        Whether every process that may use something was seen.
    unseen : str
        Why not, or "".
    """

    def __init__(self) -> None:
        self.items = []  # type: List[Item]
        self.sees_all, self.unseen = False, ""


def folders() -> "List[str]":
    """Return the folders to look in, each once, whatever its paths are.

    Raises
    ------
    ValueError
        SHARED_NUMPY_DIR cannot be a folder for shared memory.
    """
    found = {}  # type: Dict[Any, str]
    for path in (_SHM, _core.folder()):
        if path is not None:
            try:
                status = os.stat(path)
            except OSError:
                continue
            found.setdefault((status.st_dev, status.st_ino), path)
    return list(found.values())


def survey(all_users: bool = True, names: "Optional[List[str]]" = None) -> Survey:
    """Look at what is in shared memory.

    Parameters
    ----------
    all_users : bool
        Whether to tell of what other users own, too.
    names : list of str, optional
        Look at these only: names or paths, with ``shm://`` or without. A plain name is looked for
        in the folder that the environment says first, then in /dev/shm, as `attach` does.

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        SHARED_NUMPY_DIR cannot be a folder for shared memory.
    OSError
        A folder cannot be listed.
    """
    found = Survey()
    places = folders()
    wanted = None if names is None else {full_name(name) for name in names}
    inside = {_file_at(path) for path in places}
    for folder in places:
        listed = set(os.listdir(folder))
        for plain in sorted(listed):
            if _without_suffix(plain) != plain and _without_suffix(plain) in listed:
                continue  # It is told of with the arena's memory.
            name = plain if folder == _SHM else os.path.join(folder, plain)
            if wanted is not None and _without_suffix(name) not in wanted:
                continue
            item = _look_at(folder, plain, name, inside)
            if item is not None and (all_users or item.uid == os.geteuid()):
                found.items.append(item)
    found.items.sort(key=lambda item: item.name)
    _add_processes(found, places)
    return found


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
    stem = _without_suffix(plain)
    for place in reversed(folders()):
        if folder and not (parent and os.path.samestat(parent, os.stat(place))):
            continue
        path = os.path.join(place, plain)
        if stem != plain and os.path.lexists(path):
            plain = stem
        elif not any(os.path.lexists(path + suffix) for suffix in ("", _core.LOCK_SUFFIX)):
            continue
        return plain if place == _SHM else os.path.join(place, plain)
    return name


def _without_suffix(name):
    """Return the name or path of an arena's memory for that of its lock file; others as they are."""
    is_lock = name.endswith(_core.LOCK_SUFFIX) and os.path.basename(name) != _core.LOCK_SUFFIX
    return name[: -len(_core.LOCK_SUFFIX)] if is_lock and _is_text(name) else name


def lock_of(path: str) -> "Optional[os.stat_result]":
    """Return the status of the lock file that an arena at a path has, or None."""
    return status_of(path + _core.LOCK_SUFFIX) if _is_text(path) else None


def _is_text(name):
    """Tell whether an arena may have a name: others may have bytes in it that are no characters."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return bool(os.path.basename(name))


def _file_at(path):
    """Return the device and the inode of what is at a path, or None."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# ---- files ----------------------------------------------------------------------------------


def _look_at(folder, plain, name, inside):
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
    elif _without_suffix(plain) != plain:
        item.kind, item.name, item.path = ARENA, _without_suffix(name), _without_suffix(path)
        pid = _kind_by_name(_without_suffix(plain))[1]
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
    if not _is_text(item.path):
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


def status_of(path: str, follow: bool = False) -> "Optional[os.stat_result]":
    """Return the status of what is at a path, of a link itself unless it is followed; or None."""
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError:
        return None


# ---- processes ------------------------------------------------------------------------------


class _Processes:
    """The processes that `/proc` shows, by what they have and by their numbers."""

    def __init__(self, devices):
        try:
            self.list, complete = _core.list_processes(sorted(devices))
        except OSError:
            self.list, complete = [], False
        self.by_file = {}  # type: Dict[Tuple[int, int], List[Tuple[Dict[str, Any], bool]]]
        self.by_number = {}  # type: Dict[int, List[Dict[str, Any]]]
        for process in self.list:
            for device, inode, mapped in process["files"]:
                self.by_file.setdefault((device, inode), []).append((process, mapped))
            self.by_number.setdefault(process["own_pid"], []).append(process)
        status = status_of("/proc/self/ns/pid")
        try:
            self.namespace = os.stat("/proc/self/ns/pid").st_ino if status else 0
        except OSError:
            self.namespace = 0
        hidden = sum(not process["readable"] for process in self.list)
        self.why = ""
        if not self.list:
            self.why = "there is no /proc"
        elif not complete:
            self.why = "processes of other namespaces, or hidden ones, cannot be seen from here"
        elif hidden:
            one = hidden == 1
            self.why = "{:,} {} more rights, and cannot be looked into".format(
                hidden,
                "process belongs to another user or has" if one else "processes belong to other users or have",
            )
        # Whether a process of this namespace that is not in the list is dead.
        self.lists_own = any(p["namespace"] == self.namespace != 0 for p in self.list)

    def find_member(self, member, files, seen):
        """Return the process that has a place in an arena, or None.

        Parameters
        ----------
        member : dict
            The place, as `_core.look_at_arena` tells it.
        files : list of tuple
            The arena's files.
        seen : set of int
            The processes that have another place.
        """
        for process in self.by_number.get(member["pid"], []):
            if process["pid"] in seen:
                continue
            if not member["namespace"]:
                # It saw another namespace's /proc, and knows neither its own nor when it began. Any
                # process may have that number: it is the one that has the files.
                if any((device, inode) in files for device, inode, _ in process["files"]):
                    return process
            elif process["namespace"] in (0, member["namespace"]):
                if member["started"] in (0, process["started"]):
                    return process
        return None


def _add_processes(found, places):
    """Add to each item its users, and what follows from them."""
    devices = {status.st_dev for status in map(status_of, places) if status is not None}
    processes = _Processes(devices)
    found.unseen, found.sees_all = processes.why, not processes.why
    managers = set()
    for item in found.items:
        _add_users(item, processes)
        if item.kind == MANAGER and item.users:
            managers.add(_manager_of(item))
    for item in found.items:
        _describe_maker(item, processes, found.sees_all)
        item.state = _state_of(item, found.sees_all, managers)


def _manager_of(item):
    """Return the number in the name of a manager's file or segment."""
    return re.split("[-.]", os.path.basename(item.path))[1]


def _add_users(item, processes):
    seen = set()
    for member in item.look["members"] if item.look else []:
        process = processes.find_member(member, item.files, seen)
        if process is not None:
            seen.add(process["pid"])
            item.users.append(_user(process, "member", member["slot"]))
        elif not member["reserved"]:
            item.users.append(_unseen_member(member, item.look, processes))
    for file in item.files:
        for process, mapped in processes.by_file.get(file, []):
            if process["pid"] not in seen:
                seen.add(process["pid"])
                item.users.append(_user(process, "mapped" if mapped else "open"))


def _user(process, how, slot=None):
    return Process(process["pid"], how, process["command"], process["uid"], slot=slot)


def _unseen_member(member, look, processes):
    """Return a member of an arena that `/proc` does not show."""
    locked = member["locked"]
    if locked:
        return Process(member["pid"], "member", elsewhere=True, slot=member["slot"])
    here = member["namespace"] == processes.namespace != 0 and processes.lists_own
    alive = False if locked is False or here else None
    return Process(member["pid"], "member", alive=alive, slot=member["slot"])


def _state_of(item, sees_all, managers):
    if any(user.alive for user in item.users):
        return IN_USE
    if item.look is not None:
        if item.look["any_locked"] or item.look["pinned"] or item.look["ours"]:
            return IN_USE
        if item.look["any_locked"] is False:
            return ORPHANED
    if item.kind == MANAGER and _manager_of(item) in managers:
        return IN_USE
    if item.kind in (JOBLIB, TORCH) and item.maker is not None and item.maker.alive:
        # (Its maker opens it again by its name, or has another process do that.)
        return IN_USE
    if not sees_all:
        return NOT_KNOWN
    is_temporary = os.path.basename(item.path).startswith(".snp-")
    if item.kind == NAMED and not is_temporary:
        return UNUSED
    return NOT_KNOWN if item.kind == UNKNOWN else ORPHANED


def _describe_maker(item, processes, sees_all):
    """Say whether the process whose number the name has lives."""
    maker = item.maker
    if maker is None:
        return
    for user in item.users:
        if user.alive and not user.elsewhere and _has_number(user.pid, maker.pid, processes):
            maker.pid, maker.command, maker.uid = user.pid, user.command, user.uid
            maker.alive = True
            return
    candidates = processes.by_number.get(maker.pid, [])
    maker.alive = False if sees_all else None
    now = time.time()
    try:
        boot = now - _uptime() if candidates else now
    except OSError:
        maker.alive = None  # (No /proc: when they began is not known.)
        return
    for process in candidates:
        # (A number comes around: the maker began before what it has made.)
        started = boot + process["started"] / os.sysconf("SC_CLK_TCK")
        if process["uid"] == item.uid and started <= now - item.age + 1:
            maker.pid, maker.command, maker.uid = process["pid"], process["command"], process["uid"]
            maker.alive = True
            return


def _has_number(pid, own_pid, processes):
    return any(process["pid"] == pid for process in processes.by_number.get(own_pid, []))


def _uptime():
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # (From 3.7 on.)
    if clock is not None:
        return time.clock_gettime(clock)
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])
