"""Which function reduces which class, in all picklers that have been extended.

The first of them is `ForkingPickler`, which only the channels of `multiprocessing` use. It matches
exact classes. `numpy.ndarray` itself is not registered: it goes by value there, unless
`integrations.multiprocessing.register` was called.
"""

from multiprocessing.reduction import ForkingPickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List

# Reducers that take the list of handles of the message, too.
own = {}  # type: Dict[type, Callable[..., Any]]

# The dispatch tables of the picklers that have been extended.
_tables = [ForkingPickler._extra_reducers]  # type: List[Dict[type, Any]]

# The reducers in them.
_registered = {}  # type: Dict[type, Callable[..., Any]]


def register(cls: "type", reducer: "Callable[..., Any]") -> None:
    """Have `reducer` reduce arrays of exactly this class in all channels.

    It is called with the array; `pickler.dumps` adds the list of handles.
    """
    own[cls] = reducer
    tell(cls, reducer)


def tell(cls, reducer):
    _registered[cls] = reducer
    for table in _tables:
        table[cls] = reducer


def extend(table: "Dict[type, Any]") -> None:
    """Have another pickler reduce arrays as `ForkingPickler` does, by its dispatch table."""
    if not any(each is table for each in _tables):
        _tables.append(table)
        table.update(_registered)


def restore(table: "Dict[type, Any]") -> None:
    """Undo `extend` for a table."""
    _tables[:] = [each for each in _tables if each is not table]
    for cls, reducer in _registered.items():
        if table.get(cls) is reducer:
            del table[cls]
