"""What a worker does: it fills the copy of its host, or attaches it, and serves workers of others."""

import asyncio
import os
import pickle
import socket
import threading
from concurrent import futures

import dask
from dask.utils import parse_timedelta
from distributed.core import Status
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.worker import get_worker

from . import host_memory, memory, results
from .copies import here
from .filling import Filling, give

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

    from .image import Image

# The name of the setting of Dask's for the longest wait without progress, and its default.
TIMEOUT, TIMEOUT_DEFAULT = "shared-numpy.timeout", "60s"


class Member(WorkerPlugin):  # type: ignore[misc]
    """One worker's part; `client.register` sends it to all workers."""

    name = "shared-numpy"
    idempotent = True

    # ---- begin and end, on the event loop

    def setup(self, worker: "Any") -> None:
        # (First: a worker on which the rest fails stays in its cluster.)
        worker.stream_handlers["shared_numpy_end"] = here.end
        self.worker, self.loop = worker, asyncio.get_event_loop()
        self._thread, self._host = threading.get_ident(), host_memory.host()
        self._fillings = {}  # type: Dict[str, Filling]
        self._counts = {"bytes_from_workers": 0, "bytes_from_client": 0, "bytes_given": 0}
        self.timeout = parse_timedelta(dask.config.get(TIMEOUT, TIMEOUT_DEFAULT))
        results.register()
        results.introduce(worker)
        worker.rpc.collect()  # Connections that are idle have told nothing.
        self._measure = memory.install_in_worker(worker, here.in_arenas)
        get_data = self._get_data = worker.handlers["get_data"]

        async def get_data_by_handle(comm, **arguments):
            with results.answering(comm):
                return await get_data(comm, **arguments)

        worker.handlers.update(
            get_data=get_data_by_handle,
            shared_numpy_pull=self.pull,
            shared_numpy_give=self.take,
            shared_numpy_fill=self.prepare,
            shared_numpy_stats=self.stats,
        )
        here.members = here.members + [self]

    def teardown(self, worker: "Any") -> None:
        if hasattr(self, "_get_data"):
            worker.handlers["get_data"] = self._get_data
        here.leave(self)

    # ---- what others ask of it, on the event loop

    async def pull(self, id: str, piece: int) -> "Any":
        """Give a piece of a copy to the worker of another host; None if it is not here."""
        data = await give(id, piece, self._fillings.get(id), self.timeout / 4)
        if data is not None:
            self.count("bytes_given", len(data.data))
        return data

    async def take(self, id: str, piece: "Optional[int]" = None, data: "Any" = None) -> "Any":
        """Take a piece from the client; return the next one that it shall send, or None."""
        filling = self._fillings.get(id)
        return None if filling is None else filling.take(piece, data)

    async def prepare(self, share: bytes) -> "Optional[bytes]":
        """Have the copy of a share here; return the pickled error if that fails."""
        try:
            await self.loop.run_in_executor(None, pickle.loads(share).__array__)
        except Exception as error:
            return pickle.dumps(error)
        return None

    async def stats(self) -> "Dict[str, Any]":
        """Return what `client.stats` tells of a worker."""
        return dict(
            self._counts,
            host=self._host,
            fills=here.filled,
            attaches=here.attached,
            results_by_handle=results.Counts.by_handle,
            results_by_value=results.Counts.by_value,
            memory=self._measure(),
        )

    def count(self, name: str, nbytes: int) -> None:
        self._counts[name] += nbytes

    # ---- what `copies` asks of it, on the thread of a task

    @property
    def address(self) -> str:
        return str(self.worker.address)

    def name_here(self) -> str:
        return "worker {} on {}".format(self.address, socket.gethostname())

    def is_here(self) -> bool:
        """Tell whether this thread is that of the worker's event loop."""
        return threading.get_ident() == self._thread

    def runs_this(self) -> bool:
        """Tell whether this worker runs the task of this thread."""
        try:
            return get_worker() is self.worker
        except ValueError:
            return False

    def knows(self, share: "Any") -> bool:
        """Ask the scheduler whether a share has not ended."""
        asked = self._ask_scheduler("shared_numpy_known", id=share.id, worker=self.address)
        return bool(self._wait(asked))

    def fill(self, share: "Any", image: "Image") -> None:
        """Fill an image; see `Filling.run` for what is raised."""
        self._wait(self._fill(share, image))

    def has_copy(self, share: "Any") -> None:
        """Tell the scheduler that this worker can serve others."""
        asyncio.run_coroutine_threadsafe(self._report(share, True), self.loop)

    def _wait(self, coroutine):
        """Return the result of a coroutine, which is run on the event loop."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            while not futures.wait([future], 1).done:
                # A loop that has been stopped ends no coroutine.
                if self.loop.is_closed() or self.worker.status in (Status.closed, Status.failed):
                    future.cancel()
                    raise RuntimeError("the worker {} was closed".format(self.address))
            return future.result()
        finally:
            # (With its exception it would be a cycle, which keeps the image.)
            del future

    async def _fill(self, share, image):
        filling = self._fillings[share.id] = Filling(self, share, image)
        try:
            await filling.run()
        except BaseException:
            asyncio.ensure_future(self._report(share, False))
            raise
        finally:
            del self._fillings[share.id]
            filling.end()

    async def _report(self, share, complete):
        await self._ask_scheduler(
            "shared_numpy_has", id=share.id, worker=self.address, complete=complete, host=self._host
        )

    # ---- what `Filling` asks of it, on the event loop

    async def source(self, share: "Any", failed: "List[str]") -> "Optional[str]":
        """Ask the scheduler for a source: the address of a worker, "" for the client, None if the
        share has ended."""
        answer = await self._ask_scheduler(
            "shared_numpy_source", id=share.id, worker=self.address, failed=failed, host=self._host
        )
        return None if answer is None else str(answer)

    async def ask(self, address: str, operation: str, **arguments: "Any") -> "Any":
        """Have another worker do something, and return its answer."""
        return await getattr(self.worker.rpc(address), operation)(**arguments)

    async def _ask_scheduler(self, operation, **arguments):
        return await getattr(self.worker.scheduler, operation)(**arguments)
