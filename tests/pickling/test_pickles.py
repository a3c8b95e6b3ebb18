"""What pickles name: another version may read them, so these names stay."""

import inspect
import io
import multiprocessing
import pickle
import pickletools
import types
from multiprocessing import popen_spawn_posix, reduction
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest

import shared_numpy as snp
from shared_numpy import _reduce
from shared_numpy._pickling import pickler
from shared_numpy.compat import pyarraypool
from shared_numpy.integrations import multiprocessing as plain_arrays

# The functions by which pickles of earlier versions are read. None may ever go.
FUNCTIONS = set(
    "array array_in_own_memory array_on_own_pages begin_server call_each call_in_context channel enter_context handle manager masked_array named_array "
    "packet_channel per_host_array pipe plain_array run_in_context same sent_channel sharing tracker view worker wrapper".split()
)
# Modules that users import from, whose classes pickles may name.
MODULES = {
    "shared_numpy." + name
    for name in "_core _reduce array_manager arrays compat.jztools compat.pyarraypool context "
    "executor managers queues ring_buffer shared_memory".split()
}


def globals_of(stream):
    """Return the (module, name) pairs that pickles, one behind the other, name."""
    found, file = set(), io.BytesIO(stream)
    while file.tell() < len(stream):
        memo, strings = {}, [None]
        for code, argument, _ in pickletools.genops(file):
            if code.name == "GLOBAL":
                found.add(tuple(argument.split(" ")))
            elif code.name == "STACK_GLOBAL":
                found.add(tuple(strings[-2:]))
            elif code.name == "MEMOIZE":
                memo[len(memo)] = strings[-1]
            elif code.name.endswith("PUT"):
                memo[argument] = strings[-1]
            elif code.name.endswith("GET"):
                strings.append(memo.get(argument))
            elif isinstance(argument, str):
                strings.append(argument)
    return found


def own(stream):
    return {pair for pair in globals_of(stream) if pair[0].startswith("shared_numpy")}


def test_the_functions_are_there():
    found = {name for name, value in vars(_reduce).items() if inspect.isfunction(value)}
    assert {name for name in found if not name.startswith("_")} - {"import_module"} == FUNCTIONS
    for name in FUNCTIONS - {"tracker"}:
        module, _, function = getattr(_reduce, name).__doc__[len("See `") : -len("`.")].rpartition(".")
        home = __import__("shared_numpy." + module, fromlist=[function])
        assert callable(getattr(home, function)), name
        assert pickle.loads(pickle.dumps(getattr(_reduce, name))) is getattr(_reduce, name)


def things(name):
    """Yield objects of all kinds that are pickled."""
    a = snp.zeros((3, 4))
    yield "view", a[1:]
    yield "masked", np.ma.array(a, mask=snp.zeros((3, 4), bool))
    yield "matrix", snp.ones((2, 2)).view(np.matrix)
    named = snp.create(name, 3)
    yield "named", named
    yield "copy", a.copy()
    yield "pyarraypool", pyarraypool.make_transferable(np.ones(3))


@pytest.mark.parametrize("dumps", ["ForkingPickler", "pickle", "pickler"])
def test_pickles_name_what_stays(name, dumps):
    plain_arrays.register(0)
    handles, kept = [], []
    ways = {
        "ForkingPickler": lambda thing: bytes(ForkingPickler.dumps(thing)),
        "pickle": pickle.dumps,
        "pickler": lambda thing: pickler.dumps([thing, {1}], handles),
    }
    try:
        for kind, thing in list(things(name)) + [("plain", np.ones(3))]:
            kept.append(thing)
            stream = ways[dumps](thing)
            for module, function in own(stream):
                assert module in MODULES, (kind, module, function)
                assert module != "shared_numpy._reduce" or function in FUNCTIONS
                assert not function.startswith("_"), (kind, module, function)
            if dumps != "pickler":
                pickle.loads(stream)
    finally:
        plain_arrays.unregister()
        pickler.cancel(handles)
        snp.delete(name)


def look(*arguments):
    pass


@pytest.mark.parametrize("ring", ["1", "0"])
def test_what_new_processes_are_given_names_what_stays(monkeypatch, ring):
    monkeypatch.setenv("SHARED_NUMPY_RING", ring)
    streams = []

    def dump(thing, file, protocol=None):
        reduction.dump(thing, file, protocol)
        streams.append(file.getvalue())

    recording = types.SimpleNamespace(**{**vars(reduction), "dump": dump})
    monkeypatch.setattr(popen_spawn_posix, "reduction", recording)
    spawn = multiprocessing.get_context("spawn")
    with snp.ArrayManager(ctx=spawn) as manager:
        given = [snp.Queue(ctx=spawn), snp.JoinableQueue(ctx=spawn), manager, snp.zeros(3)]
        if ring == "1":
            given.append(snp.RingBuffer(3))
        process = spawn.Process(target=look, args=given)
        process.start()
        process.join()
        assert process.exitcode == 0
    for each in given[:2]:
        each.close()
    with snp.ProcessPoolExecutor(1, "spawn") as pool:
        assert pool.submit(abs, -1).result() == 1
    with snp.SharedContext({"a": np.ones(3)}, 1, mp_context="spawn") as shared:
        assert shared.submit(abs, -1).result() == 1
    assert len(streams) >= 4
    for stream in streams:
        found = own(stream)
        for module, name in found:
            assert module in MODULES and not name.startswith("_"), (module, name)
    assert any(("shared_numpy._reduce", "worker") in own(stream) for stream in streams)
