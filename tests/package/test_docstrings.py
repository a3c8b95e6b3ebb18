"""The examples in docstrings do what they show."""

import doctest
import importlib
import inspect
import os

import pytest

import shared_numpy as snp

MODULES = [
    "array_manager", "arrays", "compat.contextshare", "compat.jztools", "context", "executor",
    "_command.findings", "_pickling.classes", "handles", "integrations.multiprocessing", "named", "queues", "ring_buffer",
]  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module("shared_numpy." + name)
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(module):
        for example in test.examples:
            # Others may run this test on the same machine.
            own = "example-of-{}".format(os.getpid())
            example.source = example.source.replace("example-of-create", own)
        runner.run(test)
    assert runner.failures == 0 and runner.tries > 0


def test_what_is_public_has_a_docstring_and_hints():
    """numpydoc's sections where there is something to say, and a type for each argument."""
    for name in snp._HOMES:
        thing = getattr(snp, name)
        if not (callable(thing) and thing.__module__.split(".")[-1] in MODULES):
            continue
        assert thing.__doc__, name
        members = vars(thing).items() if isinstance(thing, type) else [(name, thing)]
        for member, function in members:
            if not callable(function) or member.startswith("_") or isinstance(function, type):
                continue
            code = getattr(function, "__code__", None)
            if code is None:
                continue
            # (`*args` stand for `self`, too, where any name may be a keyword argument's.)
            count = code.co_argcount + code.co_kwonlyargcount
            count += bool(code.co_flags & inspect.CO_VARARGS)
            count += bool(code.co_flags & inspect.CO_VARKEYWORDS)
            wanted = [argument for argument in code.co_varnames[:count] if argument != "self"]
            assert function.__doc__, (name, member)
            assert set(function.__annotations__) == set(wanted) | {"return"}, (name, member)
