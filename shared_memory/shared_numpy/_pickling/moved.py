"""Plain arrays move through shared memory: they are copied once, into a block that becomes the
receiver's own. Small ones are pickled by value, which is as fast."""

from typing import NamedTuple

import numpy as np

from .. import _core, _reduce
from .by_reference import block_of, memory_of, plain_dtype, rebuild, reduce_to, refer, with_extras
from .copies import PAGE, copy_to_move, order_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple

    from .shared_copies import SharedCopies

# Plain arrays of at least so many bytes move through shared memory; for smaller ones pickling by
# value is as fast (measured by benchmarks/channels.py --threshold).
THRESHOLD = 16384

NOTHING = {}  # type: Dict[int, Any]


class ArrayPolicy(NamedTuple):
    """How the plain arrays of a message travel."""

    # Arrays of at least so many bytes move through shared memory.
    threshold: int
    # The receiver copies them out of shared memory at once.
    copied: bool
    # Array id -> (array, its shared copy): the copy is sent instead, or the matching view of it.
    shared_twins: "Dict[int, Any]"
    # Array id -> the block that the array lies in, and that the sender gives away.
    donated: "Dict[int, Any]"
    # Huge arrays are copied once for all receivers.
    shared_copies: "Optional[SharedCopies]"


DEFAULT = ArrayPolicy(THRESHOLD, False, NOTHING, NOTHING, None)

# Receivers of an array of at least so many bytes share one copy-on-write copy. For smaller ones a
# copy each, in memory that has been used before, is faster than new mappings and page faults
# (measured by benchmarks/executors.py).
HUGE = 1 << 29


def move(array, policy, handles=None):
    """Reduce a plain array: by reference if it is a view of a shared one, else moved if it is
    large, else by value."""
    memory = memory_of(array)
    if memory is not None:
        return refer(array, memory, np.ndarray, handles)
    if policy.shared_twins:
        twin = _twin_of(array, policy.shared_twins)
        if twin is not None:
            memory = memory_of(twin)
            return refer(twin, memory, np.ndarray, handles)
    if array.nbytes < policy.threshold or array.dtype.hasobject:
        return by_value(array)
    if policy.shared_copies is not None and array.nbytes >= HUGE and array.flags.forc:
        copy = policy.shared_copies.copy_of(array)
        return _reduce.array_on_own_pages, reduce_to(copy, block_of(copy), np.ndarray, handles, True)[1]
    block = policy.donated.get(id(array))
    if block is None:
        array = copy_to_move(array)
        block = block_of(array)
    function, parts = reduce_to(array, block, np.ndarray, handles, private=True)
    return _reduce.array_in_own_memory if policy.copied else function, parts


def _twin_of(array, shared_twins):
    """Return the matching view of a shared copy, if `array` is an original of `shared_twins` or a
    view of one. None otherwise, and if the copy has another memory layout."""
    base = array
    while type(base) is np.ndarray and id(base) not in shared_twins:
        base = base.base
    found = shared_twins.get(id(base))
    if found is None:
        return None
    original, shared = found
    if array is original:
        return shared
    if original.strides != shared.strides:
        return None
    first = [each.__array_interface__["data"][0] for each in (array, original, shared)]
    block = block_of(shared)
    if block is None:
        return None
    offset = first[0] - first[1] + first[2] - block.address
    twin = block.array(array.shape, array.dtype, array.strides, offset)
    if not (shared.flags.writeable and array.flags.writeable):
        twin.flags.writeable = False
    return twin


def by_value(array):
    """Reduce a plain array to its bytes."""
    if array.dtype.hasobject:
        # (Protocol 2: every pickler can write it.)
        return array.__reduce_ex__(2)
    order = order_of(array)
    return _reduce.plain_array, (
        array.tobytes(order), plain_dtype(array.dtype), array.shape, order, array.flags.writeable
    )  # fmt: skip


def rebuild_in_own_memory(*parts):
    """Make an array of the parts of `reduce_to`, copied to ordinary memory."""
    shared = rebuild(*parts)
    array = shared.copy("K")
    array.flags.writeable = shared.flags.writeable
    return array


def rebuild_on_own_pages(cls, handle, shape, dtype, strides, offset, private, extras):
    """Make an array of the parts of `reduce_to`, on private pages of a block that other processes
    have, too."""
    block = _core.take(handle)
    try:
        is_alone = block.detach()
    except OSError:
        is_alone = False  # The process's limit of mappings is reached.
    if not is_alone:
        # This process has other arrays on the block, and may have written to them: copy the
        # original bytes.
        size = block.nbytes - offset
        original, block = block, block.arena.alloc(size + PAGE)
        offset, start = -block.address % PAGE, offset
        original.copy_original(start, size, block, offset)
        block.private = True
    return with_extras(block.array(shape, dtype, strides, offset, cls), extras)


def rebuild_plain(data, dtype, shape, order, writeable):
    """Make a plain array of its bytes."""
    # A small one is copied by numpy, so that it owns its memory. For a larger copy numpy releases
    # the GIL, and may get it back milliseconds later. An empty array of a huge shape cannot be
    # copied by old versions of numpy.
    own = data if 0 < len(data) <= 4096 else bytearray(data)
    array = np.ndarray(shape, dtype, own, order=order)
    if own is data:
        array = array.copy(order)
    if not writeable:
        array.flags.writeable = False
    return array
