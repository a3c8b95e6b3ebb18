"""The copies that this process has open, one for each share.

Threads that need the same copy at the same time wait for the first of them. A share that has ended
is remembered: its end may be told while a thread is about to open it.
"""

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from ..._pickling.by_reference import block_of
from ..._system import forks
from ...errors import ArenaFullError, StaleHandleError
from . import host_memory
from .image import Image, size_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set

class Share(NamedTuple):
    """A share, as far as its copies go."""

    # 32 hexadecimal digits.
    id: str
    # The length of its buffers, one behind the other (`image.offsets_of`).
    nbytes: int
    # On a host without room each worker makes a private copy.
    private: bool
    # How errors call it.
    text: str


# So many ended shares are remembered.
_REMEMBERED = 10000


class Copies:
    """The copies of a process, and its workers, which can fill them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._complete = {}  # type: Dict[str, Image]
        # Images that other hosts may be given pieces of: also those that lack some.
        self._open = {}  # type: Dict[str, Image]
        self._arenas = {}  # type: Dict[str, str]
        self._pending = {}  # type: Dict[str, Future[Image]]
        self._ended = OrderedDict()  # type: OrderedDict[str, None]
        # What has `is_here`, `knows`, `fill`, `name` and `timeout`; see `worker.Member`.
        self.members = []  # type: List[Any]
        # Shares of clients in this process: they stay when a worker leaves.
        self.owned = set()  # type: Set[str]
        self.filled = self.attached = 0

    def get(self, share: Share) -> Image:
        """Return the complete image of a share, which is filled or attached at its first use.

        Parameters
        ----------
        share : Share
            Which one.

        Raises
        ------
        StaleHandleError
            The share has ended.
        ArenaFullError, TimeoutError
            As in `host_memory.open_image`.
        RuntimeError
            This is the thread of a worker's event loop, which would have to wait.

        Notes
        -----
        A process without a worker is not told of the end of a share: it keeps no copy, and opens it for
        each use. So does a worker that runs a task while its plugin is set up.
        """
        found = self._complete.get(share.id)
        if found is not None:
            return found
        with self._lock:
            found = self._complete.get(share.id)
            if found is not None:
                return found
            self._check(share)
            self._refuse_loops(share)
            future = self._pending.get(share.id)
            begins = future is None
            if future is None:
                future = self._pending[share.id] = Future()
        # (A future with an exception, whose traceback has this frame, would be a cycle; and that would
        # keep the image until a garbage collection. So both ways end with `del`.)
        if not begins:
            try:
                return future.result()  # What the other thread does is bounded.
            finally:
                del future
        try:
            told = bool(self.members)
            image = self._make(share)
            if told:
                self._keep(share, image)
            else:
                with self._lock:
                    for each in (self._open, self._arenas, self._pending):
                        each.pop(share.id, None)
        except BaseException as error:
            with self._lock:
                self._open.pop(share.id, None)
                self._arenas.pop(share.id, None)
                self._pending.pop(share.id, None)
            future.set_exception(error)
            raise
        else:
            future.set_result(image)
            return image
        finally:
            del future

    def put(self, share: Share, write: "Callable[[Image], None]") -> Image:
        """Make the first copy of a share, with the bytes that `write` puts into its image."""

        def fill(image):
            write(image)
            image.complete()

        try:
            image = self._opened(share, fill, "the client that shares it", 60, lambda: None)
        except ArenaFullError:
            if not share.private:
                raise
            image = _private_image(share)
            fill(image)
        self.owned.add(share.id)
        self._keep(share, image)
        return image

    def open_image(self, id: str) -> "Optional[Image]":
        """Return the image of a share as far as it is there; None if it is not open here."""
        return self._complete.get(id) or self._open.get(id)

    def has_view(self, array: "Any") -> bool:
        """Tell whether an array lies in a copy that is open here."""
        block = block_of(array)
        return block is not None and block.arena.name in self._arenas.values()

    def in_arenas(self) -> "List[str]":
        """Return the shares of which this process has a copy open in an arena, whose name has that of
        the share."""
        with self._lock:
            return list(self._arenas)

    def end(self, id: str) -> None:
        """Drop a share, for good."""
        with self._lock:
            self._ended[id] = None
            while len(self._ended) > _REMEMBERED:
                self._ended.popitem(last=False)
            self._complete.pop(id, None)
            self._open.pop(id, None)
            self._arenas.pop(id, None)
            self.owned.discard(id)

    def has_ended(self, id: str) -> bool:
        return id in self._ended

    def leave(self, member: "Any") -> None:
        """Take away a worker, and with it the copies that workers of this process have opened: it may
        be the one that is told when they end. The others open them anew."""
        with self._lock:
            self.members = [each for each in self.members if each is not member]
            for id in list(self._complete):
                if id not in self.owned:
                    del self._complete[id]
                    self._arenas.pop(id, None)

    def _check(self, share):
        if share.id in self._ended:
            raise stale(share)

    def _refuse_loops(self, share):
        if any(member.is_here() for member in self.members):
            raise RuntimeError(
                "{} is not on this host yet, and the thread of the worker's event loop cannot wait "
                'for it: share it with hosts="now", or use it in a function that is not async'.format(
                    share.text
                )
            )

    def _make(self, share):
        """Return the complete image of a share that this process has not open."""
        member = self._member_for(share)
        if member is None:
            # No worker: what is complete on this host can be used all the same.
            try:
                return self._opened(share, None, "", 60, lambda: self._check(share))
            except LookupError:
                raise StaleHandleError(
                    "{} has no copy on this host, and this process is no worker that could get "
                    "one".format(share.text)
                ) from None

        def fill(image):
            member.fill(share, image)
            self.filled += 1

        before = self.filled
        try:
            image = self._opened(
                share, fill, member.name_here(), member.timeout, lambda: self._check(share)
            )
        except ArenaFullError:
            if not share.private:
                raise
            image = _private_image(share)
            self._note(share, image)
            fill(image)
        self.attached += self.filled == before
        member.has_copy(share)
        return image

    def _opened(self, share, fill, name, seconds, check):
        return host_memory.open_image(
            bytes.fromhex(share.id), share.nbytes, fill, name, seconds, check,
            lambda image: self._note(share, image),
        )  # fmt: skip

    def _note(self, share, image):
        with self._lock:
            self._check(share)
            self._open[share.id] = image
            self._note_arena(share, image)

    def _keep(self, share, image):
        with self._lock:
            self._check(share)
            self._complete[share.id] = image
            self._note_arena(share, image)
            self._open.pop(share.id, None)
            self._pending.pop(share.id, None)

    def _note_arena(self, share, image):
        block = block_of(image.memory)
        if block is not None:
            self._arenas[share.id] = block.arena.name

    def _member_for(self, share):
        """Return the worker of this process whose scheduler knows a share; None if this process has
        no worker."""
        members = sorted(self.members, key=lambda member: not member.runs_this())
        if not members:
            return None
        for member in members:
            if member.knows(share):
                return member
        raise stale(share)


def _private_image(share):
    """Return an image in memory of this process, where its host has no room."""
    image = Image(np.empty(size_of(share.nbytes), "u1"), share.nbytes)
    image.begin()
    return image


def stale(share: Share) -> StaleHandleError:
    return StaleHandleError(
        "{} has ended: close() was called, or the client that shared it has left the scheduler. Share "
        "it anew".format(share.text)
    )


# The copies of this process.
here = Copies()


def _begin_child():
    """In a forked child: no thread that fills, and no worker, is there. Nobody tells it of an end, so
    that it keeps no copy in an arena; it can open it again."""
    here._lock = threading.Lock()
    here._pending.clear()
    here._open.clear()
    for id in list(here._arenas):
        here._complete.pop(id, None)
    here._arenas.clear()
    here.owned.clear()
    here.members = []


forks.register_at_fork(after_in_child=_begin_child)
