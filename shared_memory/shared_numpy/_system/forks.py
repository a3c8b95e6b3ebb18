"""Handlers around forks, and no fork in the middle of an import of this package.

`register_at_fork` is ``os.register_at_fork``. CPython 3.6 has none, so there it wraps
``os.fork`` and ``os.forkpty`` at its first use.

A fork copies the import locks of modules that other threads are importing, but not the threads that
would release them: a child that imports such a module would wait for ever. So a thread that forks
waits until no other thread imports a module of this package. If an import takes longer than `LONGEST`
seconds, or begins between the wait and the fork, the child undoes it, and imports the module again.

The interpreter has no public interface for imports in progress. `_frozen_importlib` has had a mapping
of module names to locks, each with an owner, since 3.3.
"""

import _frozen_importlib
import os
import sys
import time
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

# A fork waits for at most so many seconds.
LONGEST = 5.0

_PACKAGE = __name__.rsplit(".", 2)[0]

# On 3.6: the arguments of `register_at_fork`.
_before = []  # type: List[Callable[[], Any]]
_after_in_parent = []  # type: List[Callable[[], Any]]
_after_in_child = []  # type: List[Callable[[], Any]]


def _imports_of_others():
    # type: () -> Iterator[Tuple[str, int]]
    """Yield each module that another thread is importing, and the thread's identifier."""
    me = get_ident()
    # (`list` copies the mapping in one step: other threads change it.)
    for name, reference in list(_frozen_importlib._module_locks.items()):
        lock = reference()
        owner = getattr(lock, "owner", None)
        if owner is not None and owner != me:
            yield name, owner


def _is_ours(name):
    return name == _PACKAGE or name.startswith(_PACKAGE + ".")


def _wait_for_imports():
    """Return when no other thread imports a module of this package, or after `LONGEST`."""
    deadline = time.monotonic() + LONGEST
    while any(_is_ours(name) for name, _ in _imports_of_others()):
        if time.monotonic() > deadline:
            break
        time.sleep(0.001)  # (It releases the GIL, which the import needs.)


def _undo_imports():
    """Undo, in a forked child, the imports of threads that do not exist there.

    Only those of threads that were importing a module of this package: with all modules that they
    were importing for it.
    """
    begun = list(_imports_of_others())
    gone = {owner for name, owner in begun if _is_ours(name)}
    for name, owner in begun:
        if owner in gone:
            _frozen_importlib._module_locks.pop(name, None)
            spec = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(spec, "_initializing", False):
                del sys.modules[name]


def register_at_fork(before=None, after_in_parent=None, after_in_child=None):
    # type: (Optional[Callable[[], Any]], Optional[Callable[[], Any]], Optional[Callable[[], Any]]) -> None
    """Have functions called around each fork that Python code makes.

    Parameters
    ----------
    before, after_in_parent, after_in_child : callable, optional
        Called without arguments; `before` in reverse order of registration. Their exceptions are
        printed, and the fork goes on.
    """
    named = [("before", before), ("after_in_parent", after_in_parent)]
    named.append(("after_in_child", after_in_child))
    handlers = {name: handler for name, handler in named if handler is not None}
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**handlers)
        return
    if not (_before or _after_in_parent or _after_in_child):
        os.fork = _with_handlers(os.fork)
        os.forkpty = _with_handlers(os.forkpty)
    if before is not None:
        _before.insert(0, before)
    if after_in_parent is not None:
        _after_in_parent.append(after_in_parent)
    if after_in_child is not None:
        _after_in_child.append(after_in_child)


def _with_handlers(fork):
    """Return a function that calls the handlers around `fork`, for 3.6."""

    def wrapper():
        _call(_before)
        handlers = _after_in_parent  # (Also if the fork fails.)
        try:
            result = fork()
            if (result[0] if type(result) is tuple else result) == 0:
                handlers = _after_in_child
            return result
        finally:
            _call(handlers)

    wrapper.__name__ = wrapper.__qualname__ = fork.__name__
    wrapper.__doc__ = fork.__doc__
    wrapper.__wrapped__ = fork
    return wrapper


def _call(handlers):
    for handler in list(handlers):
        try:
            handler()
        except BaseException:
            sys.excepthook(*sys.exc_info())


register_at_fork(before=_wait_for_imports, after_in_child=_undo_imports)
