"""The resource tracker on CPython 3.6 and 3.7; delete it with them.

The twin of ``multiprocessing.resource_tracker``, which exists from 3.8 on. A process tree has one
tracker process. All processes of the tree tell it the names of semaphores and shared memory; when the
last of them has exited, it removes those that are left. The messages are lines of ASCII on a socket
that the tree inherits, ``COMMAND:name:type``; each is one write, which the kernel does not split.

3.6 and 3.7 have ``multiprocessing.semaphore_tracker``, whose descriptor gets lost in children.
`take_over` replaces it in the running process; no file of the interpreter is changed:

* The functions and the object that the standard library looks up there at each call are replaced.
  Names that were registered before stay with the old tracker.
* A channel inherited from a parent is recognised as a socket: the old tracker has pipes.
* The ``_config`` of a process, which the processes that it makes inherit, becomes an `Inheritance`.
  It starts the tracker before the first child exists, and passes the channel and this module on to
  children of any start method, also to those that never import the package.

The tracker is a child of the process that first needs it. Processes, and `Process` objects, that were
made before the import do not know it.

Differences from the tracker of 3.8:

* There is one more type, "arena". The tracker removes an arena only if no living process has it, and
  without a warning: a daemon may have closed the channel with all its descriptors, and a process that
  calls ``exec`` leaves its arena behind.
* A process without a channel unregisters nothing, and unregistering does not check first whether the
  tracker lives.
"""

import fcntl
import os
import signal
import socket
import stat
import sys
import threading
import time
import warnings

import _multiprocessing
from multiprocessing import context, process, semaphore_tracker, spawn, util

from .. import _core, _reduce
from .posixshmem import shm_unlink

# The function by which the tracker removes a resource, by type.
_CLEANUP_FUNCS = {
    "noop": lambda name: None,
    "semaphore": _multiprocessing.sem_unlink,
    "shared_memory": shm_unlink,
}
# The tracker has two more types: one of CPython's tests of 3.13, and arenas. (Tests of 3.8 compare the
# table above, and do not expect them there.)
_TRACKED = dict(_CLEANUP_FUNCS, dummy=lambda name: None, arena=lambda name: _end_arena(name))

# A killed process may still look alive for so many seconds after its descriptors are closed.
_STILL_EXITING = 2

_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _end_arena(name):
    """Remove an arena unless a living process has it."""
    end = time.monotonic() + _STILL_EXITING
    while not _core.end_arena(name) and time.monotonic() < end:
        time.sleep(0.01)


def _identity(fd):
    """Return the device and inode of the channel at `fd`; None if that is no socket: trackers of the
    standard library have pipes."""
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def _new_channel():
    """Return two connected descriptors: the processes' end and the tracker's.

    Their numbers are not those of the standard streams, which a program may have closed; and they
    block, also if the program has set a default timeout for sockets.
    """
    ends = socket.socketpair()
    try:
        fds = [fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    finally:
        for end in ends:
            end.close()
    for fd in fds:
        os.set_blocking(fd, True)
    return fds


class ResourceTracker:
    """This process's side of the tracker; it starts the tracker when it is first needed."""

    def __init__(self):
        self._channel = None
        self._channel_identity = None
        self._started = None, None  # The pids of the tracker, and of the process that started it.
        self._exitcode = None
        self._locks = {}  # By pid: a fork may copy a lock that another thread holds.

    @property
    def _fd(self):
        """The channel's descriptor, or None. ``multiprocessing`` reads and assigns it."""
        return self._usable()

    @property
    def _pid(self):
        """The tracker's pid if this process has started it; None in a forked child."""
        pid, parent = self._started
        return pid if parent == os.getpid() else None

    @_fd.setter
    def _fd(self, fd):
        # The fork server's children get the descriptor of their parent: a pipe, if the parent has
        # not imported this module.
        if fd is not None and _identity(fd) is not None:
            self._replace(fd, None)

    def _replace(self, fd, pid):
        old = self._usable()
        self._channel_identity = _identity(fd)
        self._channel, self._started = fd, (pid, os.getpid())
        if old is not None and old != fd:
            os.close(old)

    def _usable(self):
        """Return the channel's descriptor if it still is that of the channel.

        Daemons close all their descriptors. Then another file may have the number, which must not
        be written to or closed.
        """
        fd = self._channel
        if fd is not None and _identity(fd) != self._channel_identity:
            self._channel = fd = None
            self._started = None, None
        return fd

    def _guard(self):
        """Return the lock that is held while a tracker is started.

        It is reentrant: a signal handler or a finalizer may run here in the same thread.
        """
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.RLock())

    def getfd(self):
        """Return the channel's descriptor; start the tracker if it does not run."""
        self.ensure_running()
        return self._channel

    def ensure_running(self):
        """Start the tracker unless a process of the tree has done so."""
        with self._guard():
            if self._usable() is not None:
                if self._check_alive():
                    return
                self._reap()
                warnings.warn(
                    "resource_tracker: process died unexpectedly, relaunching.  "
                    "Some resources might leak."
                )
            if self._channel is None:
                self._launch()

    def _check_alive(self):
        """Tell whether the tracker still reads the channel."""
        try:
            os.write(self._channel, b"PROBE:0:noop\n")
        except OSError:
            return False
        return True

    def _reap(self):
        """Close the channel, and reap the tracker: it has exited, or does so now."""
        fd, pid = self._usable(), self._pid
        self._channel, self._started = None, (None, None)
        if fd is not None:
            os.close(fd)
        if pid is not None:
            self._exitcode = _wait(pid)

    def _launch(self):
        # (Frozen programs recognise a tracker by the first words. The imports before the change of
        # `sys.path` come from the standard library.)
        code = (
            "from multiprocessing.semaphore_tracker import main; import sys; "
            "sys.path.insert(0, {!r}); from shared_numpy._system.tracker_py37 import main; "
            "del sys.path[0]; sys.exit(main({}))"
        )
        ours, theirs = _new_channel()
        try:
            passed = [theirs]
            try:
                passed.append(sys.stderr.fileno())
            except Exception:
                pass  # There is no stderr: the tracker's messages are lost.
            executable = spawn.get_executable()
            command = [executable] + util._args_from_interpreter_flags()
            command += ["-c", code.format(_ROOT, theirs)]
            # Blocked until the tracker ignores them: else they could kill it before that.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _IGNORED_SIGNALS)
            try:
                pid = util.spawnv_passfds(executable, command, passed)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        if self._channel is None:
            self._replace(ours, pid)
            self._exitcode = None
        else:
            # Race: a signal handler has started another tracker meanwhile.
            os.close(ours)
            _wait(pid)

    def _stop(self):
        """End the tracker, and reap it if this process has started it."""
        with self._guard():
            if self._channel is not None:
                self._reap()

    def register(self, name, rtype):
        """Have the tracker remove `name` if the tree does not."""
        self._send("REGISTER", name, rtype)

    def unregister(self, name, rtype):
        """Tell the tracker that `name` has been removed."""
        if self._usable() is not None:
            self._send("UNREGISTER", name, rtype)

    def _send(self, command, name, rtype):
        message = "{}:{}:{}\n".format(command, name, rtype).encode("ascii")
        fd = self._usable()
        if fd is not None:
            try:
                os.write(fd, message)
                return
            except OSError:
                pass  # The tracker is gone; a new one is started.
        os.write(self.getfd(), message)


def _wait(pid):
    """Reap a child; return its exit code, -N for signal N, None if it is unknown."""
    try:
        status = os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None  # Other code has reaped it.
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


_resource_tracker = ResourceTracker()
ensure_running = _resource_tracker.ensure_running
register = _resource_tracker.register
unregister = _resource_tracker.unregister
getfd = _resource_tracker.getfd


class _Semaphores:
    """The functions that ``multiprocessing.synchronize`` calls."""

    def __init__(self):
        self.old = None  # The standard library's tracker, if it was running.
        self.names = set()

    def register(self, name):
        """Register a semaphore."""
        register(name, "semaphore")
        self.names.add(name)

    def unregister(self, name):
        """Unregister a semaphore from the tracker that has it."""
        if name in self.names or self.old is None:
            self.names.discard(name)
            unregister(name, "semaphore")
        else:
            self.old.unregister(name)


_semaphores = _Semaphores()


class Inheritance(dict):
    """The ``_config`` of a process: every process that it makes gets a copy."""

    def copy(self):
        """Return a copy for a new child; the tracker has to run before the child starts."""
        ensure_running()
        return Inheritance(self)

    def __reduce__(self):
        popen = context.get_spawning_popen()
        handle = None
        if popen is not None:
            fd = getfd()
            if popen.method == "spawn" and fd in popen._fds:
                # (It is passed on already; passing it twice is an error.)
                handle = popen.DupFd(fd)
            else:
                from multiprocessing.reduction import DupFd

                handle = DupFd(fd)
        return _reduce.tracker, (dict(self), handle)


def inherit(values, handle):
    """Make the `Inheritance` of a spawned process, in that process."""
    take_over()
    if handle is not None:
        fd = handle.detach()
        if _resource_tracker._usable() is None:
            _resource_tracker._fd = fd
        elif _resource_tracker._fd != fd:
            os.close(fd)  # A second descriptor of the same channel.
    return Inheritance(values)


def take_over():
    """Replace the tracker of ``multiprocessing.semaphore_tracker`` by this one."""
    old = semaphore_tracker._semaphore_tracker
    if old is not _resource_tracker:
        _resource_tracker._fd = old._fd
        _semaphores.old = old if old._pid is not None else None
        semaphore_tracker._semaphore_tracker = _resource_tracker
        semaphore_tracker.ensure_running = ensure_running
        semaphore_tracker.getfd = getfd
        semaphore_tracker.register = _semaphores.register
        semaphore_tracker.unregister = _semaphores.unregister
    current = process.current_process()
    if not isinstance(current._config, Inheritance):
        current._config = Inheritance(current._config)


class _Ledger:
    """The names that are registered, in the tracker's process."""

    def __init__(self):
        self.names = {rtype: set() for rtype in _TRACKED}

    def note(self, line):
        """Carry out one message."""
        # (Messages of the standard library have two fields: they are about semaphores.)
        command, name, rtype = (line + ":semaphore").split(":")[:3]
        if rtype not in self.names:
            raise ValueError(
                "Cannot register {} for automatic cleanup: unknown resource type "
                "{}".format(name, rtype)
            )
        names = self.names[rtype]
        if command == "REGISTER":
            names.add(name)
        elif command == "UNREGISTER":
            if rtype == "arena":
                # (A tracker before this one may have it: that of a daemon.)
                names.discard(name)
            else:
                names.remove(name)
        elif command != "PROBE":
            raise RuntimeError("unrecognized command {!r}".format(command))

    def clean(self):
        """Remove the names that are left; tell whether there were any."""
        found = False
        for rtype, remove in _TRACKED.items():
            names = self.names[rtype]
            if names and rtype != "arena":
                found = True
                warnings.warn(
                    "resource_tracker: There appear to be {} leaked {} objects to "
                    "clean up at shutdown".format(len(names), rtype)
                )
            for name in names:
                try:
                    remove(name)
                except Exception as error:
                    warnings.warn("resource_tracker: {!r}: {}".format(name, error))
        return found


def main(fd):
    """Run the tracker until the last process of the tree has exited.

    Parameters
    ----------
    fd : int
        The tracker's end of the channel.

    Returns
    -------
    int
        The exit code: 1 if names were left.
    """
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED_SIGNALS)
    # (The program's warning filters are inherited; "error" would stop the clean-up.)
    warnings.simplefilter("always")
    for stream in (sys.stdin, sys.stdout):
        try:
            stream.close()
        except Exception:
            pass
    ledger = _Ledger()
    try:
        with open(fd, "rb") as channel:
            for line in channel:
                try:
                    ledger.note(line.strip().decode("ascii"))
                except Exception:
                    sys.excepthook(*sys.exc_info())
    finally:
        found = ledger.clean()
    return int(found)
