"""The layers of the package, as told in ARCHITECTURE.md: imports point down.

The Rust side is held by `tests/core/layers.rs`.
"""

import ast
import os

import pytest
from conftest import ROOT, run_python

SOURCE = os.path.join(ROOT, "shared_memory", "shared_numpy")

# From the ground up; a module may import only what stands before its row.
LAYERS = [
    "errors _reduce _system.forks _system.generics _system.interruptions",
    "_system.exit_order _command.exit_codes _command.output _command.startup.*",
    "_core _pickling.copy_warnings",
    "_system.block_trace _system.records",
    "_system.file_mapping _system.leftovers _system.list_layout _system.named_layout "
    "_system.posixshmem _system.shm_space",
    "_system.tracker_py37",
    "resource_tracker",
    "_system.process_tree shared_memory _pool.light_future",
    "managers _pickling.registry _pickling.by_reference _channels.packet_pipe",
    "_pickling.classes _pickling.copies _pickling.masked",
    "_pickling.shared_copies",
    "_pickling.moved",
    "_pickling.multiprocessing_reducers _pickling.pickler _channels.closable",
    "arrays handles _pickling.closures _channels.pipe_channel",
    "_channels",
    "queues ring_buffer named _pool.at_exit _pool.exit_watch _pool.settings "
    "_pool.task _pool.worker_main",
    "_pool.worker_process",
    "_pool.scheduler",
    "_pool.supervisor",
    "_pool.pool",
    "executor array_manager integrations._loky",
    "integrations._dask.requirements integrations._dask.image integrations._dask.memory",
    "integrations._dask.host_memory",
    "integrations._dask.copies",
    "integrations._dask.array integrations._dask.results integrations._dask.filling",
    "integrations._dask.worker integrations._dask.scheduler",
    "integrations._dask.client",
    "context integrations.* integrations._dask compat.sharedarray",
    "backport demo compat.*",
    "_command.arguments _command.items _command.names",
    "_command.files _command.users",
    "_command.survey",
    "_command.removal _command.finding",
    "_command.ls _command.picture",
    "_command.info _command.check_installation _command.check_memory _command.check_system",
    "_command.findings",
    "_command.*",
    "_command.main",
]
# From the bottom to the top: a subpackage imports nothing of those behind it.
SUBPACKAGES = ["_system", "_pickling", "_channels", "_pool", "_command"]


def modules():
    """Return {dotted name: path} of the package's modules; a package has its own name."""
    found = {"_core": None}
    for folder, _, files in os.walk(SOURCE):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                name = os.path.relpath(path, SOURCE)[:-3].replace(os.sep, ".")
                found[name[: -len(".__init__")] if name.endswith(".__init__") else name] = path
    return found


def imported(tree, package, known):
    """Return the modules of the package that a module imports anywhere in it.

    Parameters
    ----------
    tree : ast.Module
        The module.
    package : list of str
        The subpackages in which it lies.
    known : container of str
        All modules.
    """
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - (node.level - 1)]
            target = base + (node.module.split(".") if node.module else [])
            for alias in node.names:
                whole = ".".join(target + [alias.name])
                found.add(whole if whole in known else ".".join(target))
        elif isinstance(node, ast.ImportFrom):
            assert not node.module.startswith("shared_numpy"), "import it relatively"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                assert not alias.name.startswith("shared_numpy"), "import it relatively"
    return found - {""}


# A package that is more than its parts: its own code is a module above them.
WITH_CODE = ["_channels"]


def imports_of_all():
    """Return {dotted name: modules of the package that it imports}, without the package itself.

    Imports inside functions count, and those for type checkers. What is left out imports upwards
    by design, when it is called: `__init__` (public names at their first use), `__main__`,
    `_reduce` (the functions that pickles name) and `_core` (which asks `_system.process_tree`).
    """
    known, found = modules(), {}
    for name, path in known.items():
        if path is None or name in ("__init__", "__main__"):
            continue
        is_package = path.endswith("__init__.py")
        package = name.split(".") if is_package else name.split(".")[:-1]
        with open(path, encoding="utf-8") as file:
            found[name] = imported(ast.parse(file.read()), package, known)
        if is_package and name not in WITH_CODE:
            assert not found[name], "%s imports %s" % (name, found[name])
    return found


def test_imports_point_down():
    level = {name: n for n, row in enumerate(LAYERS) for name in row.split()}

    def level_of(name):
        parent = name.rpartition(".")[0]
        return level[name] if name in level else level[parent + ".*"]

    for name, imports in imports_of_all().items():
        for each in imports:
            assert level_of(each) < level_of(name), "%s imports %s" % (name, each)
            places = [SUBPACKAGES.index(part.split(".")[0]) for part in (each, name)
                      if part.split(".")[0] in SUBPACKAGES]  # fmt: skip
            assert places == sorted(places), "%s imports %s" % (name, each)


def circle_in(imports):
    """Return a circle of imports as the list of its modules, or None."""
    done = set()

    def follow(name, way):
        if name in way:
            return way[way.index(name) :] + [name]
        if name not in done:
            for each in sorted(imports.get(name, ())):
                found = follow(each, way + [name])
                if found:
                    return found
            done.add(name)
        return None

    return next(filter(None, (follow(name, []) for name in sorted(imports))), None)


def test_imports_have_no_circle():
    assert circle_in(imports_of_all()) is None
    assert circle_in({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) is None
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"d", "b"}}) == ["b", "c", "b"]


def test_the_walk_sees_imports():
    tree = ast.parse("def f():\n    from . import a, b\n    from ..c.d import e, f\n    from .. import g")
    known = {"p.a", "p.b", "c.d", "c.d.f", "g"}
    assert imported(tree, ["p"], known) == {"p.a", "p.b", "c.d", "c.d.f", "g"}


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
    assert output == "['shared_numpy._system', 'shared_numpy._system.forks']\n"


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
