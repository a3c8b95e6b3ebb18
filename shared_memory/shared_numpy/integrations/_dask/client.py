"""What the program does that shares: it makes the first copy, and gives bytes to workers."""

import asyncio
import os
import pickle
from functools import partial
from weakref import WeakKeyDictionary, ref

import numpy as np

from . import requirements, results
from .array import PerHostArray, share_array
from .copies import here
from .filling import WINDOW, copy_of_piece
from .memory import NannyMemory
from .scheduler import Registry, has_registry, topic_of
from .worker import Member

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Set

_HOSTS = ("lazy", "now")
_WHEN_FULL = ("error", "private_copy")
# The states of a client that has ended.
_CLOSED = ("closing", "closed")


class Sharer:
    """A client's part: its shares, and the bytes that it sends."""

    def __init__(self, client: "Any") -> None:
        # (The client has this object, through its handlers.)
        self._client = ref(client)
        self._sending = set()  # type: Set[Any]
        self.shares = set()  # type: Set[str]
        results.register()
        results.introduce(client)
        self._end_with(client)

    @property
    def client(self) -> "Any":
        client = self._client()
        assert client is not None
        return client

    def _end_with(self, client):
        """Have all shares of a client end when it is closed, or has lost the scheduler: that has ended
        them."""
        close, reconnect, sharer = type(client)._close, type(client)._reconnect, self

        def closing(*arguments, **options):
            sharer.forget()
            return close(sharer._client(), *arguments, **options)

        def reconnecting():
            sharer.forget()
            return reconnect(sharer._client())

        client._close, client._reconnect = closing, reconnecting

    # ---- registering

    def registrations(self) -> "List[Callable[[], Any]]":
        """Return what is to be called, one after the other, so that workers, nannies and scheduler
        play their parts. The scheduler comes last: if it does, all do."""
        client = self.client
        if hasattr(client, "register_plugin"):
            plugins = [NannyMemory(), Member(), Registry()]
            return [partial(client.register_plugin, plugin) for plugin in plugins]
        # (Before 2023.9.)
        return [
            partial(client.register_worker_plugin, NannyMemory(), name=NannyMemory.name, nanny=True),
            partial(client.register_worker_plugin, Member(), name=Member.name),
            partial(client.register_scheduler_plugin, Registry(), name=Registry.name),
        ]

    # ---- sharing

    async def announce(self, share: PerHostArray, now: bool) -> None:
        """Tell the scheduler of a share, and have the workers get it."""
        client = self.client
        client.subscribe_topic(topic_of(client.id), self._wanted)
        known = await client.scheduler.shared_numpy_share(id=share.id, client=client.id)
        if known is not True:
            raise RuntimeError(
                "the scheduler {} has lost this client, or was restarted: make a new Client".format(
                    client.scheduler.address
                )
            )
        self.shares.add(share.id)
        if now:
            errors = await client.scheduler.shared_numpy_fill_all(share=pickle.dumps(share))
            if errors:
                raise pickle.loads(errors[0])

    def make(self, array: "Any", readonly: bool, private: bool) -> PerHostArray:
        """Return a new share of an array, of which this host has a copy."""
        return share_array(os.urandom(16), array, readonly, private, self)

    def end(self, id: str) -> "Any":
        """End a share; return an awaitable if the client is asynchronous."""
        here.end(id)
        self.shares.discard(id)
        client = self._client()
        if client is None or client.status != "running":
            return _nothing() if client is not None and client.asynchronous else None
        return client.sync(self._tell_end, client, id)

    async def _tell_end(self, client, id):
        try:
            await client.scheduler.shared_numpy_end(id=id)
        except OSError:
            pass  # Without its client the share ends by itself.

    def forget(self) -> None:
        """Drop all copies: the client has left the scheduler, which tells the workers."""
        for id in list(self.shares):
            here.end(id)
        self.shares.clear()

    # ---- giving bytes to workers, on the client's event loop

    def _wanted(self, event):
        """Begin to send a share's bytes to a worker, unless that is going on."""
        wanted = event[1]["id"], event[1]["worker"]
        if wanted not in self._sending and here.open_image(wanted[0]) is not None:
            self._sending.add(wanted)
            asyncio.ensure_future(self._send(*wanted))

    async def _send(self, id, worker):
        client = self._client()
        try:
            await asyncio.gather(*[self._send_some(client, id, worker) for _ in range(WINDOW)])
        finally:
            self._sending.discard((id, worker))

    async def _send_some(self, client, id, worker):
        piece, data = None, None
        while not here.has_ended(id):
            message = {"op": "shared_numpy_give", "id": id, "piece": piece, "data": data}
            try:
                piece = await client.scheduler.proxy(worker=worker, msg=message)
            except Exception:
                return  # The worker has died, or asks again.
            data = None if piece is None else copy_of_piece(id, piece)
            if data is None:
                return


async def _nothing():
    pass


_sharers = WeakKeyDictionary()  # type: WeakKeyDictionary[Any, Sharer]


def sharer_of(client: "Any") -> "Sharer":
    """Return a client's part; raise ValueError if the client is closed."""
    if client.status in _CLOSED:
        raise ValueError("the client is closed: {!r}".format(client))
    found = _sharers.get(client)
    if found is None:
        requirements.check()
        found = _sharers[client] = Sharer(client)
    return found


def register(client: "Any") -> "Any":
    """Have the workers of a cluster share memory, those that join later included.

    Shared arrays (`shared_numpy.ndarray`) that tasks return then go by handle between workers of
    one host. Between hosts, to clients and to disk they go by value, in Dask's own serialization.
    Workers and nannies no longer count shared memory once for each worker: each has its private
    memory, and its part of the results that it shares.

    It holds as long as the cluster. Calling it again, also for another client, changes nothing.
    `share` calls it if need be.

    Parameters
    ----------
    client : distributed.Client
        With an asynchronous one: ``await register(client)``.

    Raises
    ------
    ValueError
        The client is closed.
    RuntimeError
        This version of Dask has not what is needed.

    Examples
    --------
    >>> from shared_numpy.integrations import dask as snp_dask  # doctest: +SKIP
    >>> snp_dask.register(client)  # doctest: +SKIP
    """
    if client.asynchronous:
        return _register_async(client)
    sharer = sharer_of(client)
    if not client.run_on_scheduler(has_registry):
        for call in sharer.registrations():
            call()
    return None


async def _register_async(client):
    sharer = sharer_of(client)
    if not await client.run_on_scheduler(has_registry):
        for call in sharer.registrations():
            await call()


def share(
    client: "Any",
    obj: "Any",
    *,
    hosts: str = "lazy",
    readonly: bool = True,
    when_full: str = "error"
) -> "Any":
    """Share an array with all workers of a cluster: one copy for each host.

    A host is whatever shares a /dev/shm; the workers find that out. The first worker of a host that
    uses the array fetches it, in pieces, from a worker of another host that has it or is fetching
    it, else from this program. The others of the host wait for that, and use the same memory.

    Parameters
    ----------
    client : distributed.Client
        The share ends with it. With an asynchronous one: ``await share(...)``.
    obj : array_like
        The array. It is copied: later changes of `obj` are not seen.
    hosts : {"lazy", "now"}
        When a host gets its copy: at its first use there, or at once on all hosts that have workers
        now, before this returns.
    readonly : bool
        False: workers may write. Writes are seen on the same host, and may or may not be in the
        copy of a host that is filled later.
    when_full : {"error", "private_copy"}
        What happens on a host without room in /dev/shm: `ArenaFullError` where the array is used,
        or a private copy for each worker there.

    Returns
    -------
    PerHostArray
        Pass it to tasks. Close it, use it in a ``with`` block, or let it end with the client.

    Raises
    ------
    TypeError
        Items are references to Python objects.
    ValueError
        An argument has none of the values above, or the client is closed.
    ArenaFullError
        There is no room on this host, or with ``hosts="now"`` on another one; the error names it.
    TimeoutError
        With ``hosts="now"``: nothing has come to a worker for the time of Dask's setting
        ``shared-numpy.timeout`` (60 s).

    Examples
    --------
    >>> with share(client, np.arange(1e6)) as data:  # doctest: +SKIP
    ...     futures = client.map(lambda i, data: data[i::8].sum(), range(8), data=data)
    ...     sums = client.gather(futures)
    """
    for name, value, choices in (("hosts", hosts, _HOSTS), ("when_full", when_full, _WHEN_FULL)):
        if value not in choices:
            raise ValueError("{} must be one of {}, not {!r}".format(name, choices, value))
    array = np.asarray(obj)
    if array.dtype.hasobject:
        raise TypeError(
            "an array of dtype {} has references to Python objects, which other processes cannot "
            "share".format(array.dtype)
        )
    private = when_full == "private_copy"
    if client.asynchronous:
        return _share_async(client, array, hosts == "now", readonly, private)
    register(client)
    sharer = sharer_of(client)
    made = sharer.make(array, readonly, private)
    try:
        client.sync(sharer.announce, made, hosts == "now")
    except BaseException:
        sharer.end(made.id)
        raise
    return made


async def _share_async(client, array, now, readonly, private):
    await _register_async(client)
    sharer = sharer_of(client)
    loop = asyncio.get_event_loop()
    made = await loop.run_in_executor(None, sharer.make, array, readonly, private)
    try:
        await sharer.announce(made, now)
    except BaseException:
        await sharer.end(made.id)
        raise
    return made


def stats(client: "Any") -> "Any":
    """Return what each worker has done for shares and results since it began.

    Parameters
    ----------
    client : distributed.Client
        One for which `register` or `share` was called. With an asynchronous one:
        ``await stats(client)``.

    Returns
    -------
    dict
        The address of each worker, and its dict: ``host``, a text that is equal for workers of one
        host; ``fills``, the copies that it has filled; ``attaches``, those that it has found on its
        host; ``bytes_from_workers`` and ``bytes_from_client``, what came to it to fill;
        ``bytes_given``, what it has given to workers of other hosts; ``results_by_handle`` and
        ``results_by_value``, the shared arrays that it has sent; ``memory``, the bytes that count
        for it.
    """
    return client.sync(_stats, client)


async def _stats(client):
    found = await client.scheduler.broadcast(msg={"op": "shared_numpy_stats"}, on_error="ignore")
    return {address: each for address, each in found.items() if isinstance(each, dict)}
