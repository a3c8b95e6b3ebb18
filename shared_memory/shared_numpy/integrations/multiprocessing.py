"""Plain arrays through shared memory in the channels of `multiprocessing`.

Shared arrays go by reference there without this.
"""

from .._pickling import moved, multiprocessing_reducers

__all__ = ["register", "unregister"]


def register(threshold: int = moved.THRESHOLD) -> None:
    """Have `multiprocessing` move plain arrays through shared memory from now on.

    Arrays of class ``numpy.ndarray`` that this process, or one that it makes, sends through a
    ``Pool``, ``Queue``, ``Pipe``, … are copied once, into shared memory that becomes the
    receiver's own, and views of shared arrays go by reference. The receiver gets a plain array,
    which it may change.

    Parameters
    ----------
    threshold : int
        Only arrays of at least so many bytes.

    Raises
    ------
    ValueError
        `threshold` is negative.

    See Also
    --------
    unregister

    Examples
    --------
    >>> from shared_numpy.integrations import multiprocessing
    >>> multiprocessing.register(threshold=1 << 20)
    >>> multiprocessing.unregister()
    """
    if threshold < 0:
        raise ValueError("threshold is a number of bytes, not {}".format(threshold))
    multiprocessing_reducers.share_from(threshold)


def unregister() -> None:
    """Have `multiprocessing` pickle plain arrays as it did before `register`."""
    multiprocessing_reducers.share_from(None)
