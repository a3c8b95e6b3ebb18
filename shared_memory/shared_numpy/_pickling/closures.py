"""Functions and classes that another process cannot import: lambdas, closures, definitions at a
prompt.

`pickler.dumps` pickles a message if it can. A message with such a function is pickled by cloudpickle,
where that is installed: all of it by one pickler, so that objects which functions share are shared
in the receiver, too. Functions and classes with an importable name go by name. Arrays travel as in
all other messages, also those in defaults, closures and globals.
"""

import io
import pickle
import re
import sys
from types import FunctionType

from . import moved, pickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List

_HINT = (
    "{}. It has no name in a module that another process can import: define it at the top "
    "level of a file, or install cloudpickle (pip install cloudpickle)"
)

# An error of unpickling: the main module of this process lacks a name. (Its two names: it is the
# second one in a process that was spawned.)
_NOT_IN_MAIN = re.compile("module '__(mp_)?main__'")

_MISSING = (
    "{}. The main module of this worker process has no such name. Define it at the top level of a "
    "file, not behind `if __name__ == \"__main__\":`"
)
_AT_PROMPT = (
    "; or install cloudpickle (pip install cloudpickle), with which functions of "
    "notebooks and prompts can be sent"
)


def dumps(
    thing: "Any",
    handles: "List[bytes]",
    policy: "moved.ArrayPolicy" = moved.DEFAULT,
    end: bytes = b"",
) -> bytes:
    """Pickle anything, arrays through shared memory, functions without a name by value.

    Parameters
    ----------
    thing : object
        It must support pickling.
    handles : list of bytes
        The handles in the pickle are appended to it, also if this fails half-way. The caller
        cancels them if no process will load the pickle.
    policy : moved.ArrayPolicy
        How plain arrays travel.
    end : bytes
        Bytes to append to the pickle.

    Returns
    -------
    bytes
        For `pickler.loads`.

    Raises
    ------
    pickle.PicklingError
        It needs cloudpickle, which is not installed.
    """
    if _IS_PROGRAM or _cloudpickle() is None:
        try:
            return pickler.dumps(thing, handles, policy, end)
        except (pickle.PicklingError, AttributeError) as error:
            if not pickler.is_of_nameless(error):
                raise
            if _cloudpickle() is None:
                raise pickle.PicklingError(_HINT.format(error)) from None
            pickler.cancel(handles)
            del handles[:]
    file = io.BytesIO()
    _pickler_class()(file, handles, policy).dump(thing)
    file.write(end)
    return file.getvalue()


def loads(stream: "Any") -> "Any":
    """Return the object of a pickle by `dumps`, in a worker process.

    Raises
    ------
    AttributeError
        A function of the main module is not there in this process; it says what helps.
    """
    try:
        return pickler.loads(stream)
    except AttributeError as error:
        if not _NOT_IN_MAIN.search(str(error)):
            raise
        is_file = hasattr(sys.modules.get("__main__"), "__file__")
        text = _MISSING.format(error) + ("" if is_file else _AT_PROMPT)
        raise AttributeError(text) from None


def _cloudpickle():
    """Return the module, or None where it is not installed."""
    try:
        import cloudpickle
    except ImportError:
        return None
    return cloudpickle


# Whether the main module is a file, which children can import. (Determined now: at interpreter
# shutdown the module may have lost the attribute.)
_main = sys.modules.get("__main__")
_IS_PROGRAM = hasattr(_main, "__file__") or getattr(_main, "__spec__", None) is not None


def _has_name(thing):
    """Tell whether another process finds a function or a class by its name."""
    name, module = thing.__qualname__, thing.__module__
    if module is None or (module == "__main__" and not _IS_PROGRAM):
        return False
    found = sys.modules.get(module)
    if found is None:
        return "<" not in name
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is thing


class _Table(pickler.DispatchTable):
    """Reduces objects as in this package, else as cloudpickle does."""

    def __init__(self, first, second):
        self.first, self.second = first, second

    def __getitem__(self, cls):
        try:
            return self.first[cls]
        except KeyError:
            return self.second[cls]


_classes = []  # type: List[Any]


def _pickler_class():
    """Return the subclass of cloudpickle's pickler, made once."""
    if not _classes:
        _classes.append(_make_class(_cloudpickle().CloudPickler))
    return _classes[0]


def _make_class(base):
    class Pickler(base):
        def __init__(self, file, handles, policy):
            # (Before the base's constructor: the C pickler reads the dispatch table there.)
            self._table = _Table(pickler.reducers(handles, policy), base.dispatch_table)
            super().__init__(file, pickler.PROTOCOL)

        @property
        def dispatch_table(self):
            return self._table

        def reducer_override(self, thing):
            if isinstance(thing, (FunctionType, type)) and _has_name(thing):
                return NotImplemented
            return super().reducer_override(thing)

    if hasattr(base, "reducer_override"):
        return Pickler

    # Before 3.8 it is written in Python, and has methods for functions and classes instead.
    class Python(Pickler):
        dispatch = dict(base.dispatch)

        def save_global(self, thing, name=None, **options):
            by_name = name is not None or _has_name(thing)
            (pickle._Pickler if by_name else base).save_global(self, thing, name, **options)

        def save_function(self, thing, name=None):
            if _has_name(thing):
                self.save_global(thing, name)
            else:
                super().save_function(thing, name)

        dispatch[type] = save_global
        dispatch[FunctionType] = save_function

    return Python
