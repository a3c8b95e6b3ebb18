"""numpy arrays that live in shared memory and travel by handle.

Use it as ``import shared_numpy as snp``::

    frame = snp.zeros((1000, 1000), "f4")   # a numpy array, in shared memory
    queue.put(frame)                        # any channel of multiprocessing

An `ndarray` is an array on a block of this process's arena. Through the channels of
`multiprocessing` (arguments of a ``Process``, ``Pool``, ``Queue``, ``Pipe``, managers,
``concurrent.futures``) it goes by reference: the receiver gets an array with the sender's memory,
strides and class. ``pickle.dumps`` pickles it by value, so that a file contains the items.

The memory is freed when no array, view or handle in any process refers to it.
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


# To clear fewer bytes takes less time than to ask whether they are clear.
_LONG = 64 << 10

_NUMPY_2 = int(np.__version__.split(".")[0]) >= 2


class ndarray(np.ndarray):
    """An array in shared memory.

    The constructor is that of ``numpy.ndarray``: shape and dtype, items not initialised; with
    `buffer` the array is a view of that. Normally one calls the functions `array`, `zeros`, …

    Views and slices are of this class and lie in the same memory. Results of arithmetic are plain
    arrays. Copies (``copy``, ``astype``, ``take``, indexing with lists or masks) may be of this
    class, but lie in ordinary memory and travel by value: `is_shared` tells.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        The type of the items; not one with references to Python objects.
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
        """Tell whether the array lies in shared memory. If so, it is sent by reference."""
        return by_reference.memory_of(self) is not None

    def close(self) -> None:
        """Mark the array as closed in this process.

        The memory is released with the last view of it; until then the array can be used as
        before. Closing again does nothing.
        """
        self._closed = True

    def unlink(self) -> None:
        """Refuse to send the array from now on; arrays that were sent stay valid.

        An array with a name of its own (`create`) loses that. Other memory is freed without
        `unlink`. Unlinking again, or an array that is not shared, does nothing.
        """
        memory = by_reference.memory_of(self)
        if memory is not None:
            memory.unlink()

    def squeeze(self, axis: "Any" = None) -> "ndarray":
        """Return a view without dimensions of length 1, as ``numpy.squeeze``.

        Parameters
        ----------
        axis : int or tuple of int, optional
            Which of them to leave out; all of them by default.
        """
        # numpy's method passes the view to `__array_wrap__`, which would make it plain. Indexing
        # goes through `__array_finalize__` alone.
        index = [slice(None)] * self.ndim
        if np.asarray(self).squeeze(axis).ndim < self.ndim:  # (It raises numpy's errors.)
            for each in range(self.ndim) if axis is None else np.atleast_1d(axis):
                if self.shape[each] == 1:
                    index[each] = 0
        return np.ndarray.__getitem__(self, tuple(index) + (Ellipsis,))  # type: ignore

    def readonly(self) -> "ndarray":
        """Return a view that is read-only, here and in the processes that receive it."""
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
        """Return results of arithmetic as plain arrays; only ``out`` stays as it is."""
        if array is self:
            return array
        plain = np.asarray(array)
        return plain if plain.ndim or (_NUMPY_2 and not return_scalar) else plain[()]

    def __reduce_ex__(self, protocol: int) -> "Any":
        """Pickle by value: it is loaded as a plain array."""
        if by_reference.memory_of(self) is not None:
            copy_warnings.tell(self)
        plain = np.asarray(self)
        if not (plain.flags.c_contiguous or plain.flags.f_contiguous):
            # With protocol 5 numpy loses the byte order of an array that is not contiguous.
            plain = plain.copy()
        return plain.__reduce_ex__(protocol)


def name_of(a: "Any") -> "Optional[str]":
    """Return a text that identifies the memory of an array, among all that exists or has existed.

    Parameters
    ----------
    a : numpy.ndarray
        An array in shared memory, or any view of one. (It is no attribute ``name`` of the array:
        other packages take that for the name of a column or an axis.)

    Returns
    -------
    str or None
        For an array with a name of its own (`create`): that name without ``shm://``, or the path
        of its file if that is not in /dev/shm. None if the array is not in shared memory.

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
    """Return the argument `order` as one capital letter."""
    found = "K" if order is None else str(order).upper()
    if found not in ("K", "A", "C", "F"):
        raise ValueError("order must be one of 'K', 'A', 'C', 'F', not {!r}".format(order))
    return found


def _plain(a, dtype=None):
    """Return an array_like as an array of numpy's own class."""
    # (By the method `view`: a frame of a ring refuses it after its ``with`` block.)
    return np.asarray(a.view(np.ndarray) if isinstance(a, ndarray) else a, dtype)


def _as(made, prototype):
    """Return a new array as one of the prototype's subclass."""
    if not isinstance(prototype, ndarray) or type(prototype) is ndarray:
        return made
    view = made.view(type(prototype))
    # `view` has finalized it with the plain array; numpy's functions do so with the prototype.
    if view.__array_finalize__ is not None:
        view.__array_finalize__(prototype)
    return view


def sized(dtype: "Any") -> "np.dtype[Any]":
    """Return a dtype; strings of length 0 get the length 1, as numpy gives them in new arrays."""
    dtype = np.dtype(dtype)
    return np.dtype(dtype.str[:2] + "1") if dtype.kind in "SU" and not dtype.itemsize else dtype


def empty(shape: "Any", dtype: "Any" = float, order: "Optional[str]" = "C") -> ndarray:
    """Return a new array in shared memory, not initialised.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        The type of the items; not one with references to Python objects.
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
    """Return a new array of zeros in shared memory.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like
        The type of the items; not one with references to Python objects.
    order : {"C", "F"}
        Whether the last or the first index varies fastest.

    Raises
    ------
    TypeError, ArenaFullError
        As `empty`.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> frame = snp.zeros((2, 3), "f4")
    >>> frame.dtype.name, float(frame.sum())
    ('float32', 0.0)
    """
    return _cleared(empty(shape, dtype, order))


def _cleared(made):
    """Clear the block of a new array, including gaps between the fields of records.

    Memory that nobody has written to holds zeros: its pages are left for who uses them.
    """
    block = block_of(made)
    if made.nbytes < _LONG or not block.is_new:
        block.array(made.nbytes, "u1")[...] = 0
    return made


def ones(shape: "Any", dtype: "Any" = None, order: "Optional[str]" = "C") -> ndarray:
    """Return a new array of ones in shared memory.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the dimensions.
    dtype : dtype_like, optional
        The type of the items, float64 by default; not one with references to Python objects.
    order : {"C", "F"}
        Whether the last or the first index varies fastest.

    Raises
    ------
    TypeError, ArenaFullError
        As `empty`.
    """
    return full(shape, 1, np.dtype(dtype), order)


def full(
    shape: "Any", fill_value: "Any", dtype: "Any" = None, order: "Optional[str]" = "C"
) -> ndarray:
    """Return a new array filled with a value.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of the dimensions.
    fill_value : array_like
        The value, broadcast to the shape.
    dtype : dtype_like, optional
        The type of the items; by default that of ``numpy.array(fill_value)``.
    order : {"C", "F"}
        Whether the last or the first index varies fastest.

    Raises
    ------
    TypeError, ArenaFullError
        As `empty`.

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
        The original. The copy keeps the order of the items in memory, without gaps. Repeated items
        (of ``numpy.broadcast_to``) are stored once.

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
        # Writing to one item would change all that it stands for, as in the original.
        made.flags.writeable = False
    return made


def share(obj: "Any") -> ndarray:
    """Copy an array into shared memory.

    Parameters
    ----------
    obj : numpy.ndarray
        It is copied as by `from_array`, also if it is shared already.

    Returns
    -------
    ndarray
        The copy. This process, and those that receive it, can write to it.

    Raises
    ------
    TypeError
        `obj` is no array, is a masked one, or its items are Python objects.
    ArenaFullError
        /dev/shm has no room for it.

    See Also
    --------
    is_shared
    asarray : makes arrays of lists and numbers, and does not copy a shared array.

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
        Any object.

    Returns
    -------
    bool
        True: its items lie in shared memory that another process can have, too. An `ndarray` of
        this package is then sent by reference by all channels; a plain ``numpy.ndarray`` only by
        this package's own, while `multiprocessing` pickles it. False also for an array that another
        process has moved here: its memory is this process's own, and it is copied if it is sent on.

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
        The original.
    dtype : dtype_like, optional
        The type of the items; by default the one that numpy chooses.
    copy : bool or None
        True: always copy. None or False: return `object` itself if it is a shared array of that
        dtype and order. Otherwise None copies; False copies with numpy 1, and is an error with
        numpy 2.
    order : {"K", "A", "C", "F"}
        The order of the items in memory; "K": as in `object`.
    subok : bool
        Keep the class of `object` if it is a subclass of `ndarray`.
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
    if not copy and _fits(object, dtype, order, subok) and object.ndim >= ndmin:
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


def _fits(a, dtype, order, subok):
    """Tell whether an object is a shared array of a dtype and an order."""
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
    """Return an array_like as an array in shared memory, copied if needed.

    Parameters
    ----------
    a : array_like
        A shared `ndarray` of that dtype and order is returned itself.
    dtype : dtype_like, optional
        The type of the items; by default as it is.
    order : {"K", "A", "C", "F"}, optional
        The order of the items in memory; by default as it is.
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
    """Return a new array with the memory layout of a plain one; see `empty_like`."""
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
        Another type of the items.
    order : {"K", "A", "C", "F"}
        The order of the items in memory; "K": as in `prototype`.
    subok : bool
        Keep the class of `prototype` if it is a subclass of `ndarray`.
    shape : int or tuple of int, optional
        Another shape.

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
    """Return an array of zeros with the shape and dtype of another.

    Parameters
    ----------
    a : array_like
        The other.
    dtype : dtype_like, optional
        Another type of the items.
    order : {"K", "A", "C", "F"}
        The order of the items in memory; "K": as in `a`.
    subok : bool
        Keep the class of `a` if it is a subclass of `ndarray`.
    shape : int or tuple of int, optional
        Another shape.
    """
    return _cleared(empty_like(a, dtype, order, subok, shape))


def ones_like(
    a: "Any",
    dtype: "Any" = None,
    order: "Optional[str]" = "K",
    subok: bool = True,
    shape: "Any" = None,
) -> ndarray:
    """Return an array of ones with the shape and dtype of another.

    Parameters
    ----------
    a : array_like
        The other.
    dtype : dtype_like, optional
        Another type of the items.
    order : {"K", "A", "C", "F"}
        The order of the items in memory; "K": as in `a`.
    subok : bool
        Keep the class of `a` if it is a subclass of `ndarray`.
    shape : int or tuple of int, optional
        Another shape.
    """
    return full_like(a, 1, dtype, order, subok, shape)


def full_like(
    a: "Any",
    fill_value: "Any",
    dtype: "Any" = None,
    order: "Optional[str]" = "K",
    subok: bool = True,
    shape: "Any" = None,
) -> ndarray:
    """Return an array with the shape and dtype of another, filled with a value.

    Parameters
    ----------
    a : array_like
        The other.
    fill_value : array_like
        The value, broadcast to the shape.
    dtype : dtype_like, optional
        Another type of the items.
    order : {"K", "A", "C", "F"}
        The order of the items in memory; "K": as in `a`.
    subok : bool
        Keep the class of `a` if it is a subclass of `ndarray`.
    shape : int or tuple of int, optional
        Another shape.
    """
    made = empty_like(a, dtype, order, subok, shape)
    made[...] = fill_value
    return made
