"""Loads CPython's own tests of shared memory from an installed interpreter.

Nothing of CPython is copied: its file is read where it is installed, the wanted
classes are cut out of the text by their indentation (newer files are no syntax
of old interpreters), the names of the modules under test are replaced in the
text (so also in the programs that the tests run in subprocesses), and the rest
is compiled under the original's path and line numbers.
"""

import errno
import functools
import gc
import itertools
import multiprocessing
import multiprocessing.connection
import multiprocessing.managers
import multiprocessing.pool
import os
import pickle
import random
import re
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
import types
import unittest
import unittest.mock
import warnings
import weakref

import support_shim

# The test classes, and what they need from the same file.
TESTS = ["_TestSharedMemory", "TestResourceTracker", "TestNamedResource"]
NEEDED = ["BaseTestCase", "BaseMixin", "_resource_unlink", "resource_tracker_format_subtests"]

# These come with 3.10 and 3.14.
LATER = ["TestNamedResource", "resource_tracker_format_subtests"]

# Replacements in the text for each target of the tests.
REDIRECTIONS = {
    "package": [
        (r"from multiprocessing import (shared_memory|resource_tracker)\b", r"from shared_numpy import \1"),
        (r"\bmultiprocessing\.(shared_memory|resource_tracker)\b", r"shared_numpy.\1"),
        (r"\bmultiprocessing\.managers import SharedMemoryManager\b", "shared_numpy.managers import SharedMemoryManager"),
        (r"\bmultiprocessing\.managers\.SharedMemoryManager\b", "shared_numpy.managers.SharedMemoryManager"),
    ],
    # The loader's own check: the tests as they are, on what they are for.
    "stdlib": [],
}


def blocks(text):
    """Cut `text` into its top-level classes and functions.

    Returns
    -------
    dict
        Name -> (number of the first line, from 0; the lines).
    """
    lines = text.split("\n")
    found = {}
    number = 0
    while number < len(lines):
        match = re.match(r"\s*(?:class|def) (\w+)", lines[number])
        if match is None or not _is_top_level(lines, number):
            number += 1
            continue
        indent = _indent(lines[number])
        start = number
        while start and lines[start - 1].strip().startswith("@"):
            start -= 1
        end = number + 1
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
            end += 1
        cut = [line[indent:] for line in lines[start:end]]
        found.setdefault(match.group(1), (start, cut))
        number = end
    return found


def _indent(line):
    return len(line) - len(line.lstrip())


def _is_top_level(lines, number):
    """Tell whether a line stands at the top level, or right under an ``if`` there."""
    if _indent(lines[number]) == 0:
        return True
    for line in reversed(lines[:number]):
        if line.strip() and _indent(line) < _indent(lines[number]):
            return line.startswith("if ")
    return False


def _modules(target):
    if target == "package":
        import shared_numpy
        from shared_numpy import managers, resource_tracker, shared_memory

        return {
            "shared_memory": shared_memory,
            "resource_tracker": resource_tracker,
            "shared_numpy": shared_numpy,
            "managers": managers,
        }
    from multiprocessing import resource_tracker, shared_memory

    return {"shared_memory": shared_memory, "resource_tracker": resource_tracker}


def load(path, target, namespace):
    """Define CPython's tests in a module.

    Parameters
    ----------
    path : str
        A file ``test/_test_multiprocessing.py`` of CPython 3.8 or later.
    target : str
        What to test: "package" or "stdlib".
    namespace : dict
        The module's globals. Children import the module to unpickle what the
        tests send them.

    Returns
    -------
    list of type
        The test cases.
    """
    with open(path, encoding="utf-8") as file:
        found = blocks(file.read())
    namespace.update(
        {
            module.__name__: module
            for module in (
                errno, functools, gc, itertools, multiprocessing, os, pickle, random, signal,
                struct, subprocess, sys, textwrap, threading, time, types, unittest, warnings,
                weakref,
            )
        }
    )
    namespace.update(support_shim.NAMES)
    namespace.update(_modules(target))
    namespace.update({"HAS_SHMEM": True, "TIMEOUT": 60.0})
    cases = []
    for name in NEEDED + TESTS:
        if name not in found:
            if name in LATER:
                continue
            raise LookupError("{} has no {}".format(path, name))
        start, lines = found[name]
        text = "\n".join(lines)
        for pattern, replacement in REDIRECTIONS[target]:
            text = re.sub(pattern, replacement, text)
        code = compile("\n" * start + text, path, "exec", dont_inherit=True)
        exec(code, namespace)
    for name in TESTS:
        if name in namespace:
            case = _test_case(namespace[name], namespace)
            namespace[case.__name__] = case
            cases.append(case)
    return cases


def _test_case(base, namespace):
    """Make a test class complete, as CPython's own test modules do."""
    if issubclass(base, unittest.TestCase):
        return base
    members = {
        name: staticmethod(getattr(multiprocessing, name))
        for name in ("Event", "Lock", "Pipe", "Pool", "Queue", "Semaphore", "current_process")
    }
    members.update(
        TYPE="processes", Process=multiprocessing.Process, __module__=namespace["__name__"]
    )
    name = "WithProcesses" + base.__name__[1:]
    return type(name, (base, namespace["BaseMixin"], unittest.TestCase), members)
