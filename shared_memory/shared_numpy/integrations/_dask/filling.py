"""A copy in the making, and where its bytes come from.

All of it runs on the event loop of the worker that fills. The scheduler names a source: another
worker, from which this one pulls, or the client, which pushes. Pieces go into the image in any
order; a source that fails is left for the next one, which sends what is missing.
"""

import asyncio
import time
from collections import deque

from distributed.protocol import to_serialize

from .copies import here, stale

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, List, Optional

    from .image import Image

# So many pieces are on their way at a time.
WINDOW = 2
# A client from which nothing comes is told again after so many seconds.
_REMINDER = 5.0
# How long to wait before asking the scheduler again for a source.
_PAUSE = 0.1


class Filling:
    """A copy in the making.

    Parameters
    ----------
    member : worker.Member
        The worker that fills.
    share : Share
        What is filled.
    image : Image
        Its copy here.
    """

    def __init__(self, member: "Any", share: "Any", image: "Image") -> None:
        self.member, self.share, self.image = member, share, image
        self.has_ended = False
        self._todo = deque()  # type: Deque[int]
        self._progress = asyncio.Event()
        self._last = time.monotonic()

    # ---- pieces

    def next_piece(self) -> "Optional[int]":
        """Return the next piece that is wanted, and that no other request is for; None if there is
        none."""
        while self._todo:
            piece = self._todo.popleft()
            if not self.image.has(piece):
                return piece
        return None

    def store(self, piece: int, data: "Any") -> None:
        """Write a piece."""
        if here.has_ended(self.share.id):
            raise stale(self.share)
        self.image.store(piece, data)
        self._last = time.monotonic()
        self._wake()

    def _wake(self):
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()

    def end(self) -> None:
        """Tell those that wait for pieces that no more come from here."""
        self.has_ended = True
        self._wake()

    async def progress(self, seconds: float) -> bool:
        """Wait until a piece more is there; return False if none comes for so long."""
        try:
            await asyncio.wait_for(self._progress.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    # ---- sources

    async def run(self) -> None:
        """Return when no piece is missing.

        Raises
        ------
        StaleHandleError
            The share has ended.
        TimeoutError
            No source gives anything.
        """
        failed, told, there = [], "", self.image.count()  # type: List[str], str, int
        while not self.image.is_complete():
            source = await self.member.source(self.share, failed)
            if source is None or here.has_ended(self.share.id):
                raise stale(self.share)
            self._todo = deque(self.image.missing())
            try:
                if source:
                    await self._pull(source)
                else:
                    await self._wait_for_client()
            except _Failed as error:
                told = "{}: {!r}".format(source or "the client", error.__cause__ or error)
                if self.image.count() > there:
                    # Bytes come again: what has failed before may do so as well.
                    del failed[:]
                there = self.image.count()
                failed.append(source)
                await asyncio.sleep(_PAUSE)
            if time.monotonic() - self._last > self.member.timeout:
                raise TimeoutError(
                    "{} cannot be copied to worker {}: no byte has come for {:g} s, {} of {} pieces "
                    "are there{}".format(
                        self.share.text, self.member.address, self.member.timeout, self.image.count(),
                        self.image.pieces, told and "; the last source was " + told,
                    )
                )  # fmt: skip

    async def _pull(self, address):
        """Pull all missing pieces from a worker."""
        pulling = [asyncio.ensure_future(self._pull_some(address)) for _ in range(WINDOW)]
        try:
            await asyncio.gather(*pulling)
        finally:
            for each in pulling:
                each.cancel()

    async def _pull_some(self, address):
        while True:
            piece = self.next_piece()
            if piece is None:
                return
            asked = self.member.ask(address, "shared_numpy_pull", id=self.share.id, piece=piece)
            # (Before this worker gives up, others are to be tried.)
            try:
                data = await asyncio.wait_for(asked, self.member.timeout / 3)
            except Exception as error:  # Also what its handler raises, or Dask's.
                raise _Failed() from error
            if data is None:
                raise _Failed("it has no copy any more")
            self.store(piece, data)
            self.member.count("bytes_from_workers", self.image.piece(piece).nbytes)

    async def _wait_for_client(self):
        """Wait while the client pushes pieces; the scheduler has told it."""
        while not self.image.is_complete():
            if here.has_ended(self.share.id):
                raise stale(self.share)
            if not await self.progress(_REMINDER):
                return

    def take(self, piece: "Optional[int]", data: "Any") -> "Optional[int]":
        """Take a piece from the client; return the next one that it shall send."""
        if piece is not None:
            self.store(piece, data)
            self.member.count("bytes_from_client", self.image.piece(piece).nbytes)
        return self.next_piece()


class _Failed(Exception):
    """A source does not give the piece."""


def copy_of_piece(id: str, piece: int) -> "Any":
    """Return a message with a piece of a copy that is open here; None if it is not.

    (It has the bytes, no view of them: what Dask keeps of a message that has failed must not keep
    the memory of the whole share.)
    """
    image = here.open_image(id)
    return image and to_serialize(image.piece(piece).tobytes())


async def give(id: str, piece: int, filling: "Optional[Filling]", seconds: float) -> "Any":
    """Return a message with a piece for another worker; None if this one has not got it, and gets
    it not soon.

    Parameters
    ----------
    id : str
        The share.
    piece : int
        Which piece.
    filling : Filling or None
        What fills the copy, if this worker does.
    seconds : float
        How long to wait for the piece without progress.
    """
    while True:
        image = here.open_image(id)
        if image is None:
            return None
        if image.has(piece):
            return copy_of_piece(id, piece)
        del image
        if filling is None or filling.has_ended or not await filling.progress(seconds):
            return None
