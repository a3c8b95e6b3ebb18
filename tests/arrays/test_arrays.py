"""Arrays in shared memory: what they are, and what arrives.

What holds: an array is what numpy's function of the same name makes, in shared
memory; through every channel of `multiprocessing` it arrives as it was sent (value,
dtype, shape, strides, flags, type) and aliases the sender's memory; the memory is
freed with the last that refers to it, and nothing is left.
"""

import gc
import os
import pickle
import sys
import weakref
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from conftest import MORE, ROOT, exists, run_command, run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shared_numpy as snp
from shared_numpy._core import LOCK_SUFFIX, Arena

PROGRAMS = os.path.join(ROOT, "tests", "array_programs.py")
CHANNELS = [
    "arguments", "executor", "joinable_queue", "manager", "our_joinable_queue", "our_queue",
    "our_simple_queue", "pipe", "pool", "queue", "sharing_pipe", "simple_queue", "tokens",
]  # fmt: skip
DTYPES = ["?", "<i2", ">f4", "c8", "S3", "<U2", "M8[us]", [("a", "u1"), ("b", ">f4", (2,))]]


@pytest.fixture(autouse=True)
def nothing_stays():
    yield
    gc.collect()
    stats = Arena.default().stats()
    assert (stats["blocks"], stats["handles"]) == (0, 0)
    assert Arena.default().check() == []


def sent(thing):
    """What arrives of a thing that goes through a channel."""
    return ForkingPickler.loads(ForkingPickler.dumps(thing))


def blocks():
    return Arena.default().stats()["blocks"]


@pytest.mark.parametrize(
    "channel, method",
    [(channel, method) for channel in CHANNELS for method in ("fork", "spawn", "forkserver")]
    + [("by_value", "fork"), ("dropped", "fork")],  # They start no process.
)
def test_channel(channel, method):
    """Hundreds of arrays of all kinds go through and come back."""
    command = [sys.executable, PROGRAMS, channel, method, str(200 * MORE), "7"]
    process = run_command(command, timeout=100 + 20 * MORE)
    assert (process.returncode, process.stderr) == (0, ""), process
    name = process.stdout.split()[-1]
    assert not exists(name) and not exists(name + LOCK_SUFFIX)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3).map(tuple), st.data())
def test_they_are_numpy_s(dtype, shape, data):
    dtype = np.dtype(dtype)
    order = data.draw(st.sampled_from("CF"))
    for name in ("empty", "zeros", "ones"):
        if name == "ones" and dtype.kind in "SUMV":
            continue
        ours, numpys = getattr(snp, name)(shape, dtype, order), getattr(np, name)(shape, dtype, order)
        same(ours, numpys, values=name != "empty")
    source = np.zeros(shape, dtype, order)
    if source.ndim:
        source = source[:: data.draw(st.sampled_from([1, 2, -1]))]
    if data.draw(st.booleans()):
        source = source.T
    if data.draw(st.booleans()):
        source = np.broadcast_to(source, (2,) + source.shape)
    for order in ["K", "A", "C", "F", "k", "f", None]:
        same(snp.array(source, order=order), np.array(source, order=order))
        same(snp.array(source, order=order, ndmin=4), np.array(source, order=order, ndmin=4))
        same(snp.empty_like(source, order=order), np.empty_like(source, order=order), values=False)
        same(snp.zeros_like(source, order=order), np.zeros_like(source, order=order))
    if 0 not in source.strides:
        same(snp.from_array(source), source.copy(order="K"))
    same(snp.asarray(source), source.copy(order="K"))
    for other in [(3,), 4, source.shape[::-1], (2, 0)]:
        same(snp.zeros_like(source, shape=other), np.zeros_like(source, shape=other))


def same(ours, numpys, values=True):
    assert type(ours) is snp.ndarray and ours.is_shared()
    assert (ours.dtype, ours.shape) == (numpys.dtype, numpys.shape)
    if ours.size:
        assert ours.strides == numpys.strides or 1 in ours.shape
        assert ours.flags.c_contiguous == numpys.flags.c_contiguous
        assert ours.flags.f_contiguous == numpys.flags.f_contiguous
    if values:
        assert ours.tobytes() == numpys.tobytes()


def test_values_that_are_given():
    same(snp.array([[1, 2], [3, 4]]), np.array([[1, 2], [3, 4]]))
    same(snp.array(5.5, "f4"), np.array(5.5, "f4"))
    same(snp.full((2, 3), 7), np.full((2, 3), 7))
    same(snp.full(3, [1, 2, 3], "u1"), np.full(3, [1, 2, 3], "u1"))
    same(snp.full_like(np.ones((2, 2)), 3, dtype="i2"), np.full_like(np.ones((2, 2)), 3, dtype="i2"))
    same(snp.ones_like([1, 2]), np.ones_like([1, 2]))
    same(snp.zeros_like([1, 2], shape=(3, 1)), np.zeros((3, 1), int))
    same(snp.ndarray((2, 3), "i4", order="F"), np.ndarray((2, 3), "i4", order="F"), values=False)


def test_strings_without_a_length_have_one():
    for dtype in ("S", "U", str, bytes):
        same(snp.zeros(2, dtype), np.zeros(2, dtype))
        same(snp.full(2, "abc", dtype), np.full(2, "abc", dtype))
        same(snp.full_like(np.ones(2), "7", dtype=dtype), np.full_like(np.ones(2), "7", dtype=dtype))
    assert sent(snp.array(["", ""])).shape == (2,)
    assert snp.from_array(np.zeros(3, "S0")).flags.writeable


def test_a_view_that_leads_out_of_its_block_is_not_sent():
    wild = np.lib.stride_tricks.as_strided(snp.zeros(8), (100,), (8,), subok=True)
    with pytest.raises(ValueError, match="block"):
        ForkingPickler.dumps(wild)


def test_what_is_repeated_is_stored_once():
    wide = np.broadcast_to(np.arange(3.0), (1000, 3))
    shared = snp.from_array(wide)
    assert shared.strides == (0, 8) and (shared == wide).all() and not shared.flags.writeable
    assert snp.arrays.block_of(shared).nbytes == 64
    again = sent(shared)
    assert again.strides == (0, 8) and (again == wide).all()
    # A copy that can be written to has room for all.
    assert snp.array(wide).flags.writeable


def test_views_of_buffers_are_plain():
    memory = bytearray(b"12345678")
    view = snp.ndarray(4, "u1", memory, 2)
    assert type(view) is snp.ndarray and not view.is_shared() and snp.name_of(view) is None
    view[0] = 48
    assert memory == b"12045678"
    assert type(sent(view)) is np.ndarray and (sent(view) == view).all()
    with pytest.raises(ValueError, match="buffer"):
        snp.ndarray(3, offset=8)


def test_types_of_results():
    a = snp.array([[1.0, 2.0], [3.0, 4.0]])
    name = snp.name_of(a)
    for result in (a + 1, -a, a > 1, np.add(a, a), a.sum(axis=0), a @ a, np.sqrt(a)):
        assert type(result) is np.ndarray
    for scalar in (a.sum(), a.max(), np.add.reduce(a, axis=None)):
        assert isinstance(scalar, np.generic)
    for view in (a[0], a[:, ::-1], a.T, a.reshape(4), a[np.newaxis], a[...]):
        assert type(view) is snp.ndarray and view.is_shared() and snp.name_of(view) == name
    thin = snp.zeros((1, 3))
    for view in (thin.squeeze(), np.squeeze(thin), snp.zeros((1, 1)).squeeze()):
        assert type(view) is snp.ndarray and view.is_shared()
    thin.squeeze()[0] = 5
    assert thin[0, 0] == 5 and snp.zeros((1, 1)).squeeze().shape == ()
    del thin, view
    for copy in (a.copy(), a.astype("i4"), a[[0, 1]], a[a > 1], a.take([0]), np.sort(a)):
        assert not (isinstance(copy, snp.ndarray) and copy.is_shared())
        assert (sent(copy) == copy).all()
    assert np.add(a, 1, out=a) is a and a.is_shared()
    a += 1
    assert a.is_shared() and type(a) is snp.ndarray
    assert type(a.copy_local()) is np.ndarray and (a.copy_local() == a).all()


@pytest.mark.parametrize("dtype", [object, [("a", "i4"), ("b", object)]])
def test_objects_are_refused(dtype):
    for make in (snp.empty, snp.zeros, lambda shape, dtype: snp.array(np.empty(shape, dtype))):
        with pytest.raises(TypeError, match="references to Python objects"):
            make(3, dtype)


def test_a_plain_pickle_is_whole():
    a = snp.array([1, 2, 3])
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(a, protocol))
        assert type(again) is np.ndarray and (again == a).all()


def test_share_always_copies():
    plain = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    plain.flags.writeable = False
    made = snp.share(plain)
    again = snp.share(made)
    assert type(made) is type(again) is snp.ndarray and made.flags.f_contiguous
    made[0, 0] = 9
    assert plain[0, 0] == again[0, 0] == 0
    for wrong in ([1, 2], 3, "x", None):
        with pytest.raises(TypeError, match="share takes arrays"):
            snp.share(wrong)
    with pytest.raises(TypeError, match="mask"):
        snp.share(np.ma.array([1, 2], mask=[0, 1]))
    with pytest.raises(TypeError):
        snp.share(np.array([object()]))


def test_anything_can_be_asked_whether_it_is_shared():
    a = snp.zeros((3, 4))
    for shared in (a, a[1:], np.asarray(a), a.T, memoryview(a).obj):
        assert snp.is_shared(shared)
    for other in (a.copy(), a + 1, np.zeros(3), [a], None, snp.Arena, a[[1, 2]]):
        assert not snp.is_shared(other)


def test_closing_and_unlinking():
    a = snp.array([1, 2, 3])
    with a as same_one:
        assert same_one is a and not a.closed
    assert a.closed and (a == [1, 2, 3]).all()
    a.close()
    late = ForkingPickler.dumps(a)
    a.unlink()
    a.unlink()
    for view in (a, a[1:]):
        with pytest.raises(ValueError, match="unlinked"):
            ForkingPickler.dumps(view)
    del a, same_one, view
    # What was sent before is good.
    assert (ForkingPickler.loads(late) == [1, 2, 3]).all()
    gc.collect()
    assert blocks() == 0
    with pytest.raises(snp.StaleHandleError):
        ForkingPickler.loads(late)


def test_lifetime():
    a = snp.array(np.arange(100))
    view, seen = a[10:20], weakref.ref(a)
    other = sent(view)
    del a, view
    gc.collect()
    assert seen() is None and (other == np.arange(10, 20)).all() and blocks() == 1
    cycle = [other]
    cycle.append(cycle)
    del other, cycle
    gc.collect()
    assert blocks() == 0


def test_the_sender_s_memory():
    a = snp.zeros((4, 4))
    b = sent(a[::2, ::-1])
    b[...] = 7
    assert (a[::2] == 7).all() and (a[1::2] == 0).all()
    assert np.shares_memory(np.asarray(a), np.asarray(b))
    assert not sent(a.readonly()).flags.writeable and a.flags.writeable


def test_stride_tricks_lie_in_the_same_memory():
    a = snp.array(np.arange(10.0))
    tricks = np.lib.stride_tricks
    windows = tricks.as_strided(a, (8, 3), (8, 8), subok=True)
    wide = np.broadcast_to(a, (3, 10), subok=True)
    for each in (windows, wide):
        assert type(each) is snp.ndarray and each.is_shared()
        again = sent(each)
        assert again.strides == each.strides and (again == each).all()


def test_pickling_that_fails_half_way_leaves_nothing():
    arrays = [snp.array([k]) for k in range(5)]
    for what in ([arrays, lambda: 0], {"a": arrays[0], "b": (arrays[1], object.__new__)}):
        try:
            handles = ForkingPickler.dumps(what)
        except Exception:
            handles = None
        if handles is not None:
            ForkingPickler.loads(handles)  # This one can be pickled here.
        gc.collect()
        assert Arena.default().stats()["handles"] == 0
    with pytest.raises(Exception):
        ForkingPickler.dumps([arrays, lambda: 0])
    assert Arena.default().stats()["expired"] >= 5


class Frame(snp.ndarray):
    """A subclass with attributes."""


def test_subclasses_keep_type_and_attributes():
    frame = snp.array([1.0, 2.0]).view(Frame)
    frame.exposure, frame.parts = 0.5, [snp.array([3])]
    again = sent(frame)
    assert type(again) is Frame and again.exposure == 0.5 and again.parts[0].is_shared()
    assert type(frame[1:]) is Frame and frame[1:].is_shared()
    local = sent(frame.copy())
    assert type(local) is Frame and not local.is_shared() and (local == frame).all()
    made = Frame((2, 2))
    assert type(made) is Frame and made.is_shared()


class Finalized:
    """What subclasses do that have attributes, as numpy's documentation tells it."""

    def __array_finalize__(self, obj):
        self.info = getattr(obj, "info", None)


class PlainFinalized(Finalized, np.ndarray):
    """Such a subclass of numpy's class, to compare with."""


class SharedFinalized(Finalized, snp.ndarray):
    """Such a subclass of ours."""


TAKEN_OVER = {
    "squeeze": lambda xp, a: a.squeeze(),
    "squeeze one": lambda xp, a: a.squeeze(0),
    "squeeze two": lambda xp, a: a.squeeze((0, -2)),
    "squeeze nothing": lambda xp, a: a[0, :, 0].squeeze(),
    "squeeze no axes": lambda xp, a: a.squeeze(()),
    "squeeze all": lambda xp, a: a[:, :1].squeeze(),
    "squeeze no items": lambda xp, a: a[:, :0].squeeze(),
    "squeeze no dimensions": lambda xp, a: a[0, 0, 0, ...].squeeze(),
    "numpy's squeeze": lambda xp, a: np.squeeze(a, axis=2),
    "array": lambda xp, a: xp.array(a, subok=True),
    "array of a dtype": lambda xp, a: xp.array(a, "f4", subok=True),
    "array with more dimensions": lambda xp, a: xp.array(a, subok=True, ndmin=5),
    "array in order": lambda xp, a: xp.array(a, order="F", subok=True),
    "as array": lambda xp, a: (xp.asarray if xp is snp else xp.asanyarray)(a),
    "as array of a dtype": lambda xp, a: (xp.asarray if xp is snp else xp.asanyarray)(a, "f4"),
    "empty_like": lambda xp, a: xp.empty_like(a),
    "empty_like of a dtype": lambda xp, a: xp.empty_like(a, "i2"),
    "zeros_like": lambda xp, a: xp.zeros_like(a),
    "zeros_like of a shape": lambda xp, a: xp.zeros_like(a, shape=(2, 2)),
    "ones_like": lambda xp, a: xp.ones_like(a),
    "full_like": lambda xp, a: xp.full_like(a, 7),
    "numpy's zeros_like": lambda xp, a: np.zeros_like(a),
    "slice": lambda xp, a: a[:, ::2],
    "transposed": lambda xp, a: a.T,
    "reshaped": lambda xp, a: a.reshape(-1),
    "copy": lambda xp, a: a.copy(),
    "astype": lambda xp, a: a.astype("f4"),
    "wide": lambda xp, a: np.broadcast_to(a, (2, 1, 4, 1, 3), subok=True),
    "expanded": lambda xp, a: np.expand_dims(a, 0),
    "flipped": lambda xp, a: np.flip(a, 1),
    "moved axis": lambda xp, a: np.moveaxis(a, 0, 1),
    "atleast": lambda xp, a: np.atleast_3d(a),
    "real": lambda xp, a: a.real,
    "diagonal": lambda xp, a: a.diagonal(),
}


@pytest.mark.parametrize("what", sorted(TAKEN_OVER))
def test_subclasses_take_over_what_numpy_s_do(what):
    items = np.arange(12.0).reshape(1, 4, 1, 3)
    plain, shared = items.view(PlainFinalized), snp.array(items).view(SharedFinalized)
    plain.info = shared.info = "hi"
    expected, made = TAKEN_OVER[what](np, plain), TAKEN_OVER[what](snp, shared)
    assert (type(expected), type(made)) == (PlainFinalized, SharedFinalized)
    assert expected.info == made.info == "hi"
    assert (made.shape, made.dtype, made.strides) == (expected.shape, expected.dtype, expected.strides)
    if "empty" not in what:
        assert (np.asarray(made) == np.asarray(expected)).all()


def test_what_cannot_be_squeezed_is_refused_as_by_numpy():
    plain = np.zeros((1, 3))
    for axis in (1, (0, 1), 2, -3, (0, 0), "x", 0.5):
        errors = []
        for each in (plain, snp.array(plain)):
            with pytest.raises(Exception) as caught:
                each.squeeze(axis)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]


def test_asarray_copies_only_what_it_must():
    a = snp.array([[1, 2], [3, 4]])
    assert snp.asarray(a) is a and snp.asarray(a, a.dtype, "C") is a
    for other in (snp.asarray(a, "f4"), snp.asarray(a, order="F"), snp.asarray(a.copy())):
        assert other is not a and other.is_shared() and (other == a).all()


def test_names():
    a, b = snp.zeros(3), snp.zeros(3)
    name = snp.name_of(a)
    assert name == snp.name_of(a[1:]) == snp.name_of(sent(a)) != snp.name_of(b)
    assert name == snp.name_of(np.asarray(a)) and name.startswith(Arena.default().name)
    for other in (np.zeros(3), a.copy(), [1], None, "text"):
        assert snp.name_of(other) is None


def test_misuse():
    for make in (snp.zeros, snp.empty, lambda shape: snp.full(shape, 1)):
        with pytest.raises(TypeError, match="shape must be an integer or a sequence of .*, not 3.5"):
            make(3.5)
    with pytest.raises(ValueError, match="order"):
        snp.array([1], order="X")
    with pytest.raises(ValueError):
        snp.empty((2, -1))
    with pytest.raises(snp.ArenaFullError):
        snp.empty(1 << 44)


def test_copy_and_subok_mean_what_they_do_in_numpy():
    a, frame = snp.array([1, 2, 3]), snp.zeros(3).view(Frame)
    assert snp.array(a) is not a and snp.array(a, copy=None) is a
    assert snp.array(a, copy=False) is a and snp.asarray(a, copy=False) is a
    assert snp.asarray(a, copy=True) is not a and snp.asarray(frame) is frame
    assert type(snp.array(frame)) is snp.ndarray and type(snp.array(frame, subok=True)) is Frame
    assert type(snp.array(frame, copy=None)) is snp.ndarray
    for like in (snp.empty_like, snp.zeros_like, snp.ones_like):
        assert type(like(frame)) is Frame and type(like(frame, subok=False)) is snp.ndarray
    assert type(snp.full_like(frame, 2, "i4", "C", True, (2, 2))) is Frame
    needs = [lambda: snp.array([1], copy=False), lambda: snp.array(a, "f4", copy=False)]
    for make in needs:
        if int(np.__version__.split(".")[0]) >= 2:
            with pytest.raises(ValueError, match="copy"):
                make()
        else:
            assert make().is_shared()


def test_signatures_are_numpy_s():
    """Names, order and defaults, but for what has no meaning here."""
    import inspect

    expected = {
        "array": "(object, dtype=None, *, copy=True, order='K', subok=False, ndmin=0)",
        "asarray": "(a, dtype=None, order=None, *, copy=None)",
        "empty": "(shape, dtype=float, order='C')",
        "zeros": "(shape, dtype=float, order='C')",
        "ones": "(shape, dtype=None, order='C')",
        "full": "(shape, fill_value, dtype=None, order='C')",
        "empty_like": "(prototype, dtype=None, order='K', subok=True, shape=None)",
        "zeros_like": "(a, dtype=None, order='K', subok=True, shape=None)",
        "ones_like": "(a, dtype=None, order='K', subok=True, shape=None)",
        "full_like": "(a, fill_value, dtype=None, order='K', subok=True, shape=None)",
        "ndarray": "(shape, dtype=float, buffer=None, offset=0, strides=None, order=None)",
    }
    for name, text in expected.items():
        signature = inspect.signature(getattr(snp, name))
        bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
        found = str(signature.replace(parameters=bare, return_annotation=signature.empty))
        assert found.replace("<class 'float'>", "float") == text, name


FIRST_COPY = """
import resource, sys
import numpy as np
import shared_numpy as snp

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

source = np.random.RandomState(5).bytes(32 << 20)
source = np.frombuffer(source, "u1")[3:-4099]

def check(limit=None):
    before = faults()
    made = snp.from_array(source)
    taken = faults() - before
    assert np.array_equal(made, source)
    if limit is not None and taken >= limit:
        print(taken)
    return made

{}
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/pagemap"), reason="there is no page map here")
@pytest.mark.parametrize(
    "steps",
    [
        # Of 8,191 pages of 4 KiB those of one or two chunks of 2 MiB are stored to one by one.
        "check(2000)",
        # Some of the pages are mapped already: copies go on and change their way.
        "half = snp.empty(source.size, 'u1'); half[5 << 20 : 13 << 20] = 1; del half; check(2000)",
        # All of them.
        "made = check(); del made; check(2000)",
        # The kernel would end a process that writes beyond its limit.
        "new = snp.empty(source.size, 'u1'); del new; limit = 1 << 20, 1 << 20; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, limit); check()",
        # The program has closed its descriptors.
        "import os; snp.zeros(3); name = lambda fd: os.readlink('/proc/self/fd/%d' % fd); "
        "[os.close(fd) for fd in range(3, 50) if os.path.exists('/proc/self/fd/%d' % fd) "
        "and name(fd).startswith('/dev/shm/snp-')]; check(2000)",
    ],
)
def test_first_copies(steps):
    # A copy whose write had to sleep goes on by stores, so one of some has to do without them.
    faults = []
    while "" not in faults and len(faults) < 5:
        faults.append(run_python(FIRST_COPY.format(steps)))
    assert "" in faults


@pytest.mark.skipif(not os.path.exists("/proc/self/pagemap"), reason="there is no page map here")
def test_memory_that_is_copied_to_again_and_again_is_mapped():
    """A program that only sends never looks at it, and would write it by the slower way for ever."""
    run_python(
        """
import resource
import numpy as np
import shared_numpy as snp
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
source = np.ones(32 << 20, "u1")
for _ in range(8):
    snp.from_array(source)
made = snp.from_array(source)
before = faults()
made[::4096] = 2
assert faults() - before < 2000, faults() - before
assert made.sum(dtype="i8") == len(source) + len(source) // 4096
"""
    )


def test_zeros_of_memory_that_nobody_has_had_are_not_written():
    run_python(
        """
import resource
import shared_numpy as snp
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
snp.zeros(3)
before = faults()
made = snp.zeros(64 << 20, "u1"), snp.zeros_like(snp.empty(32 << 20, "u1"))
assert faults() - before < 1000, faults() - before
assert not any(array.any() for array in made)
"""
    )


@pytest.mark.parametrize("size", [1 << 10, 1 << 16, 1 << 20, 5 << 20])
def test_zeros_are_zeros_whatever_was_there(size):
    run_python(
        """
import random
import numpy as np
import shared_numpy as snp
chance = random.Random(%d)
held = []
for step in range(60):
    length = chance.randrange(1, 2 * %d)
    array = snp.zeros(length, "u1")
    assert not array.any(), step
    array.fill(255)
    held.append(array)
    del array
    while held and chance.random() < 0.5:
        del held[chance.randrange(len(held))]
    if chance.random() < 0.1:
        snp.trim()
"""
        % (size, size)
    )
