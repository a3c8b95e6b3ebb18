"""The layers of the package, as told in ARCHITECTURE.md: imports point down.

The Rust side is held by `tests/core/layers.rs`.
"""

import ast
import glob
import os

import pytest
from conftest import ROOT, run_python

SOURCE = os.path.join(ROOT, "shared_memory", "shared_numpy")

# From the ground up; a module may import only what stands before its row.
LAYERS = [
    {"errors", "_forks", "_generics", "_reduce"},
    {"_ends"},
    {"_copies", "_core"},
    {"_leftovers", "_posixshmem", "_list_layout", "_mapping", "_named_layout", "_room"},
    {"_tracker_py37"},
    {"resource_tracker"},
    {"_tree", "shared_memory", "_futures"},
    {"transfer", "managers", "_pipe"},
    {"arrays", "handles", "closures", "_piped"},
    {"_channels"},
    {"queues", "frames", "named", "_workers"},
    {"executor", "array_manager"},
    {"context", "integrations"},
    {"backport", "demo", "compat"},
    {"__init__", "__main__"},
]


def imported(tree, level=1):
    """Return the package's modules that a module imports anywhere in it; `level`: how
    many dots the package is away."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == level:
            if node.module:
                found.add(node.module.split(".")[0])
            else:
                found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert not node.module.startswith("shared_numpy"), "import it relatively"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("shared_numpy"), "import it relatively"
    return found


def test_imports_point_down():
    level = {module: n for n, row in enumerate(LAYERS) for module in row}
    files = glob.glob(os.path.join(SOURCE, "*.py"))
    parts = glob.glob(os.path.join(SOURCE, "*", "*.py"))
    assert len(files) >= 5 and len(parts) >= 5
    for path in files + parts:
        module = os.path.basename(path)[:-3]
        if path in parts:
            module = os.path.basename(os.path.dirname(path))
        with open(path, encoding="utf-8") as file:
            names = imported(ast.parse(file.read()), 2 if path in parts else 1)
        assert module in level, "%s stands in no layer" % module
        for name in names:
            if name in level:
                assert level[name] < level[module], "%s imports %s" % (module, name)


def test_the_walk_sees_imports():
    tree = ast.parse("def f():\n    from . import a, b\n    from .c.d import e")
    assert imported(tree) == {"a", "b", "c"}


LOADED = """
import sys
before = set(sys.modules)
{}
print(sorted(name.split(".")[0] for name in set(sys.modules) - before))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "import shared_numpy",
        "from shared_numpy import shared_memory",
        "from shared_numpy import managers, resource_tracker, backport",
        "import shared_numpy as snp; snp.SharedMemory, snp.ShareableList",
    ],
)
def test_no_numpy_is_loaded(statement):
    output = run_python(LOADED.format(statement))
    assert "shared_numpy" in output
    assert "numpy'" not in output.replace("shared_numpy'", "")


def test_importing_the_package_loads_nothing_of_it_but_fork_handlers():
    output = run_python(
        "import sys, shared_numpy\n"
        "print([name for name in sys.modules if name.startswith('shared_numpy.')])"
    )
    assert output == "['shared_numpy._forks']\n"


def test_the_top_level():
    import shared_numpy as snp
    from shared_numpy import shared_memory

    assert snp.SharedMemory is shared_memory.SharedMemory
    assert snp.ShareableList is shared_memory.ShareableList
    assert snp.shared_memory is shared_memory
    assert set(snp.__all__) <= set(dir(snp))
    assert snp.__version__.count(".") == 2
    for name in snp.__all__:
        assert getattr(snp, name) is not None
    with pytest.raises(AttributeError) as raised:
        snp.nonsense
    assert str(raised.value) == "module 'shared_numpy' has no attribute 'nonsense'"
    with pytest.raises(ImportError):
        exec("from shared_numpy import nonsense")


def test_the_package_is_pickled_by_name():
    """So functions that mention it go through cloudpickle, and objects that hold it are copied."""
    import copy
    import pickle

    import cloudpickle

    import shared_numpy as snp

    def total(n):
        return int(snp.ones(n).sum())

    assert pickle.loads(pickle.dumps(snp)) is snp
    assert copy.deepcopy({"module": [snp]})["module"][0] is snp
    code = (
        "import pickle, sys; function = pickle.loads(bytes.fromhex(sys.argv[1]));"
        "print(function(4))"
    )
    # By value, as a notebook's functions go.
    total.__module__ = "__main__"
    assert run_python(code, cloudpickle.dumps(total).hex()) == "4\n"


def test_static_names_are_the_lazy_ones():
    """What type checkers see is what the package gives."""
    import shared_numpy as snp

    with open(os.path.join(SOURCE, "__init__.pyi"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    assert {alias.name for alias in aliases} == set(snp._HOMES) | set(snp._MODULES)
    # (Without that they are not exported.)
    assert all(alias.asname == alias.name for alias in aliases)
    for node in imports:
        for alias in node.names:
            assert node.module == snp._HOMES.get(alias.name)
    (names,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert ast.literal_eval(names) == snp.__all__


def test_importing_changes_nothing_in_the_process():
    run_python(
        """
import multiprocessing, os, signal, sys, threading
def state():
    return (
        [signal.getsignal(n) for n in range(1, 32)],
        multiprocessing.get_start_method(allow_none=True),
        threading.active_count(),
        sorted(os.listdir("/proc/self/fd")),
        dict(os.environ),
        sys.getswitchinterval(),
    )
before = state()
from shared_numpy import shared_memory
assert state() == before
"""
    )
