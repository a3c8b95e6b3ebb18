"""Warnings where an array in shared memory is pickled by value.

A pickler that does not know these arrays pickles them by value, as its output may go to a file or
to another machine. If the receiver is another process on this machine, the program pays for a copy
that it does not need.
"""

import os
import sys
import threading
import warnings

from ..errors import CopyWarning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any, Callable, List, Optional

__all__ = ["warn_on_copy"]

# Contains True while `warn_on_copy` is on.
_on = []  # type: List[bool]

# Folders with code that is not the user's: of this package, of the standard library, and those in
# which packages are installed.
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_PACKAGES = tuple(os.sep + name + os.sep for name in ("site-packages", "dist-packages"))


def warn_on_copy(on: bool = True) -> None:
    """Warn from now on where an array in shared memory is pickled by value.

    The warning is a `CopyWarning`. Its line is the nearest caller outside of the standard library
    and of installed packages. If a package pickles in a thread of its own, which has no such caller,
    it is the current line of the main thread, and the text names that of the package.

    Parameters
    ----------
    on : bool
        False ends the warnings; they are off by default.

    Notes
    -----
    This is for the process that calls it, and for the processes that it forks. The manual lists the
    ways by which arrays go by reference. A view that is a plain ``numpy.ndarray``
    (``numpy.asarray(a)``) is pickled by numpy, without a warning.

    Examples
    --------
    >>> import pickle
    >>> import warnings
    >>> import shared_numpy as snp
    >>> snp.warn_on_copy()
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     data = pickle.dumps(snp.zeros(1000))
    >>> caught[0].category is snp.CopyWarning
    True
    >>> snp.warn_on_copy(False)
    """
    _on[:] = [True] if on else []


def tell(array: "Any") -> None:
    """Warn that an array in shared memory is being pickled by value, if warnings are on."""
    if not _on:
        return
    here = sys._getframe(1)
    frame, where = _nearest(here, _is_user_s), ""
    if frame is None:
        # A thread of a package; the main thread may be waiting for it.
        carrier = _nearest(here, _is_package_s) or here
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        frame = _nearest(main, _is_user_s) or carrier
        where = " by the thread {!r} at {}:{}, while the main thread is here".format(
            threading.current_thread().name, carrier.f_code.co_filename, carrier.f_lineno
        )
    text = (
        "an array in shared memory (shape {}, dtype {}, {:,} bytes) is pickled by value{}: its "
        "receiver gets a copy. It goes by reference through multiprocessing and concurrent.futures, "
        "shared_numpy's queues and pools, loky and joblib's default backend (no other one) after "
        "shared_numpy.integrations.joblib.register() or loky.register(), and anywhere else by the "
        "handle of shared_numpy.send()".format(array.shape, array.dtype, array.nbytes, where)
    )
    names = frame.f_globals
    warnings.warn_explicit(
        text, CopyWarning, frame.f_code.co_filename, frame.f_lineno,
        names.get("__name__") or "<string>", names.setdefault("__warningregistry__", {}),
    )  # fmt: skip


def _nearest(frame, is_sought):
    # type: (Optional[FrameType], Callable[[str], bool]) -> Optional[FrameType]
    """Return the innermost stack frame, from `frame` outwards, whose file satisfies `is_sought`."""
    while frame is not None and not is_sought(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _is_user_s(name):
    return not (name.startswith((_OURS, _LIBRARY, "<frozen ")) or _is_package_s(name))


def _is_package_s(name):
    return any(each in name for each in _PACKAGES) and not name.startswith(_OURS)
