"""What newer tests expect of ``test.support``, where the interpreter has it not.

The interpreter's own helper is used wherever there is one.
"""

import functools
import gc
import hashlib
import importlib
import multiprocessing
import os
import sys
import time
import types
import unittest

import test.support
import test.support.script_helper

SHORT_TIMEOUT = 30.0
LONG_TIMEOUT = 300.0


def busy_retry(timeout, err_msg=None, error=True):
    """Yield until `timeout` seconds have passed; then fail, if `error`."""
    end = time.monotonic() + timeout
    while True:
        yield
        if time.monotonic() >= end:
            break
    if error:
        raise AssertionError(err_msg or "timeout")


def sleeping_retry(timeout, err_msg=None, init_delay=0.010, max_delay=1.0, error=True):
    """As `busy_retry`, sleeping longer and longer in between."""
    delay = init_delay
    for _ in busy_retry(timeout, err_msg, error=error):
        yield
        time.sleep(delay)
        delay = min(2 * delay, max_delay)


def wait_process(pid, exitcode, timeout=None):
    """Wait for a child and check its exit code; -N stands for signal N."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        found = -os.WTERMSIG(status)
    else:
        found = os.WEXITSTATUS(status)
    if found != exitcode:
        raise AssertionError("process {} ended with {}".format(pid, found))


def print_warning(message):
    """Show a warning of a test."""
    print("Warning -- " + message, file=sys.stderr)


def gc_collect():
    """Collect all garbage."""
    for _ in range(3):
        gc.collect()


def requires_hashdigest(digest, *args, **kwargs):
    """Skip what needs a digest that this build of Python has not."""
    try:
        hashlib.new(digest)
    except ValueError:
        return unittest.skip("no hash digest " + digest)
    return lambda decorated: decorated


def _only_run_in(wanted):
    """Make what makes decorators that skip a test under other start methods."""

    def with_reason(reason):
        def decorate(test_function):
            @functools.wraps(test_function)
            def checked(*args, **kwargs):
                method = multiprocessing.get_start_method()
                if method != wanted:
                    raise unittest.SkipTest("{}: not under {}".format(reason, method))
                return test_function(*args, **kwargs)

            return checked

        return decorate

    return with_reason


class _Fallback(types.ModuleType):
    """A module whose missing names come from `others`."""

    def __init__(self, name, others):
        super().__init__(name)
        self._others = others

    def __getattr__(self, name):
        for other in self._others:
            if hasattr(other, name):
                return getattr(other, name)
        raise AttributeError("neither test.support nor the shim has " + name)


def _helper(name):
    """Return ``test.support.<name>``, or from before 3.10 ``test.support``."""
    try:
        return importlib.import_module("test.support." + name)
    except ImportError:
        # That of 3.8 and 3.9 for digests takes functions only, not classes.
        return _shim_first if name == "hashlib_helper" else _support


_support = _Fallback("support", [test.support, sys.modules[__name__]])
_shim_first = _Fallback("support", [sys.modules[__name__], test.support])
_test = types.ModuleType("test")
_test.support = _support

NAMES = {
    # Helpers of CPython's test files themselves, whose text is no syntax of 3.6.
    "only_run_in_spawn_testsuite": _only_run_in("spawn"),
    "only_run_in_forkserver_testsuite": _only_run_in("forkserver"),
    "support": _support,
    "test": _test,
    "script_helper": test.support.script_helper,
}
for _name in ("hashlib", "import", "os", "threading", "warnings"):
    _name += "_helper"
    NAMES[_name] = _helper(_name)
