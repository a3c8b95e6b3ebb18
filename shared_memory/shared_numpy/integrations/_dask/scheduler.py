"""What the scheduler knows: which shares there are, whose they are, and which workers have them.

Workers that fill their host's copy make a tree: each pulls from one source, a worker that has the
bytes or is getting them, and at most `CHILDREN` pull from workers of the same host. The root pulls
from the client.
"""

import asyncio
import pickle
from collections import Counter

from distributed.diagnostics.plugin import SchedulerPlugin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Set

# So many workers pull from a host at a time, as long as there is another one to pull from.
CHILDREN = 2

# What stands for the client among the sources.
CLIENT = ""


def topic_of(client: str) -> str:
    """Return the topic by which a client learns that a worker needs bytes of it."""
    return "shared-numpy-" + client


class Known:
    """A share, as the scheduler knows it.

    Parameters
    ----------
    client : str
        The identifier of the client that has shared it.
    """

    def __init__(self, client: str) -> None:
        self.client = client
        # Worker -> whether it has all of it; those which fill come in with their source.
        self.has = {}  # type: Dict[str, bool]
        self.sources = {}  # type: Dict[str, str]
        # What `host_memory.host` tells of each of them.
        self.hosts = {}  # type: Dict[str, str]
        # The workers that have asked for it: nobody else can have it, or has to be told of its end.
        self.users = set()  # type: Set[str]

    def source_for(self, worker: str, failed: "List[str]", host: str) -> str:
        """Choose where a worker of a host gets bytes from, and remember it."""
        self.sources.pop(worker, None)
        self.hosts[worker] = host
        able = [each for each in self.has if each not in failed and not self._is_below(each, worker)]
        # Workers of a host share its link.
        pulled = Counter(self.hosts.get(source) for source in self.sources.values())
        children = {each: pulled[self.hosts[each]] for each in able}
        # A complete copy before one in the making; then the nearest to the root.
        able.sort(key=lambda each: (not self.has[each], self._level(each), children[each]))
        free = [each for each in able if children[each] < CHILDREN]
        chosen = free[0] if free else min(able, key=children.get) if able else CLIENT  # type: ignore
        self.has.setdefault(worker, False)
        self.sources[worker] = chosen
        return chosen

    def _is_below(self, one, worker):
        """Tell whether a worker is another one, or gets its bytes through it."""
        while one in self.sources and one != worker:
            one = self.sources[one]
        return one == worker

    def _level(self, worker):
        """Return through how many others a worker gets its bytes."""
        level = 0
        while worker in self.sources:
            worker, level = self.sources[worker], level + 1
        return level

    def complete(self, worker: str, host: str) -> None:
        """Note that a worker of a host has all of it."""
        self.has[worker], self.hosts[worker] = True, host
        self.sources.pop(worker, None)

    def remove(self, worker: str) -> None:
        """Note that a worker has no copy that it could give."""
        self.has.pop(worker, None)
        self.hosts.pop(worker, None)
        self.sources.pop(worker, None)

    def leave(self, worker: str) -> None:
        """Note that a worker has left."""
        self.remove(worker)
        self.users.discard(worker)


class Registry(SchedulerPlugin):  # type: ignore[misc]
    """Keeps the shares of a scheduler. (Two clients may register at the same time: a second one works
    on the same shares.)"""

    name = "shared-numpy"
    idempotent = True

    async def start(self, scheduler: "Any") -> None:
        self.scheduler = scheduler
        self.shares = scheduler.extensions.setdefault("shared_numpy", {})  # type: Dict[str, Known]
        scheduler.handlers.update(
            shared_numpy_share=self.share,
            shared_numpy_end=self.end,
            shared_numpy_known=self.known,
            shared_numpy_source=self.source,
            shared_numpy_has=self.has,
            shared_numpy_fill_all=self.fill_all,
        )

    # ---- what a client asks

    async def share(self, id: str, client: str) -> bool:
        """Note a new share; return False if the client has left."""
        if client not in self.scheduler.clients:
            return False
        self.shares[id] = Known(client)
        return True

    async def end(self, id: str) -> None:
        """End a share: the workers that have it drop it."""
        self._end(id)

    async def fill_all(self, share: bytes) -> "List[bytes]":
        """Have each worker that is there get a share; return the pickled errors."""
        answers = await self.tell_all("shared_numpy_fill", share=share)
        return [each for each in answers.values() if isinstance(each, bytes)]

    async def tell_all(self, operation: str, **arguments: "Any") -> "Dict[str, Any]":
        """Have each worker do something; return their answers, pickled errors among them, without those
        of workers which have left. (One that has just come answers None: it gets a copy when it uses
        the share.)"""
        addresses = list(self.scheduler.workers)
        asked = [
            getattr(self.scheduler.rpc(address), operation)(**arguments) for address in addresses
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found = {}
        for address, answer in zip(addresses, answers):
            if isinstance(answer, OSError) and address not in self.scheduler.workers:
                continue
            found[address] = _pickled(answer) if isinstance(answer, BaseException) else answer
        return found

    # ---- what a worker asks

    async def known(self, id: str, worker: str) -> bool:
        """Tell whether a share has not ended, to a worker that is about to open its copy."""
        share = self.shares.get(id)
        if share is not None and worker in self.scheduler.workers:
            share.users.add(worker)
        return share is not None

    async def source(
        self, id: str, worker: str, failed: "List[str]", host: str
    ) -> "Optional[str]":
        """Return where a worker gets the bytes of a share from: the address of a worker, "" for the
        client, which is told; None if the share has ended, or the worker has left."""
        share = self.shares.get(id)
        if share is None or worker not in self.scheduler.workers:
            return None
        source = share.source_for(worker, failed, host)
        if source == CLIENT:
            self.scheduler.log_event(topic_of(share.client), {"id": id, "worker": worker})
        return source

    async def has(self, id: str, worker: str, complete: bool, host: str) -> None:
        """Note that a worker has a complete copy, or has failed to fill one."""
        share = self.shares.get(id)
        if share is None:
            return
        if complete and worker in self.scheduler.workers:
            share.complete(worker, host)
        else:
            share.remove(worker)

    # ---- what happens

    def remove_worker(self, scheduler: "Any", worker: str, **options: "Any") -> None:
        for share in self.shares.values():
            share.leave(worker)

    def remove_client(self, scheduler: "Any", client: str) -> None:
        for id in [id for id, share in self.shares.items() if share.client == client]:
            self._end(id)

    def _end(self, id):
        # (A worker asks before it opens a copy. One that has not asked may be without a `Member`,
        # and would be closed by a message that it does not know.)
        share = self.shares.pop(id, None)
        for address in list(share.users) if share is not None else ():
            if address in self.scheduler.workers:
                self.scheduler.worker_send(address, {"op": "shared_numpy_end", "id": id})


def _pickled(error):
    try:
        return pickle.dumps(error)
    except Exception:
        return pickle.dumps(RuntimeError(repr(error)))


def has_registry(dask_scheduler: "Any") -> bool:
    """Tell whether a scheduler has a `Registry`."""
    return Registry.name in dask_scheduler.plugins
