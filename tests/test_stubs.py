"""`_core.pyi` mirrors the extension module."""

import ast
import inspect
import os

from conftest import ROOT

from shared_numpy import _core

STUB = os.path.join(ROOT, "shared_memory", "shared_numpy", "_core.pyi")


def declared():
    """Return {name: [(argument, default), ...] or None} of the stub."""
    with open(STUB, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    found = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign):
            found[node.target.id] = None
        elif isinstance(node, ast.FunctionDef):
            names = [argument.arg for argument in node.args.args]
            values = [ast.literal_eval(value) for value in node.args.defaults]
            values = [inspect.Parameter.empty] * (len(names) - len(values)) + values
            found[node.name] = list(zip(names, values))
            assert node.returns is not None
            assert all(argument.annotation for argument in node.args.args)
    return found


def test_same_names():
    public = {
        name
        for name in dir(_core)
        if not name.startswith("__") or name == "__version__"
    }
    assert public == set(declared())


def test_same_signatures():
    for name, arguments in declared().items():
        if arguments is None:
            continue
        signature = inspect.signature(getattr(_core, name))
        actual = [(p.name, p.default) for p in signature.parameters.values()]
        assert actual == arguments, name


def test_everything_is_documented():
    for name, arguments in declared().items():
        if arguments is not None:
            doc = getattr(_core, name).__doc__
            for argument, _ in arguments:
                assert "%s : " % argument in doc, (name, argument)
