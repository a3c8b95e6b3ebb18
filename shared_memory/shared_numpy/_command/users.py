"""Who uses what is in shared memory, and what state follows from it."""

import os
import re
import time

from .. import _core
from .items import (
    AWAITED,
    IN_USE,
    JOBLIB,
    MANAGER,
    NAMED,
    NOT_KNOWN,
    ORPHANED,
    SEGMENT,
    SEMAPHORE,
    TORCH,
    UNKNOWN,
    UNUSED,
    Nameless,
    Process,
)
from .names import status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple


# Seconds for which what was sent waits for a receiver when no process has the arena: as long as
# `_core.clean_arena` lets it wait, whose rule it is.
GRACE = 600.0
# The same where the sender was killed, or its place was not cleared.
GRACE_OF_KILLED = 30.0


class _Processes:
    """The processes that `/proc` shows, by what they have and by their numbers."""

    def __init__(self, devices):
        try:
            self.list, complete = _core.list_processes(sorted(devices))
        except OSError:
            self.list, complete = [], False
        self.by_file = {}  # type: Dict[Tuple[int, int], List[Tuple[Dict[str, Any], bool]]]
        self.by_number = {}  # type: Dict[int, List[Dict[str, Any]]]
        # The bytes of the files that have no name any more; None where they may not be asked.
        self.nameless = {}  # type: Dict[Tuple[int, int], Optional[int]]
        for process in self.list:
            for device, inode, mapped, deleted, size in process["files"]:
                self.by_file.setdefault((device, inode), []).append((process, mapped))
                if deleted and self.nameless.get((device, inode)) is None:
                    self.nameless[device, inode] = size
            self.by_number.setdefault(process["own_pid"], []).append(process)
        status = status_of("/proc/self/ns/pid")
        try:
            self.namespace = os.stat("/proc/self/ns/pid").st_ino if status else 0
        except OSError:
            self.namespace = 0
        # Whether no process is missing; of some, other users', it may be hidden what they have.
        self.complete = complete and bool(self.list)
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
                if any((each[0], each[1]) in files for each in process["files"]):
                    return process
            elif process["namespace"] in (0, member["namespace"]):
                if member["started"] in (0, process["started"]):
                    return process
        return None


def add_processes(found: "Any", places: "List[str]") -> None:
    """Add to each item its users, and what follows from them; and the files without a name."""
    devices = {}  # type: Dict[int, str]
    for place in places:
        status = status_of(place)
        if status is not None:
            devices.setdefault(status.st_dev, place)
    processes = _Processes(devices)
    for file, size in sorted(processes.nameless.items()):
        users = [
            _user(process, "mapped" if mapped else "open")
            for process, mapped in processes.by_file[file]
        ]
        found.nameless.append(Nameless(devices[file[0]], file, size, users))
    found.unseen, found.sees_all = processes.why, not processes.why
    managers = set()
    for item in found.items:
        _add_users(item, processes)
        if item.kind == MANAGER and item.users:
            managers.add(_manager_of(item))
    for item in found.items:
        _describe_maker(item, processes)
        item.state = _state_of(item, found.sees_all, managers)
        if item.state == ORPHANED and item.handles:
            left = _awaited_for(item)
            if left > 0:
                item.state, item.awaited_for = AWAITED, left


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
        if _is_deserted(item):
            return ORPHANED
    if item.kind == MANAGER and _manager_of(item) in managers:
        return IN_USE
    if item.kind in (JOBLIB, TORCH) and item.maker is not None and item.maker.alive:
        # (Its maker opens it again by its name, or has another process do that.)
        return IN_USE
    if not sees_all:
        return NOT_KNOWN
    if item.kind == UNKNOWN:
        return NOT_KNOWN
    return UNUSED if _may_be_wanted(item) else ORPHANED


def _is_deserted(item):
    """Tell whether the locks say that no process has an arena, and none is seen that has it."""
    look = item.look
    if look is None or any(user.alive for user in item.users):
        return False
    return look["any_locked"] is False and not look["pinned"] and not look["ours"]


def _awaited_for(item):
    """Return for how many seconds more an arena that no process has waits for a receiver.

    The rule is `_core.clean_arena`'s, which judges the arenas of this user. What it keeps of another
    user's is told by the ages alone.
    """
    try:
        if item.uid == os.geteuid() and _core.clean_arena(item.name, GRACE, True)[0] != "awaited":
            return 0.0
        handles = _core.look_at_arena(item.path, True).get("handle_list", [])
    except (OSError, ValueError):
        return 0.0  # (It has gone meanwhile.)
    # (A handle in a message goes with the message.)
    graces = {
        "sender has left": GRACE,
        "sender": GRACE_OF_KILLED,
        "sender was killed": GRACE_OF_KILLED,
    }
    return max((graces.get(each["owner"], 0.0) - each["age"] / 1000 for each in handles), default=0.0)


def _may_be_wanted(item):
    """Tell whether somebody may want a thing that no process has, as far as its name tells."""
    name = os.path.basename(item.path)
    if item.kind == NAMED:
        return not name.startswith(".snp-")
    if item.kind == SEMAPHORE:
        # (Those of `multiprocessing` are mapped for as long as their makers may want them.)
        return not name.startswith("sem.mp-")
    # A program may close a segment and open it again, and its name tells of no maker.
    return item.kind == SEGMENT


def _describe_maker(item, processes):
    """Say whether the process whose number the name has lives."""
    maker = item.maker
    if maker is None:
        return
    for user in item.users:
        if user.alive and not user.elsewhere and _has_number(user.pid, maker.pid, processes):
            maker.pid, maker.command, maker.uid = user.pid, user.command, user.uid
            maker.alive = True
            return
    if _has_dead_place(item):
        maker.alive = False
        return
    candidates = processes.by_number.get(maker.pid, [])
    # (A process keeps the arenas that it has made until it ends or closes them.)
    maker.alive = False if processes.complete or _is_deserted(item) else None
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


def _has_dead_place(item):
    """Tell whether the place of an arena's maker among its processes is known to be a dead one's.

    The name has only a number. A place with that number is the maker's, or in the same namespace a
    later process's, which got the number after the maker had ended.
    """
    alive = [
        user.alive for user in item.users if user.slot is not None and user.pid == item.maker.pid
    ]
    return bool(alive) and not any(each is not False for each in alive)


def _has_number(pid, own_pid, processes):
    return any(process["pid"] == pid for process in processes.by_number.get(own_pid, []))


def _uptime():
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # (From 3.7 on.)
    if clock is not None:
        return time.clock_gettime(clock)
    with open("/proc/uptime") as file:
        return float(file.read().split()[0])
