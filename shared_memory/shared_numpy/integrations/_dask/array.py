"""The array that stands for all copies of a share."""

import numpy as np

from ... import _reduce
from ..._pickling.by_reference import block_of, plain_dtype
from ...arrays import ndarray
from .copies import Share, here, stale
from .image import Image, offsets_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator, Optional, Tuple

# Bits of a pickled array.
_FORTRAN, _WRITABLE, _PRIVATE = 1, 2, 4


class PerHostArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array of which each host of a cluster has one copy; `share` makes it.

    Pass it to tasks, alone or inside other arguments: it pickles as about 110 bytes, whatever its
    size. Where it is used, it is the array: ``np.asarray(data)``, indexing, operators, numpy's
    functions, and the attributes and methods of numpy's arrays (``data.sum(0)``, ``data.T``; for a
    copy that may be changed: ``np.array(data)``). The
    first use on a host fetches the copy; later ones there cost nothing. The arrays that it yields
    are views of the host's copy, valid also after `close`.

    Attributes
    ----------
    id : str
        32 hexadecimal digits that no other share has. They are in the names of its files.
    shape : tuple of int
        Lengths of the dimensions.
    dtype : numpy.dtype
        The type of the items.
    ndim, size, itemsize, nbytes : int
        As of the array.
    closed : bool
        Whether the share has ended, as far as this process knows.

    Examples
    --------
    >>> data = share(client, np.arange(10.0))  # doctest: +SKIP
    >>> client.submit(lambda data, i: data[i:].sum(), data, 5).result()  # doctest: +SKIP
    35.0
    """

    def __init__(
        self, id: str, shape: "Tuple[int, ...]", dtype: "Any", flags: int, client: "Any" = None
    ) -> None:
        self.id, self.shape, self.dtype, self._flags = id, tuple(shape), np.dtype(dtype), flags
        self.ndim, self.itemsize, self.size = len(self.shape), self.dtype.itemsize, 1
        for length in self.shape:
            self.size *= length
        self.nbytes = self.size * self.itemsize
        _, nbytes = offsets_of([self.nbytes])
        self._share = Share(id, nbytes, bool(flags & _PRIVATE), repr(self))
        # What ends the share; only where it was shared.
        self._client = client

    # ---- the copy of this host

    def _view(self) -> "Any":
        """Return the array in this host's copy, which is filled or attached if need be."""
        if here.has_ended(self.id):
            raise stale(self._share)
        return self._array_in(here.get(self._share))

    def _array_in(self, image):
        # type: (Image) -> Any
        """Return the array in an image."""
        (start,), _ = offsets_of([self.nbytes])
        order = "F" if self._flags & _FORTRAN else "C"
        block = block_of(image.memory)
        if block is None:
            data = image.data[start : start + self.nbytes]
            array = np.ndarray(self.shape, self.dtype, data, 0, order=order)
        else:
            start += image.data.__array_interface__["data"][0] - block.address
            strides = strides_of(self.shape, self.itemsize, order)
            array = block.array(self.shape, self.dtype, strides, start, ndarray)
        if not self._flags & _WRITABLE:
            array.flags.writeable = False
        return array

    def _fill_first(self, array):
        # type: (Any) -> None
        """Make the first copy, with the items of an array."""

        def write(image):
            place = self._array_in(image).view(np.ndarray)
            place.flags.writeable = True
            place[...] = array

        here.put(self._share, write)

    # ---- as numpy's

    def __array__(self, dtype: "Any" = None, copy: "Optional[bool]" = None) -> "Any":
        array = self._view().view(np.ndarray)
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError("{!r} as {} needs a copy".format(self, np.dtype(dtype)))
            return array.astype(dtype)
        return array.copy() if copy else array

    def __array_ufunc__(self, ufunc: "Any", method: str, *inputs: "Any", **options: "Any") -> "Any":
        out = options.get("out")
        if out is not None:
            options["out"] = tuple(_plain(each) for each in out)
        result = getattr(ufunc, method)(*[_plain(each) for each in inputs], **options)
        return result if out is None else out[0] if len(out) == 1 else out

    def __getitem__(self, key: "Any") -> "Any":
        return self._view()[key]

    def __setitem__(self, key: "Any", value: "Any") -> None:
        self._view()[key] = value

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of unsized object")
        return self.shape[0]

    def __iter__(self) -> "Iterator[Any]":
        return iter(self._view())

    def __contains__(self, item: "Any") -> bool:
        return item in self._view()

    def __bool__(self) -> bool:
        return bool(self._view())

    def __int__(self) -> int:
        return int(self._view())

    def __float__(self) -> float:
        return float(self._view())

    def __getattr__(self, name: str) -> "Any":
        # (Other packages probe for attributes; only those of arrays are worth a fetch. And Dask would
        # copy all of what has a method `copy` into its graph.)
        if name == "copy":
            raise AttributeError("to copy {!r} into ordinary memory, use np.array".format(self))
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError("{!r} has no attribute {!r}".format(type(self).__name__, name))
        return getattr(self._view(), name)

    def __dir__(self) -> "Any":
        return sorted(set(super().__dir__()) | {each for each in dir(np.ndarray) if each[0] != "_"})

    def __repr__(self) -> str:
        return "<PerHostArray {}: shape {}, {}>".format(self.id[:8], self.shape, self.dtype)

    # ---- in Dask

    def __reduce__(self) -> "Any":
        return _reduce.per_host_array, (
            bytes.fromhex(self.id), self.shape, plain_dtype(self.dtype), self._flags
        )  # fmt: skip

    def __dask_tokenize__(self) -> "Tuple[str, str]":
        return "shared_numpy", self.id

    def to_dask(self, chunks: "Any" = "auto") -> "Any":
        """Return a dask array whose chunks are views of the copy of the host that computes them.

        Parameters
        ----------
        chunks : int, tuple or str
            As for ``dask.array.from_array``.

        Returns
        -------
        dask.array.Array

        Examples
        --------
        >>> data.to_dask(chunks=(1000, 1000)).mean(axis=0).compute()  # doctest: +SKIP
        """
        from dask import array

        meta = np.empty((0,) * self.ndim, self.dtype)
        return array.from_array(
            self, chunks, name="shared-" + self.id, asarray=False, inline_array=True, meta=meta
        )

    # ---- its end

    @property
    def closed(self) -> bool:
        return here.has_ended(self.id)

    def close(self) -> "Any":
        """End the share: its memory is freed on each host when the last view of it there is gone.

        Tasks that use it from now on fail with `StaleHandleError`. Closing again does nothing. With
        an asynchronous client: ``await data.close()``.

        Raises
        ------
        RuntimeError
            This is not the program that shared it.
        """
        if self._client is None:
            raise RuntimeError("{!r} is closed by the client that shared it".format(self))
        return self._client.end(self.id)

    def __enter__(self) -> "PerHostArray":
        return self

    def __exit__(self, *exc_info: "Any") -> None:
        self.close()

    async def __aenter__(self) -> "PerHostArray":
        return self

    async def __aexit__(self, *exc_info: "Any") -> None:
        ending = self.close()
        if ending is not None:
            await ending


def _plain(thing):
    return np.asarray(thing) if isinstance(thing, PerHostArray) else thing


def rebuild(identifier, shape, dtype, flags):
    """Make an array of the parts of `PerHostArray.__reduce__`."""
    return PerHostArray(identifier.hex(), shape, dtype, flags)


def share_array(
    identifier: bytes, array: "np.ndarray[Any, Any]", readonly: bool, private: bool, client: "Any"
) -> PerHostArray:
    """Make the first copy of a new share of an array, and return what stands for it.

    Parameters
    ----------
    identifier : bytes
        16 bytes that no other share has.
    array : numpy.ndarray
        What is copied.
    readonly, private : bool
        As in `client.share`.
    client : client.Sharer
        What ends the share.
    """
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    flags = _FORTRAN * fortran + _WRITABLE * (not readonly) + _PRIVATE * private
    made = PerHostArray(identifier.hex(), array.shape, array.dtype, flags, client)
    made._fill_first(array)
    return made


def strides_of(shape: "Tuple[int, ...]", itemsize: int, order: str) -> "Tuple[int, ...]":
    """Return the strides of an array without gaps."""
    strides, step = [], itemsize
    for length in reversed(shape) if order == "C" else shape:
        strides.append(step)
        step *= max(length, 1)
    return tuple(reversed(strides) if order == "C" else strides)
