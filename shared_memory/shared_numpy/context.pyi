# Types of the public part of context.py.

from concurrent.futures import Future
from multiprocessing.context import BaseContext
from typing import Any, Callable, Iterable, Iterator, List, Mapping, Optional, TypeVar, Union

import numpy as np
from typing_extensions import ParamSpec, Self

from .arrays import ndarray

__all__ = ["SharedContext"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

class SharedContext:
    def __init__(
        self,
        mapping: Mapping[str, np.ndarray[Any, np.dtype[Any]]],
        max_workers: Optional[int] = None,
        *,
        mp_context: Union[BaseContext, str, None] = None,
        readonly: bool = True,
    ) -> None: ...
    def __getitem__(self, name: str) -> ndarray: ...
    def register(self, function: Callable[_P, _R]) -> Callable[_P, Future[_R]]: ...
    def evaluate(self, progress: bool = False) -> List[Any]: ...
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
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: Any) -> None: ...
