"""Shared arrays by reference through loky, and through the copy of it that joblib brings."""

from importlib import import_module

from .._pickling import registry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict


def register(module: str) -> None:
    """Have the pickler of the module ``loky.backend.reduction``, or of joblib's copy of it, reduce
    shared arrays by reference.

    Raises
    ------
    ImportError
        There is no such module, or it is of a version that is not known here.
    """
    registry.extend(_table_of(import_module(module)))


def unregister(module: str) -> None:
    """Undo `register`."""
    registry.restore(_table_of(import_module(module)))


def _table_of(reduction: "Any") -> "Dict[type, Any]":
    """Return the table by which a loky pickles objects of certain classes."""
    # (Until loky 3.0 it was an attribute of a class.)
    owner = getattr(reduction, "_ReducerRegistry", None)
    found = getattr(reduction, "_dispatch_table", getattr(owner, "dispatch_table", None))
    if not isinstance(found, dict):
        raise ImportError(
            "{} has no table of reducers: this version of loky is not known to shared_numpy".format(
                reduction.__name__
            )
        )
    return found
