"""The arena of a share on this host, and the lock under which it is filled.

All processes of a host find the arena by the share's identifier. The arena's root is the block with
the share's `Image`, and lives as long as any process is attached.

The lock is a `flock` of the arena's memory file: the kernel releases it when the process that holds
it dies. A forked child closes its copy of the descriptor, so that the lock is released by the death
of the one process that fills.
"""

import fcntl
import os
import socket
import threading
import time
from contextlib import contextmanager
from functools import partial

from ... import _core
from ..._system import forks
from ...errors import ArenaFullError
from .image import PIECE, Image, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Set

# So many processes of a host can use a copy: the most that an arena is made for.
PROCESSES = 1024
# How long a process that waits for the lock sleeps between two looks.
_SHORTEST, _LONGEST = 0.002, 0.05

# The descriptors of locks; a fork waits until none is about to be opened or closed.
_descriptors = set()  # type: Set[int]
_changing = threading.Lock()


def _close_inherited():
    """Close the descriptors of locks in a forked child: its parent alone holds them."""
    while _descriptors:
        os.close(_descriptors.pop())
    _changing.release()


forks.register_at_fork(_changing.acquire, _changing.release, _close_inherited)


def host() -> str:
    """Return a text that is equal in processes that share the memory of arenas: the kernel's boot,
    the file system of the folder, and the user."""
    folder = _core.folder() or "/dev/shm"
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    found = os.stat(folder)
    return "{}/{}/{}/{}".format(boot, found.st_dev, found.st_ino, os.geteuid())


class _Lock:
    """The lock of an arena, for the process that fills it."""

    def __init__(self, arena):
        path = arena.name if arena.name.startswith("/") else "/dev/shm/" + arena.name
        with _changing:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            _descriptors.add(self._descriptor)

    def take(self):
        """Take the lock; return False if another process has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self):
        """Release the lock."""
        with _changing:
            # (In the child of a fork it is closed.)
            if self._descriptor in _descriptors:
                _descriptors.discard(self._descriptor)
                os.close(self._descriptor)


class Patience:
    """A bound for a wait: so many seconds without progress."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._seen = None  # type: Any
        self._since = time.monotonic()

    def is_over(self, seen: "Any") -> bool:
        """Tell whether `seen`, which changes with progress, has been the same for too long."""
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        return time.monotonic() - self._since > self.seconds


def _image_in(arena, nbytes):
    """Return the image in an arena, or None."""
    root = arena.root
    if root is None:
        return None
    image = Image(root.array((size_of(nbytes),), "u1"), nbytes)
    image.check()
    return image


@contextmanager
def _naming_the_host(nbytes):
    """Have the error of a full host tell which host that is, and what to do."""
    try:
        yield
    except ArenaFullError as error:
        told = ArenaFullError(
            error.errno,
            "no room on host {} for its copy of a share of {:,} bytes: {}. Make room in {} there, or "
            'share with when_full="private_copy"'.format(
                socket.gethostname(), nbytes, error.strerror or error, _core.folder() or "/dev/shm"
            ),
        )
        told.asked, told.left = error.asked, error.left
        raise told from None


def _new_image(arena, nbytes):
    """Put an image without a piece into an arena; the caller has the lock."""
    with _naming_the_host(nbytes):
        block = arena.alloc(size_of(nbytes))
    image = Image(block.array((size_of(nbytes),), "u1"), nbytes)
    image.begin()
    arena.publish_root(block)
    return image


def open_image(
    identifier: bytes,
    nbytes: int,
    fill: "Optional[Callable[[Image], None]]",
    name: str,
    seconds: float,
    check: "Callable[[], None]",
    opened: "Callable[[Image], None]",
) -> Image:
    """Return this host's complete image of a share.

    Parameters
    ----------
    identifier : bytes
        The share's, 16 bytes.
    nbytes : int
        The length of its bytes.
    fill : callable
        Called with an image that lacks pieces, by one process of a host at a time; it returns when
        no piece is missing. None: this process cannot fill.
    name : str
        What this process is called in errors of others.
    seconds : float
        How long to wait for the process that fills, without progress.
    check : callable
        Called now and then while this waits; raises if the share has ended.
    opened : callable
        Called with the image before it is filled.

    Raises
    ------
    ArenaFullError
        This host has no room; the error names it.
    TimeoutError
        The process that fills makes no progress.
    LookupError
        There is no complete image, and this process cannot fill.
    """
    with _naming_the_host(nbytes):
        arena = _core.Arena.attach_or_create(identifier, processes=PROCESSES)
    with arena:
        image = _image_in(arena, nbytes)
        if image is not None and image.is_complete():
            _order(arena)
            return image
        if fill is None:
            raise LookupError("this host has no copy of the share")
        lock = _Lock(arena)
        try:
            image = _wait(arena, nbytes, lock, seconds, check)
            if image is None:
                image = _new_image(arena, nbytes)
            if not image.is_complete():
                image.set_filler(os.getpid(), name)
                opened(image)
                image.order = partial(_order, arena)
                try:
                    fill(image)
                finally:
                    image.order = None
            _order(arena)
        finally:
            lock.close()
        return image


def _order(arena):
    """Take and release the arena's lock; see `image`."""
    arena.stats()


def _wait(arena, nbytes, lock, seconds, check):
    """Wait until this process has the lock, or the image is complete; return the image if there is
    one."""
    patience, pause = Patience(seconds), _SHORTEST
    while not lock.take():
        image = _image_in(arena, nbytes)
        done = image and image.count()
        if image is not None and done == image.pieces:
            return image
        if patience.is_over(done):
            raise TimeoutError(
                "this host's copy of a share of {:,} bytes is being filled by {}, which has made no "
                "progress for {:g} s; {} pieces of {} MiB are there".format(
                    nbytes,
                    image.filler() if image else "another process",
                    seconds,
                    done or 0,
                    PIECE >> 20,
                )
            )
        check()
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
    return _image_in(arena, nbytes)
