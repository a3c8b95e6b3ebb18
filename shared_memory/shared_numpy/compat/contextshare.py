"""What programs that were written for ``contextshare`` import.

::

    import shared_numpy.compat.contextshare as shared
"""

from ..context import SharedContext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Mapping

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
        Something in `vars` is no array.
    ValueError
        A name is no identifier, or `nworkers` is less than 1.

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
        self._context = SharedContext(vars, nworkers)

    def __enter__(self) -> "SharedMemory":
        return self

    def __exit__(self, exc_type: "Any", exc_value: "Any", traceback: "Any") -> None:
        self._context.close()

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
        submit = self._context.register(func)

        def enqueue(*args, **kwargs):
            submit(*args, **kwargs)

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
        """
        return self._context.evaluate(progress)
