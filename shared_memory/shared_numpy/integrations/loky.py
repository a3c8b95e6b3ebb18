"""Shared arrays by reference through loky."""

from . import _loky

__all__ = ["register", "unregister"]

_REDUCTION = "loky.backend.reduction"


def register() -> None:
    """Have loky's processes pass shared arrays by reference from now on.

    Raises
    ------
    ImportError
        loky is not installed.

    See Also
    --------
    unregister

    Examples
    --------
    >>> from shared_numpy.integrations import loky  # doctest: +SKIP
    >>> loky.register()  # doctest: +SKIP
    """
    _loky.register(_REDUCTION)


def unregister() -> None:
    """Have loky's processes pickle shared arrays by value again.

    Raises
    ------
    ImportError
        loky is not installed.
    """
    _loky.unregister(_REDUCTION)
