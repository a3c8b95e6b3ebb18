"""The code of a worker process, and the messages between it and the dispatcher.

Each worker has a channel of its own, from which it takes one call at a time. All workers answer
through one channel. Calls that a worker has not taken yet stay in its channel, where the dispatcher
finds them: so it knows which call a worker had taken when it was killed.

::

    request   the pickle of (function, args, kwargs), number u64
              or one byte, `STOP`: no more calls
    reply     the pickle of the answer, number u64, worker u32, kind u8, seconds f32
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

# Kinds of replies. READY: the worker takes calls. UNFIT: its initializer has failed, and it exits.
# RESULT, ERROR: a call has returned, or raised. LEAVING: the worker has done its share of calls, and
# exits. WAKE: the process of the executor sends it to its own dispatcher.
READY, UNFIT, RESULT, ERROR, LEAVING, WAKE = range(6)


def pack_call(
    number: int, call: "Any", handles: "List[bytes]", policy: moved.ArrayPolicy
) -> bytes:
    """Pickle a request; see `pickler.dumps`."""
    return closures.dumps(call, handles, policy, REQUEST.pack(number))


def head_of(stream: "Any", head: struct.Struct) -> "Tuple[Any, ...]":
    """Return the numbers that follow the pickle in a message."""
    return head.unpack_from(stream, len(stream) - head.size)


def text_of(error: BaseException) -> str:
    """Return the traceback of an exception as text, for the cause of the exception that another
    process raises."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return '\n"""\n{}"""'.format("".join(lines))


def trace_of(text: str) -> BaseException:
    """Return the `__cause__` for an exception whose traceback is there as text only."""
    return _RemoteTraceback(text)


def own_error(error: BaseException) -> BaseException:
    """Return an exception that the dispatcher has caught, with its traceback as the cause: the
    thread that asks for the result raises it with a traceback of its own."""
    error.__cause__ = trace_of(text_of(error))
    return error


def pack_error(error: BaseException) -> "Tuple[str, bytes]":
    """Return the message of an exception: its traceback as text, and its pickle."""
    text = text_of(error)
    # (How its class is pickled may raise anything, SystemExit as well; the worker goes on.)
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
    """Return the pickle of a short exception that describes another one."""
    # (`format_exception_only` also copes with a `__str__` that raises.)
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
    """Exit if this process is a fork of the process `pid`.

    A function that forks may let its child return, or raise, into the code here. The child is not a
    second worker: it exits as at the end of a program's main module. `error` is the exception that
    it has raised.
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
        # Finalizers that this child has registered itself: they free its memory.
        util._run_finalizers()
    finally:
        os._exit(code & 0xFF)


class _Interrupts:
    """The handler of SIGINT in a worker: KeyboardInterrupt during a call, nothing between two."""

    def __init__(self):
        self.calling = False
        # Only the main thread may set handlers. A program that ignores Ctrl-C keeps doing so.
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self)
        # The supervisor has blocked it before it started this process.
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
    """Run calls until told to stop, or until the process of the executor is gone.

    Parameters
    ----------
    number : int
        The worker's number, for its answers.
    requests, replies : ChannelArgument
        The channels of calls and of answers.
    threshold, copied
        How plain arrays in results travel, see `moved.ArrayPolicy`.
    gives_results : bool
        Give arrays in results away without a copy where possible.
    most_calls : int or None
        Exit after so many calls.
    initializer : callable or None
        Called first, with `initargs`.
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
    """Do one call, taken out of a list of one: no other reference to its message is left."""
    stream, owner = _channels.unpack(found.pop())
    (task,) = head_of(stream, REQUEST)
    start = time.perf_counter()
    results, error = [], None  # type: List[Any], Optional[BaseException]
    try:
        try:
            interrupts.calling = True
            function, args, kwargs = closures.loads(stream)
            stream = owner = None
            # (In a list: `given_away` needs the only reference to the result.)
            results.append(function(*args, **kwargs))
        finally:
            interrupts.calling = False
    except BaseException as raised:
        error = raised
    end_if_cloned(pid, error)
    # Before the answer: a caller that then looks at the arena's use sees nothing of the call.
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
        # There is no room for all of it.
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
        # (Sending has taken the handles out of the list.)
        pickler.cancel(handles)
    # An initializer, or the `__reduce__` of a class, may fork, too.
    end_if_cloned(pid)
