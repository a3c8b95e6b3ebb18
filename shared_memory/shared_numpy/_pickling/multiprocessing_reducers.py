"""Plain arrays through shared memory in the channels of `multiprocessing`."""

from multiprocessing import process
from multiprocessing.reduction import ForkingPickler

import numpy as np

from .. import _reduce
from ..errors import ArenaFullError
from .moved import DEFAULT, by_value, move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

_KEY = "shared_numpy_sharing"


class _Sharing:
    """The reducer that `share_from` sets. Unpickling it in a new process sets it there."""

    def __init__(self, threshold, replaced):
        self.policy = DEFAULT._replace(threshold=threshold)
        self.replaced = replaced

    def __call__(self, array):
        try:
            return move(array, self.policy)
        except ArenaFullError:
            return by_value(array)  # As without this reducer.

    def __reduce__(self):
        return _reduce.sharing, (self.policy.threshold,)


def share_from(threshold: "Optional[int]") -> "Any":
    """Move plain arrays of at least so many bytes through shared memory in the channels of
    `multiprocessing`; None ends that. Return the reducer, or None."""
    registry = ForkingPickler._extra_reducers
    registered = registry.pop(np.ndarray, None)
    before = registered.replaced if type(registered) is _Sharing else registered
    sharing = None if threshold is None else _Sharing(threshold, before)
    in_force = sharing or before
    if in_force is not None:
        ForkingPickler.register(np.ndarray, in_force)
    process.current_process()._config[_KEY] = sharing
    return sharing
