"""numpy arrays that live in shared memory and travel by handle.

Use it as ``import shared_numpy as snp``::

    frame = snp.zeros((1000, 1000), "f4")   # a numpy array, in shared memory
    queue.put(frame)                        # any channel of multiprocessing

An `ndarray` is an array on a block of the arena in which the process allocates.
Through the channels of `multiprocessing` (arguments of a ``Process``, ``Pool``,
``Queue``, ``Pipe``, managers, ``concurrent.futures``) it goes by reference: what
arrives is the same array, with the sender's memory, strides and type. A plain
``pickle.dumps`` takes it by value, so that what is written to a file is whole.

The memory is freed when no array, view or handle refers to it in any process.
"""

import numpy as np

from . import _core
from ._pickling import masked  # noqa: F401 (numpy's subclasses are registered)
from ._pickling import by_reference, copies, copy_warnings, registry
from ._pickling.by_reference import block_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional, Tuple, Type

__all__ = [
    "array",
    "asarray",
    "empty",
    "empty_like",
    "from_array",
    "full",
    "full_like",
    "is_shared",
    "name_of",
    "ndarray",
    "ones",
    "ones_like",
    "share",
    "zeros",
    "zeros_like",
]


_NUMPY_2 = int(np.__version__.split(".")[0]) >= 2


class ndarray(np.ndarray):
    """An array in shared memory.

    It is made like ``numpy.ndarray``: by shape and dtype, not initialised. With
    `buffer` it is a view of that, as in numpy, and its memory the buffer's. The
    functions beside it (`array`, `zeros`, …) are what one normally calls.

    Views and slices are of this class and lie in the same memory. Results of
    arithmetic are plain arrays. Copies (``copy``, ``astype``, ``take``, indexing
    with lists or masks) may be of this class, but their memory is their own and
    they travel by value: `is_shared` tells.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        What the items are; none that hold references to objects.
    buffer, offset, strides
        As in ``numpy.ndarray``.
    order : {"C", "F"}, optional
        Whether the last or the first index varies fastest.

    Raises
    ------
    TypeError
        Items would hold references to Python objects.
    ArenaFullError
        /dev/shm has no room for it.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> a = snp.zeros(3)
    >>> a[1:] = 5
    >>> a.is_shared(), a[1:].is_shared(), float((a + 1).sum())
    (True, True, 13.0)
    """

    def __new__(
        cls: "Type[ndarray]",
        shape: "Any",
        dtype: "Any" = float,
        buffer: "Any" = None,
        offset: int = 0,
        strides: "Optional[Tuple[int, ...]]" = None,
        order: "Optional[str]" = None,
    ) -> "ndarray":
        if buffer is not None:
            return np.ndarray.__new__(cls, shape, dtype, buffer, offset, strides, order)
        if offset or strides is not None:
            raise ValueError("'offset' and 'strides' are for arrays on a buffer")
        return _core.empty(shape, dtype, order, cls)

    def __init_subclass__(cls, **options: "Any") -> None:
        super().__init_subclass__(**options)
        registry.register(cls, by_reference.reduce_view)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.__dict__.get("_closed", False)

    def is_shared(self) -> bool:
        """Tell whether the array lies in shared memory, and so goes by handle."""
        return by_reference.memory_of(self) is not None

    def close(self) -> None:
        """Say that this process is done with the array.

        The memory is let go of when the last view of it is; until then the array
        can be read as before. Closing again does nothing.
        """
        self._closed = True

    def unlink(self) -> None:
        """Send the array nowhere from now on; what was sent stays good.

        Nothing has to be unlinked for its memory to be freed, but for an array with
        a name of its own (`create`), which loses that. Unlinking again, or what is
        not shared, does nothing.
        """
        memory = by_reference.memory_of(self)
        if memory is not None:
            memory.unlink()

    def squeeze(self, axis: "Any" = None) -> "ndarray":
        """Return a view without dimensions of length 1, as ``numpy.squeeze``."""
        # numpy's own asks `__array_wrap__`, which takes it for a result. A view by an index has
        # what the subclass's `__array_finalize__` takes over.
        index = [slice(None)] * self.ndim
        if np.asarray(self).squeeze(axis).ndim < self.ndim:  # Which refuses what cannot be.
            for each in range(self.ndim) if axis is None else np.atleast_1d(axis):
                if self.shape[each] == 1:
                    index[each] = 0
        return np.ndarray.__getitem__(self, tuple(index) + (Ellipsis,))  # type: ignore

    def readonly(self) -> "ndarray":
        """Return a view that cannot be written to, here or where it is sent."""
        view = self[...]
        view.flags.writeable = False
        return view

    def copy_local(self) -> "np.ndarray[Any, Any]":
        """Return a copy in this process's own memory, as a plain array."""
        return np.array(self, copy=True, order="K", subok=False)

    def __enter__(self) -> "ndarray":
        return self

    def __exit__(self, *exc_info: "Any") -> None:
        self.close()

    def __array_wrap__(
        self, array: "Any", context: "Any" = None, return_scalar: bool = False
    ) -> "Any":
        """Make results of arithmetic plain; but for what was given as ``out``."""
        if array is self:
            return array
        plain = np.asarray(array)
        return plain if plain.ndim or (_NUMPY_2 and not return_scalar) else plain[()]

    def __reduce_ex__(self, protocol: int) -> "Any":
        """Pickle by value; loads as a plain array."""
        if by_reference.memory_of(self) is not None:
            copy_warnings.tell(self)
        plain = np.asarray(self)
        if not (plain.flags.c_contiguous or plain.flags.f_contiguous):
            # Of these, numpy's protocol 5 loses the byte order.
            plain = plain.copy()
        return plain.__reduce_ex__(protocol)


def name_of(a: "Any") -> "Optional[str]":
    """Return what tells the memory of an array from all other there is and was.

    Parameters
    ----------
    a : numpy.ndarray
        An array in shared memory or any view of one. (Arrays have no attribute ``name``, which
        other packages would take for the name of a column or an axis.)

    Returns
    -------
    str or None
        For an array with a name of its own (`create`) that, without ``shm://``, or the path of
        its file if that is not in /dev/shm. None if the array does not lie in shared memory.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> a, b = snp.zeros(3), snp.zeros(3)
    >>> snp.name_of(a) == snp.name_of(a[1:]), snp.name_of(a) == snp.name_of(b)
    (True, False)
    """
    memory = by_reference.memory_of(a)
    return None if memory is None else memory.name


registry.register(ndarray, by_reference.reduce_copy)
_core.know_class(ndarray)


def _order_of(order):
    """Return how items are to lie, as one capital letter."""
    found = "K" if order is None else str(order).upper()
    if found not in ("K", "A", "C", "F"):
        raise ValueError("order must be one of 'K', 'A', 'C', 'F', not {!r}".format(order))
    return found


def _plain(a, dtype=None):
    """Return what is given as an array of numpy's own class."""
    # By the method, which a frame refuses after its with block.
    return np.asarray(a.view(np.ndarray) if isinstance(a, ndarray) else a, dtype)


def _as(made, prototype):
    """Return a new array as one of the prototype's subclass, with what that takes over."""
    if not isinstance(prototype, ndarray) or type(prototype) is ndarray:
        return made
    view = made.view(type(prototype))
    # The view was made of a plain array: as numpy's functions, let the class see the prototype.
    if view.__array_finalize__ is not None:
        view.__array_finalize__(prototype)
    return view


def sized(dtype: "Any") -> "np.dtype[Any]":
    """Return a dtype; strings of no length get the length 1, as in a new array."""
    dtype = np.dtype(dtype)
    return np.dtype(dtype.str[:2] + "1") if dtype.kind in "SU" and not dtype.itemsize else dtype


def empty(shape: "Any", dtype: "Any" = float, order: "Optional[str]" = "C") -> ndarray:
    """Return a new array in shared memory, not initialised.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        What the items are; none that hold references to objects.
    order : {"C", "F"}
        Whether the last or the first index varies fastest.

    Raises
    ------
    TypeError
        Items would hold references to Python objects.
    ArenaFullError
        /dev/shm has no room for it.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> frame = snp.empty((480, 640, 3), "u1")
    >>> frame.shape, frame.is_shared()
    ((480, 640, 3), True)
    """
    return _core.empty(shape, dtype, order, ndarray)


def zeros(shape: "Any", dtype: "Any" = float, order: "Optional[str]" = "C") -> ndarray:
    """Return a new array of zeros; parameters and errors are those of `empty`."""
    return _cleared(empty(shape, dtype, order))


def _cleared(made):
    """Clear the block of a new array, and what lies between the fields of records."""
    block_of(made).array(made.nbytes, "u1")[...] = 0
    return made


def ones(shape: "Any", dtype: "Any" = None, order: "Optional[str]" = "C") -> ndarray:
    """Return a new array of ones; parameters and errors are those of `empty`."""
    return full(shape, 1, np.dtype(dtype), order)


def full(
    shape: "Any", fill_value: "Any", dtype: "Any" = None, order: "Optional[str]" = "C"
) -> ndarray:
    """Return a new array filled with a value.

    Parameters
    ----------
    shape, order
        As in `empty`.
    fill_value : array_like
        The value, broadcast to the shape.
    dtype : dtype_like, optional
        What the items are; by default what ``numpy.array(fill_value)`` is.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> int(snp.full((2, 2), 7).sum())
    28
    """
    if dtype is None:
        dtype = np.array(fill_value).dtype
    made = empty(shape, dtype, order)
    made[...] = fill_value
    return made


def from_array(a: "Any") -> ndarray:
    """Return a copy of an array in shared memory.

    Parameters
    ----------
    a : array_like
        What is copied. Its items keep their order in memory and what is repeated
        (by ``numpy.broadcast_to``) is stored once; gaps are left out.

    Raises
    ------
    TypeError
        Items hold references to Python objects.
    ArenaFullError
        /dev/shm has no room for it.

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy as snp
    >>> a = np.zeros((10, 10))
    >>> b = snp.from_array(a)
    >>> b.is_shared(), bool((a == b).all())
    (True, True)
    """
    a = _plain(a)
    made = copies.copy_to_shared(a, ndarray)
    if any(copies.repeats(made.shape, made.dtype, made.strides)):
        # Writing to one of them would write to all, as where they come from.
        made.flags.writeable = False
    return made


def share(obj: "Any") -> ndarray:
    """Copy an array into shared memory.

    Parameters
    ----------
    obj : numpy.ndarray
        What is copied, as by `from_array`; always, also if it is shared already.

    Returns
    -------
    ndarray
        The copy, which this process and all that it is sent to can write to.

    Raises
    ------
    TypeError
        `obj` is no array, is a masked one, or its items are Python objects.
    ArenaFullError
        /dev/shm has no room for it.

    See Also
    --------
    is_shared
    asarray : which makes arrays of lists and numbers, and copies nothing that is shared.

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy as snp
    >>> snp.share(np.arange(3.0)).is_shared()
    True
    """
    if not isinstance(obj, np.ndarray):
        raise TypeError(
            "share takes arrays, not {!r}: shared_numpy.asarray makes one of lists and numbers, and "
            "shared_numpy.send takes any object".format(type(obj))
        )
    if isinstance(obj, np.ma.MaskedArray):
        raise TypeError("share would lose the mask: share a.data and np.ma.getmaskarray(a)")
    return from_array(obj)


def is_shared(obj: "Any") -> bool:
    """Tell whether an object is an array in shared memory, or a view of one.

    Parameters
    ----------
    obj : object
        What is asked about.

    Returns
    -------
    bool
        False also for an array that was moved here from another process, and is now this
        process's own.

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy as snp
    >>> a = snp.zeros(3)
    >>> snp.is_shared(a[1:]), snp.is_shared(np.asarray(a)), snp.is_shared(a + 1)
    (True, True, False)
    """
    return isinstance(obj, np.ndarray) and by_reference.memory_of(obj) is not None


def array(
    object: "Any",
    dtype: "Any" = None,
    *,
    copy: "Optional[bool]" = True,
    order: "Optional[str]" = "K",
    subok: bool = False,
    ndmin: int = 0
) -> ndarray:
    """Return a new array in shared memory, as ``numpy.array`` makes it.

    Parameters
    ----------
    object : array_like
        What is copied.
    dtype : dtype_like, optional
        What the items are; by default what numpy takes.
    copy : bool or None
        False, or None: what is such an array already is returned itself. Else it is
        copied, but for False with numpy 2 and later: that is an error.
    order : {"K", "A", "C", "F"}
        How items lie in memory; "K": as in `object`.
    subok : bool
        Of a subclass of `ndarray` make one of that.
    ndmin : int
        The least number of dimensions; ones are put before the others.

    Raises
    ------
    TypeError
        Items would hold references to Python objects.
    ValueError
        `copy` is False, and a copy is needed.
    ArenaFullError
        /dev/shm has no room for it.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> a = snp.array([1, 2, 3, 4, 5])
    >>> a.is_shared(), int(a.sum())
    (True, 15)
    """
    order = _order_of(order)
    if not copy and _is_such(object, dtype, order, subok) and object.ndim >= ndmin:
        return object
    if copy is False and _NUMPY_2:
        raise ValueError(
            "a copy cannot be avoided: with copy=None, or by asarray, it is made where it is needed"
        )
    plain = _plain(object, dtype)
    if plain.ndim < ndmin:
        plain = plain.reshape((1,) * (ndmin - plain.ndim) + plain.shape)
    made = _like(plain, plain.dtype, order, plain.shape)
    made[...] = plain
    return _as(made, object) if subok else made


def _is_such(a, dtype, order, subok):
    """Tell whether something is a shared array as it is asked for."""
    if not isinstance(a, ndarray) or not a.is_shared() or not (subok or type(a) is ndarray):
        return False
    lies = {"C": a.flags.c_contiguous, "F": a.flags.f_contiguous}
    return (dtype is None or a.dtype == np.dtype(dtype)) and lies.get(order, True)


def asarray(
    a: "Any",
    dtype: "Any" = None,
    order: "Optional[str]" = None,
    *,
    copy: "Optional[bool]" = None
) -> ndarray:
    """Return what is given as an array in shared memory; a copy if it is none.

    Parameters
    ----------
    a : array_like
        An `ndarray` that is shared, of that dtype and order, is returned itself.
    dtype : dtype_like, optional
        What the items are to be.
    order : {"K", "A", "C", "F"}, optional
        How items are to lie in memory; as they are by default.
    copy : bool, optional
        True: always copy. False: as for `array`.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> a = snp.zeros(3)
    >>> snp.asarray(a) is a, snp.asarray([1, 2]).is_shared()
    (True, True)
    """
    return array(a, dtype, copy=copy, order=order, subok=isinstance(a, ndarray))


def _like(prototype, dtype, order, shape):
    """Return a new array that lies like a plain one; see `empty_like`."""
    shape = prototype.shape if shape is None else np.empty(shape, "V0").shape
    if order in ("K", "A"):
        flags = prototype.flags
        if order == "K" and len(shape) != prototype.ndim or flags.c_contiguous:
            order = "C"
        elif flags.f_contiguous:
            order = "F"
        elif order == "K":
            return copies.allocate(shape, dtype, prototype.strides, ndarray)
    return empty(shape, dtype, "F" if order == "F" else "C")


def empty_like(
    prototype: "Any",
    dtype: "Any" = None,
    order: "Optional[str]" = "K",
    subok: bool = True,
    shape: "Any" = None,
) -> ndarray:
    """Return a new array of the shape and dtype of another, not initialised.

    Parameters
    ----------
    prototype : array_like
        The other.
    dtype : dtype_like, optional
        What the items are instead.
    order : {"K", "A", "C", "F"}
        How items lie in memory; "K": as in `prototype`.
    subok : bool
        Of a subclass of `ndarray` make one of that.
    shape : int or tuple of int, optional
        The shape instead.

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy as snp
    >>> snp.empty_like(np.zeros((2, 3), "f4", order="F")).flags.f_contiguous
    True
    """
    plain = _plain(prototype)
    dtype = sized(plain.dtype if dtype is None else dtype)
    made = _like(plain, dtype, _order_of(order), shape)
    return _as(made, prototype) if subok else made


def zeros_like(
    a: "Any",
    dtype: "Any" = None,
    order: "Optional[str]" = "K",
    subok: bool = True,
    shape: "Any" = None,
) -> ndarray:
    """Return an array of zeros like another; parameters are those of `empty_like`."""
    return _cleared(empty_like(a, dtype, order, subok, shape))


def ones_like(
    a: "Any",
    dtype: "Any" = None,
    order: "Optional[str]" = "K",
    subok: bool = True,
    shape: "Any" = None,
) -> ndarray:
    """Return an array of ones like another; parameters are those of `empty_like`."""
    return full_like(a, 1, dtype, order, subok, shape)


def full_like(
    a: "Any",
    fill_value: "Any",
    dtype: "Any" = None,
    order: "Optional[str]" = "K",
    subok: bool = True,
    shape: "Any" = None,
) -> ndarray:
    """Return an array filled with a value like another.

    Parameters are those of `empty_like`, and the value, broadcast to the shape.
    """
    made = empty_like(a, dtype, order, subok, shape)
    made[...] = fill_value
    return made
