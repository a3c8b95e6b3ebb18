# Types of the public part of frames.py.

from typing import Any, Generic, Optional, Tuple, overload, type_check_only

import numpy as np
from numpy.typing import DTypeLike
from typing_extensions import Literal, TypeVar

from .arrays import _Of, _ShapeLike, ndarray

__all__ = ["RingBuffer"]

_Type = TypeVar("_Type", bound=np.dtype[Any], default=np.dtype[Any], covariant=True)
_Item = TypeVar("_Item", bound=np.generic)
_WhenFull = Literal["wait", "drop_oldest"]

@type_check_only
class _FrameArray(ndarray[Any, _Type]):
    sequence: int
    time: float
    skipped: int

class _Writing(Generic[_Type]):
    sequence: Optional[int]
    def __enter__(self) -> _FrameArray[_Type]: ...
    def __exit__(self, *exc_info: Any) -> None: ...

class _Reading(Generic[_Type]):
    sequence: int
    time: float
    skipped: int
    def __enter__(self) -> _FrameArray[_Type]: ...
    def __exit__(self, *exc_info: Any) -> None: ...

class RingBuffer(Generic[_Type]):
    shape: Tuple[int, ...]
    dtype: _Type
    slots: int
    when_full: _WhenFull
    @overload
    def __init__(
        self: RingBuffer[np.dtype[np.float64]],
        shape: _ShapeLike,
        *,
        slots: int = 4,
        when_full: _WhenFull = "wait",
    ) -> None: ...
    @overload
    def __init__(
        self: RingBuffer[np.dtype[_Item]],
        shape: _ShapeLike,
        dtype: _Of[_Item],
        slots: int = 4,
        when_full: _WhenFull = "wait",
    ) -> None: ...
    @overload
    def __init__(
        self: RingBuffer[np.dtype[Any]],
        shape: _ShapeLike,
        dtype: DTypeLike = ...,
        slots: int = 4,
        when_full: _WhenFull = "wait",
    ) -> None: ...
    @property
    def spin(self) -> bool: ...
    @spin.setter
    def spin(self, spin: bool) -> None: ...
    @property
    def written(self) -> int: ...
    def write(self, timeout: Optional[float] = None) -> _Writing[_Type]: ...
    def start_reading(self) -> None: ...
    def read(self, timeout: Optional[float] = None) -> _Reading[_Type]: ...
    def latest(self, timeout: Optional[float] = None) -> _Reading[_Type]: ...
    def close(self) -> None: ...
