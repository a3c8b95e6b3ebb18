"""Shared arrays by reference through loky."""

from .. import transfer


def register() -> None:
    """Have loky's processes pass shared arrays by reference from now on.

    Raises
    ------
    ImportError
        loky is not installed.

    Examples
    --------
    >>> from shared_numpy.integrations import loky  # doctest: +SKIP
    >>> loky.register()  # doctest: +SKIP
    """
    from loky.backend import reduction

    transfer.follow(reduction.register)
