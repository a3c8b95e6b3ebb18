"""What is right and wrong on this machine: ``snp.diagnose()`` and ``shared-numpy doctor``.

Each check is a function that yields findings. It only reads: no check makes, removes or attaches
anything, and none imports numpy. Checks that read files of the system take the folder that stands
for ``/``, so that tests can show them other systems.
"""

import glob
import multiprocessing
import os
import platform
import sys
from contextlib import suppress
from typing import NamedTuple

from .. import _core
from . import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, List, Optional

# From the worst on: what fails or will fail; what may surprise; what is only told.
LEVELS = ("error", "warning", "ok")

_SHM = "/dev/shm"
_MIB = 1 << 20
# Docker's default for /dev/shm.
_SMALL = 64 * _MIB
# Descriptors below which a program with a few workers can run out of them.
_FEW_DESCRIPTORS = 256

_OLDEST, _NEWEST = (3, 6), (3, 15)
_NUMPY = (1, 17)


class Finding(NamedTuple):
    """One thing that `diagnose` has looked at.

    Attributes
    ----------
    level : str
        ``"error"``: something fails or is about to. ``"warning"``: something may surprise.
        ``"ok"``: nothing is wrong.
    topic : str
        What was looked at: ``"interpreter"``, ``"kernel"``, ``"folder"``, ``"space"``,
        ``"memory limit"``, ``"limits"``, ``"logout"``, ``"start method"``, ``"huge pages"``,
        ``"leftovers"`` or ``"extras"``.
    title : str
        What was found, with values.
    meaning : str
        What follows from it.
    advice : str
        What to do; empty if there is nothing to do.
    """

    level: str
    topic: str
    title: str
    meaning: str
    advice: str


def diagnose() -> "List[Finding]":
    """Look for what is wrong with this machine's settings for shared memory.

    It looks at the interpreter and the wheel, the kernel, the folder for shared memory and its
    space, limits of memory, descriptors and processes, logind's ``RemoveIPC``, the start method,
    huge pages, what killed programs left, and packages that are used where they are installed. It
    changes nothing. ``shared-numpy doctor`` prints the same.

    Returns
    -------
    list of Finding
        The worst first. A finding is a named tuple: ``level`` (``"error"``, ``"warning"`` or
        ``"ok"``), ``topic``, ``title``, ``meaning``, ``advice``; all are str.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> worst = snp.diagnose()[0]
    >>> worst.level in ("error", "warning", "ok")
    True
    """
    found = []  # type: List[Finding]
    for check in CHECKS:
        found.extend(check())
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


# ---- the interpreter ------------------------------------------------------------------------


def interpreter() -> "Iterator[Finding]":
    """Look at the interpreter, the wheel and numpy."""
    numpy = version_of("numpy")
    title = "{} {}, shared-numpy {} ({}), numpy {}".format(
        platform.python_implementation(),
        platform.python_version(),
        _core.__version__,
        wheel() or "not from a wheel",
        numpy or "missing",
    )
    if not hasattr(_core, "Arena"):
        yield Finding(
            "error", "interpreter", title,
            "Arrays in shared memory need 64-bit Linux, and this is {} {} with pointers of {} bits. "
            "SharedMemory, ShareableList and managers work.".format(
                os.uname().sysname, os.uname().machine, 64 if sys.maxsize > 1 << 32 else 32
            ),
            "Use a 64-bit interpreter on Linux for arrays.",
        )  # fmt: skip
    elif numpy is None:
        yield Finding(
            "error", "interpreter", title,
            "Arrays need numpy, and {} has none.".format(sys.executable),
            "pip install 'numpy>=1.17'",
        )  # fmt: skip
    elif _numbers(numpy) < _NUMPY:
        yield Finding(
            "error", "interpreter", title, "Arrays need numpy 1.17 or later.",
            "pip install 'numpy>=1.17'",
        )  # fmt: skip
    elif not _OLDEST <= sys.version_info[:2] <= _NEWEST:
        yield Finding(
            "warning", "interpreter", title,
            "It is tested on CPython {}.{} to {}.{}.".format(*_OLDEST + _NEWEST),
            "If something fails, try one of these versions.",
        )  # fmt: skip
    else:
        yield Finding("ok", "interpreter", title, "The interpreter and numpy are supported.", "")


def _numbers(version):
    """Return the first two numbers of a version."""
    parts = (version.split(".") + ["0"])[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def version_of(package: str) -> "Optional[str]":
    """Return the version of an installed package without importing it, or None.

    (CPython 3.6 and 3.7 have no `importlib.metadata`.)
    """
    folder = _metadata_of(package)
    if folder is not None:
        for file in ("METADATA", "PKG-INFO"):
            for line in (_read(os.path.join(folder, file)) or "").splitlines():
                if line.startswith("Version:"):
                    return line[len("Version:") :].strip()
    return None


def wheel() -> "Optional[str]":
    """Return the tag of the wheel from which this package was installed, or None."""
    folder = _metadata_of("shared_numpy")
    text = (_read(os.path.join(folder, "WHEEL")) if folder else None) or ""
    tags = [line[len("Tag:") :].strip() for line in text.splitlines() if line.startswith("Tag:")]
    return tags[0] if tags else None


def _metadata_of(package):
    """Return the folder with the metadata of an installed package, or None."""
    for place in sys.path:
        for ending in ("-*.dist-info", "-*.egg-info"):
            found = sorted(glob.glob(os.path.join(glob.escape(place or "."), package + ending)))
            found = [path for path in found if os.path.isdir(path)]
            if found:
                return found[-1]
    return None


def _read(path):
    """Return the text of a file, or None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


# ---- the kernel -----------------------------------------------------------------------------

# What `machine` tells: whether arrays need it, and what follows if it is missing.
_FEATURES = (
    ("byte_locks", True, "bytes of files cannot be locked: no arena can be made"),
    ("fallocate", True, "memory cannot be reserved: no arena can be made"),
    ("ofd_locks", False, "locks of open files are missing: flock takes their place"),
    ("punch_hole", False, "free memory cannot be given back before its arena ends"),
    ("o_tmpfile", False, "a named array has a temporary name while it is made"),
    ("rename_exchange", False, "snp.create(replace=True) raises OSError"),
    ("getrandom", False, "random names come from /dev/urandom"),
    ("futex", False, "queues go through a pipe, and waiting processes poll"),
)


def kernel() -> "Iterator[Finding]":
    """Look at what the kernel has of what the package uses."""
    # (`platform` starts a program to ask for more than this.)
    release = "{0.sysname} {0.release}".format(os.uname())
    machine = _core.machine() if hasattr(_core, "machine") else None
    if machine is None:
        yield Finding(
            "ok", "kernel", "{}, pages of {} bytes".format(release, _core.PAGE_SIZE),
            "There are no arenas on this system.", "",
        )  # fmt: skip
        return
    title = "{}, pages of {} bytes".format(release, machine["page_size"])
    whole = True
    for name, needed, effect in _FEATURES:
        if machine[name] is False:
            whole = False
            yield Finding(
                "error" if needed else "warning", "kernel", "{}: no {}".format(title, name),
                "On this kernel, or in this sandbox, {}.".format(effect),
                "Use Linux 3.15 or later, and a sandbox (seccomp profile, gVisor) that allows it.",
            )  # fmt: skip
    if not os.path.exists("/proc/self/stat"):
        whole = False
        yield Finding(
            "warning", "kernel", "{}: no /proc".format(title),
            "Whether a process lives is told by its locks alone, and no command can tell who uses "
            "what.",
            "Mount it: mount -t proc proc /proc",
        )  # fmt: skip
    if whole:
        yield Finding("ok", "kernel", title, "The kernel has all that the package uses.", "")


# ---- the folder and its space ---------------------------------------------------------------

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


# ---- limits ---------------------------------------------------------------------------------


def limits() -> "Iterator[Finding]":
    """Look at the limits of descriptors, processes and sizes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    title = "{} descriptors a process (at most {})".format(_amount(soft), _amount(hard))
    if soft != resource.RLIM_INFINITY and soft < _FEW_DESCRIPTORS:
        yield Finding(
            "warning", "limits", title,
            "Each SharedMemory takes one descriptor, an arena two, and each worker of a pool a few.",
            "ulimit -n 4096, or LimitNOFILE of systemd.",
        )  # fmt: skip
    else:
        yield Finding("ok", "limits", title, "That is enough for thousands of segments.", "")
    yield from _process_limit(resource)
    for name, what, effect, advice in (
        (
            "RLIMIT_FSIZE", "the size of files",
            "It holds for shared memory, too: a larger array raises OSError (EFBIG), or the process "
            "ends with SIGXFSZ.",
            "ulimit -f unlimited",
        ),
        (
            "RLIMIT_AS", "the address space",
            "Arenas reserve addresses ahead of need, and take fewer where these are short; large "
            "arrays raise ArenaFullError or MemoryError.",
            "ulimit -v unlimited",
        ),
    ):  # fmt: skip
        limit = resource.getrlimit(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            title = "A limit on {}: {}".format(what, output.size(limit))
            yield Finding("warning", "limits", title, effect, advice)


def _amount(limit):
    return "no limit of" if limit < 0 else "{:,}".format(limit)


def _process_limit(resource):
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    group = _group_limit("pids.max", "pids.current")
    # (The limit of the user does not hold for root.)
    if os.geteuid() and soft != resource.RLIM_INFINITY and soft < _FEW_DESCRIPTORS:
        yield Finding(
            "warning", "limits", "{:,} processes and threads of this user".format(soft),
            "All programs of the user count. Pools that start more workers fail with EAGAIN.",
            "ulimit -u 4096, or TasksMax of systemd.",
        )  # fmt: skip
    elif group is not None and group[0] - group[1] < 64:
        yield Finding(
            "warning", "limits",
            "{:,} of {:,} processes and threads of this control group are taken".format(
                group[1], group[0]
            ),
            "Pools that start more workers fail with EAGAIN.",
            "docker run --pids-limit, podPidsLimit of Kubernetes, or TasksMax of systemd.",
        )  # fmt: skip
    else:
        text = "{} processes and threads".format(_amount(soft if group is None else group[0]))
        yield Finding("ok", "limits", text, "That is enough for pools.", "")


def _group_limit(limit, current, root="/"):
    """Return the least limit of the process's control groups of version 2, and the current number
    there; None if there is no limit."""
    found = []
    for line in (_read(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        if not line.startswith("0::"):
            continue
        path = line[3:].strip("/")
        while True:
            group = os.path.join(root, "sys/fs/cgroup", path)
            with suppress(ValueError, TypeError):
                found.append(
                    (
                        int(_read(os.path.join(group, limit))),
                        int(_read(os.path.join(group, current))),
                    )
                )
            if not path:
                break
            path = os.path.dirname(path)
    return min(found, key=lambda pair: pair[0] - pair[1]) if found else None


# ---- the session ----------------------------------------------------------------------------


def logout(root: str = "/") -> "Iterator[Finding]":
    """Look at whether logind removes shared memory when its user logs out."""
    import pwd

    user = os.geteuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:
        name = str(user)
    if not os.path.isdir(os.path.join(root, "run/systemd/system")):
        yield Finding(
            "ok", "logout", "No systemd", "Nothing removes shared memory when a user logs out.", ""
        )
    elif not removes_ipc(root):
        yield Finding(
            "ok", "logout", "RemoveIPC=no", "Shared memory stays when its user logs out.", ""
        )
    elif user <= _last_system_user(root):
        yield Finding(
            "ok", "logout", "RemoveIPC=yes, which does not hold for system users such as {}".format(name),
            "Shared memory of this user stays when a session ends.", "",
        )  # fmt: skip
    elif os.path.exists(os.path.join(root, "var/lib/systemd/linger", name)):
        yield Finding(
            "ok", "logout", "RemoveIPC=yes, and user {} lingers".format(name),
            "Shared memory of this user stays when a session ends.", "",
        )  # fmt: skip
    else:
        yield Finding(
            "warning", "logout", "RemoveIPC=yes",
            "When the last session of user {} ends, systemd removes the user's files in /dev/shm, "
            "also those that programs in the background still use (nohup, tmux, cron).".format(name),
            "loginctl enable-linger {}, or RemoveIPC=no in /etc/systemd/logind.conf.".format(name),
        )  # fmt: skip


def removes_ipc(root: str = "/") -> bool:
    """Tell whether logind is configured to remove a user's shared memory at the end of the last
    session: by its main file, the first of those that there are, then by all drop-ins in the order
    of their names."""
    folders = ["etc/systemd", "run/systemd", "usr/local/lib/systemd", "usr/lib/systemd", "lib/systemd"]
    folders = [os.path.join(root, each) for each in folders]
    texts = [_read(os.path.join(each, "logind.conf")) for each in folders]
    main = next((text for text in texts if text is not None), "")
    drop_ins = {}
    for each in reversed(folders):
        # (A file hides those of its name in folders of a lower rank.)
        for path in glob.glob(os.path.join(glob.escape(each), "logind.conf.d", "*.conf")):
            drop_ins[os.path.basename(path)] = path
    # A comment in the main file shows what the system was built with.
    answer = _last_answer(main, "#RemoveIPC", True)
    for text in [main] + [_read(drop_ins[name]) or "" for name in sorted(drop_ins)]:
        answer = _last_answer(text, "RemoveIPC", answer)
    return answer


def _last_answer(text, key, answer):
    """Return what the last line with a key says, or `answer` if there is none."""
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == key and value.strip():
            answer = value.strip().lower() in ("yes", "y", "true", "t", "on", "1")
    return answer


def _last_system_user(root):
    """Return the greatest number of a system user: SYS_UID_MAX of login.defs."""
    for line in (_read(os.path.join(root, "etc/login.defs")) or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "SYS_UID_MAX" and words[1].isdigit():
            return int(words[1])
    return 999


# ---- the program ----------------------------------------------------------------------------

_METHODS = {
    "fork": "Children begin as copies of their parent: fast, and unsafe where the parent has threads.",
    "spawn": "Children are new interpreters that import the main module: it needs "
    'if __name__ == "__main__".',
    "forkserver": "Children are copies of a server that has no threads, and import the main module: "
    'it needs if __name__ == "__main__".',
}


def start_method() -> "Iterator[Finding]":
    """Tell by which start method `multiprocessing` makes processes."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    method = chosen or multiprocessing.get_all_start_methods()[0]
    title = "Start method {}{}".format(method, "" if chosen else ", the default")
    meaning = _METHODS.get(method, "")
    yield Finding("ok", "start method", title, meaning + " Arrays go to all by reference.", "")


def huge_pages() -> "Iterator[Finding]":
    """Tell whether shared memory has huge pages."""
    if not hasattr(_core, "machine"):
        return
    chosen = _core.machine()["huge_pages"]
    if chosen is None:
        yield Finding("ok", "huge pages", "Huge pages: unknown", "It cannot be seen here.", "")
    elif chosen in ("never", "deny"):
        yield Finding(
            "ok", "huge pages", "Huge pages: {}".format(chosen),
            "Each page of shared memory is taken by a fault of its own, which costs time for large "
            "arrays at their first use.",
            "For large arrays, as root: mount -o remount,huge=within_size /dev/shm",
        )  # fmt: skip
    else:
        yield Finding(
            "ok", "huge pages", "Huge pages: {}".format(chosen),
            "Large arrays can have them, with fewer faults at their first use.", "",
        )  # fmt: skip


def leftovers() -> "Iterator[Finding]":
    """Look for what killed programs left in shared memory."""
    if not hasattr(_core, "look_at_arena"):
        return
    from . import survey

    try:
        found = survey.survey(all_users=False)
    except (OSError, ValueError) as error:
        yield Finding(
            "warning", "leftovers", "What is in shared memory cannot be listed: {}".format(error),
            "What killed programs left is not seen.", "See the findings about the folder.",
        )  # fmt: skip
        return
    # (One that was being sent when its program ended may still find its receiver.)
    orphans = [item for item in found.items if item.state == survey.ORPHANED and not item.handles]
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
            "When the programs that use them have ended: shared-numpy clean --force NAME",
        )  # fmt: skip
    if not orphans and not damaged:
        title = "No leftovers among {:,} things of this user".format(len(found.items))
        unseen = "" if found.sees_all else " (Segments cannot be judged: {}.)".format(found.unseen)
        yield Finding("ok", "leftovers", title, "Nothing is known to be nobody's." + unseen, "")


# Package, and what it is for.
_EXTRAS = (
    ("cloudpickle", "lambdas and closures as functions"),
    ("tqdm", "progress bars"),
    ("rich", "tables of this command at a terminal"),
)


def extras() -> "Iterator[Finding]":
    """Tell which packages are there that are used where they are installed."""
    there, missing = [], []
    for package, what in _EXTRAS:
        version = version_of(package)
        if version is None:
            missing.append("{} ({})".format(package, what))
        else:
            there.append("{} {}".format(package, version))
    title = "Optional packages: {}".format(", ".join(there) or "none")
    if missing:
        meaning = "Not installed, and done without: {}.".format(", ".join(missing))
        names = " ".join(each.split()[0] for each in missing)
        yield Finding("ok", "extras", title, meaning, "If you want these: pip install " + names)
    else:
        yield Finding("ok", "extras", title, "All are installed.", "")


CHECKS = (
    interpreter,
    kernel,
    folder,
    space,
    memory_limit,
    limits,
    logout,
    start_method,
    huge_pages,
    leftovers,
    extras,
)
