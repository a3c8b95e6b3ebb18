"""Shared arrays by reference through loky."""

from .._pickling import registry
from ._loky import table_of

__all__ = ["register", "unregister"]


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
    from loky.backend import reduction

    registry.extend(table_of(reduction))


def unregister() -> None:
    """Have loky's processes pickle shared arrays by value again.

    Raises
    ------
    ImportError
        loky is not installed.
    """
    from loky.backend import reduction

    registry.restore(table_of(reduction))
