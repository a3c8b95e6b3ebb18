"""Worker processes, and what they and their dispatcher say to each other.

A worker has a channel of its own, from which it takes one call at a time; all answer
through one. A call that no worker has taken can be taken back by the dispatcher, so it is
known which call a worker had when it was killed.

::

    request   (function, args, kwargs) as by `pickler.dumps`, number u64
              nothing else                          no more calls: end
    reply     what is answered, so too, number u64, worker u32, kind u8, seconds f32
"""

import os
import pickle
import signal
import struct
import sys
import threading
import time
import traceback
from concurrent.futures import _base
from concurrent.futures.process import _RemoteTraceback  # type: ignore
from contextlib import suppress
from functools import partial
from multiprocessing import util

from .. import _channels, _core
from .._pickling import closures, moved, pickler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Tuple

REQUEST = struct.Struct("=Q")
REPLY = struct.Struct("=QIBf")
STOP = b"\0"

# Kinds of replies: the worker can take calls; it cannot, and ends; what a call has
# returned, or raised; the worker has had its share of calls, and ends. The dispatcher
# sends the last to itself, to be woken.
READY, UNFIT, RESULT, ERROR, LEAVING, WAKE = range(6)


def pack_call(
    number: int, call: "Any", handles: "List[bytes]", policy: moved.ArrayPolicy
) -> bytes:
    """Make the stream of a request; see `pickler.dumps`."""
    return closures.dumps(call, handles, policy, REQUEST.pack(number))


def head_of(stream: "Any", head: struct.Struct) -> "Tuple[Any, ...]":
    """Return what follows the thing in a stream of bytes."""
    return head.unpack_from(stream, len(stream) - head.size)


def text_of(error: BaseException) -> str:
    """Return the traceback of an exception as the cause of what another process raises shows it."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return '\n"""\n{}"""'.format("".join(lines))


def trace_of(text: str) -> BaseException:
    """Return what is the cause of an exception whose traceback is there as text."""
    return _RemoteTraceback(text)


def own_error(error: BaseException) -> BaseException:
    """Return an exception that a call has raised in this process, by a thread that its caller
    does not see, with its traceback as the cause."""
    error.__cause__ = trace_of(text_of(error))
    return error


def pack_error(error: BaseException) -> "Tuple[str, bytes]":
    """Return what is sent of an exception: as text, and pickled."""
    text = text_of(error)
    # (Its class may raise anything, SystemExit as well, which is not to end the worker.)
    with suppress(BaseException):
        return text, pickle.dumps(error)
    handles = []  # type: List[bytes]
    try:
        stream = closures.dumps(error, handles, moved.DEFAULT._replace(threshold=sys.maxsize))
        if not handles:
            return text, stream
        why = ValueError("it has shared arrays")  # type: BaseException
    except BaseException as failure:
        why = failure
    pickler.cancel(handles)
    return text, _substitute("the exception of a call cannot be pickled", error, why)


def _substitute(text, error, why):
    """Return the pickle of an exception that tells of another one, in some bytes."""
    # (Its own `str` may raise something, too.)
    both = ["".join(traceback.format_exception_only(type(e), e)).strip() for e in (error, why)]
    full = "{}: {} ({})".format(text, *both)
    return pickle.dumps(pickle.PicklingError(full[:1000]))


def unpack_error(packed: "Tuple[str, bytes]") -> BaseException:
    """Return the exception of a worker, with its traceback as the cause."""
    text, stream = packed
    try:
        error = pickler.loads(stream)
        if not isinstance(error, BaseException):
            raise pickle.UnpicklingError("the exception of a call arrived as {!r}".format(error))
    except BaseException as why:
        error = why
    error.__cause__ = trace_of(text)
    return error


def end_if_cloned(pid: int, error: "Optional[BaseException]" = None) -> None:
    """End this process if it is not the one of that number, but a fork of it.

    A function that forks (a daemon's, a test's) may let its child come back into the code here,
    by an exception or plainly. The child is no second worker: it ends, as it would have at the end
    of a program's main part; `error` is what it came back by.
    """
    if os.getpid() == pid:
        return
    code = 0
    try:
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if not isinstance(error.code, (int, type(None))):
                print(error.code, file=sys.stderr)
        elif error is not None:
            code = 1
            traceback.print_exception(type(error), error, error.__traceback__)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Those that were made in this process: they give its memory back.
        util._run_finalizers()
    finally:
        os._exit(code & 0xFF)


class _Interrupts:
    """Ctrl-C: raised in a call, ignored between two."""

    def __init__(self):
        self.calling = False
        # Only this thread may set handlers; a program that ignores Ctrl-C stays so.
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self)
        # The parent has blocked it until here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def __call__(self, number, frame):
        if self.calling:
            self.calling = False
            raise KeyboardInterrupt


def work(
    number: int,
    requests: _channels.ChannelArgument,
    replies: _channels.ChannelArgument,
    threshold: int,
    copied: bool,
    gives_results: bool,
    most_calls: "Optional[int]",
    initializer: "Optional[Callable[..., Any]]",
    initargs: "Tuple[Any, ...]",
) -> None:
    """Be a worker: call and answer, until told to end or the dispatcher is gone.

    Parameters
    ----------
    number : int
        Which worker it is.
    requests, replies : ChannelArgument
        The channels that calls come from and answers go to.
    threshold, copied
        How plain arrays in results go, see `moved.ArrayPolicy`.
    gives_results : bool
        Whether they are given away without a copy where that can be.
    most_calls : int or None
        After how many calls it ends.
    initializer : callable or None
        What to call first, with `initargs`.
    """
    interrupts, pid = _Interrupts(), os.getpid()
    answer = partial(_answer, number, pid, replies.channel)
    policy = moved.DEFAULT._replace(threshold=threshold, copied=copied)
    gives_results = gives_results and _core.place_arrays(threshold)
    if initializer is not None:
        interrupts.calling = True
        try:
            initializer(*initargs)
        except BaseException as error:
            interrupts.calling = False
            end_if_cloned(pid, error)
            _base.LOGGER.critical("Exception in initializer:", exc_info=True)
            answer(0, UNFIT, 0.0, pack_error(error))
            return
        interrupts.calling = False
    del initializer, initargs
    answer(0, READY, 0.0, None)
    done = 0
    while most_calls is None or done < most_calls:
        found = []  # type: List[Any]
        try:
            found.append(requests.channel.get(None, True))
        except EOFError:
            return
        if found[0] == STOP:
            return
        _serve(found, interrupts, pid, answer, policy, gives_results)
        done += 1
    answer(0, LEAVING, 0.0, None)


def _serve(found, interrupts, pid, answer, policy, gives_results):
    """Do one call, which is taken out of a list."""
    stream, owner = _channels.unpack(found.pop())
    (task,) = head_of(stream, REQUEST)
    start = time.perf_counter()
    results, error = [], None  # type: List[Any], Optional[BaseException]
    try:
        try:
            interrupts.calling = True
            function, args, kwargs = pickler.loads(stream)
            stream = owner = None
            # Nothing else here shall refer to it.
            results.append(function(*args, **kwargs))
        finally:
            interrupts.calling = False
    except BaseException as raised:
        error = raised
    end_if_cloned(pid, error)
    # Whoever looks for leaks looks when he has the answer: nothing of the call is left.
    function = args = kwargs = stream = owner = None
    seconds = time.perf_counter() - start
    if error is None:
        try:
            if gives_results:
                policy = policy._replace(donated=_core.given_away(results))
            dumps = partial(closures.dumps, policy=policy)
            return answer(task, RESULT, seconds, results[0], dumps)
        except BaseException as raised:
            error = raised
    packed = pack_error(error)
    try:
        return answer(task, ERROR, seconds, packed)
    except Exception as why:
        # There is no room for it.
        short = packed[0][-1000:], _substitute("no room for an exception", error, why)
        return answer(task, ERROR, seconds, short)
    finally:
        error.__traceback__ = None


def _answer(number, pid, replies, task, kind, seconds, thing, dumps=closures.dumps):
    handles = []  # type: List[bytes]
    try:
        stream = dumps(thing, handles, end=REPLY.pack(task, number, kind, seconds))
        if os.getpid() == pid:
            replies.put(stream, handles)
    finally:
        # (None is left of what was put.)
        pickler.cancel(handles)
    # An initializer, or how a class is pickled, may fork, too.
    end_if_cloned(pid)
