"""What programs that were written for ``contextshare`` import.

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
        The arrays by the names that the functions use. Others go as arguments.
    nworkers : int
        How many processes.

    Raises
    ------
    TypeError
        Something in `vars` is no array (when the context is entered).
    ValueError
        A name is no identifier, or `nworkers` is less than 1 (then, too).

    See Also
    --------
    shared_numpy.SharedContext : what it is made of, and what new code should use.

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
        """Have calls of a function enqueued: a decorator, or to be called.

        Parameters
        ----------
        func : callable
            What workers are to call. One that is defined in a function needs
            cloudpickle (``pip install 'shared-numpy[closures]'``).

        Returns
        -------
        callable
            Which takes the function's arguments, enqueues a call and returns at once.
        """

        def enqueue(*args, **kwargs):
            if self._context is None:
                self._early.append((func, args, kwargs))
            else:
                self._context.register(func)(*args, **kwargs)

        return enqueue

    def evaluate(self, progress: bool = False) -> "List[Any]":
        """Return the results of all calls since the last time, in their order.

        Parameters
        ----------
        progress : bool
            Show a progress bar, by tqdm.

        Raises
        ------
        Exception
            What the first call that failed has raised.
        pickle.PicklingError
            A function has no name in a module, and cloudpickle is not installed.
        ImportError
            `progress`, and tqdm is not installed.
        RuntimeError
            It is called outside the ``with`` statement.
        """
        if self._context is None:
            raise RuntimeError("evaluate works within the with statement: the workers end with it")
        return self._context.evaluate(progress)
