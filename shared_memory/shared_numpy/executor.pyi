# Types of the public part of executor.py.

from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool as BrokenProcessPool
from multiprocessing.context import BaseContext
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple, TypeVar, Union

from typing_extensions import Literal, ParamSpec

__all__ = ["BrokenProcessPool", "ProcessPoolExecutor"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

class ProcessPoolExecutor(Executor):
    def __init__(
        self,
        max_workers: Optional[int] = None,
        mp_context: Union[BaseContext, str, None] = None,
        initializer: Optional[Callable[..., object]] = None,
        initargs: Tuple[Any, ...] = (),
        *,
        max_tasks_per_child: Optional[int] = None,
        threshold: int = 16384,
        retries: int = 0,
        results: Literal["shared", "copy", "in_place"] = "shared",
    ) -> None: ...
    def submit(
        self, fn: Callable[_P, _R], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Future[_R]: ...
    def map(
        self,
        fn: Callable[..., _R],
        *iterables: Iterable[Any],
        timeout: Optional[float] = None,
        chunksize: int = 1,
        buffersize: Optional[int] = None,
        progress: bool = False,
    ) -> Iterator[_R]: ...
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...
    def terminate_workers(self) -> None: ...
    def kill_workers(self) -> None: ...
