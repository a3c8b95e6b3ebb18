"""Shared arrays that tasks return: by handle between workers of a host, else by value.

A worker that asks another for data opens the connection, and tells in its handshake which host it is
on (`introduce`). The other makes handles only while it answers on that connection (`answering`),
and ends all that were not received when the answer's receipt has come, or the connection is gone:
the receiver has died, or knows no longer what it would do with the data. Nothing ends by its age.

A receiver whose handle has ended all the same takes that for a lost connection: Dask asks again.

This is Dask's family of serializers "dask": a cluster whose ``serializers`` leave it out gets
arrays by value, as pickles. Spilled arrays and those for a client or another host are in numpy's
format of that family, which a process without `register` reads, too.
"""

import sys
import threading
from contextlib import contextmanager, suppress
from weakref import WeakSet

import numpy as np
from dask.sizeof import sizeof
from distributed.protocol.numpy import deserialize_numpy_ndarray, serialize_numpy_ndarray
from distributed.protocol.serialize import dask_deserialize, dask_serialize

from ... import _core
from ..._pickling import pickler
from ..._pickling.by_reference import memory_of
from ...arrays import from_array, ndarray
from ...errors import ArenaFullError
from . import host_memory
from .copies import here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, List

# Of a handshake: the host of the process that opens the connection.
_HOST = "shared_numpy-host"
# Of a connection, while data are sent as the answer.
_TRANSFER = "shared_numpy-transfer"


class Counts:
    """How many arrays this process has sent, either way."""

    by_handle = by_value = 0


_once = threading.Lock()
_registered = []  # type: List[bool]


def register() -> None:
    """Have this process serialize shared arrays in Dask's family "dask"."""
    with _once:
        if not _registered:
            # A process's first arena is its default, and a copy's arena is no place for results.
            with suppress(ArenaFullError):
                _core.Arena.default()
            dask_serialize.register(ndarray)(_serialize)
            dask_deserialize.register(ndarray)(_deserialize)
            sizeof.register(ndarray)(_size)
            _registered.append(True)


def introduce(server: "Any") -> None:
    """Have the connections that a worker or client opens from now on tell which host it is on."""
    pool = server.rpc
    arguments = dict(pool.connection_args or {})
    told = dict(arguments.get("handshake_overrides") or {})
    told[_HOST] = host_memory.host()
    arguments["handshake_overrides"] = told
    pool.connection_args = arguments
    _pools.add(pool)


_pools = WeakSet()  # type: WeakSet[Any]


def _stop_introducing():
    """Ask for values from now on: what others send by handle cannot be opened here."""
    for pool in list(_pools):
        pool.connection_args.get("handshake_overrides", {}).pop(_HOST, None)


class _Transfer:
    """The handles of one answer."""

    def __init__(self):
        self.handles = []  # type: List[bytes]
        self.ended = False

    def end(self):
        self.ended = True
        _core.cancel_all(self.handles)

    def dumps(self, array):
        stream = pickler.dumps(array, self.handles)
        # (Dask serializes in a thread, which may come after the connection has been lost.)
        if self.ended:
            _core.cancel_all(self.handles)
        return stream


@contextmanager
def answering(comm: "Any") -> "Iterator[None]":
    """For the time of an answer with data on a connection: arrays go by handle if the other side is
    on this host. Handles that were not received end with it."""
    recipient = getattr(comm, "remote_info", None)
    if not isinstance(recipient, dict) or recipient.get(_HOST) != host_memory.host():
        yield
        return
    transfer = recipient[_TRANSFER] = _Transfer()
    try:
        yield
    finally:
        del recipient[_TRANSFER]
        transfer.end()


def _serialize(array, context=None):
    recipient = (context or {}).get("recipient") or {}
    transfer = recipient.get(_TRANSFER)
    if transfer is not None and memory_of(array) is not None:
        try:
            header = {"shared_numpy": transfer.dumps(array)}
        except (ArenaFullError, ValueError):
            pass  # Too many are on their way, or it was unlinked.
        else:
            Counts.by_handle += 1
            return header, []
    Counts.by_value += 1
    header, frames = serialize_numpy_ndarray(np.asarray(array), context)
    header["shared_numpy-readonly"] = not array.flags.writeable
    return header, frames


def _deserialize(header, frames):
    if "shared_numpy" in header:
        try:
            return pickler.loads(header["shared_numpy"])
        except ReferenceError as error:
            raise ConnectionError("the transfer of a shared array was given up") from error
        except (ValueError, OSError) as error:
            _stop_introducing()
            raise ConnectionError("a shared array cannot be opened here: {}".format(error)) from error
    array = deserialize_numpy_ndarray(header, frames)
    try:
        array = from_array(array)
    except ArenaFullError:
        pass  # In ordinary memory it is right, too.
    if header.get("shared_numpy-readonly"):
        array.flags.writeable = False
    return array


def _size(array):
    """Return how much Dask saves if it spills an array: nothing for a view of a host's copy."""
    return sys.getsizeof(array) if here.has_view(array) else int(array.nbytes)
