"""`SharedContext`: workers that know the same arrays by name.

The arrays are put into shared memory once. Functions run in workers that stay: there the
arrays are globals of each function. Wherever else one of them turns up, in the arguments
of a call or what a function has captured, it goes by reference, too.
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
    """Be a worker of a context."""
    _names.update(names)


def run(function, args, kwargs):
    """Call a function that has the context's arrays as globals."""
    inner = _inner(function)
    if inner is not None:
        # (Here the module may have other names than in the process that calls.)
        _check_names(inner, _names)
        inner.__globals__.update(_names)
    return function(*args, **kwargs)


def _inner(function):
    """Return the function written in Python that is called in the end; None if there is none."""
    while not isinstance(function, types.FunctionType):
        # A partial function, a method, what `functools.wraps` has made.
        below = getattr(function, "func", None) or getattr(function, "__func__", None)
        function = below or getattr(function, "__wrapped__", None)
        if function is None:
            return None
    return function


def _check_names(function, names):
    """Refuse arrays whose names a function's module has for something else that it calls or asks:
    it, or the rest of its module, would not find that any more."""
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
    mapping : mapping of str to array_like
        The arrays by name. One that is not shared yet is copied, once, however many
        workers there are; changing it later changes nothing for the workers.
    max_workers : int, optional
        How many processes, as for `ProcessPoolExecutor`; by default as many as there are CPUs for
        this one.
    mp_context : multiprocessing context or str, optional
        Which start method is used, also by its name; by default that of `multiprocessing`.
    readonly : bool
        Whether functions may only read the arrays; with False they can change them, for all
        processes.

    Raises
    ------
    TypeError
        Something in `mapping` is no array, or one of Python objects.
    ValueError
        A name in it is no identifier, or `max_workers` is more than the arena has places for.

    Notes
    -----
    A worker is started when there is something for it to do, and stays. Leaving the
    ``with`` statement, or `close`, ends the workers.

    Functions that are defined in a function, or at a prompt, need cloudpickle
    (``pip install 'shared-numpy[closures]'``).

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
        """Have calls of a function enqueued: a decorator, or to be called.

        Parameters
        ----------
        function : callable
            What workers are to call.

        Returns
        -------
        callable
            Which takes the function's arguments, returns at once, and counts for the
            next `evaluate`. Its result is the call's future.

        Raises
        ------
        ValueError
            The name of an array is that of a function, class or module which the function's
            module, or Python, has.
        """
        self._check(function)

        @functools.wraps(function)
        def enqueue(*args, **kwargs):
            future = self.submit(function, *args, **kwargs)
            self._calls.append((function, args, kwargs, future))
            return future

        return enqueue

    def evaluate(self, progress: bool = False) -> "List[Any]":
        """Return the results of all calls since the last time, in their order.

        Parameters
        ----------
        progress : bool
            Show a progress bar, by tqdm.

        Returns
        -------
        list
            What the calls have returned.

        Raises
        ------
        Exception
            What the first call that failed has raised; its cause says which call it was.
            Those that no worker has yet are cancelled.
        ImportError
            `progress`, and tqdm is not installed.
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
        """Have a function called in a worker, as by an executor.

        Parameters
        ----------
        fn : callable
            The function.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        concurrent.futures.Future
            Which yields what it returns, or raises what it has raised.

        Raises
        ------
        ValueError
            As `register`.
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
        """Call a function with the items of iterables; see `ProcessPoolExecutor.map`.

        A ValueError is raised as by `register`.
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
        """Cancel what no worker has yet, and end the workers."""
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
    """Return a call as it would be written."""
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
    """Have an exception of a worker say which call it was."""
    cause = error.__cause__
    if hasattr(cause, "tb"):
        cause.tb = "\nin {}{}".format(text, cause.tb)
    if hasattr(error, "add_note"):
        error.add_note("in " + text)
