# Types of the public part of arrays.py: dtypes are kept where numpy's own stubs keep them.

from typing import Any, Optional, Sequence, SupportsIndex, Tuple, Type, Union, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike
from typing_extensions import Literal, Self, TypeAlias, TypeVar

__all__ = [
    "array", "asarray", "empty", "empty_like", "from_array", "full", "full_like", "is_shared",
    "name_of", "ndarray", "ones", "ones_like", "share", "zeros", "zeros_like",
]  # fmt: skip

_Shape = TypeVar("_Shape", bound=Tuple[Any, ...], default=Any, covariant=True)
_Type = TypeVar("_Type", bound=np.dtype[Any], default=np.dtype[Any], covariant=True)
_Item = TypeVar("_Item", bound=np.generic)

_ShapeLike: TypeAlias = Union[SupportsIndex, Sequence[SupportsIndex]]
_Of: TypeAlias = Union[Type[_Item], np.dtype[_Item]]
_Order: TypeAlias = Optional[Literal["C", "F"]]
_OrderKACF: TypeAlias = Optional[Literal["K", "A", "C", "F"]]

class ndarray(np.ndarray[_Shape, _Type]):
    def __new__(
        cls,
        shape: _ShapeLike,
        dtype: DTypeLike = ...,
        buffer: Any = None,
        offset: SupportsIndex = 0,
        strides: Optional[Sequence[SupportsIndex]] = None,
        order: _Order = None,
    ) -> Self: ...
    @property
    def closed(self) -> bool: ...
    def is_shared(self) -> bool: ...
    def close(self) -> None: ...
    def unlink(self) -> None: ...
    def readonly(self) -> Self: ...
    def copy_local(self) -> np.ndarray[_Shape, _Type]: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: Any) -> None: ...

_Float: TypeAlias = ndarray[Any, np.dtype[np.float64]]
_Array: TypeAlias = ndarray[Any, np.dtype[_Item]]
_Any: TypeAlias = ndarray[Any, np.dtype[Any]]

@overload
def empty(shape: _ShapeLike, *, order: _Order = "C") -> _Float: ...
@overload
def empty(shape: _ShapeLike, dtype: _Of[_Item], order: _Order = "C") -> _Array[_Item]: ...
@overload
def empty(shape: _ShapeLike, dtype: DTypeLike = ..., order: _Order = "C") -> _Any: ...
@overload
def zeros(shape: _ShapeLike, *, order: _Order = "C") -> _Float: ...
@overload
def zeros(shape: _ShapeLike, dtype: _Of[_Item], order: _Order = "C") -> _Array[_Item]: ...
@overload
def zeros(shape: _ShapeLike, dtype: DTypeLike = ..., order: _Order = "C") -> _Any: ...
@overload
def ones(shape: _ShapeLike, dtype: None = None, order: _Order = "C") -> _Float: ...
@overload
def ones(shape: _ShapeLike, dtype: _Of[_Item], order: _Order = "C") -> _Array[_Item]: ...
@overload
def ones(shape: _ShapeLike, dtype: DTypeLike, order: _Order = "C") -> _Any: ...
@overload
def full(
    shape: _ShapeLike, fill_value: ArrayLike, dtype: _Of[_Item], order: _Order = "C"
) -> _Array[_Item]: ...
@overload
def full(
    shape: _ShapeLike, fill_value: ArrayLike, dtype: Optional[DTypeLike] = None, order: _Order = "C"
) -> _Any: ...
@overload
def from_array(a: np.ndarray[_Shape, _Type]) -> ndarray[_Shape, _Type]: ...
@overload
def from_array(a: ArrayLike) -> _Any: ...
def share(obj: np.ndarray[_Shape, _Type]) -> ndarray[_Shape, _Type]: ...
def is_shared(obj: object) -> bool: ...
def name_of(a: object) -> Optional[str]: ...
@overload
def array(
    object: np.ndarray[Any, _Type],
    dtype: None = None,
    *,
    copy: Optional[bool] = True,
    order: _OrderKACF = "K",
    subok: bool = False,
    ndmin: int = 0,
) -> ndarray[Any, _Type]: ...
@overload
def array(
    object: object,
    dtype: _Of[_Item],
    *,
    copy: Optional[bool] = True,
    order: _OrderKACF = "K",
    subok: bool = False,
    ndmin: int = 0,
) -> _Array[_Item]: ...
@overload
def array(
    object: object,
    dtype: Optional[DTypeLike] = None,
    *,
    copy: Optional[bool] = True,
    order: _OrderKACF = "K",
    subok: bool = False,
    ndmin: int = 0,
) -> _Any: ...
@overload
def asarray(
    a: np.ndarray[Any, _Type],
    dtype: None = None,
    order: _OrderKACF = None,
    *,
    copy: Optional[bool] = None,
) -> ndarray[Any, _Type]: ...
@overload
def asarray(
    a: object, dtype: _Of[_Item], order: _OrderKACF = None, *, copy: Optional[bool] = None
) -> _Array[_Item]: ...
@overload
def asarray(
    a: object, dtype: Optional[DTypeLike] = None, order: _OrderKACF = None, *, copy: Optional[bool] = None
) -> _Any: ...
@overload
def empty_like(
    prototype: np.ndarray[Any, _Type],
    dtype: None = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> ndarray[Any, _Type]: ...
@overload
def empty_like(
    prototype: ArrayLike,
    dtype: _Of[_Item],
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Array[_Item]: ...
@overload
def empty_like(
    prototype: ArrayLike,
    dtype: Optional[DTypeLike] = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Any: ...
@overload
def zeros_like(
    a: np.ndarray[Any, _Type],
    dtype: None = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> ndarray[Any, _Type]: ...
@overload
def zeros_like(
    a: ArrayLike,
    dtype: _Of[_Item],
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Array[_Item]: ...
@overload
def zeros_like(
    a: ArrayLike,
    dtype: Optional[DTypeLike] = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Any: ...
@overload
def ones_like(
    a: np.ndarray[Any, _Type],
    dtype: None = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> ndarray[Any, _Type]: ...
@overload
def ones_like(
    a: ArrayLike,
    dtype: _Of[_Item],
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Array[_Item]: ...
@overload
def ones_like(
    a: ArrayLike,
    dtype: Optional[DTypeLike] = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Any: ...
@overload
def full_like(
    a: np.ndarray[Any, _Type],
    fill_value: ArrayLike,
    dtype: None = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> ndarray[Any, _Type]: ...
@overload
def full_like(
    a: ArrayLike,
    fill_value: ArrayLike,
    dtype: _Of[_Item],
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Array[_Item]: ...
@overload
def full_like(
    a: ArrayLike,
    fill_value: ArrayLike,
    dtype: Optional[DTypeLike] = None,
    order: _OrderKACF = "K",
    subok: bool = True,
    shape: Optional[_ShapeLike] = None,
) -> _Any: ...
