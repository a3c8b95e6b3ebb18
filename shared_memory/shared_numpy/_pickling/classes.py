"""Classes of the user whose objects contain arrays."""

from functools import partial

import numpy as np

from .. import _core, _reduce
from . import registry
from .by_reference import reduce_view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional

__all__ = ["register_type"]

_NEVER_ASKED = {
    bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple,
    type(None), np.ndarray,
}  # fmt: skip


def register_type(
    cls: "type",
    flatten: "Optional[Callable[[Any], Any]]" = None,
    unflatten: "Optional[Callable[[Any], Any]]" = None,
    *,
    attribute: "Optional[str]" = None
) -> None:
    """Have the arrays in objects of a class travel through shared memory.

    Parameters
    ----------
    cls : type
        The class; its subclasses are registered by themselves.
    flatten : callable
        Takes an object and returns its parts: arrays, and other objects that can be pickled, in
        tuples, lists and dicts. Not needed for a subclass of ``numpy.ndarray``, which is sent with
        its ``__dict__``.
    unflatten : callable
        Takes the result of `flatten` in the receiver, and returns the object. It is pickled by its
        name, so define it at the top level of a module. It may be a class.
    attribute : str, optional
        Instead of the two functions: the name of the attribute with the array, or with a container
        of arrays. Needed only for a class with its own pickling (``__reduce__``); its objects are
        then sent as their ``__dict__``, and made by the ``__new__`` of the class.

    Raises
    ------
    TypeError
        `cls` is no class; one of the two functions is missing, or is not callable; or `attribute`
        is no name of an attribute, or is given beside the functions.
    ValueError
        pickle does not ask objects of `cls` how to pickle them.

    Notes
    -----
    Register the class in each process that sends such objects; a process that receives them need
    not. The best place is the module that defines the class.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> class Frame:
    ...     def __init__(self, pixels, exposure):
    ...         self.pixels, self.exposure = pixels, exposure
    >>> def flatten(frame):
    ...     return frame.pixels, frame.exposure
    >>> def unflatten(parts):
    ...     return Frame(*parts)
    >>> snp.register_type(Frame, flatten, unflatten)

    >>> class Image:
    ...     def __init__(self, pixels):
    ...         self.pixels = pixels
    ...     def __reduce__(self):
    ...         return Image, (self.pixels.tolist(),)
    >>> snp.register_type(Image, attribute="pixels")
    """
    if not isinstance(cls, type):
        raise TypeError("{!r} is no class".format(cls))
    if cls in _NEVER_ASKED or issubclass(cls, type):
        raise ValueError("objects of {!r} are always pickled as they are".format(cls))
    if attribute is not None:
        if not isinstance(attribute, str) or not attribute.isidentifier():
            raise TypeError("{!r} is no name of an attribute".format(attribute))
        if flatten is not None or unflatten is not None:
            raise TypeError(
                "{}: give flatten and unflatten, or attribute={!r}".format(cls.__name__, attribute)
            )
        flatten, unflatten = partial(_unwrap, attribute), _reduce.wrapper
    if flatten is None and unflatten is None and issubclass(cls, np.ndarray):
        registry.register(cls, reduce_view)
        return
    if not callable(flatten) or not callable(unflatten):
        raise TypeError(
            "{}: flatten and unflatten must both be functions, not {!r} and {!r}".format(
                cls.__name__, flatten, unflatten
            )
        )
    registry.own.pop(cls, None)
    _core.know_class(cls, False)
    registry.tell(cls, _Flattening(flatten, unflatten))


def _unwrap(attrname, thing):
    state = dict(vars(thing))
    state.pop(attrname, None)
    return type(thing), state, attrname, getattr(thing, attrname)


def wrap(parts):
    cls, state, attrname, value = parts
    thing = cls.__new__(cls)
    thing.__dict__.update(state)
    setattr(thing, attrname, value)
    return thing


class _Flattening:
    """The reducer of a registered class."""

    def __init__(self, flatten, unflatten):
        self.flatten, self.unflatten = flatten, unflatten

    def __call__(self, thing):
        return self.unflatten, (self.flatten(thing),)
