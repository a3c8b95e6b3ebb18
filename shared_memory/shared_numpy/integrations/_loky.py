"""The table by which a loky, or joblib's own, pickles objects of certain classes."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict


def table_of(reduction: "Any") -> "Dict[type, Any]":
    """Return the table of the module ``loky.backend.reduction`` or joblib's copy of it.

    Raises
    ------
    ImportError
        It has none, so it is of a version that is not known here.
    """
    # (Until loky 3.0 it was a class's.)
    registry = getattr(reduction, "_ReducerRegistry", None)
    found = getattr(reduction, "_dispatch_table", getattr(registry, "dispatch_table", None))
    if not isinstance(found, dict):
        raise ImportError(
            "{} has no table of reducers: this version of loky is not known to shared_numpy".format(
                reduction.__name__
            )
        )
    return found
