"""Log records of what has happened: of the logger "shared_numpy".

`_core` and the package note events, also where they hold locks. They become records later, in a call
of the user that holds none: see src/python/records.rs. Nothing is noted here, and no module is
imported, before the program has imported `logging`, since nobody could see it.
"""

import collections
import sys
from _thread import get_ident
from contextlib import suppress

from .. import _core
from . import forks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, List, Optional, Set, Tuple

    from typing_extensions import TypeAlias

    # The number of the level, the text, and its arguments.
    Record = Tuple[int, str, Tuple[Any, ...]]  # type: TypeAlias

NAME = "shared_numpy"

# The levels of `logging`, which may not be imported yet.
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40

# The package's own events that wait: their names and records. The core's queue has an "other" for
# each, and a place for no more than so many.
_waiting = collections.deque(maxlen=64)  # type: Deque[Tuple[str, Record]]

# Events that were taken from the core's queue and not logged yet. A call takes as many as that has
# places, at most.
_taken = collections.deque()  # type: Deque[Tuple[str, Record]]
_MOST_TAKEN = 64

# The threads that emit records right now.
_emitting = set()  # type: Set[int]

forks.register_at_fork(after_in_child=_waiting.clear)
forks.register_at_fork(after_in_child=_taken.clear)
forks.register_at_fork(after_in_child=_emitting.clear)


def note(event: str, level: int, text: str, *args: "Any") -> None:
    """Note an event, to be logged when no lock is held.

    Parameters
    ----------
    event : str
        Its name, the attribute ``event`` of the record.
    level : int
        The record's level.
    text : str
        Its text, for the operator ``%``.
    *args
        What the text is about.
    """
    if "logging" in sys.modules and hasattr(_core, "note_event"):
        _waiting.append((event, (level, text, args)))
        _core.note_event()


def note_cleaning(names: "List[str]") -> None:
    """Note that arenas, or blocks of managers, were removed that no process had any more."""
    if names:
        text = "removed what killed programs have left in shared memory, %d in number: %s"
        note("cleaning", INFO, text, len(names), ", ".join(names))


def emit() -> None:
    """Log the events that were noted. The caller holds no lock.

    Raises
    ------
    BaseException
        What a handler of the program has let pass, but for an `Exception`. The events that were not
        logged yet are logged by the next call.
    """
    me = get_ident()
    if me in _emitting:
        return  # A handler uses the package.
    _emitting.add(me)
    try:
        # No more than what waits now: what handlers do may be noted, too, and each record of it would
        # run them again. The next call logs that.
        for _ in range(_MOST_TAKEN):
            taken = _core.take_event()
            if taken is None:
                break
            record = _record(*taken)
            if record is not None:
                _taken.append(record)
        lost = _core.take_lost_events()
        # Those for which the core had no place. (IndexError: another thread takes them.)
        with suppress(IndexError):
            for _ in range(len(_waiting)):
                _taken.append(_waiting.popleft())
        if lost:
            text = "%d more events were not recorded, since too many came at once"
            _taken.append(("lost", (WARNING, text, (lost,))))
        with suppress(IndexError):
            for _ in range(len(_taken)):
                _log(*_taken.popleft())
    except BaseException:
        if _taken:
            _core.note_event()  # (So that the next call finds that something waits.)
        raise
    finally:
        _emitting.discard(me)


def emit_in_thread() -> None:
    """Emit records in a thread of this package, which goes on whatever a handler raises."""
    try:
        _core.emit_records()
    except BaseException:
        sys.excepthook(*sys.exc_info())


def _log(event, record):
    """Log a record; an `Exception` is reported as `logging` reports those of handlers."""
    logging = sys.modules.get("logging")  # type: Any
    if logging is None:
        return
    import traceback  # (`logging` has imported it.)

    level, text, args = record
    try:
        logger = logging.getLogger(NAME)
        if not any(isinstance(each, logging.NullHandler) for each in logger.handlers):
            # Without a handler `logging` would print warnings to stderr.
            logger.addHandler(logging.NullHandler())
        logger.log(level, text, *args, extra={"event": event})
    except Exception:
        if logging.raiseExceptions and sys.stderr is not None:
            traceback.print_exc(file=sys.stderr)


def _record(name, arena, values):
    # type: (str, Optional[str], Tuple[int, int, int]) -> Optional[Tuple[str, Record]]
    """Return an event of the core's as the name and the record."""
    if name == "other":
        return _waiting.popleft() if _waiting else None
    make = _MAKERS[name]  # type: Any
    return name, make(arena, *values)


def _recovery(arena, pid, ring, _):
    what = "the lock of a channel in arena %s" if ring else "the lock of arena %s"
    text = "recovered from the death of process %s, which held " + what
    return WARNING, text, (pid or "(unknown)", arena)


def _reap(arena, pid, exited, _):
    if exited:
        return DEBUG, "released what process %d still had in arena %s at its exit", (pid, arena)
    if not pid:
        # (It writes its number when it first runs.)
        text = "freed the place of a child in arena %s that was not forked, or killed at once"
        return DEBUG, text, (arena,)
    text = "process %d was killed, or ended by os._exit; released what it had in arena %s"
    return WARNING, text, (pid, arena)


def _growth(arena, nbytes, segment, _):
    return DEBUG, "arena %s has grown by %d bytes, its segment %d", (arena, nbytes, segment)


def _return(arena, nbytes, segments, _):
    if segments:
        text = "arena %s gave %d bytes back to the system, in %d segments that it does not need"
        return DEBUG, text, (arena, nbytes, segments)
    return DEBUG, "arena %s gave %d bytes back to the system", (arena, nbytes)


def _refusal(_, asked, left, memory):
    if memory:
        return WARNING, "refused a request for %d bytes: shared memory has %d left", (asked, left)
    return WARNING, "refused a request: all %d rows of a table of the arena are taken", (asked,)


_MAKERS = {
    "recovery": _recovery,
    "reap": _reap,
    "growth": _growth,
    "return": _return,
    "refusal": _refusal,
}  # type: Dict[str, Any]
