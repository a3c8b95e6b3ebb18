"""`ArrayManager`: arrays that are deleted when the manager ends."""

import uuid
from multiprocessing.managers import dispatch

import numpy as np

from . import named, resource_tracker
from ._pickling.copies import order_of
from .managers import SharedMemoryManager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

    from .arrays import ndarray

__all__ = ["ArrayManager"]


class ArrayManager(SharedMemoryManager):
    """Makes arrays in shared memory, and deletes all of them when it ends.

    Parameters
    ----------
    address, authkey, serializer, ctx
        As for ``multiprocessing.managers.BaseManager``.

    Notes
    -----
    The arrays go to other processes by reference, as all shared arrays. Children can get the manager
    itself, and make arrays with it. When the manager ends, existing views stay valid, but no process
    can attach an array any more. If the program and the manager's process are killed, the next
    program that uses the package deletes the arrays.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> with snp.ArrayManager() as manager:
    ...     a = manager.zeros((2, 3))
    ...     a[0, 0] = 5
    ...     [each.shape for each in manager.list()]
    [(2, 3)]
    """

    def empty(self, shape: "Any", dtype: "Any" = float, order: str = "C") -> "ndarray":
        """Make an array in /dev/shm, whose items are zeros.

        Parameters
        ----------
        shape : int or tuple of int
            Its shape.
        dtype : data-type
            The type of the items; not one with references to Python objects.
        order : {"C", "F"}
            The order of the items in memory.

        Returns
        -------
        ndarray
            A shared array, which the manager deletes.

        Raises
        ------
        ProcessError, OSError
            The manager was not started, or has ended.
        OSError
            There is no room in /dev/shm.
        """
        name = self._new_name() or "snpmgr-{}".format(uuid.uuid4().hex)
        with self._connection() as connection:
            # (Registered before it exists: a killed program leaves nothing behind.)
            resource_tracker.register("/" + name, "shared_memory")
            try:
                # (In /dev/shm, where the tracker and the server can remove it.)
                array = named.create(name, shape, dtype, order, directory="/dev/shm")
            except BaseException:
                resource_tracker.unregister("/" + name, "shared_memory")
                raise
            try:
                dispatch(connection, None, "track_segment", (name,))
            except BaseException:
                named.delete(name)
                resource_tracker.unregister("/" + name, "shared_memory")
                raise
        return array

    def zeros(self, shape: "Any", dtype: "Any" = float, order: str = "C") -> "ndarray":
        """Make an array of zeros in /dev/shm.

        Parameters
        ----------
        shape : int or tuple of int
            Its shape.
        dtype : data-type
            The type of the items; not one with references to Python objects.
        order : {"C", "F"}
            The order of the items in memory.

        Returns
        -------
        ndarray
            A shared array, which the manager deletes. Errors are those of `empty`.
        """
        return self.empty(shape, dtype, order)

    def from_array(self, a: "Any") -> "ndarray":
        """Make an array with the items of another one.

        Parameters
        ----------
        a : array_like
            The other one, whose dtype, shape and order the new array has.

        Returns
        -------
        ndarray
            A shared array, which the manager deletes. Errors are those of `empty`.
        """
        a = np.asanyarray(a)
        made = self.empty(a.shape, a.dtype, order_of(a))
        made[...] = a
        return made

    def list(self) -> "List[named.NamedArray]":
        """Return the manager's arrays: their names, dtypes, shapes and orders."""
        with self._connection() as connection:
            names = dispatch(connection, None, "list_segments")
        wanted = {"shm://" + name for name in names}
        return [each for each in named.list_named("/dev/shm") if each.name in wanted]
