"""The pickler of this package's channels."""

import copyreg
import io
import pickle
from functools import partial
from importlib import import_module
from multiprocessing.reduction import ForkingPickler
from types import ModuleType

import numpy as np

from .. import _core
from . import masked, moved, registry  # noqa: F401 (numpy's subclasses are registered)
from .moved import DEFAULT, ArrayPolicy, move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

# The last that every interpreter from 3.6 on can read.
PROTOCOL = 4

# Classes whose objects contain no other objects: pickled without a dispatch table.
_ATOMS = frozenset([bytes, int, str])


class DispatchTable:
    """A dispatch table that finds a reducer when it is asked for one."""

    def get(self, cls, default=None):
        # (Picklers written in C subscribe the table; those written in Python call this.)
        try:
            return self[cls]
        except KeyError:
            return default


class _Reducers(DispatchTable, dict):
    """How the objects of one message are reduced, by class: as registered here, with the message's
    list of handles, else as `multiprocessing` does."""

    def __init__(self, handles, policy):
        self.handles, self.policy = handles, policy

    def __missing__(self, cls):
        own = registry.own.get(cls)
        if own is not None:
            reducer = partial(own, handles=self.handles)
        elif cls is np.ndarray:
            # (No bound method, which would make a reference cycle: the message's handles are freed
            # with it, not by a later garbage collection.)
            reducer = partial(_reduce_plain, policy=self.policy, handles=self.handles)
        else:
            reducer = ForkingPickler._extra_reducers.get(cls)
            if reducer is None and issubclass(cls, ModuleType):
                reducer = _reduce_module
            if reducer is None:
                reducer = copyreg.dispatch_table[cls]
        self[cls] = reducer
        return reducer


def _reduce_plain(array, policy, handles):
    """Reduce a plain array, by the core if it can."""
    stream = _fast_pickle(array, handles, policy, b"")
    if stream is None:
        return move(array, policy, handles)
    return _core.loads, (stream,)


def _fast_pickle(thing, handles, policy, end):
    """Return the pickle of a simple object, made by the core; None if it is not simple."""
    if policy.shared_twins:
        return None
    sent = None if policy.copied or policy.donated else handles
    limit = None if policy.shared_copies is None else moved.HUGE
    return _core.terse(thing, policy.threshold, end, sent, limit)


def _reduce_module(module):
    return import_module, (module.__name__,)


def reducers(handles: "List[bytes]", policy: ArrayPolicy = DEFAULT) -> "Dict[type, Any]":
    """Return the dispatch table of a pickler for one message; see `dumps`."""
    return _Reducers(handles, policy)


def dumps(
    thing: "Any", handles: "List[bytes]", policy: ArrayPolicy = DEFAULT, end: bytes = b""
) -> bytes:
    """Pickle anything, arrays through shared memory.

    Parameters
    ----------
    thing : object
        It must support pickling.
    handles : list of bytes
        The handles in the pickle are appended to it, also if this fails half-way. The caller
        cancels them if no process will load the pickle.
    policy : ArrayPolicy
        How plain arrays travel.
    end : bytes
        Bytes to append to the pickle.

    Returns
    -------
    bytes
        For `loads`, which stops at the end of the pickle.
    """
    stream = _fast_pickle(thing, handles, policy, end)
    if stream is not None:
        return stream
    if type(thing) in _ATOMS:
        return pickle.dumps(thing, PROTOCOL) + end
    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL)
    pickler.dispatch_table = reducers(handles, policy)
    pickler.dump(thing)
    file.write(end)
    return file.getvalue()


# Parts of the errors by which picklers refuse a lambda, or a function or class without a name.
_NAMELESS = ("<", "ocal object", "not the same object")


def is_of_nameless(error: BaseException) -> bool:
    """Tell whether a pickler's error is about a function or class that no process can import."""
    is_refusal = isinstance(error, (pickle.PicklingError, AttributeError))
    return is_refusal and any(each in str(error) for each in _NAMELESS)


def explain(error: BaseException) -> None:
    """Raise an error of `dumps` with what helps, if it is about a function without a name."""
    if is_of_nameless(error):
        text = (
            "{}. Queues and handles carry functions by name: define it at the top level of a file, "
            "or send cloudpickle.dumps(function)"
        )
        raise type(error)(text.format(error)) from None


# Makes the object of a pickle of `dumps`, or of any pickler.
loads = _core.loads

# Cancels the handles in a list, or in lists of a list: no process will receive them.
cancel = _core.cancel_all
