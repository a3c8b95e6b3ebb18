"""`ArrayManager`: arrays that live until their context ends."""

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
    """Makes arrays in shared memory that are all deleted when it ends.

    Parameters
    ----------
    address, authkey, serializer, ctx
        As for ``multiprocessing.managers.BaseManager``.

    Notes
    -----
    An array can be handed to other processes, by reference, as any shared one; so can
    the manager itself be to children, which make arrays of it. When the manager ends,
    views that there still are stay valid, but nobody can attach to an array any more. If the
    program is killed, and the manager's process with it, the next program that uses the package
    deletes the arrays.

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
        """Make an array in /dev/shm whose items are to be set.

        Parameters
        ----------
        shape : int or tuple of int
            Its shape.
        dtype : data-type
            Any but those of Python objects.
        order : {"C", "F"}
            How its items lie.

        Returns
        -------
        ndarray
            A shared array, whose memory the manager looks after.

        Raises
        ------
        ProcessError, OSError
            The manager was not started, or has ended.
        OSError
            There is no room in /dev/shm.
        """
        name = self._new_name() or "snpmgr-{}".format(uuid.uuid4().hex)
        with self._connection() as connection:
            # Before there is one, so that nothing stays of a program that is killed.
            resource_tracker.register("/" + name, "shared_memory")
            try:
                # Where the tracker, and the server, can remove it.
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
        """Make an array of zeros; see `empty`."""
        return self.empty(shape, dtype, order)

    def from_array(self, a: "Any") -> "ndarray":
        """Make an array with the items of another one; see `empty`."""
        a = np.asanyarray(a)
        made = self.empty(a.shape, a.dtype, order_of(a))
        made[...] = a
        return made

    def list(self) -> "List[named.NamedArray]":
        """Tell which arrays there are: their names, dtypes, shapes and orders."""
        with self._connection() as connection:
            names = dispatch(connection, None, "list_segments")
        wanted = {"shm://" + name for name in names}
        return [each for each in named.list_named("/dev/shm") if each.name in wanted]
