"""Arrays in shared memory travel by reference: as the handle of their block, and an offset in it."""

import os
from multiprocessing import context, util

import numpy as np

from .. import _core, _reduce
from .._system import process_tree  # noqa: F401 (`_core` calls it; imported early for forks)
from ..errors import ForeignHandleError

# This call imports modules of numpy, which should not happen at the first array: a fork in another
# thread waits for imports of this package (`_system.forks`), but not for imports of numpy.
_core.array_maker()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple


def block_of(array: "Any") -> "Optional[_core.Block]":
    """Return the block in which an array lies, or None."""
    memory = _base_of(array)
    return memory if type(memory) is _core.Block else None


def memory_of(array: "Any") -> "Any":
    """Return the shared memory in which an array lies: a block, or memory of a class that
    `register_memory` knows. None for ordinary memory, and for a block of private pages."""
    memory = _base_of(array)
    return None if type(memory) is _core.Block and memory.private else memory


def _base_of(array):
    """Return the shared memory at the end of an array's bases, or None."""
    while array is not None and type(array) not in _kinds:
        # (`numpy.lib.stride_tricks` puts an object of its own between two arrays; the base of a
        # `memoryview` is its `obj`.)
        array = array.obj if type(array) is memoryview else getattr(array, "base", None)
    return array


def send(block: "_core.Block", handles: "Optional[List[bytes]]" = None) -> "_core.Sending":
    """Make a handle of a block for the object that is being pickled.

    Parameters
    ----------
    block : Block
        The memory to send.
    handles : list of bytes, optional
        The handle is appended to it.

    Returns
    -------
    Sending
        Pickles as the handle. If it is an argument of a new process, the handle is cancelled with
        that, in case the process is killed before it has read its arguments.

    Raises
    ------
    ForeignHandleError
        The block belongs to another user, and would be an argument of a new process.
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
    """Reduce an array to the handle of its block, and its place in the block."""
    first = array.__array_interface__["data"][0]
    offset = first - block.address if array.size else 0
    dtype, shape, strides = array.dtype, array.shape, array.strides
    # Raises if a view leads out of its block: here, not in the receiver.
    block.array(shape, dtype, strides, offset)
    sending = send(block, handles)
    return _reduce.array, (
        cls, sending, shape, plain_dtype(dtype), strides, offset, private, extras_of(array)
    )  # fmt: skip


def extras_of(array: "Any") -> "Tuple[Dict[str, Any], bool]":
    """Return the attributes of an array, and whether it is writable; see `with_extras`. The mark
    that `close` has set is left out: it holds for this process only."""
    attributes = {
        name: value
        for name, value in getattr(array, "__dict__", {}).items()
        if name != "_closed"
    }
    return attributes, array.flags.writeable


def with_extras(array: "Any", extras: "Tuple[Dict[str, Any], bool]") -> "Any":
    """Set the attributes of another array, and its writability, on a new one."""
    attributes, writeable = extras
    if attributes:
        array.__dict__.update(attributes)
    if not writeable:
        array.flags.writeable = False
    return array


def plain_dtype(dtype):
    """Return a str that makes the same dtype and is faster to pickle; the dtype if there is none."""
    return dtype.str if dtype.isbuiltin == 1 and dtype.metadata is None else dtype


def rebuild(cls, handle, shape, dtype, strides, offset, private, extras):
    """Make an array of the parts of `reduce_to`."""
    # (A private block has one owner: the message until now, this process after `take`.)
    block = _core.take(handle) if private else _core.receive(handle)
    copies = private and not _core.can_own_more()
    if private and not copies:
        block.private = True  # After a fork, parent and child each have a private copy.
    array = block.array(shape, dtype, strides, offset, cls)
    return with_extras(array.copy("K") if copies else array, extras)


# Classes of shared memory, and the function that reduces an array in it: it is called with the
# array, the memory, the class for the receiver, and the list of handles or None.
_kinds = {_core.Block: reduce_to}  # type: Dict[type, Callable[[Any, Any, type, Any], Any]]


def register_memory(kind: type, refer: "Callable[[Any, Any, type, Any], Any]") -> None:
    """Have `refer` reduce arrays whose last base is of the class `kind`."""
    _kinds[kind] = refer


def refer(array: "Any", memory: "Any", cls: type, handles: "Optional[List[bytes]]" = None) -> "Any":
    """Reduce an array in shared memory; the receiver gets an array of class `cls`."""
    return _kinds[type(memory)](array, memory, cls, handles)


def reduce_view(array: "Any", handles: "Optional[List[bytes]]" = None) -> "Any":
    """Reduce an array of a subclass of `numpy.ndarray`.

    In shared memory it travels by reference; otherwise as a plain array, and its attributes.
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
    """Reduce an `snp.ndarray`: by reference, or as a plain array if it lies in ordinary memory."""
    memory = memory_of(array)
    if memory is not None:
        return refer(array, memory, type(array), handles)
    return _reduce.same, (np.asarray(array),)


def same(thing):
    return thing
