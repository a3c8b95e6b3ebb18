"""`SharedContext`: functions in worker processes find the same arrays as globals.

The arrays are copied into shared memory once. The workers stay between calls, and have the arrays
as globals of each function that they run. Where an array also appears in the arguments of a call,
or in a closure, it goes by reference.
"""

import builtins
import collections
import functools
import types

import numpy as np

from . import _reduce, arrays
from .executor import SUBMIT_SIGNATURE, ProcessPoolExecutor, progress_bar, split_submitted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

__all__ = ["SharedContext"]

# In a worker: the arrays of its context, by name.
_names = {}  # type: Dict[str, Any]


def enter(names):
    """Set the arrays of the context, in a new worker."""
    _names.update(names)


def run(function, args, kwargs):
    """Call a function that has the context's arrays as globals."""
    inner = _inner(function)
    if inner is not None:
        # (The module may have other names here than in the process of the context.)
        _check_names(inner, _names)
        inner.__globals__.update(_names)
    return function(*args, **kwargs)


def _inner(function):
    """Return the Python function inside partial functions, methods and wrappers; None if there is
    none."""
    while not isinstance(function, types.FunctionType):
        # A partial function, a method, a wrapper made with `functools.wraps`.
        below = getattr(function, "func", None) or getattr(function, "__func__", None)
        function = below or getattr(function, "__wrapped__", None)
        if function is None:
            return None
    return function


def _check_names(function, names):
    """Raise ValueError if the name of an array would hide a function, class or module from a
    function's module, or a builtin."""
    for name in names:
        taken = function.__globals__.get(name, getattr(builtins, name, None))
        if callable(taken) or isinstance(taken, types.ModuleType):
            raise ValueError(
                "the array {!r} of this context would take the place of {!r}, which {} of module "
                "{} finds by that name: give one of them another name".format(
                    name, taken, function.__qualname__, function.__module__
                )
            )


class SharedContext:
    """Arrays that functions in other processes see as globals.

    Parameters
    ----------
    mapping : mapping of str to numpy.ndarray
        The arrays by name. An array that is not shared yet is copied once, for all workers: they
        do not see later changes of the original.
    max_workers : int, optional
        How many processes, as for `ProcessPoolExecutor`; by default as many as there are CPUs for
        this one.
    mp_context : multiprocessing context or str, optional
        Which start method is used, also by its name; by default that of `multiprocessing`.
    readonly : bool
        True: functions can only read the arrays. False: they can change them, and all processes
        see that.

    Raises
    ------
    TypeError
        `mapping` is none, a value in it is no array, or its items are Python objects.
    ValueError
        A name in it is no identifier, or the arena has no room for `max_workers` processes.

    Notes
    -----
    A worker is started when there is a call for it, and stays. Leaving the ``with`` statement, or
    `close`, ends the workers.

    Functions that are defined inside a function, or at a prompt, need cloudpickle
    (``pip install cloudpickle``).

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy as snp
    >>> with snp.SharedContext({"weights": np.arange(3.0)}, max_workers=1) as ctx:
    ...     total = ctx.register(np.dot)
    ...     for factor in (1, 2):
    ...         _ = total(ctx["weights"], [factor] * 3)
    ...     [float(each) for each in ctx.evaluate()]
    [3.0, 6.0]
    """

    def __init__(
        self,
        mapping: "Mapping[str, Any]",
        max_workers: "Optional[int]" = None,
        *,
        mp_context: "Any" = None,
        readonly: bool = True
    ) -> None:
        if not hasattr(mapping, "keys"):
            raise TypeError(
                "mapping must be a dict of names and arrays, not {!r}".format(mapping)
            )
        mapping = dict(mapping)
        for name, original in mapping.items():
            if not isinstance(name, str) or not name.isidentifier():
                raise ValueError("{!r} cannot be the name of a variable".format(name))
            if not isinstance(original, np.ndarray):
                raise TypeError(
                    "{}: only arrays can be shared, not {!r}; give others as arguments".format(
                        name, type(original)
                    )
                )
        self._arrays = {}  # type: Dict[str, Any]
        # The executor comes first: it makes the program's arena, with places for its workers. They
        # are started later, by the first call, and get the arrays then.
        self._executor = ProcessPoolExecutor(
            max_workers, mp_context, initializer=_reduce.enter_context, initargs=(self._arrays,)
        )
        shared_twins = {}
        for name, original in mapping.items():
            shared = arrays.asarray(original)
            if readonly:
                shared = shared.view()
                shared.flags.writeable = False
            self._arrays[name] = shared
            # (With the original, so that its id stays its own.)
            shared_twins[id(original)] = original, shared
        self._executor._send_twins(shared_twins)
        self._calls = collections.deque()  # type: Any

    def __getitem__(self, name: str) -> "Any":
        """Return one of the arrays, which is shared."""
        return self._arrays[name]

    def register(self, function: "Callable[..., Any]") -> "Callable[..., Future[Any]]":
        """Return a function that enqueues calls of another one. It can be used as a decorator.

        Parameters
        ----------
        function : callable
            The function that workers call.

        Returns
        -------
        callable
            It takes the function's arguments, returns the future of the call at once, and adds the
            call to those of the next `evaluate`.

        Raises
        ------
        ValueError
            An array has the name of a function, class or module in the function's module, or of a
            builtin.
        """
        self._check(function)

        @functools.wraps(function)
        def enqueue(*args, **kwargs):
            future = self.submit(function, *args, **kwargs)
            self._calls.append((function, args, kwargs, future))
            return future

        return enqueue

    def evaluate(self, progress: bool = False) -> "List[Any]":
        """Return the results of all calls since the last `evaluate`, in their order.

        Parameters
        ----------
        progress : bool
            Show a progress bar, by tqdm.

        Returns
        -------
        list
            The results.

        Raises
        ------
        Exception
            The exception of the first call that failed; its cause tells which call it was. Calls
            that no worker has taken yet are cancelled.
        ImportError
            `progress` is True, and tqdm is not installed.
        """
        bar = progress_bar() if progress else None
        calls, self._calls = self._calls, collections.deque()
        shown = bar(total=len(calls), unit="call") if bar else None
        results, total = [], len(calls)  # type: List[Any], int
        try:
            while calls:
                function, args, kwargs, future = calls[0]
                try:
                    results.append(future.result())
                except Exception as error:
                    number = len(results) + 1
                    call = _described(function, args, kwargs)
                    _tell(error, "call {} of {}: {}".format(number, total, call))
                    raise
                calls.popleft()
                if shown is not None:
                    shown.update()
        finally:
            if shown is not None:
                shown.close()
            for call in calls:
                call[-1].cancel()
        return results

    def submit(*args: "Any", **kwargs: "Any") -> "Future[Any]":
        """Have a worker call a function, as `ProcessPoolExecutor.submit` does.

        Parameters
        ----------
        fn : callable
            The function.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        concurrent.futures.Future
            It yields the function's result, or raises its exception.

        Raises
        ------
        ValueError
            As in `register`.
        """
        self, function, args = split_submitted(args)
        self._check(function)
        run_it = functools.partial(_reduce.run_in_context, function)
        return self._executor.submit(run_it, args, kwargs)

    submit.__text_signature__ = SUBMIT_SIGNATURE  # type: ignore

    def map(
        self,
        fn: "Callable[..., Any]",
        *iterables: "Iterable[Any]",
        timeout: "Optional[float]" = None,
        chunksize: int = 1,
        buffersize: "Optional[int]" = None,
        progress: bool = False
    ) -> "Iterator[Any]":
        """Call a function with the items of iterables, as `ProcessPoolExecutor.map` does.

        Parameters
        ----------
        fn : callable
            The function.
        *iterables
            Its arguments, one from each.
        timeout : float, optional
            The results may take so many seconds from now on.
        chunksize : int
            A worker takes so many calls at a time.
        buffersize : int, optional
            So many chunks are submitted ahead of the results that were taken.
        progress : bool
            Show a progress bar, by tqdm.

        Returns
        -------
        iterator
            The results, in order.

        Raises
        ------
        ValueError
            As by `register`.
        """
        self._check(fn)
        return self._executor.map(
            functools.partial(_reduce.call_in_context, fn), *iterables, timeout=timeout, chunksize=chunksize,
            buffersize=buffersize, progress=progress
        )  # fmt: skip

    def _check(self, function):
        inner = _inner(function)
        if inner is not None:
            _check_names(inner, self._arrays)

    def close(self) -> None:
        """Cancel the calls that no worker has taken yet, and end the workers."""
        self._executor.shutdown(cancel_futures=True)
        self._calls.clear()
        self._arrays.clear()
        self._executor._send_twins({})

    def __enter__(self) -> "SharedContext":
        return self

    def __exit__(self, *exc_info: "Any") -> None:
        self.close()


def call(function, *args):
    return run(function, args, {})


def _described(function, args, kwargs):
    """Return a call as text, with short arguments, for an error message."""
    parts = [_short(arg) for arg in args]
    parts += ["{}={}".format(name, _short(value)) for name, value in kwargs.items()]
    name = getattr(function, "__qualname__", None) or repr(function)
    return "{}({})".format(name, ", ".join(parts))


def _short(thing):
    if isinstance(thing, np.ndarray):
        return "<array of shape {}>".format(thing.shape)
    text = repr(thing)
    return text if len(text) <= 40 else text[:37] + "..."


def _tell(error, text):
    """Add to an exception of a worker which call it was."""
    cause = error.__cause__
    if hasattr(cause, "tb"):
        cause.tb = "\nin {}{}".format(text, cause.tb)
    if hasattr(error, "add_note"):
        error.add_note("in " + text)
