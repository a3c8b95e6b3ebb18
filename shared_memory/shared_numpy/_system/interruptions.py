"""Results that no exception of a signal handler can come before.

The interpreter runs signal handlers between two steps of its own loop. In ``found = take()``
that is also between the return of ``take`` and the assignment: if the handler raises there
(Ctrl-C), the result is lost, and with it the only record of what ``take`` did. Iterators written
in C (`map`, `starmap`, `compress`) call a function and pass its result on without such a step in
between. So where a call changes what other processes see, its result is recorded by one of these
functions, and the handler of the exception knows what has happened.

The called function has to be written in C. One written in Python has steps of its own; then its
effect and its return are apart again.
"""

from collections import deque
from itertools import chain, compress, starmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List


def append_result(results: "List[Any]", function: "Callable[..., Any]", *arguments: "Any") -> None:
    """Append ``function(*arguments)`` to a list."""
    results.extend(starmap(function, (arguments,)))


def append_if_true(results: "List[Any]", function: "Callable[..., Any]", *arguments: "Any") -> None:
    """Append ``function(*arguments)`` to a list if it is true."""
    results.extend(filter(None, starmap(function, (arguments,))))


def extend_by_result(
    results: "List[Any]", function: "Callable[..., Any]", *arguments: "Any"
) -> None:
    """Extend a list by the items of ``function(*arguments)``."""
    results.extend(chain.from_iterable(starmap(function, (arguments,))))


def set_if_true(
    thing: "Any", name: str, value: "Any", function: "Callable[..., Any]", *arguments: "Any"
) -> None:
    """Set an attribute to `value` if ``function(*arguments)`` is true."""
    values = compress((value,), starmap(function, (arguments,)))
    deque(map(setattr, (thing,), (name,), values), 0)
