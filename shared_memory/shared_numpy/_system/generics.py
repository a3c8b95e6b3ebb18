"""Classes that can be written with a type, as ``Queue[int]``, on every interpreter."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

if sys.version_info >= (3, 9):
    from types import GenericAlias

    class Subscriptable:
        """What type checkers know as generic; the type means nothing when the program runs."""

        __class_getitem__ = classmethod(GenericAlias)

else:

    class _Class(type):
        # (3.6 does not ask classes for `__class_getitem__`.)
        def __getitem__(cls, item: "Any") -> "Any":
            return cls

    class Subscriptable(metaclass=_Class):
        """What type checkers know as generic; the type means nothing when the program runs."""
