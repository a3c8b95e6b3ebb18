"""The public names: which there are, and that those which other packages have too mean the same."""

import builtins
import inspect
import multiprocessing
import subprocess
import sys
import threading
import typing

import numpy as np
from conftest import run_python

import shared_numpy as snp

# The names of `snp`, by what they are for.
PUBLIC = set(
    # Arrays in shared memory.
    "array asarray empty empty_like from_array full full_like is_shared name_of ndarray ones "
    "ones_like share zeros zeros_like "
    # Arrays that other programs find by name.
    "attach create delete get_include list_named "
    # Ways to other processes.
    "Handle JoinableQueue ProcessPoolExecutor Queue RingBuffer SharedContext SimpleQueue receive "
    "register_type send "
    # The backport, and managers.
    "ArrayManager ShareableList SharedMemory SharedMemoryManager "
    # Memory.
    "Arena Block clean diagnose machine stats trace_blocks trim warn_on_copy "
    # Errors.
    "ArenaBusyError ArenaCorruptedError ArenaFullError CopyWarning ForeignHandleError "
    "StaleHandleError "
    # Modules.
    "backport compat errors integrations managers resource_tracker shared_memory".split()
)

# What ``from shared_numpy import *`` brings.
STARRED = set(
    "array asarray empty empty_like from_array full full_like ndarray ones ones_like zeros "
    "zeros_like Queue ProcessPoolExecutor create attach delete SharedMemory ShareableList "
    "SharedMemoryManager shared_memory".split()
)

# Names that another module has for something else, and why they are there all the same.
OTHERWISE = {
    ("numpy", "delete"): "SharedArray's",
    ("numpy", "compat"): "a module of older numpys, for Python 2",
}

# Arguments that numpy's constructors take, and these do not.
NUMPYS_OWN = {"device", "like", "ndmax"}


def test_these_are_the_names():
    assert {name for name in dir(snp) if not name.startswith("_")} == PUBLIC
    for name in PUBLIC:
        assert getattr(snp, name) is not None, name
        assert name in vars(snp), "not kept after its first use: " + name


def test_a_star_brings_no_more():
    code = (
        "before = set(globals())\n"
        "from shared_numpy import *\n"
        "print(*sorted(set(globals()) - before - {'before'}))"
    )
    assert set(run_python(code).split()) == STARRED
    modules = {name for name in STARRED if inspect.ismodule(getattr(snp, name))}
    assert modules == {"shared_memory"}
    for other in (builtins, threading, typing):
        assert not {name for name in STARRED if hasattr(other, name)}, other


def test_numpy_s_names_are_called_as_numpy_s():
    """An argument that numpy has has the same name and place."""
    shared = {name for name in PUBLIC if hasattr(np, name)} - {"ndarray"}
    assert {name for name in shared if ("numpy", name) not in OTHERWISE} == set(
        "array asarray empty empty_like full full_like get_include ones ones_like zeros "
        "zeros_like".split()
    )
    for name in shared - {name for module, name in OTHERWISE if module == "numpy"}:
        own = inspect.signature(getattr(snp, name)).parameters
        try:
            theirs = inspect.signature(getattr(np, name)).parameters
        except ValueError:
            continue  # Older numpys tell none of what is written in C.
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        # (Older numpys lack some that newer ones have.)
        assert set(theirs) - NUMPYS_OWN <= {each for each in own if own[each].kind not in kinds}


def test_names_of_the_standard_library_mean_the_same():
    from concurrent.futures import ProcessPoolExecutor

    modules = {name for name in PUBLIC if inspect.ismodule(getattr(snp, name))}
    shared = {name for name in PUBLIC - modules if hasattr(multiprocessing, name)}
    assert shared == {"JoinableQueue", "Queue", "SimpleQueue"}
    for name in shared:
        theirs = getattr(multiprocessing, name)()
        own = getattr(snp, name)()
        wanted = {each for each in dir(theirs) if not each.startswith("_")}
        assert not wanted - set(dir(own)), name
        own.close()
        if hasattr(theirs, "close"):
            theirs.close()
    wanted = {each for each in dir(ProcessPoolExecutor) if not each.startswith("_")}
    assert not wanted - set(dir(snp.ProcessPoolExecutor)) - {"kill_workers", "terminate_workers"}
    for other in (builtins, threading, typing):
        assert not {name for name in PUBLIC if hasattr(other, name)}, other


def test_arrays_have_few_names_of_their_own():
    """pandas, xarray and others ask arrays for `name`, `columns`, `index` and more."""
    own = {name for name in dir(snp.ndarray) if not name.startswith("_")} - set(dir(np.ndarray))
    assert own == {"close", "closed", "copy_local", "is_shared", "readonly", "unlink"}


def test_help_begins_with_what_is_needed():
    output = subprocess.check_output(
        [sys.executable, "-c", "import shared_numpy as snp; help(snp)"], universal_newlines=True
    )
    first = output.partition("PACKAGE CONTENTS")[0]
    for name in ("zeros", "share", "Queue", "ProcessPoolExecutor", "create", "send"):
        assert "`{}`".format(name) in first, name
    assert "_core" not in first and "_system" not in first
