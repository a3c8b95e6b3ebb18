"""Shared arrays by reference through joblib."""

from .. import transfer


def register() -> None:
    """Have joblib's processes pass shared arrays by reference from now on.

    It holds for joblib's default backend, loky. The backend "multiprocessing" pickles
    arrays by value.

    Raises
    ------
    ImportError
        joblib is not installed.

    Examples
    --------
    >>> from shared_numpy.integrations import joblib  # doctest: +SKIP
    >>> joblib.register()  # doctest: +SKIP
    """
    from joblib.externals.loky.backend import reduction

    transfer.follow(reduction.register)
