"""Which class is reduced by which function, in all picklers that were told.

`ForkingPickler`, which the channels of `multiprocessing` use and nothing else, learns it here for
each class; it matches exact classes. `numpy.ndarray` itself it pickles by value, unless
`integrations.multiprocessing.register` was called.
"""

from multiprocessing.reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List

# Those that take the list of handles of the message.
own = {}  # type: Dict[type, Callable[..., Any]]

# The tables of picklers that reduce arrays as here, by class.
_tables = [ForkingPickler._extra_reducers]  # type: List[Dict[type, Any]]

# What is in them.
_registered = {}  # type: Dict[type, Callable[..., Any]]


def register(cls: "type", reducer: "Callable[..., Any]") -> None:
    """Have arrays of exactly this class pickled by `reducer` in all channels.

    It is called with the array, and by `dumps` with the list of handles besides.
    """
    own[cls] = reducer
    tell(cls, reducer)


def tell(cls, reducer):
    _registered[cls] = reducer
    for table in _tables:
        table[cls] = reducer


def extend(table: "Dict[type, Any]") -> None:
    """Have another pickler reduce arrays as `ForkingPickler` does, by its table."""
    if not any(each is table for each in _tables):
        _tables.append(table)
        table.update(_registered)


def restore(table: "Dict[type, Any]") -> None:
    """Undo what `extend` has done to a table."""
    _tables[:] = [each for each in _tables if each is not table]
    for cls, reducer in _registered.items():
        if table.get(cls) is reducer:
            del table[cls]
