"""The names of ``contextshare``, for programs written for it.

::

    import shared_numpy.compat.contextshare as shared
"""

from ..context import SharedContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Mapping, Optional

__all__ = ["SharedMemory"]


class SharedMemory:
    """Arrays that functions in other processes see as globals; a context manager.

    Parameters
    ----------
    vars : mapping of str to numpy.ndarray
        The arrays by the names that the functions use. Pass other arrays as arguments.
    nworkers : int
        The number of processes.

    Raises
    ------
    TypeError
        When the context is entered: a value in `vars` is no array.
    ValueError
        When the context is entered: a name is no identifier, or `nworkers` is less than 1.

    See Also
    --------
    shared_numpy.SharedContext : its implementation, for new code.

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy.compat.contextshare as shared
    >>> D = np.arange(3.0)
    >>> with shared.SharedMemory({"D": D}, nworkers=1) as sm:
    ...     scaled = sm.register(np.multiply)
    ...     scaled(D, 2)
    ...     sm.evaluate()[0].tolist()
    [0.0, 2.0, 4.0]
    """

    def __init__(self, vars: "Mapping[str, Any]", nworkers: int) -> None:
        self._vars, self._nworkers = vars, nworkers
        self._context = None  # type: Optional[SharedContext]
        # Calls that were enqueued before there was a context.
        self._early = []  # type: List[Any]

    def __enter__(self) -> "SharedMemory":
        self._context = SharedContext(self._vars, self._nworkers)
        early, self._early = self._early, []
        for function, args, kwargs in early:
            self._context.register(function)(*args, **kwargs)
        return self

    def __exit__(self, exc_type: "Any", exc_value: "Any", traceback: "Any") -> None:
        context, self._context = self._context, None
        if context is not None:
            context.close()

    def register(self, func: "Callable[..., Any]") -> "Callable[..., None]":
        """Return a function that enqueues calls of another one. It can be used as a decorator.

        Parameters
        ----------
        func : callable
            The function that workers call. If it is defined inside a function it needs cloudpickle
            (``pip install cloudpickle``).

        Returns
        -------
        callable
            It takes the function's arguments, enqueues a call, and returns at once.
        """

        def enqueue(*args, **kwargs):
            if self._context is None:
                self._early.append((func, args, kwargs))
            else:
                self._context.register(func)(*args, **kwargs)

        return enqueue

    def evaluate(self, progress: bool = False) -> "List[Any]":
        """Return the results of all calls since the last `evaluate`, in their order.

        Parameters
        ----------
        progress : bool
            Show a progress bar, by tqdm.

        Raises
        ------
        Exception
            The exception of the first call that failed.
        pickle.PicklingError
            A function has no name in a module, and cloudpickle is not installed.
        ImportError
            `progress` is True, and tqdm is not installed.
        RuntimeError
            It is called outside the ``with`` statement.
        """
        if self._context is None:
            raise RuntimeError("evaluate works within the with statement: the workers end with it")
        return self._context.evaluate(progress)
