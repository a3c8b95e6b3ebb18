"""Checks of shared memory: its folder and space, the memory limit, and what lies there."""

import os
from contextlib import suppress

from .. import _core
from . import output
from .finding import Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

_SHM = "/dev/shm"
_MIB = 1 << 20
# Docker's default for /dev/shm.
_SMALL = 64 * _MIB

_ENLARGE = (
    "Enlarge it: docker run --shm-size=2g, an emptyDir with medium: Memory on /dev/shm in "
    "Kubernetes, or mount -o remount,size=8g /dev/shm. Or set SHARED_NUMPY_DIR to a folder on a "
    "larger tmpfs."
)


def folder() -> "Iterator[Finding]":
    """Look at where arenas and named arrays are made."""
    try:
        chosen = _core.folder() if hasattr(_core, "folder") else None
    except ValueError as error:
        yield Finding(
            "error", "folder", str(error),
            "The first array that a program makes raises ValueError.",
            "Set SHARED_NUMPY_DIR to a folder on a tmpfs, or unset it for /dev/shm.",
        )  # fmt: skip
        return
    for place in [_SHM] + ([chosen] if chosen else []):
        yield from _one_folder(place, place == (chosen or _SHM))


def _one_folder(place, is_used):
    level = "error" if is_used else "warning"
    if not os.path.isdir(place):
        yield Finding(
            level, "folder", "There is no folder {}".format(place),
            "No shared memory can be made there.",
            "Mount one: mkdir -p {0}; mount -t tmpfs -o mode=1777 tmpfs {0}".format(place),
        )  # fmt: skip
    elif not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            level, "folder", "{} cannot be written to by user {}".format(place, os.geteuid()),
            "No shared memory can be made there.",
            "chmod 1777 {}, mount it read-write, or set SHARED_NUMPY_DIR to another folder on a "
            "tmpfs.".format(place),
        )  # fmt: skip
    elif not _is_tmpfs(place):
        yield Finding(
            level, "folder", "{} is not on a tmpfs".format(place),
            "What is written to shared memory there is written to a disk, and stays after a restart.",
            "Mount one: mount -t tmpfs -o mode=1777 tmpfs {}".format(place),
        )  # fmt: skip
    elif not os.access(place, os.R_OK):
        yield Finding(
            "warning", "folder", "{} cannot be listed by user {}".format(place, os.geteuid()),
            "Shared memory can be made there, and what killed programs left there stays: no program "
            "that starts finds it, and no command shows it.",
            "chmod 1777 {}, or set SHARED_NUMPY_DIR to another folder on a tmpfs.".format(place),
        )  # fmt: skip
    else:
        yield Finding(
            "ok", "folder",
            "Shared memory is made in {}".format(place) if is_used
            else "{} is there for SharedMemory".format(place),
            "The folder is on a tmpfs and can be written to.", "",
        )  # fmt: skip


def _is_tmpfs(place):
    if not hasattr(_core, "is_on_tmpfs"):
        return True
    with suppress(OSError):
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _core.is_on_tmpfs(fd)
        finally:
            os.close(fd)
    return True  # It cannot be asked.


def space() -> "Iterator[Finding]":
    """Look at the size and use of the folders for shared memory."""
    places = [_SHM]
    with suppress(ValueError):
        chosen = _core.folder() if hasattr(_core, "folder") else None
        places += [chosen] if chosen else []
    for place in places:
        with suppress(OSError):
            yield from _space_of(place, os.statvfs(place))


def _space_of(place, status):
    """Look at the space of a folder, as `os.statvfs` tells it."""
    whole, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
    if not whole:
        yield Finding(
            "ok", "space", "{} has no limit of its own".format(place),
            "It can take all memory of the machine.", "",
        )  # fmt: skip
        return
    used = 1 - free / whole
    title = "{}: {} in all, {} free ({:.0f} % used)".format(
        place, output.size(whole), output.size(free), 100 * used
    )
    if status.f_files and status.f_favail * 100 < status.f_files:
        yield Finding(
            "error", "space",
            "{}: {} of {} inodes are free".format(place, status.f_favail, status.f_files),
            "Soon no file can be made there, however small.",
            "See what is there (shared-numpy ls), remove what killed programs left "
            "(shared-numpy clean), or mount it with nr_inodes=0.",
        )  # fmt: skip
    if used >= 0.95:
        yield Finding(
            "error", "space", title,
            "It is full: arrays raise ArenaFullError, and programs that do not reserve memory "
            "before they write end with SIGBUS.",
            "See whose it is (shared-numpy ls), and remove what killed programs left "
            "(shared-numpy clean). " + _ENLARGE,
        )  # fmt: skip
    elif used >= 0.8:
        yield Finding(
            "warning", "space", title, "Little is left for new arrays.",
            "See whose it is (shared-numpy ls), and remove what killed programs left "
            "(shared-numpy clean). " + _ENLARGE,
        )  # fmt: skip
    elif whole <= _SMALL:
        yield Finding(
            "warning", "space", title,
            "That is little (64 MiB is what Docker gives): larger arrays raise ArenaFullError.",
            _ENLARGE,
        )  # fmt: skip
    else:
        yield Finding("ok", "space", title, "There is room.", "")


def memory_limit() -> "Iterator[Finding]":
    """Look at the memory limit of the process's control groups."""
    left = _core.memory_left()
    if left is None:
        yield Finding(
            "ok", "memory limit", "No memory limit of a control group",
            "Shared memory can take what its folder has, and what the machine has.", "",
        )  # fmt: skip
        return
    title = "The memory limit of this process's control group leaves {}".format(output.size(left))
    try:
        status = os.statvfs(_SHM)
        free = status.f_bavail * status.f_frsize
    except OSError:
        free = 0
    advice = (
        "Raise the limit: docker run --memory, resources.limits.memory of Kubernetes, MemoryMax of "
        "systemd."
    )
    if left < 64 * _MIB:
        yield Finding(
            "error", "memory limit", title,
            "Shared memory counts towards it. Requests that do not fit raise ArenaFullError; the "
            "kernel kills a process that goes beyond it otherwise.",
            advice,
        )  # fmt: skip
    elif left < free:
        yield Finding(
            "warning", "memory limit", title,
            "That is less than {} has free ({}), and shared memory counts towards it.".format(
                _SHM, output.size(free)
            ),
            advice,
        )  # fmt: skip
    else:
        yield Finding("ok", "memory limit", title, "That is more than {} has free.".format(_SHM), "")


def leftovers() -> "Iterator[Finding]":
    """Look for what killed programs left in shared memory."""
    if not hasattr(_core, "look_at_arena"):
        return
    from . import ls, survey

    try:
        found = survey.survey(all_users=False)
    except (OSError, ValueError) as error:
        yield Finding(
            "warning", "leftovers", "What is in shared memory cannot be listed: {}".format(error),
            "What killed programs left is not seen.", "See the finding about the folder.",
        )  # fmt: skip
        return
    # (What waits for a receiver still is "awaited".)
    orphans = [item for item in found.items if item.state == survey.ORPHANED]
    damaged = [item for item in found.items if item.damaged]
    if orphans:
        yield Finding(
            "warning", "leftovers",
            "{:,} thing{} of this user that no process has: {}".format(
                len(orphans), "" if len(orphans) == 1 else "s",
                output.size(sum(item.size for item in orphans)),
            ),
            "Killed programs left them ({}{}). Arenas and what managers left go when any program "
            "makes arrays; the rest stays until it is removed.".format(
                ", ".join(item.name for item in orphans[:3]), ", ..." if len(orphans) > 3 else ""
            ),
            "shared-numpy clean removes arenas and what managers left; segments and semaphores go by "
            "name. See shared-numpy ls.",
        )  # fmt: skip
    if damaged:
        yield Finding(
            "warning", "leftovers",
            "{:,} damaged: {}{}".format(
                len(damaged), ", ".join(item.name for item in damaged[:3]),
                ", ..." if len(damaged) > 3 else "",
            ),
            "A process has overwritten them: programs that use them get ArenaCorruptedError or "
            "ValueError.",
            "When the programs that use them have ended: shared-numpy clean; what that keeps and gives "
            "the reason for goes by shared-numpy clean --force NAME",
        )  # fmt: skip
    yield from _not_orphaned(found, ls.describe_nameless(found))
    if not orphans and not damaged:
        title = "No leftovers among {:,} things of this user".format(len(found.items))
        unseen = "" if found.sees_all else " (Segments cannot be judged: {}.)".format(found.unseen)
        yield Finding("ok", "leftovers", title, "Nothing is known to be nobody's." + unseen, "")


def _not_orphaned(found, nameless):
    """Tell of what takes memory though no process may want it, of which nothing proves that."""
    unused = [item for item in found.items if item.state == "unused" and item.kind != "named array"]
    if unused:
        yield Finding(
            "ok", "leftovers",
            "{:,} segment{} or semaphore{} of this user that no process has now: {}".format(
                len(unused), *["" if len(unused) == 1 else "s"] * 2,
                output.size(sum(item.size for item in unused))
            ),
            "Their names ({}{}) do not tell who made them: a program that lives may open them again, or "
            "killed programs left them.".format(
                ", ".join(item.name for item in unused[:3]), ", ..." if len(unused) > 3 else ""
            ),
            "If their programs have ended: shared-numpy clean NAME ...",
        )  # fmt: skip
    for sentence in nameless:
        yield Finding(
            "ok", "leftovers", sentence,
            "The sizes of the things in shared-numpy ls do not add up to what is used. Memory without "
            "a name comes back when its processes drop it or end.",
            "",
        )  # fmt: skip
