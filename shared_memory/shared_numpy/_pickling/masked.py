"""Subclasses of `numpy.ndarray` that are numpy's own: masked arrays, matrices, records."""

from multiprocessing.reduction import ForkingPickler

import numpy as np

from .. import _reduce
from . import registry
from .by_reference import memory_of, reduce_view


def _reduce_numpys(array, handles=None):
    """Reduce an array of a subclass of numpy. It goes as numpy pickles it if neither the array nor
    its mask is shared, and plain arrays go by value."""
    shared = memory_of(array) is not None or memory_of(getattr(array, "_mask", None)) is not None
    if handles is None and not shared and np.ndarray not in ForkingPickler._extra_reducers:
        return array.__reduce_ex__(2)
    reducer = _reduce_masked if isinstance(array, np.ma.MaskedArray) else reduce_view
    return reducer(array, handles)


def _reduce_masked(array, handles):
    """Reduce a masked array: its data and its mask travel as two arrays."""
    data = np.ndarray.view(array, array._baseclass)
    attributes = dict(array.__dict__)
    mask = attributes.pop("_mask", np.ma.nomask)
    return _reduce.masked_array, (
        type(array),
        data,
        None if mask is np.ma.nomask else mask,
        attributes,
    )


def rebuild_masked(cls, data, mask, attributes):
    array = np.ndarray.view(data, cls)
    array.__dict__.update(attributes)
    array._mask = np.ma.nomask if mask is None else mask
    return array


for _cls in (np.recarray, np.matrix, np.ma.MaskedArray):
    registry.register(_cls, _reduce_numpys)
