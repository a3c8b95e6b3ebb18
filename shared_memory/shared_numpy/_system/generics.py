"""Classes that can be subscripted with a type, as ``Queue[int]``, on every interpreter."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

if sys.version_info >= (3, 9):
    from types import GenericAlias

    class Subscriptable:
        """A class that is generic for type checkers; at run time the type has no effect."""

        __class_getitem__ = classmethod(GenericAlias)

else:

    class _Class(type):
        # (3.6 does not look for `__class_getitem__`.)
        def __getitem__(cls, item: "Any") -> "Any":
            return cls

    class Subscriptable(metaclass=_Class):
        """A class that is generic for type checkers; at run time the type has no effect."""
