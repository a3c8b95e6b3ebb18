"""Shared arrays by reference through joblib."""

from . import _loky

__all__ = ["register", "unregister"]

_REDUCTION = "joblib.externals.loky.backend.reduction"


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
    _loky.register(_REDUCTION)


def unregister() -> None:
    """Have joblib's processes pickle shared arrays by value again.

    Raises
    ------
    ImportError
        joblib is not installed.
    """
    _loky.unregister(_REDUCTION)
