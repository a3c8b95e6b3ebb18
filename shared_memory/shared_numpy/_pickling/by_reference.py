"""Arrays in shared memory travel by reference: as the handle of their block, and their place in it."""

import os
from multiprocessing import context, util

import numpy as np

from .. import _core, _reduce
from .._system import process_tree  # noqa: F401 (what an arena asks for, imported early)
from ..errors import ForeignHandleError

# It looks for modules of numpy, now rather than at the first array: a fork that another
# thread makes waits for imports of this package, and would not wait for that.
_core.array_maker()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple


def block_of(array: "Any") -> "Optional[_core.Block]":
    """Return the block in which an array lies, or None."""
    memory = _base_of(array)
    return memory if type(memory) is _core.Block else None


def memory_of(array: "Any") -> "Any":
    """Return the shared memory in which an array lies: a block, or what
    `register_memory` was told of. None if it lies in none, or in a block that is this
    process's own."""
    memory = _base_of(array)
    return None if type(memory) is _core.Block and memory.private else memory


def _base_of(array):
    """Return the shared memory at the end of an array's bases, or None."""
    while array is not None and type(array) not in _kinds:
        # numpy's stride tricks put an object of their own in between, and
        # `memoryview` has another word for it.
        array = array.obj if type(array) is memoryview else getattr(array, "base", None)
    return array


def send(block: "_core.Block", handles: "Optional[List[bytes]]" = None) -> "_core.Sending":
    """Make a handle of a block for what is being pickled.

    Parameters
    ----------
    block : Block
        What is sent.
    handles : list of bytes, optional
        The handle is appended to it.

    Returns
    -------
    Sending
        One for a process that is being made ends with that, should it be killed before
        it has read what it was given.

    Raises
    ------
    ForeignHandleError
        The block is another user's, and is for a process that is being made.
    """
    child = context.get_spawning_popen()
    if child is not None and not block.is_of_this_user:
        raise ForeignHandleError(
            "the arena {} was made before this program changed its user to {}: the new "
            "process could not open it. Make anew what it is to get".format(
                block.arena.name, os.geteuid()
            )
        )
    sending = block.sending(handles)
    if child is not None:
        util.Finalize(child, _core.cancel, (sending.handle,))
    return sending


def reduce_to(array, block, cls, handles, private=False):
    """Reduce an array to its block's handle and where it lies in the block."""
    first = array.__array_interface__["data"][0]
    offset = first - block.address if array.size else 0
    dtype, shape, strides = array.dtype, array.shape, array.strides
    # Refuses, here and not where it arrives, a view that leads out of its block.
    block.array(shape, dtype, strides, offset)
    sending = send(block, handles)
    return _reduce.array, (
        cls, sending, shape, plain_dtype(dtype), strides, offset, private, extras_of(array)
    )  # fmt: skip


def extras_of(array: "Any") -> "Tuple[Dict[str, Any], bool]":
    """Return what an array has beside its items, for `with_extras`: its attributes, but
    that it was closed here, and whether it can be written to."""
    attributes = {
        name: value
        for name, value in getattr(array, "__dict__", {}).items()
        if name != "_closed"
    }
    return attributes, array.flags.writeable


def with_extras(array: "Any", extras: "Tuple[Dict[str, Any], bool]") -> "Any":
    """Give a new array what another one had."""
    attributes, writeable = extras
    if attributes:
        array.__dict__.update(attributes)
    if not writeable:
        array.flags.writeable = False
    return array


def plain_dtype(dtype):
    """Return what is quicker to pickle than a dtype and makes the same again."""
    return dtype.str if dtype.isbuiltin == 1 and dtype.metadata is None else dtype


def rebuild(cls, handle, shape, dtype, strides, offset, private, extras):
    """Make the array that `reduce_to` took apart."""
    # What is the receiver's own is so for one.
    block = _core.take(handle) if private else _core.receive(handle)
    copies = private and not _core.can_own_more()
    if private and not copies:
        block.private = True  # Also against children that are forked.
    array = block.array(shape, dtype, strides, offset, cls)
    return with_extras(array.copy("K") if copies else array, extras)


# The kinds of shared memory: how an array that lies there is reduced, given the memory,
# the class that is to arrive and the list of handles or None.
_kinds = {_core.Block: reduce_to}  # type: Dict[type, Callable[[Any, Any, type, Any], Any]]


def register_memory(kind: type, refer: "Callable[[Any, Any, type, Any], Any]") -> None:
    """Have arrays whose last base is of the class `kind` reduced by `refer`."""
    _kinds[kind] = refer


def refer(array: "Any", memory: "Any", cls: type, handles: "Optional[List[bytes]]" = None) -> "Any":
    """Reduce an array that lies in shared memory; it arrives as one of the class."""
    return _kinds[type(memory)](array, memory, cls, handles)


def reduce_view(array: "Any", handles: "Optional[List[bytes]]" = None) -> "Any":
    """Reduce an array of a subclass of `numpy.ndarray`.

    It goes by reference if it lies in shared memory, else with what a plain view of
    it is reduced to; with its attributes.
    """
    memory = memory_of(array)
    if memory is not None:
        return refer(array, memory, type(array), handles)
    attributes = getattr(array, "__dict__", {})
    return _reduce.view, (type(array), np.asarray(array), attributes)


def rebuild_view(cls, array, attributes):
    view = np.ndarray.view(array, cls)
    if attributes:
        view.__dict__.update(attributes)
    return view


def reduce_copy(array: "Any", handles: "Optional[List[bytes]]" = None) -> "Any":
    """Reduce an `snp.ndarray`: by reference, or as a plain array if it is a copy in
    this process's own memory."""
    memory = memory_of(array)
    if memory is not None:
        return refer(array, memory, type(array), handles)
    return _reduce.same, (np.asarray(array),)


def same(thing):
    return thing
