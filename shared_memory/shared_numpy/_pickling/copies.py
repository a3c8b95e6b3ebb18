"""Copies of arrays in new blocks of shared memory."""

import numpy as np

from .. import _core
from .by_reference import block_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional, Tuple

PAGE = _core.PAGE_SIZE


def order_of(array: "Any") -> str:
    """Return the order in which a copy keeps an array's items: "F" where the first index varies
    fastest, "C" for all else, also where both orders are the same (one dimension)."""
    return "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"


def repeats(shape: "Tuple[int, ...]", dtype: "Any", strides: "Tuple[int, ...]") -> "List[bool]":
    """Tell for each dimension whether all its items are the same one (stride 0)."""
    holds = bool(dtype.itemsize) and 0 not in shape
    return [holds and stride == 0 and length > 1 for length, stride in zip(shape, strides)]


def allocate(
    shape: "Tuple[int, ...]",
    dtype: "Any",
    strides: "Tuple[int, ...]",
    cls: "Any",
    repeated: "Optional[List[bool]]" = None,
    pages: bool = False,
) -> "Any":
    """Return a new array with its items in the order of `strides`, without gaps; dimensions that
    are `repeated` are stored once. With `pages` it has whole pages for itself."""
    repeated = repeated or [False] * len(shape)
    order = sorted(range(len(shape)), key=lambda axis: (-abs(strides[axis]), axis))
    packed, size = [0] * len(shape), dtype.itemsize
    for axis in reversed(order):
        if not repeated[axis]:
            packed[axis] = size
            size *= max(shape[axis], 1)
    size = 0 if 0 in shape else size
    block = block_of(_core.empty(size + (2 * PAGE if pages else 0), "u1"))
    return block.array(shape, dtype, packed, -block.address % PAGE if pages else 0, cls)


def copy_to_shared(array: "Any", cls: "Any") -> "Any":
    """Return a copy in a new block: items in the same order, without gaps, repeated ones once."""
    made = _core.copy(array, cls)
    if made is not None:
        return made
    repeated = repeats(array.shape, array.dtype, array.strides)
    made = allocate(array.shape, array.dtype, array.strides, cls, repeated)
    _fill(made, array, repeated)
    return made


def _fill(made, array, repeated):
    once = tuple(slice(0, 1) if each else slice(None) for each in repeated)
    made[once] = array[once]


def copy_to_move(array: "Any") -> "Any":
    """Return such a copy with whole pages for itself. Repeated items of a writable array are stored
    one by one, since the receiver may change one of them."""
    made = _core.copy(array, None, True)
    if made is None:
        repeated = repeats(array.shape, array.dtype, array.strides)
        if array.flags.writeable:
            repeated = [False] * len(repeated)
        made = allocate(
            array.shape, array.dtype, array.strides, np.ndarray, repeated, pages=True
        )
        _fill(made, array, repeated)
    if not array.flags.writeable:
        made.flags.writeable = False
    return made
