"""What a survey tells of: the things in shared memory, of which kinds and states they are, and the
processes that have them."""

import os
import time

from .output import duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

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
AWAITED = "awaited"  # No process has it, and what was sent waits in it for a receiver.
UNUSED = "unused"  # No process has it now; one that lives, or comes, may want it.
NOT_KNOWN = "unknown"  # It cannot be seen from here.


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
        ``"in use"``, ``"orphaned"``, ``"awaited"`` (an arena that nobody has, in which what was sent
        waits for a receiver), ``"unused"`` (nobody has it now, and nothing tells that nobody wants it)
        or ``"unknown"``.
    awaited_for : float or None
        For how many seconds more it waits, if it is awaited; then it is orphaned.
    damaged : bool
        Whether what lies in it contradicts itself.
    note : str
        What else is to be said of it, or "".
    look : dict or None
        What the tables of an arena say: `_core.look_at_arena`.
    """

    __slots__ = (
        "kind", "name", "path", "size", "apparent", "uid", "dtype", "shape", "order", "maker",
        "users", "age", "blocks", "handles", "state", "awaited_for", "damaged", "note", "look", "files",
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
        self.awaited_for = None  # type: Optional[float]
        self.look = None  # type: Optional[Dict[str, Any]]
        # The device and inode of each file of it.
        self.files = [(status.st_dev, status.st_ino)]

    def describe_state(self) -> str:
        """Return the state as people read it."""
        text = "damaged, " + self.state if self.damaged else self.state
        if self.awaited_for is not None:
            text += " ({} left)".format(duration(self.awaited_for))
        return text

    def as_dict(self) -> "Dict[str, Any]":
        """Return it as JSON has it."""
        left_out = ("look", "files", "maker", "users")
        told = {name: getattr(self, name) for name in self.__slots__ if name not in left_out}
        told["age"] = round(self.age, 3)
        if self.awaited_for is not None:
            told["awaited_for"] = round(self.awaited_for, 3)
        told["shape"] = None if self.shape is None else list(self.shape)
        told["maker"] = None if self.maker is None else self.maker.as_dict()
        told["users"] = [user.as_dict() for user in self.users]
        return told


class Nameless:
    """A file that was deleted, and that processes still have mapped or open: it takes memory.

    Attributes
    ----------
    folder : str
        The folder on whose file system it lies.
    file : tuple of int
        Its device and inode.
    size : int or None
        The bytes that have memory; None if they may not be asked from here.
    users : list of Process
        The processes that have it.
    """

    __slots__ = ("folder", "file", "size", "users")

    def __init__(
        self, folder: str, file: "Tuple[int, int]", size: "Optional[int]", users: "List[Process]"
    ) -> None:
        self.folder, self.file, self.size, self.users = folder, file, size, users

    def as_dict(self) -> "Dict[str, Any]":
        """Return it as JSON has it."""
        return {
            "folder": self.folder,
            "inode": self.file[1],
            "size": self.size,
            "users": [user.as_dict() for user in self.users],
        }
