"""`_core.pyi` mirrors the extension module."""

import ast
import inspect
import os

import pytest
from conftest import ROOT

from shared_numpy import _core

STUB = os.path.join(ROOT, "shared_memory", "shared_numpy", "_core.pyi")

# What one class has that `object` has not, and is written as the stub's protocol.
PROTOCOL = {"__enter__", "__exit__", "__reduce__"}


def declared(body):
    """Return {name: what it is} of a body: (argument, default) pairs, "value",
    "property", or for a class a dict like this one."""
    found = {}
    for node in body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = "value"
        elif isinstance(node, ast.ClassDef):
            found[node.name] = declared(node.body)
        elif isinstance(node, ast.FunctionDef):
            if any(isinstance(each, ast.Attribute) for each in node.decorator_list):
                continue  # A property's setter.
            decorators = [each.id for each in node.decorator_list]
            assert node.returns is not None, node.name
            arguments = node.args.args
            if "property" in decorators:
                found[node.name] = "property"
                continue
            names = [argument.arg for argument in arguments]
            assert all(a.annotation for a in arguments if a.arg != "self"), node.name
            values = [ast.literal_eval(value) for value in node.args.defaults]
            values = [inspect.Parameter.empty] * (len(names) - len(values)) + values
            found[node.name] = list(zip(names, values))
    return found


def stub():
    with open(STUB, encoding="utf-8") as file:
        return declared(ast.parse(file.read()).body)


def public(thing):
    own = {name for name in dir(thing) if not name.startswith("_")}
    return own


def functions():
    for name, what in stub().items():
        if isinstance(what, list):
            yield name, getattr(_core, name), what
        elif isinstance(what, dict):
            for method, arguments in what.items():
                if isinstance(arguments, list) and method not in PROTOCOL:
                    yield name + "." + method, getattr(getattr(_core, name), method), arguments


def test_same_names():
    assert public(_core) | {"__version__"} == set(stub())
    for name, members in stub().items():
        if isinstance(members, dict):
            known = {member for member in members if not member.startswith("_")}
            assert public(getattr(_core, name)) == known
            assert all(hasattr(getattr(_core, name), member) for member in members)


@pytest.mark.parametrize("name, function, arguments", list(functions()))
def test_same_signatures(name, function, arguments):
    signature = inspect.signature(function)
    actual = [(p.name, p.default) for p in signature.parameters.values()]
    assert actual == arguments


@pytest.mark.parametrize("name, function, arguments", list(functions()))
def test_everything_is_documented(name, function, arguments):
    doc = inspect.getdoc(function)
    for argument, _ in arguments:
        assert argument == "self" or "%s : " % argument in doc or "see the function" in doc


def test_attributes_are_documented():
    for name, members in stub().items():
        if isinstance(members, dict):
            doc = inspect.getdoc(getattr(_core, name))
            for member, what in members.items():
                if what == "property" and not member.startswith("_"):
                    assert "%s : " % member in doc, (name, member)
