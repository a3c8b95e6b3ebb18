"""Checks of the system: the kernel and its huge pages, limits of processes, what ends with a session."""

import glob
import os
from contextlib import suppress

from .. import _core
from . import output
from .finding import Finding, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator

# Descriptors below which a program with a few workers can run out of them.
_FEW_DESCRIPTORS = 256


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
    for line in (read(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        if not line.startswith("0::"):
            continue
        path = line[3:].strip("/")
        while True:
            group = os.path.join(root, "sys/fs/cgroup", path)
            with suppress(ValueError, TypeError):
                found.append(
                    (
                        int(read(os.path.join(group, limit))),
                        int(read(os.path.join(group, current))),
                    )
                )
            if not path:
                break
            path = os.path.dirname(path)
    return min(found, key=lambda pair: pair[0] - pair[1]) if found else None


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
    texts = [read(os.path.join(each, "logind.conf")) for each in folders]
    main = next((text for text in texts if text is not None), "")
    drop_ins = {}
    for each in reversed(folders):
        # (A file hides those of its name in folders of a lower rank.)
        for path in glob.glob(os.path.join(glob.escape(each), "logind.conf.d", "*.conf")):
            drop_ins[os.path.basename(path)] = path
    # A comment in the main file shows what the system was built with.
    answer = _last_answer(main, "#RemoveIPC", True)
    for text in [main] + [read(drop_ins[name]) or "" for name in sorted(drop_ins)]:
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
    for line in (read(os.path.join(root, "etc/login.defs")) or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "SYS_UID_MAX" and words[1].isdigit():
            return int(words[1])
    return 999
