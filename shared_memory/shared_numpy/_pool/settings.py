"""The arguments of a pool."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional, Tuple

    from .._pickling.moved import ArrayPolicy


class Settings:
    """The arguments of an executor, checked.

    Parameters
    ----------
    workers : int
        How many worker processes there are at most.
    context : multiprocessing context
        Makes the processes.
    initializer : callable or None
        Each worker calls it first, with `initargs`.
    calls_per_worker : int or None
        A worker exits after so many calls, and is replaced.
    arguments, results : ArrayPolicy
        How plain arrays travel in calls, and in results.
    gives_results : bool
        Workers give their arrays away without a copy where they can.
    retries : int
        How often a call is sent again whose worker has died.
    """

    def __init__(
        self,
        workers: int,
        context: "Any",
        initializer: "Optional[Callable[..., Any]]",
        initargs: "Tuple[Any, ...]",
        calls_per_worker: "Optional[int]",
        arguments: "ArrayPolicy",
        results: "ArrayPolicy",
        gives_results: bool,
        retries: int,
    ) -> None:
        self.workers = workers
        self.context = context
        self.initializer, self.initargs = initializer, initargs
        self.calls_per_worker = calls_per_worker
        self.arguments, self.results = arguments, results
        self.gives_results = gives_results
        self.retries = retries
        # A fork beside threads copies locks that they hold, and not the threads. So with "fork"
        # all workers start before the dispatcher's thread does.
        self.starts_all = context.get_start_method() == "fork"
