"""The names of ``npshmex``, for programs written for it.

::

    from shared_numpy.compat.npshmex import ProcessPoolExecutor

A key is the name of a named array, which stays until it is deleted, also after its maker has exited.
A wrapper or a masked array is stored as a pickle; the arrays in it have names of their own, made of
the key.
"""

import concurrent.futures
import copy
import io
import os
import pickle
import random
import secrets
import string
from functools import partial

import numpy as np

from .. import executor, named
from .._pickling import classes, pickler
from .._pickling.copies import order_of
from ..arrays import ndarray
from . import sharedarray as SharedArray

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any, Callable, Dict, List, Optional

# (Its documentation imports ``*``, which brings the modules that it uses, too.)
__all__ = [
    "ProcessPoolExecutor",
    "SharedArray",
    "concurrent",
    "is_shmable",
    "is_shmkey",
    "np",
    "pickle",
    "random",
    "register_array_wrapper",
    "shm_clear",
    "shm_del",
    "shm_pop",
    "shm_put",
    "string",
    "unshm",
]

_START = "shm://npshmex"
_TEMP = "TEMP"

# The classes that contain an array, and the name of its attribute.
_wrappers = {}  # type: Dict[type, str]


def register_array_wrapper(cls: type, attrname: str) -> None:
    """Have objects of a class, which hold an array, go through shared memory.

    Parameters
    ----------
    cls : type
        The class; its subclasses are registered by themselves.
    attrname : str
        The attribute with the array.

    Raises
    ------
    TypeError, ValueError
        As in `shared_numpy.register_type`.
    """
    classes.register_type(cls, attribute=attrname)
    _wrappers[cls] = attrname


def is_shmable(thing: "Any") -> bool:
    """Tell whether something is an array, or of a class that was registered."""
    return isinstance(thing, (np.ndarray,) + tuple(_wrappers))


def is_shmkey(key: "Any") -> bool:
    """Tell whether something is a key of `shm_put`."""
    return isinstance(key, str) and key.startswith(_START)


def shm_put(arr: "Any", temp: bool = False) -> str:
    """Copy an array into shared memory, under a key.

    Parameters
    ----------
    arr : numpy.ndarray or registered wrapper
        It is not changed. Dtype, mask and the order of items are kept.
    temp : bool
        The key is deleted when it is first popped (unless with ``keep=True``).

    Returns
    -------
    str
        The key, which any process of this user can pop.

    Raises
    ------
    ValueError
        `arr` is neither.
    OSError
        /dev/shm has no room for it.
    """
    if not is_shmable(arr):
        raise ValueError(
            "{!r} is neither an array nor of a class that was registered by "
            "register_array_wrapper".format(type(arr))
        )
    is_plain = type(arr) in (np.ndarray, ndarray)
    kind = "wrapper" if not is_plain else "data" if arr.dtype.names is None else "sdata"
    # (The pid of the maker is for `shm_clear`.)
    key = "{}_{}_{}{}_{}".format(
        _START, kind, "P%X" % os.getpid(), secrets.token_hex(8).upper(), _TEMP if temp else ""
    )
    if is_plain:
        _create(key, arr)
        return key
    parts = []  # type: List[str]
    try:
        file = io.BytesIO()
        _Pickler(file, key, parts).dump(arr)
        stream = pickle.dumps(len(parts)) + file.getvalue()
        _create(key, np.frombuffer(stream, "u1"))
    except BaseException:
        for part in parts:
            named.delete(part)
        raise
    return key


def shm_pop(key: str, keep: "Optional[bool]" = None) -> "Any":
    """Return the object of a key.

    Parameters
    ----------
    key : str
        The key that `shm_put` has returned.
    keep : bool, optional
        Keep the key. By default it is deleted if it was put with ``temp=True``.

    Returns
    -------
    numpy.ndarray or registered wrapper
        Its array lies in shared memory: popping the key again gives the same memory.

    Raises
    ------
    FileNotFoundError
        It was deleted.
    ValueError
        It is no key.
    """
    _check(key)
    if keep is None:
        keep = not key.endswith(_TEMP)
    attach = _attach if keep else named.take
    found = attach(key)
    if "_wrapper_" in key:
        file = io.BytesIO(found.tobytes())
        pickle.load(file)  # (The number of arrays.)
        found = _Unpickler(file, attach).load()
    return found


def shm_del(key: str) -> None:
    """Delete a key; arrays that were popped stay valid.

    Raises
    ------
    FileNotFoundError
        It was deleted before.
    ValueError
        It is no key.
    """
    _check(key)
    parts = 0
    if "_wrapper_" in key:
        parts = pickle.loads(_attach(key).tobytes())
    named.delete(key)
    for number in range(parts):
        try:
            named.delete(_part(key, number))
        except FileNotFoundError:
            pass


def unshm(x: "Any", keep: "Optional[bool]" = None) -> "Any":
    """Return the object of a key; any other object as it is.

    Parameters
    ----------
    x : object
        A key; or a dict, which is copied, with the objects of the keys among its values.
    keep : bool, optional
        As in `shm_pop`.
    """
    if is_shmkey(x):
        return shm_pop(x, keep)
    if isinstance(x, dict) and any(map(is_shmkey, x.values())):
        copied = copy.copy(x)
        for name, value in x.items():
            if is_shmkey(value):
                copied[name] = shm_pop(value, keep)
        return copied
    return x


def shm_clear(all: bool = False) -> None:
    """Delete the keys of this user that programs have left.

    Parameters
    ----------
    all : bool
        Also those whose maker lives, or which some process has mapped.
    """
    mapped = "" if all else _all_maps()
    for each in named.list_named():
        name = each.name
        if not is_shmkey(name) or (not all and (_maker_lives(name) or name[6:] in mapped)):
            continue
        try:
            named.delete(name)
        except FileNotFoundError:
            pass


def _check(key):
    if not is_shmkey(key):
        raise ValueError("{!r} is no key: those that shm_put returns are".format(key))


def _create(name, array):
    named.create(name, array.shape, array.dtype, order_of(array), fill=array)


def _part(key, number):
    return "{}.{}".format(key, number)


class _Pickler(pickle.Pickler):
    """Puts arrays under names, made of a key's, as it pickles."""

    def __init__(self, file, key, parts):
        super().__init__(file, pickler.PROTOCOL)
        self.key, self.parts = key, parts
        # Objects with arrays in them are reduced as in all channels.
        self.dispatch_table = pickler.reducers([])
        for cls in (np.matrix, np.recarray):
            self.dispatch_table[cls] = _reduce_view

    def persistent_id(self, thing):
        is_array = type(thing) is np.ndarray or isinstance(thing, ndarray)
        if not is_array or thing.dtype.hasobject:
            return None
        name = _part(self.key, len(self.parts))
        _create(name, thing)
        self.parts.append(name)
        return name


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, attach):
        super().__init__(file)
        self.persistent_load = attach


def _reduce_view(array):
    return _view, (np.asarray(array), type(array))


def _view(array, cls):
    return array.view(cls)


def _attach(name):
    return np.asarray(named.attach(name))


def _maker_lives(name):
    """Tell whether the process that has made a key exists; true if the key does not name it."""
    digits = name.split("_")[2][1:-16] if name.count("_") >= 3 else ""
    try:
        return os.path.exists("/proc/{}".format(int(digits, 16)))
    except ValueError:
        return True


def _all_maps():
    """Return the mappings of all processes of this user, as text."""
    maps = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/{}/maps".format(pid)) as file:
                maps.append(file.read())
        except OSError:
            continue  # It has exited, or belongs to another user.
    return "".join(maps)


class ProcessPoolExecutor(executor.ProcessPoolExecutor):
    """A `shared_numpy.ProcessPoolExecutor` whose functions take the objects of keys.

    It works as that, and as ``concurrent.futures.ProcessPoolExecutor``: arrays in arguments and
    results, at any depth, go through shared memory.
    """

    def submit(
        self,
        f: "Callable[..., Any]",
        *args: "Any",
        shm_input: bool = True,
        shm_output: bool = True,
        **kwargs: "Any"
    ) -> "Future[Any]":
        """Have a worker call a function.

        Parameters
        ----------
        f : callable
            The function.
        *args, **kwargs
            Its arguments. The worker pops keys among them.
        shm_input, shm_output : bool
            With both False keys are passed on as they are. (The way of an array does not depend on
            them, but on its size.)

        Returns
        -------
        concurrent.futures.Future
            It yields the function's result; for a key, or a dict of keys, their objects.
        """
        if not (shm_input or shm_output):
            return super().submit(f, *args, **kwargs)
        return super().submit(partial(_call, f), args, kwargs)


def _call(function: "Callable[..., Any]", args: "Any", kwargs: "Any") -> "Any":
    args = [shm_pop(each) if is_shmkey(each) else each for each in args]
    kwargs = {
        name: shm_pop(each) if is_shmkey(each) else each for name, each in kwargs.items()
    }
    return unshm(function(*args, **kwargs))
