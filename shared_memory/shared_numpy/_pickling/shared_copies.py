"""Copies of huge arrays that many receivers share, until one of them writes."""

import weakref

import numpy as np

from .copies import copy_to_move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

# Bytes that are compared at a time.
_STRETCH = 1 << 20


class SharedCopies:
    """Huge arrays that many receivers have at a time.

    They share the pages of one copy, until one of them writes to them. It lives while
    somebody keeps what `used` returned.
    """

    def __init__(self):
        self._copies = weakref.WeakValueDictionary()  # type: Any
        self._used = []  # type: List[Any]

    def copy_of(self, array):
        """Return a copy in shared memory; the one before, if that is still the same."""
        copy = self._copies.get(id(array))
        if copy is None or not copy.is_of(array):
            copy = self._copies[id(array)] = _Copy(array)
        self._used.append(copy)
        return copy.array

    def used(self):
        """Return the copies that were asked for since this was."""
        if not self._used:
            return ()
        used, self._used = self._used, []
        return used


class _Copy:
    def __init__(self, original):
        self.original = weakref.ref(original)
        self.array = copy_to_move(original)

    def is_of(self, array):
        """Tell whether an array is what was copied, and has not been changed."""
        copy = self.array
        return (
            self.original() is array
            and (array.dtype, array.shape) == (copy.dtype, copy.shape)
            and (array.strides, array.flags.writeable) == (copy.strides, copy.flags.writeable)
            and _have_same_bytes(array, copy)
        )


def _have_same_bytes(one, other):
    """Tell whether two arrays without gaps, of one shape and order, are the same."""
    flat = [each.ravel("K").view("u1") for each in (one, other)]
    return all(
        np.array_equal(flat[0][start : start + _STRETCH], flat[1][start : start + _STRETCH])
        for start in range(0, one.nbytes, _STRETCH)
    )
