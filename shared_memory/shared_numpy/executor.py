"""`ProcessPoolExecutor`: functions run in other processes, arrays in shared memory.

The way of a call::

    submit           any thread          adds the call to the scheduler's pending calls, starts missing
       |                                 workers and the dispatcher, wakes the dispatcher
    pending          scheduler           until a worker has fewer calls than it does in 2 ms
       |
    assigned         dispatcher          pickles the call: arrays go to shared memory, without a lock
       |
    sent             dispatcher          puts the message into the worker's own channel (a ring);
       |                                 there it can still be cancelled, or stolen for an idle worker
    taken            worker              takes it out, calls the function, pickles the result
       |
    answered         worker              puts the answer into the one channel of all workers
       |
    done             dispatcher          unpickles it, settles the future, calls its callbacks

The channels are in shared memory: the process that dies in the middle of a call leaves them usable.
The state of a call is `task.State`; it changes only with the scheduler's lock held. Nothing that can
wait (pickling, callbacks, the start or join of a process) happens with the lock held.

The effect of each death::

    a worker               A thread that sleeps on the sentinels wakes the dispatcher, which polls
                           the processes themselves every second.
                           Without `retries` the pool breaks: all futures raise
                           BrokenProcessPool, and the other workers are ended. With `retries` the
                           worker is replaced, and its calls are pending again; a call that has
                           killed more workers than `retries` fails alone. The pool breaks only
                           after more than `retries` times `max_workers` deaths without an answer
                           in between and without a call to blame.
    a worker's start       `submit` raises, and its call is gone; calls of other threads stay.
    the dispatcher         An exception in it (a bug, MemoryError) breaks the pool. One that is stuck
                           at process exit (in a callback) is given up after 60 s without progress.
    this process, killed   Workers see that the maker of their channel is gone, and exit. Shared memory
                           is freed with the last process of the program.
    interpreter shutdown   A finalizer (`_pool.at_exit`) has all calls done and all workers joined; the
                           table in `_system.exit_order` tells when.
    a fork                 The child has no dispatcher and no calls; `submit` raises RuntimeError.
    executor dropped       As `shutdown(wait=False)`: the pool lives on until its calls are done.
"""

import collections
import itertools
import multiprocessing
import operator
import os
import signal
import sys
import time
import weakref
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

from . import _core, _reduce
from ._pickling import moved, shared_copies
from ._pool.pool import Pool
from ._pool.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]

# Where plain arrays in results are: values of `results`.
_RESULTS = ("shared", "copy", "in_place")


# An arena that is made for an executor has room for so many processes beside the workers, and for
# so many in all, at least.
_OTHERS, _USUAL = 64, 256


def count_workers(max_workers: "Optional[int]") -> int:
    """Return the number of workers of an executor, by its argument `max_workers`.

    Each worker is a member of this process's arena, which has room for a fixed number of processes.
    If there is no arena yet, this makes it large enough, unless the environment says how large it
    is.

    Raises
    ------
    TypeError, ValueError
        It is no number of workers, or the arena has room for fewer processes.
    """
    most = _core.MOST_PLACES
    if max_workers is not None:
        max_workers = _integer("max_workers", max_workers)
        if not 0 < max_workers < most:
            raise ValueError(
                "max_workers must be greater than 0 and at most {}, not {}: an arena has places for "
                "at most {} processes, and this one is one of them".format(
                    most - 1, max_workers, most
                )
            )
    wanted = len(os.sched_getaffinity(0)) if max_workers is None else max_workers
    # (The arena's sets of processes consist of words of 64 bits.)
    needed = -(-max(wanted + _OTHERS, _USUAL) // 64) * 64
    places = _core.places(min(needed, most))
    if max_workers is None:
        return min(wanted, places - 1)
    if max_workers >= places:
        raise ValueError(
            "max_workers={} and this process need {} places in the program's arena, which has {}: "
            "set SHARED_NUMPY_ARENA=processes={} or more (at most {}) in the environment of the "
            "program".format(max_workers, max_workers + 1, places, max_workers + 1, most)
        )
    return max_workers


# What `submit` looks like to `inspect` and editors. 3.6 has no syntax for it.
SUBMIT_SIGNATURE = "($self, fn, /, *args, **kwargs)"


def split_submitted(args: "Tuple[Any, ...]") -> "Tuple[Any, Any, Tuple[Any, ...]]":
    """Return the executor, the function, and the function's own arguments of ``submit(*args)``.

    `submit` has no named parameters: a keyword argument of the function may have any name, also
    "self" and "fn".
    """
    if len(args) < 2:
        raise TypeError("submit() takes a function and its arguments")
    return args[0], args[1], args[2:]


class ProcessPoolExecutor(Executor):
    """Runs functions in other processes, as ``concurrent.futures.ProcessPoolExecutor``.

    Arrays in arguments and results, at any depth, go through shared memory: shared arrays by
    reference, plain arrays as a copy that belongs to the receiver alone.

    Parameters
    ----------
    max_workers : int, optional
        The number of processes, at most 1,023. By default one for each CPU that this process may
        use, as far as the arena has room for them: an existing arena for 256 processes, one that
        is made for the executor for its workers and at least 64 others (1,024 at most). Set
        ``SHARED_NUMPY_ARENA=processes=N`` in the environment to change either.
    mp_context : multiprocessing context or str, optional
        The start method, also by its name (``"spawn"``); by default that of `multiprocessing`.
    initializer : callable, optional
        Each worker calls it first, with `initargs`. If it fails, the pool is broken.
    initargs : tuple
        Its arguments.
    max_tasks_per_child : int, optional
        A worker exits after so many calls and is replaced; not possible with the start method
        "fork". Without `mp_context`, "spawn" is used.
    threshold : int
        Plain arrays, and ``bytes``, of at least so many bytes go through shared memory; smaller
        ones are part of the message, which is as fast.
    retries : int
        How often a call is repeated if its worker is killed. The worker is replaced, and the call
        is pickled again from the objects of the caller.
    results : {"shared", "copy", "in_place"}
        Where plain arrays in results are. "shared": in shared memory, which is freed with the last
        view of them. "copy": in ordinary memory, for one more copy. "in_place": as "shared", and
        workers allocate large arrays in shared memory from the beginning, so that a function
        returns them without a copy. These are copied all the same: an array that something still
        refers to after the call, or that existed when the worker forked a process; arrays of other
        threads; arrays that would leave less than a quarter of /dev/shm free; and all arrays with
        numpy before 1.22. Shared memory is taken at the allocation: ``numpy.empty`` and ``zeros``
        take it also for items that are never used.

    Raises
    ------
    TypeError, ValueError
        An argument is not valid, or the arena has room for fewer processes than the workers.

    Notes
    -----
    With cloudpickle installed, functions may also be lambdas, closures, or defined at a prompt.

    Without `retries`, a killed worker breaks the pool as in the standard library: all its futures
    raise `BrokenProcessPool`, whose text tells what the worker did. No memory is leaked; what the
    worker was about to send is freed half a minute later at the latest.

    Concurrent calls share one copy-on-write copy of a plain array of 512 MiB or more.

    A call is pickled when it is sent to a worker, which may be later than `submit`, and with
    `retries` once more after its worker has died: do not change its arguments before its future is
    running, or, with `retries`, done.

    Examples
    --------
    >>> import numpy as np
    >>> import shared_numpy as snp
    >>> with snp.ProcessPoolExecutor(max_workers=1) as executor:
    ...     future = executor.submit(np.add, np.ones(100000), 1)
    ...     float(future.result()[0])
    2.0
    """

    def __init__(
        self,
        max_workers: "Optional[int]" = None,
        mp_context: "Any" = None,
        initializer: "Optional[Callable[..., Any]]" = None,
        initargs: "Tuple[Any, ...]" = (),
        *,
        max_tasks_per_child: "Optional[int]" = None,
        threshold: int = moved.THRESHOLD,
        retries: int = 0,
        results: str = "shared"
    ) -> None:
        max_workers = count_workers(max_workers)
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable, not {!r}".format(initializer))
        try:
            threshold = min(operator.index(threshold), sys.maxsize)
        except TypeError:
            raise TypeError(
                "threshold is a number of bytes, an integer, not {!r}; with sys.maxsize no "
                "array is moved".format(threshold)
            ) from None
        retries = _integer("retries", retries)
        if threshold < 0 or retries < 0:
            raise ValueError(
                "threshold and retries are not negative: {}, {}".format(threshold, retries)
            )
        if results not in _RESULTS:
            raise ValueError(
                "results must be one of {}, not {!r}".format(", ".join(map(repr, _RESULTS)), results)
            )
        context = _context(mp_context)
        if max_tasks_per_child is not None:
            max_tasks_per_child = _integer("max_tasks_per_child", max_tasks_per_child)
            if max_tasks_per_child < 1:
                raise ValueError(
                    "max_tasks_per_child must be >= 1, not {}".format(max_tasks_per_child)
                )
            if mp_context is None:
                context = multiprocessing.get_context("spawn")
            elif context.get_start_method(allow_none=False) == "fork":
                raise ValueError(
                    "max_tasks_per_child is incompatible with the start method 'fork'; "
                    "give a context of 'spawn' or 'forkserver'"
                )
        self._mp_context = context
        self._max_workers = max_workers
        calls = moved.DEFAULT._replace(
            threshold=threshold, shared_copies=shared_copies.SharedCopies()
        )
        answers = moved.DEFAULT._replace(threshold=threshold, copied=results == "copy")
        self._pool = Pool(
            Settings(
                max_workers, context, initializer, tuple(initargs), max_tasks_per_child,
                calls, answers, results == "in_place", retries,
            )
        )  # fmt: skip
        weakref.finalize(self, self._pool.shut_down).atexit = False

    @property
    def _processes(self):
        """The workers' processes by their ids, as the standard library's class has them."""
        workers = list(self._pool.scheduler.workers.values())
        return {each.process.pid: each.process for each in workers if each.has_started()}

    @property
    def _broken(self):
        return self._pool.scheduler.broken

    @property
    def _executor_manager_thread(self):
        return self._pool.supervisor.thread

    def _send_twins(self, shared_twins):
        """Send the shared copies of arrays instead of them, see `moved.ArrayPolicy`."""
        settings = self._pool.settings
        settings.arguments = settings.arguments._replace(shared_twins=shared_twins)

    def submit(*args: "Any", **kwargs: "Any") -> "Future[Any]":
        """Have a worker call a function.

        Parameters
        ----------
        fn : callable
            The function.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        concurrent.futures.Future
            It yields the result, or raises the exception of the function or of pickling the call.

        Raises
        ------
        BrokenProcessPool
            A worker was killed, or could not be started.
        RuntimeError
            The executor was shut down, or was made by another process.
        """
        self, fn, args = split_submitted(args)
        return self._pool.submit((fn, args, kwargs))

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
        """Call a function with the items of iterables, in parallel.

        Parameters
        ----------
        fn : callable
            The function.
        *iterables
            Its arguments, one from each, as in ``map``.
        timeout : float, optional
            The results may take so many seconds from now on.
        chunksize : int
            A worker takes so many calls at a time.
        buffersize : int, optional
            So many chunks are submitted ahead of the results that were taken; by default all of
            them, at once.
        progress : bool
            Show a progress bar, by tqdm.

        Returns
        -------
        iterator
            The results, in order.

        Raises
        ------
        concurrent.futures.TimeoutError
            By the iterator, if a result is not there in time.
        TypeError, ValueError
            `chunksize` or `buffersize` is no integer, or less than 1.
        ImportError
            tqdm is not installed.
        """
        chunksize = _integer("chunksize", chunksize)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1, not {}".format(chunksize))
        if buffersize is not None:
            buffersize = _integer("buffersize", buffersize, " or None")
            if buffersize < 1:
                raise ValueError("buffersize must be None or > 0, not {}".format(buffersize))
        bar = progress_bar() if progress else None
        end = None if timeout is None else timeout + time.monotonic()
        calls = zip(*iterables)
        chunks = iter(lambda: list(itertools.islice(calls, chunksize)), [])
        sent = (
            self.submit(_reduce.call_each, fn, chunk) if chunksize > 1 else self.submit(fn, *chunk[0])
            for chunk in chunks
        )
        futures = collections.deque(itertools.islice(sent, buffersize))
        return _results(futures, sent, end, chunksize > 1, bar)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the workers when all calls are done.

        Parameters
        ----------
        wait : bool
            Wait until the workers have exited.
        cancel_futures : bool
            Cancel the calls that no worker has taken yet.
        """
        pool = self._pool
        if os.getpid() != pool.pid:
            return
        if cancel_futures:
            pool.cancel_all()
        pool.shut_down()
        if wait:
            pool.join()

    def terminate_workers(self) -> None:
        """End the workers by SIGTERM. Calls that are not done fail, and the pool is broken."""
        self._pool.kill(signal.SIGTERM)
        self.shutdown()

    def kill_workers(self) -> None:
        """End the workers by SIGKILL. Calls that are not done fail, and the pool is broken."""
        self._pool.kill(signal.SIGKILL)
        self.shutdown()


def _integer(name, value, others=""):
    """Return an argument as an integer."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError("{} must be an integer{}, not {!r}".format(name, others, value)) from None


def _context(mp_context):
    """Return a context of multiprocessing, by itself or by its name."""
    if mp_context is None or isinstance(mp_context, str):
        return multiprocessing.get_context(mp_context)
    if not callable(getattr(mp_context, "Process", None)):
        raise TypeError(
            "mp_context must be a context of multiprocessing or a start method's name ({}), "
            "not {!r}".format(", ".join(multiprocessing.get_all_start_methods()), mp_context)
        )
    return mp_context


def progress_bar() -> "Any":
    """Return tqdm's class of progress bars.

    Raises
    ------
    ImportError
        It is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError(
            "progress=True needs tqdm: pip install tqdm"
        ) from None
    return tqdm


def call_each(function, calls):
    return [function(*call) for call in calls]


def _results(futures, sent, end, chunked, bar):
    """Yield the results of futures; submit one more for each that is taken."""
    shown = bar(total=len(futures), unit="call") if bar else None
    try:
        while futures:
            left = None if end is None else end - time.monotonic()
            # (In a list that is emptied: no reference to a result stays here.)
            result = [futures[0].result(left)]
            del futures[0]
            futures.extend(itertools.islice(sent, 1))
            if shown is not None:
                shown.update()
            if chunked:
                for each in result.pop():
                    yield each
            else:
                yield result.pop()
    finally:
        if shown is not None:
            shown.close()
        for future in futures:
            future.cancel()
