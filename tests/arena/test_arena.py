"""Arenas, blocks and the arrays on them, within one process.

What holds:

* an array on a block is what numpy makes on a buffer of the same bytes, or is
  refused where numpy refuses it;
* a block lives exactly as long as something refers to it;
* a handle yields its own block or an error;
* whatever is refused leaves everything as it was.
"""

import copy
import ctypes
import gc
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
from conftest import exists, run_command, run_python
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import shared_numpy as snp
from shared_numpy import _core
from shared_numpy._system import process_tree
from shared_numpy._core import LOCK_SUFFIX, Arena, receive

SCALARS = ["?", "i1", "<i2", ">i4", "u8", "f2", "<f4", ">f8", "g", "F", "c16", "S3", "<U2"]
SCALARS += ["V5", "M8[us]", ">m8[D]"]
RECORD = np.dtype([("a", "u1"), ("b", ">f4", (2,)), ("c", "S3")])
ALIGNED = np.dtype([("a", "u1"), ("b", "f8")], align=True)
TITLED = np.dtype([(("a title", "a"), "i4"), ("n", RECORD)])
SUBARRAY = np.dtype(("<i2", (2, 3)))
DTYPES = [np.dtype(each) for each in SCALARS] + [RECORD, ALIGNED, TITLED, SUBARRAY]


@pytest.fixture
def arena(new_name):
    """An arena of the test's own, in which nothing may be left."""
    name = new_name()
    arena = Arena.create(name=name)
    yield arena
    if not arena.closed:
        gc.collect()
        stats = arena.stats()
        assert (stats["blocks"], stats["handles"]) == (0, 0)
        assert arena.check() == []
        arena.close()
    assert not exists(name) and not exists(name + LOCK_SUFFIX)


def blocks(arena):
    return arena.stats()["blocks"]


def block_of(array):
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def test_make_attach_and_leave(new_name):
    name = new_name()
    arena = Arena.create(name=name)
    assert arena.name == name and exists(name) and exists(name + LOCK_SUFFIX)
    assert os.stat("/dev/shm/" + name).st_mode & 0o777 == 0o600
    with Arena.attach(name) as same:
        assert same.name == name
        block = same.alloc(100)
        arena.close()
        assert exists(name)
    assert same.closed and repr(same) == "<Arena, closed>"
    # The block is the last that holds it.
    assert exists(name)
    assert block.arena.name == name
    del block
    assert not exists(name) and not exists(name + LOCK_SUFFIX)
    arena.close()
    with pytest.raises(ValueError, match="closed"):
        arena.alloc(1)
    with pytest.raises(FileNotFoundError) as raised:
        Arena.attach(name)
    assert raised.value.filename == name


def test_automatic_names_differ():
    with Arena.create() as one, Arena.create() as other:
        assert one.name != other.name
        assert repr(one) == '<Arena "%s">' % one.name
        names = [one.name, other.name]
    assert not any(exists(name) for name in names)


@pytest.mark.parametrize(
    "script, program",
    [
        ("camera.py", "camera"),
        ("my program-é.py", "my_program__"),
        ("package/__main__.py", "package"),
        ("a" * 60, "a" * 60),
        (None, os.path.basename(sys.executable).replace("-", "_")),
    ],
)
def test_automatic_names_tell_the_program_and_its_process(script, program, tmp_path):
    code = "import os, shared_numpy as snp; print(snp.Arena.create().name, '-%x-' % os.getpid())"
    command = ["-c", code]
    if script is not None:
        path = tmp_path / script
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
        command = [str(path.parent if path.name == "__main__.py" else path)]
    process = run_command([sys.executable] + command)
    assert (process.returncode, process.stderr) == (0, "")
    name, process_number = process.stdout.split()
    assert len(name) <= 40
    room = 40 - len("snp-") - len(process_number) - 8
    start = "snp-" + program[:room] + process_number
    assert name.startswith(start) and re.match("[0-9a-f]{8}$", name[len(start) :]), name


def test_a_name_is_taken_once(arena):
    def files():
        return sorted(each for each in os.listdir("/dev/shm") if arena.name in each)

    before = files()
    assert len(before) == 2
    with pytest.raises(FileExistsError) as raised:
        Arena.create(name=arena.name)
    assert raised.value.filename == arena.name
    assert files() == before
    arena.empty(10)


@pytest.mark.parametrize("name", ["", ".a", "a/b", "é", "a b", "a\0b", "n" * 41])
def test_names_that_cannot_be(name):
    for make in (Arena.attach, lambda name: Arena.create(name=name)):
        with pytest.raises(ValueError, match="name"):
            make(name)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda a: Arena.create(first=-1), ValueError),
        (lambda a: Arena.create(first=1 << 62), ValueError),
        (lambda a: Arena.create(first="8"), ValueError),
        (lambda a: Arena.create(segment="64KB"), ValueError),
        (lambda a: Arena.create(warm="-1"), ValueError),
        (lambda a: Arena.create(warm=1.5), TypeError),
        (lambda a: Arena.create(processes=1), ValueError),
        (lambda a: Arena.create(name=3), TypeError),
        (lambda a: Arena(), TypeError),
        (lambda a: a.alloc(-1), ValueError),
        (lambda a: a.alloc(1.5), TypeError),
        (lambda a: a.alloc(1 << 62), snp.ArenaFullError),
        (lambda a: a.empty((2, -1)), ValueError),
        (lambda a: a.empty((1 << 40, 1 << 40)), ValueError),
        (lambda a: a.empty(1 << 70), ValueError),
        (lambda a: a.alloc(100).array(3, offset=-1), ValueError),
        (lambda a: a.alloc(100).array((3, 3), strides=(1,)), ValueError),
        (lambda a: a.empty(3, order="A"), ValueError),
        (lambda a: a.empty("3"), TypeError),
        (lambda a: a.empty(3, "no such type"), TypeError),
        (lambda a: a.send(b""), TypeError),
        (lambda a: a.receive("text"), TypeError),
        (lambda a: a.receive(b""), ValueError),
        (lambda a: a.cancel(b"SN"), ValueError),
        (lambda a: a.cancel_unreceived(-1), ValueError),
        (lambda a: a.cancel_unreceived(float("nan")), ValueError),
    ],
)
def test_misuse(arena, call, error):
    with pytest.raises(error):
        call(arena)


def test_sizes(arena):
    for asked, size in [(0, 64), (1, 64), (64, 64), (65, 128), (1000, 1024), (5000000, 5000000)]:
        block = arena.alloc(asked)
        assert block.nbytes == size and block.address % 64 == 0
        ctypes.memset(block.address, 7, size)
    with Arena.create(first=100000000) as large:
        assert large.stats()["segments"] == 1
        large.alloc(99900000)
        assert large.stats()["segments"] == 1
    with Arena.create() as small:
        small.alloc(20000000)
        assert small.stats()["segments"] == 2


def test_what_an_arena_is_made_with(monkeypatch):
    def takes(arena):
        return 512 * os.stat("/dev/shm/" + arena.name).st_blocks

    usual = 16 * max(4096, os.sysconf("SC_PAGE_SIZE"))
    monkeypatch.delenv("SHARED_NUMPY_ARENA", raising=False)
    with Arena.create() as small, Arena.create(first="1M") as large:
        small.empty(3)
        assert takes(small) <= usual
        assert 1 << 20 <= takes(large) < (1 << 20) + usual
    monkeypatch.setenv("SHARED_NUMPY_ARENA", "first=2M, segment=64K, warm=0, processes=2")
    with Arena.create() as said, Arena.create(first=1 << 20) as both:
        assert 2 << 20 <= takes(said) < (2 << 20) + usual
        assert 1 << 20 <= takes(both) < (1 << 20) + usual
        # Segments are no longer than they must be.
        blocks = [said.alloc(100000) for _ in range(40)]
        assert said.stats()["segments"] > 15
        blocks.clear()
        said.alloc(1)
        assert said.stats()["warm_bytes"] < 1 << 20
        assert said.check() == []


@pytest.mark.parametrize(
    "text, parts",
    [
        ("frist=1M", ["'frist' is not known", "first, segment, warm, processes"]),
        ("first=12", ["first=12 ", "from 65536"]),
        ("segment=1Q", ["segment='1Q' ", "64M"]),
        ("warm", ["warm='' "]),
        ("processes=1025", ["processes=1025 ", "from 2 to 1024"]),
    ],
)
def test_what_the_environment_may_not_say(text, parts):
    code = "import shared_numpy as snp\ntry: snp.zeros(3)\nexcept ValueError as error: print(error)"
    said = run_python(code, env=dict(os.environ, SHARED_NUMPY_ARENA=text))
    for part in ["SHARED_NUMPY_ARENA"] + parts:
        assert part in said, said


def test_one_process_too_many():
    with Arena.create(processes=2) as arena:
        code = "from shared_numpy._core import Arena; a = Arena.attach({!r}); print('in'); input()"
        command = [sys.executable, "-c", code.format(arena.name)]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        first = subprocess.Popen(command, **pipes)
        assert first.stdout.readline() == b"in\n"
        said = subprocess.run(command, input=b"", **{k: pipes[k] for k in ("stdout", "stderr")})
        assert b"all 2 places" in said.stderr and b"processes=" in said.stderr, said.stderr
        first.communicate(b"\n")


def test_a_full_file_system(arena):
    before = arena.stats()
    with pytest.raises(snp.ArenaFullError, match="--shm-size") as raised:
        arena.alloc(1 << 45)
    error = raised.value
    assert isinstance(error, OSError) and error.errno == 28
    assert error.asked == 1 << 45 and 0 < error.left < 1 << 45
    assert "{:,}".format(1 << 45) in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args, again.left) == (type(error), error.args, error.left)
    after = arena.stats()
    assert {k: after[k] for k in ("blocks", "segments", "free_bytes")} == {
        k: before[k] for k in ("blocks", "segments", "free_bytes")
    }
    arena.empty(10)


def test_the_array_is_the_block_s_user(arena):
    array = arena.empty((20, 30), "f4")
    assert isinstance(array.base, _core.Block) and array.base.arena.name == arena.name
    assert array.base.address == array.__array_interface__["data"][0]
    assert not array.flags.owndata and array.flags.writeable and array.flags.c_contiguous
    array[:] = np.arange(600).reshape(20, 30)
    view = array[3:, ::-2].T
    expected = view.copy()
    del array
    gc.collect()
    assert blocks(arena) == 1
    arena.alloc(2400)
    assert (view == expected).all()
    del view
    assert blocks(arena) == 0


def test_blocks_in_cycles_threads_and_weak_references(arena):
    class Holder:
        pass

    holder = Holder()
    holder.array, holder.self = arena.empty(10), holder
    seen = weakref.ref(holder.array)
    del holder
    assert seen() is not None and blocks(arena) == 1
    gc.collect()
    assert seen() is None and blocks(arena) == 0

    array = arena.empty(10)
    thread = threading.Thread(target=lambda: arrays.pop()[:].fill(1))
    arrays = [array]
    del array
    thread.start()
    thread.join()
    assert blocks(arena) == 0


def test_an_array_outlives_its_arena(new_name):
    name = new_name()
    arena = Arena.create(name=name)
    array = arena.empty(1000)
    array[:] = 5
    arena.close()
    del arena
    assert (array == 5).all()
    block_of(array).arena.unlink()
    assert not exists(name)
    assert (array == 5).all()
    del array
    assert not exists(name + LOCK_SUFFIX)


@pytest.mark.parametrize(
    "dtype", [object, [("a", "i4"), ("b", object)], (object, (2,)), [("n", [("o", "O")])]]
)
def test_objects_stay_private(arena, dtype):
    for make in (arena.empty, lambda shape, dtype: arena.alloc(1000).array(shape, dtype)):
        with pytest.raises(TypeError, match="references to Python objects"):
            make(3, dtype)


@pytest.mark.skipif(
    not hasattr(getattr(np, "dtypes", None), "StringDType"),
    reason="strings of any length come with numpy 2",
)
def test_strings_of_any_length_stay_private(arena):
    with pytest.raises(TypeError, match="references"):
        arena.empty(3, np.dtypes.StringDType())


def test_defaults_are_numpy_s(arena):
    assert arena.empty(3).dtype == np.empty(3).dtype
    assert arena.empty(()).shape == ()
    assert arena.empty([2, 3]).shape == (2, 3)
    assert arena.empty((2, 3), "i2", "F").strides == (2, 4)
    assert arena.empty((np.int64(2), 3), np.uint8).shape == (2, 3)
    assert arena.empty((0, 5)).size == 0
    many = (1,) * 32
    assert arena.empty(many).shape == many
    with pytest.raises(ValueError):
        arena.empty((1,) * 65)


def layouts():
    """Shapes, strides and offsets that may fit in 4096 bytes or not."""
    lengths = st.lists(st.integers(0, 5), max_size=4).map(tuple)
    strides = st.integers(-70, 70)
    return lengths.flatmap(
        lambda shape: st.tuples(
            st.just(shape),
            st.none() | st.lists(strides, min_size=len(shape), max_size=len(shape)).map(tuple),
            st.integers(0, 4100) | st.integers(0, 200),
        )
    )


def facts(array):
    first = array.__array_interface__["data"][0]
    flags = {
        name: getattr(array.flags, name)
        for name in ("c_contiguous", "f_contiguous", "writeable", "aligned", "owndata")
    }
    return array.shape, array.strides, array.dtype, flags, first


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(DTYPES), layouts())
@example(SUBARRAY, ((2,), (12,), 5))
@example(np.dtype("f8"), ((), (), 4088))
@example(np.dtype("f8"), ((), (), 4089))
@example(np.dtype("f8"), ((3,), (-8,), 16))
@example(np.dtype("f8"), ((3,), (-8,), 15))
@example(np.dtype("u1"), ((5, 0), (1000000, 1), 4096))
def test_any_layout_is_numpy_s(dtype, layout):
    shape, strides, offset = layout
    memory = ctypes.create_string_buffer(4096 + 64)
    start = -ctypes.addressof(memory) % 64
    memory = np.frombuffer(memory, "u1")[start : start + 4096]
    values = np.random.RandomState(1).randint(0, 256, 4096).astype("u1")
    memory[:] = values
    block = default().alloc(4096)
    assert block.nbytes == 4096
    block.array(4096, "u1")[:] = values
    try:
        expected = np.ndarray(shape, dtype, memory, offset, strides)
    except (ValueError, TypeError):
        expected = None
    if expected is None:
        with pytest.raises(ValueError):
            block.array(shape, dtype, strides, offset)
        return
    try:
        actual = block.array(shape, dtype, strides, offset)
    except ValueError:
        # numpy lets an array without items begin anywhere.
        assert expected.size == 0 and offset > 4096
        return
    ours, numpys = facts(actual), facts(expected)
    assert ours[:4] == numpys[:4]
    assert ours[4] - block.address == numpys[4] - memory.__array_interface__["data"][0]
    # Item by item: what is between their fields is not copied.
    fields = dtype.names or [Ellipsis]
    for field in fields:
        assert actual[field].tobytes() == expected[field].tobytes()


_own = []


def default():
    """An arena for tests that cannot have a fixture."""
    if not _own:
        _own.append(Arena.create(name="snptest_%d_layouts" % os.getpid()))
    return _own[0]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=4), st.sampled_from("CF"))
def test_any_array_is_numpy_s(dtype, shape, order):
    actual, expected = default().empty(shape, dtype, order), np.empty(shape, dtype, order)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    # Those of an array without items mean nothing.
    assert actual.strides == expected.strides or not actual.size
    assert actual.flags.c_contiguous == expected.flags.c_contiguous
    assert actual.flags.f_contiguous == expected.flags.f_contiguous
    assert actual.flags.aligned


class Frame(np.ndarray):
    """A subclass that sees to attributes of its own."""

    def __array_finalize__(self, parent):
        self.exposure = getattr(parent, "exposure", 1)


def test_subclasses(arena):
    block = arena.alloc(1000)
    frame = block.array((5, 5), "f4", cls=Frame)
    assert type(frame) is Frame and frame.exposure == 1
    for wrong in (int, object):
        with pytest.raises(TypeError, match="numpy.ndarray"):
            block.array(3, cls=wrong)

    class Failing(np.ndarray):
        def __array_finalize__(self, parent):
            raise KeyError("finalize")

    count = sys.getrefcount(block)
    with pytest.raises(KeyError):
        block.array(3, cls=Failing)
    gc.collect()
    assert sys.getrefcount(block) == count


def test_a_class_that_keeps_what_it_is_given(arena):
    """A view that `__array_finalize__` hides keeps the block as well."""
    hidden = []

    class Keeping(np.ndarray):
        def __array_finalize__(self, parent):
            if not hidden:
                hidden.append(None)
                hidden[0] = np.asarray(self)[:2]
                raise KeyError("finalize")

    block = arena.alloc(1000)
    with pytest.raises(KeyError):
        block.array(3, cls=Keeping)
    assert block_of(hidden[0]) is block
    del hidden[:]


def test_many_dimensions(arena):
    block = arena.alloc(10000)
    most = 32 if np.__version__.startswith("1.") else 64
    for inner in ("u1", "(2,2,2)u1"):
        dimensions = most - np.dtype(inner).ndim
        assert block.array((1,) * dimensions, inner).ndim == most
        for more in (1, 20):
            with pytest.raises(ValueError, match="dimensions"):
                block.array((1,) * (dimensions + more), inner)


def test_an_exception_on_its_way_survives(new_name):
    def fail(*_):
        raise AssertionError("called")

    for make in (lambda a: a, lambda a: a.alloc(10)):
        with pytest.raises(ZeroDivisionError):
            fail(make(Arena.create(name=new_name())), 1 / 0)


def test_names_of_other_objects(new_name):
    """A segment of the same name is neither taken nor removed."""
    name = new_name()
    segment = snp.SharedMemory(name, create=True, size=100)
    with pytest.raises(FileExistsError):
        Arena.create(name=name)
    segment.unlink()
    arena = Arena.create(name=name)
    arena.unlink()
    other = snp.SharedMemory(name, create=True, size=100)
    arena.close()
    assert exists(name)
    other.unlink()
    for each in (segment, other):
        each.close()


def test_references_are_counted(arena):
    """Neither dtypes nor blocks gain or lose references."""
    dtype = np.dtype([("a", "f4"), ("b", "u1")])
    block = arena.alloc(100)
    before = sys.getrefcount(dtype), sys.getrefcount(block)
    for _ in range(100):
        block.array(3, dtype)
        with pytest.raises(ValueError):
            block.array(300, dtype)
        arena.empty(3, dtype)
    assert (sys.getrefcount(dtype), sys.getrefcount(block)) == before


def test_the_way_through_python():
    """Without numpy's functions in C everything is the same but for `base`."""
    names = "layout or any_array or defaults or subclasses or outlives or private or user"
    assert _core.array_maker() == "C"
    output = run_python(
        "import sys, pytest\n"
        "from shared_numpy._core import array_maker\n"
        "assert array_maker() == 'Python'\n"
        "sys.exit(pytest.main(sys.argv[1:]))",
        os.path.abspath(__file__),
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:supervisor",
        "-k",
        "(" + names + ") and not way_through and not block_s_user",
        env=dict(os.environ, SHARED_NUMPY_C_API="0"),
        timeout=300,
    )
    assert "passed" in output


def test_handles(arena):
    block = arena.alloc(1000)
    array = block.array(125)
    array[:] = 3
    handle = arena.send(block)
    assert isinstance(handle, bytes) and len(handle) <= 100
    assert arena.stats()["handles"] == 1
    del block, array
    # The reference in flight alone keeps it.
    assert blocks(arena) == 1
    one = receive(handle)
    assert (one.array(125) == 3).all() and arena.stats()["handles"] == 0
    # Later it is weak.
    other = arena.receive(handle)
    assert other.address == one.address
    del one, other
    assert blocks(arena) == 0
    for _ in range(2):
        with pytest.raises(snp.StaleHandleError) as raised:
            receive(handle)
        assert isinstance(raised.value, ReferenceError)


def test_a_stale_handle_never_yields_what_came_after(arena):
    for size in (50, 5000):
        block = arena.alloc(size)
        handle = arena.send(block)
        assert arena.cancel(handle) and not arena.cancel(handle)
        address = block.address
        del block
        kept = [arena.alloc(size) for _ in range(3)]
        assert address in [block.address for block in kept]
        with pytest.raises(snp.StaleHandleError):
            receive(handle)


def test_unreceived_handles(arena):
    handles = [arena.send(arena.alloc(100)) for _ in range(10)]
    assert arena.cancel_unreceived(1000) == 0
    time.sleep(0.05)
    assert arena.stats()["oldest_handle"] >= 40
    late = arena.send(arena.alloc(100))
    assert arena.cancel_unreceived(0.03) == 10
    with pytest.raises(snp.StaleHandleError):
        receive(handles[0])
    receive(late)
    assert arena.cancel_unreceived(0) == 0 == arena.cancel_unreceived(1e300)


def forged(handle, at, value):
    """A handle with other bytes and a right checksum."""
    data = bytearray(handle)
    data[at : at + len(value)] = value
    total = 0x811C9DC5
    for byte in data[:56] + data[60:]:
        total = (total ^ byte) * 0x01000193 & 0xFFFFFFFF
    data[56:60] = total.to_bytes(4, "little")
    return bytes(data)


def test_handles_of_others(arena, new_name):
    block = arena.alloc(100)
    handle = arena.send(block)
    assert forged(handle, 0, b"SN") == handle
    with Arena.create(name=new_name()) as other:
        with pytest.raises(snp.ForeignHandleError, match="another arena"):
            other.cancel(handle)
        with pytest.raises(snp.ForeignHandleError, match="another arena"):
            other.send(block)
        gone = other.send(other.alloc(10))
        other.cancel(gone)
    with pytest.raises(snp.StaleHandleError):
        receive(gone)
    with pytest.raises(snp.ForeignHandleError, match="another machine"):
        receive(forged(handle, 20, b"\1\2\3"))
    with pytest.raises(snp.ForeignHandleError, match="another user"):
        receive(forged(handle, 28, b"\1\2\3"))
    # The arena's name is another's now.
    with pytest.raises(snp.StaleHandleError):
        receive(forged(handle, 4, b"\1\2\3\4\5"))
    with pytest.raises(ValueError, match="never was"):
        receive(forged(handle, 32, b"\xff\xff\xff\1"))
    for spoiled in (handle[:-1], handle + b"x", handle[:70] + b"x" + handle[71:], b"x" * 80):
        with pytest.raises(ValueError, match="no handle"):
            receive(spoiled)
    assert arena.cancel(handle)


def test_another_version_is_named(arena):
    """In two environments of one machine there may be two versions of the package."""
    handle = arena.send(arena.alloc(100))
    with pytest.raises(snp.ForeignHandleError, match="this handle: it has format 9, .* format 1"):
        receive(forged(handle, 2, b"\x09"))
    code = (
        "import sys, shared_numpy as snp\n"
        "try:\n"
        "    snp.Arena.attach(sys.argv[1])\n"
        "except snp.ForeignHandleError as error:\n"
        "    print(error)\n"
    )
    file = os.open("/dev/shm/" + arena.name, os.O_RDWR)
    try:
        before = os.pread(file, 4, 8)
        os.pwrite(file, (99).to_bytes(4, sys.byteorder), 8)
        said = run_python(code, arena.name)
        os.pwrite(file, before, 8)
    finally:
        os.close(file)
    mine = int.from_bytes(before, sys.byteorder)
    assert "this arena: it has format 99, and this version knows format %d" % mine in said
    assert arena.cancel(handle)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_mutated_handles(data):
    """Whatever its bytes, a handle yields a block that is there, or is refused."""
    arena = default()
    kept = [arena.alloc(100 * number) for number in (1, 2, 3)]
    places = {(block.address, block.nbytes) for block in kept}
    # (Hypothesis keeps what it draws from: a place, not the block.)
    handle = arena.send(kept[data.draw(st.integers(0, 2))])
    at = data.draw(st.integers(0, len(handle) - 1))
    other = forged(handle, at, data.draw(st.binary(min_size=1, max_size=len(handle) - at)))
    try:
        found = receive(other)
    except (ValueError, ReferenceError):
        pass
    else:
        assert (found.address, found.nbytes) in places
    arena.cancel(handle)


def test_pickling(arena):
    assert pickle.loads(pickle.dumps(arena)).name == arena.name
    block = arena.alloc(10)
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            attempt(block)


def test_an_overwritten_arena():
    """It is refused from then on, nothing crashes, and nothing is left."""
    output = run_python(
        """
import os, pytest, shared_numpy as snp
from shared_numpy._core import Arena
arena = Arena.create()
array = arena.empty(1000)
array[:] = 1
with open("/dev/shm/" + arena.name, "r+b") as file:
    file.seek(69632)
    file.write(b"\\xee" * 200000)
for operation in (lambda: arena.alloc(10000), arena.check, arena.stats, arena.reap):
    with pytest.raises(snp.ArenaCorruptedError) as raised:
        operation()
assert isinstance(raised.value, RuntimeError)
print(arena.name)
"""
    )
    assert not exists(output.strip()) and not exists(output.strip() + LOCK_SUFFIX)


@pytest.fixture
def held(arena):
    """The arena with its lock held by another living process; ends that."""
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    with open("/dev/shm/" + arena.name, "r+b", buffering=0) as file:
        rows = np.frombuffer(file.read(53248 + 256 * 64)[53248:], "<u8").reshape(256, 8)
        (slot,) = np.nonzero((rows == pid).any(axis=1))[0]
        word = 1 << 30 | (int(rows[slot, 0]) >> 8 & 0xFFFFF) << 10 | int(slot)

        def write(number):
            os.pwrite(file.fileno(), number.to_bytes(4, "little"), 128)

        write(word)
        yield pid, lambda: write(0)
        write(0)
    os.write(go[1], b"x")
    os.waitpid(pid, 0)
    for fd in ready + go:
        os.close(fd)


def test_waiting_lets_other_threads_run(arena, held):
    _, release = held
    steps = []

    def work():
        while len(steps) < 100:
            steps.append(time.sleep(0.001))
        release()

    threading.Thread(target=work).start()
    arena.alloc(100000)
    assert len(steps) == 100


def test_waiting_ends_with_a_signal_s_exception(arena, held):
    class Alarm(Exception):
        pass

    def ring(*_):
        raise Alarm

    _, release = held
    previous = signal.signal(signal.SIGALRM, ring)
    for operation in (lambda: arena.alloc(10000), arena.stats, arena.reap):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Alarm):
            operation()
    # A handler that raises nothing lets it go on, and may use the arena itself.
    done = []

    def free(*_):
        release()
        done.append(arena.alloc(7000))

    signal.signal(signal.SIGALRM, free)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    arena.alloc(10000)
    assert len(done) == 1
    signal.signal(signal.SIGALRM, previous)


def test_a_signal_s_handler_may_fork_and_close(arena, held):
    _, release = held
    done = []

    def handle(*_):
        release()
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        done.append(os.waitpid(pid, 0)[1] >> 8)
        same.close()

    same = Arena.attach(arena.name)
    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    block = same.alloc(10000)
    assert done == [7] and same.closed and block.nbytes == 10048
    signal.signal(signal.SIGALRM, previous)
    del block
    arena.reap()


@pytest.mark.slow
def test_a_stopped_owner_is_named(arena, held):
    pid, release = held
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.1)
    with pytest.raises(snp.ArenaBusyError) as raised:
        arena.alloc(10000)
    os.kill(pid, signal.SIGCONT)
    error = raised.value
    assert isinstance(error, TimeoutError)
    assert (error.pid, error.state) == (pid, "stopped")
    assert str(pid) in str(error) and "stopped" in str(error)
    release()
    arena.alloc(10000)


def test_threads(arena):
    """Eight threads allocate, fill, send, receive, check and drop."""
    failures = []

    def work(seed):
        random = np.random.RandomState(seed)
        kept = []
        try:
            for step in range(300):
                array = arena.empty(int(random.randint(1, 2000)), "u1")
                array[:] = seed
                if step % 3:
                    array = receive(arena.send(array.base)).array(array.shape, "u1")
                kept.append(array)
                if len(kept) > 5:
                    assert (kept.pop(random.randint(5)) == seed).all()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_closing_in_the_middle(new_name):
    """Closing waits for other threads' operations; what comes later is refused."""
    for _ in range(20):
        arena = Arena.create(name=new_name())
        started = threading.Event()

        def work():
            try:
                while True:
                    arena.empty(5000)
                    started.set()
            except ValueError:
                pass

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait()
        arena.close()
        for thread in threads:
            thread.join()


def test_descriptors_do_not_grow(arena):
    before = len(os.listdir("/proc/self/fd"))
    kept = [arena.empty(128) for _ in range(20000)]
    kept.append(arena.empty(40 << 20, "u1"))
    assert arena.stats()["segments"] > 1
    assert len(os.listdir("/proc/self/fd")) == before
    assert len({array.base.address for array in kept}) == len(kept)


def test_statistics(arena):
    names = {
        "blocks", "block_bytes", "free_bytes", "warm_bytes", "table_bytes", "segments",
        "segment_bytes", "processes", "handles", "orphans", "oldest_handle", "allocated",
        "freed", "sent", "received", "expired", "recoveries", "reaped_processes",
        "reaped_references", "returned_bytes", "forks", "pinned_forks", "grows", "returns",
        # Of the process: see test_statistics.py.
        "lock_waits", "longest_lock_wait", "spins", "sleeps", "ring_sent", "ring_sent_bytes",
        "ring_received", "ring_received_bytes", "pipe_sent", "pipe_sent_bytes", "pipe_received",
        "pipe_received_bytes", "frames_written", "frames_written_bytes", "frames_read",
        "frames_read_bytes",
    }  # fmt: skip
    kept = arena.alloc(100)
    stats = arena.stats()
    assert set(stats) == names and all(type(number) is int for number in stats.values())
    assert (stats["blocks"], stats["block_bytes"]) == (1, kept.nbytes)
    assert stats["processes"] == 1 and arena.reap() == 0
    for name in names:
        assert "``%s``" % name in Arena.stats.__doc__


def test_a_second_copy_is_refused(tmp_path):
    package = os.path.dirname(snp.__file__)
    shutil.copytree(package, str(tmp_path / "shared_numpy"))
    run_python(
        """
import importlib, sys
from shared_numpy import _core
for name in [name for name in sys.modules if name.startswith("shared_numpy")]:
    del sys.modules[name]
# The same file again is no other copy.
from shared_numpy import _core as again
assert again.__file__ == _core.__file__
for name in [name for name in sys.modules if name.startswith("shared_numpy")]:
    del sys.modules[name]
sys.path.insert(0, sys.argv[1])
try:
    from shared_numpy import _core as other
except ImportError as error:
    assert "another copy" in str(error) and _core.__file__ in str(error), error
else:
    raise AssertionError(other.__file__)
""",
        str(tmp_path),
    )


def test_another_interpreter_is_refused():
    pytest.importorskip("_testcapi", reason="this interpreter was built without its tests")
    run_python(
        """
import _testcapi, sys
from shared_numpy import _core
code = '''
try:
    from shared_numpy import _core
except ImportError as error:
    assert "interpreter" in str(error), error
else:
    raise AssertionError("imported")
'''
assert _testcapi.run_in_subinterp(code) == 0
_core.Arena.create().close()
"""
    )


@pytest.fixture(scope="module", autouse=True)
def nothing_of_the_module_left():
    yield
    for arena in _own:
        name = arena.name
        gc.collect()
        arena.cancel_unreceived(0)
        assert blocks(arena) == 0 and arena.check() == []
        arena.close()
        assert not exists(name)
    del _own[:]


def test_the_tracker_s_side():
    assert process_tree.registrar(True) == process_tree.registrar(False) != 0


def test_blocks_are_found_by_names_that_were_asked_for(arena):
    told, other = arena.alloc(100), arena.alloc(100)
    name = told.name
    assert arena.blocks() == [name]
    found = arena.find(name)
    assert (found.address, found.nbytes, found.name) == (told.address, told.nbytes, name)
    # (Rows are given out one after the other.)
    home, number = name.split("/")
    row, life = number.split(".")
    quiet = "%s/%d.%s" % (home, int(row) + 1, life)
    with pytest.raises(snp.StaleHandleError):
        arena.find(quiet)
    assert other.name == quiet and arena.find(quiet).address == other.address
    del told
    assert arena.find(name).address == found.address
    del found
    # What was told is not kept for the next of its size, under the same name.
    again = arena.alloc(100)
    assert again.name != name and sorted(arena.blocks()) == sorted([quiet, again.name])
    with pytest.raises(snp.StaleHandleError):
        arena.find(name)
    for wrong in ("", "x", home + "/1", home + "/x.1", home + "/1.-1", name + "9" * 30):
        with pytest.raises(ValueError):
            arena.find(wrong)
    with pytest.raises(snp.ForeignHandleError):
        arena.find("elsewhere/0.0")
    assert arena.check() == []


WITHOUT_DESCRIPTORS = """
import os, resource
import shared_numpy as snp
arena = snp.Arena.create()
member = arena.member()
assert not arena.is_gone(member)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
gone = arena.is_gone(member)
for fd in held:
    os.close(fd)
assert not gone
"""


def test_a_process_without_descriptors_does_not_take_itself_for_dead():
    run_python(WITHOUT_DESCRIPTORS)
