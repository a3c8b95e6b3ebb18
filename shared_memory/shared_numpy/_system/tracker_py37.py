"""The resource tracker on CPython 3.6 and 3.7; delete it with them.

The twin of ``multiprocessing.resource_tracker``, which comes with 3.8. There
is one tracker process for a process tree. It learns the names of semaphores and
shared memory from all processes of the tree, and when the last of them is gone
it removes what is left. The messages are lines of ASCII on a socket that the
tree inherits, ``COMMAND:name:type``; each is one write, which the kernel keeps
whole.

3.6 and 3.7 have ``multiprocessing.semaphore_tracker``, whose descriptor gets
lost in children. No file of the interpreter is changed; `take_over` puts this
tracker in its place in the running process:

* The functions and the object that the standard library looks up there at each
  call become ours. Names that were registered before stay with the old one.
* A channel inherited from a parent is recognised by being a socket: the old
  tracker's are pipes.
* What a process hands on to the processes it makes, its ``_config``, becomes an
  `Inheritance`. It starts the tracker before the first child exists, and takes
  the channel and this module along to children of any start method, also to
  those that never import the package.

The tracker is a child of the process that first needs it. Processes, and
`Process` objects, that were made before the import know nothing of it.

Differences from 3.8's:

* There is one more type, "arena". An arena is removed only if no living process has
  it, and without a word: a daemon may have closed the channel with all its
  descriptors, and a process that executes another program leaves its arena behind.
* A process without a channel unregisters nothing, and unregistering does not ask
  first whether the tracker lives.
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

# How the tracker removes what is left, by type.
_CLEANUP_FUNCS = {
    "noop": lambda name: None,
    "semaphore": _multiprocessing.sem_unlink,
    "shared_memory": shm_unlink,
}
# The tracker takes two more: one that CPython's tests of 3.13 leave behind, and ours.
# Those of 3.8 would not expect to see them above.
_TRACKED = dict(_CLEANUP_FUNCS, dummy=lambda name: None, arena=lambda name: _end_arena(name))

# How long a killed process may still seem to live when its descriptors are closed, in s.
_LAST_BREATH = 2

_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _end_arena(name):
    """Remove an arena unless a living process has it."""
    end = time.monotonic() + _LAST_BREATH
    while not _core.end_arena(name) and time.monotonic() < end:
        time.sleep(0.01)


def _identity(fd):
    """Return what tells the channel at `fd` from all else; None if it is none.

    The standard library's own trackers have pipes, ours has a socket.
    """
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def _new_channel():
    """Return two connected descriptors: the processes' end and the tracker's.

    They are none of the standard streams, which a program may have closed, and
    they block, whatever it has made the default for sockets.
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
    """This process's end of the tracker; starts it when it is first needed."""

    def __init__(self):
        self._channel = None
        self._channel_identity = None
        self._started = None, None  # The tracker's process, and the one that started it.
        self._exitcode = None
        self._locks = {}  # By process: one may have been forked while it was held.

    @property
    def _fd(self):
        """The channel, or None. ``multiprocessing`` reads and assigns it."""
        return self._usable()

    @property
    def _pid(self):
        """The tracker's process, if this one started it. A forked child did not."""
        pid, parent = self._started
        return pid if parent == os.getpid() else None

    @_fd.setter
    def _fd(self, fd):
        # The fork server's children are given what their parent uses: a pipe,
        # if that one does not know this module.
        if fd is not None and _identity(fd) is not None:
            self._replace(fd, None)

    def _replace(self, fd, pid):
        old = self._usable()
        self._channel_identity = _identity(fd)
        self._channel, self._started = fd, (pid, os.getpid())
        if old is not None and old != fd:
            os.close(old)

    def _usable(self):
        """Return the channel's descriptor if it still is the channel's.

        Daemons close all descriptors that they have; what carries the number
        then is not ours to write to, nor to close.
        """
        fd = self._channel
        if fd is not None and _identity(fd) != self._channel_identity:
            self._channel = fd = None
            self._started = None, None
        return fd

    def _guard(self):
        """Return the lock that is held while a tracker is started.

        A signal handler or a finalizer may come back here in the same thread.
        """
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.RLock())

    def getfd(self):
        """Return the channel's descriptor; the tracker runs then."""
        self.ensure_running()
        return self._channel

    def ensure_running(self):
        """Start the tracker unless it runs, in any process of the tree."""
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
        """Tell whether the tracker still reads."""
        try:
            os.write(self._channel, b"PROBE:0:noop\n")
        except OSError:
            return False
        return True

    def _reap(self):
        """Forget a tracker that has ended or is about to."""
        fd, pid = self._usable(), self._pid
        self._channel, self._started = None, (None, None)
        if fd is not None:
            os.close(fd)
        if pid is not None:
            self._exitcode = _wait(pid)

    def _launch(self):
        # The first words are those by which frozen programs know a tracker. What
        # is imported before the path is changed comes from the standard library.
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
                pass  # It has none: what the tracker says is lost.
            executable = spawn.get_executable()
            command = [executable] + util._args_from_interpreter_flags()
            command += ["-c", code.format(_ROOT, theirs)]
            # Blocked until the tracker ignores them: it must not die before.
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
            # A signal handler has started another meanwhile.
            os.close(ours)
            _wait(pid)

    def _stop(self):
        """End the tracker, and wait for its end if this process started it."""
        with self._guard():
            if self._channel is not None:
                self._reap()

    def register(self, name, rtype):
        """Let the tracker remove `name` if the tree does not."""
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
    """Wait for a child; return its exit code, -N for signal N, None if unknown."""
    try:
        status = os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None  # Somebody else has waited for it.
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)


_resource_tracker = ResourceTracker()
ensure_running = _resource_tracker.ensure_running
register = _resource_tracker.register
unregister = _resource_tracker.unregister
getfd = _resource_tracker.getfd


class _Semaphores:
    """The functions that ``multiprocessing.synchronize`` calls."""

    def __init__(self):
        self.old = None  # A tracker of the standard library that was running.
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
        """Copy it for a new child; the tracker has to run before that starts."""
        ensure_running()
        return Inheritance(self)

    def __reduce__(self):
        popen = context.get_spawning_popen()
        handle = None
        if popen is not None:
            fd = getfd()
            if popen.method == "spawn" and fd in popen._fds:
                # It is being passed on already, and must not be passed twice.
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
            os.close(fd)  # Another descriptor of the same channel.
    return Inheritance(values)


def take_over():
    """Put this tracker in the place of ``multiprocessing.semaphore_tracker``'s."""
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
    """What the tracker knows."""

    def __init__(self):
        self.names = {rtype: set() for rtype in _TRACKED}

    def note(self, line):
        """Follow one message."""
        # Two fields are the standard library's form, for semaphores.
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
                # A daemon's tracker before this one may have had it.
                names.discard(name)
            else:
                names.remove(name)
        elif command != "PROBE":
            raise RuntimeError("unrecognized command {!r}".format(command))

    def clean(self):
        """Remove what is left; return whether there was anything."""
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
    """Be the tracker, until the last process of the tree has gone.

    Parameters
    ----------
    fd : int
        The channel's reading end.

    Returns
    -------
    int
        The exit code: 1 if anything had to be removed.
    """
    for number in _IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _IGNORED_SIGNALS)
    # The program's own filters came along; an error would end the cleaning.
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
