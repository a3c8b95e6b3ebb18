"""Shared arrays by reference through joblib."""

from .._pickling import registry
from ._loky import table_of

__all__ = ["register", "unregister"]


def register() -> None:
    """Have joblib's processes pass shared arrays by reference from now on.

    It holds for joblib's default backend, loky. The backend "multiprocessing" pickles
    arrays by value.

    Raises
    ------
    ImportError
        joblib is not installed.

    See Also
    --------
    unregister

    Examples
    --------
    >>> from shared_numpy.integrations import joblib  # doctest: +SKIP
    >>> joblib.register()  # doctest: +SKIP
    """
    from joblib.externals.loky.backend import reduction

    registry.extend(table_of(reduction))


def unregister() -> None:
    """Have joblib's processes pickle shared arrays by value again.

    Raises
    ------
    ImportError
        joblib is not installed.
    """
    from joblib.externals.loky.backend import reduction

    registry.restore(table_of(reduction))
