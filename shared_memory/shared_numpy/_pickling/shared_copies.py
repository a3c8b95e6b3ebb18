"""Copy-on-write copies of huge arrays, shared by concurrent calls."""

import weakref

import numpy as np

from .copies import copy_to_move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

# So many bytes are compared at a time.
_STRETCH = 1 << 20


class SharedCopies:
    """The shared copies of an executor's huge arguments.

    All receivers of an array map the pages of one copy, privately: a page is copied when a receiver
    writes to it. A copy lives as long as a task has it among those that `used` returned.
    """

    def __init__(self):
        self._copies = weakref.WeakValueDictionary()  # type: Any
        self._used = []  # type: List[Any]

    def copy_of(self, array):
        """Return a copy in shared memory: the existing one, if the array has not changed since."""
        copy = self._copies.get(id(array))
        if copy is None or not copy.is_of(array):
            copy = self._copies[id(array)] = _Copy(array)
        self._used.append(copy)
        return copy.array

    def used(self):
        """Return the copies that `copy_of` has returned since the last call of this method."""
        if not self._used:
            return ()
        used, self._used = self._used, []
        return used


class _Copy:
    def __init__(self, original):
        self.original = weakref.ref(original)
        self.array = copy_to_move(original)

    def is_of(self, array):
        """Tell whether an array is the original, and has not changed."""
        copy = self.array
        return (
            self.original() is array
            and (array.dtype, array.shape) == (copy.dtype, copy.shape)
            and (array.strides, array.flags.writeable) == (copy.strides, copy.flags.writeable)
            and _have_same_bytes(array, copy)
        )


def _have_same_bytes(one, other):
    """Tell whether two arrays without gaps, of the same shape and order, have the same bytes."""
    flat = [each.ravel("K").view("u1") for each in (one, other)]
    return all(
        np.array_equal(flat[0][start : start + _STRETCH], flat[1][start : start + _STRETCH])
        for start in range(0, one.nbytes, _STRETCH)
    )
