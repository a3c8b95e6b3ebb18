"""Simple things as bytes: what arrives is what was written, or a pickler writes it.

Arrays in shared memory arrive as the same memory, large ones as the receiver's own.
"""

import gc
import os
import pickle
import struct
import sys
from collections import OrderedDict
from math import isnan

import numpy as np
import pytest
from conftest import counts, place_of, run_python
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import shared_numpy as snp
from shared_numpy import _core
from shared_numpy._pickling import by_reference, pickler
from shared_numpy._core import Arena

BELOW = 1000


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()  # What a failed test keeps, others need not answer for.
    yield
    assert counts() == before


def function(x):
    return x


def other(x):
    return x


class Class:
    def method(self):
        pass


def same(one, two):
    """Tell whether two things are of the same classes and values; arrays to the last bit."""
    if type(one) is not type(two):
        return False
    if isinstance(one, np.ndarray):
        return (
            (one.dtype, one.dtype.num, one.shape) == (two.dtype, two.dtype.num, two.shape)
            and one.flags.c_contiguous == two.flags.c_contiguous
            and one.flags.f_contiguous == two.flags.f_contiguous
            and one.flags.writeable == two.flags.writeable
            and one.tobytes("A") == two.tobytes("A")
        )
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", two)
    if isinstance(one, (tuple, list)):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return same(list(one.items()), list(two.items()))
    return one == two


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2 ** 63), 2 ** 63 - 1),
    st.floats(),
    st.text(),
    st.binary(),
    st.sampled_from([function, other]),
)
KEYS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.text(), st.binary())
DTYPES = st.sampled_from([np.dtype(each) for each in "?bBhHiIlLqQefdFD"])


@st.composite
def small_arrays(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    array = draw(hnp.arrays(draw(DTYPES), shape))
    if draw(st.booleans()):
        array = np.array(array, order="F")
    array.flags.writeable = draw(st.booleans())
    return array


THINGS = st.recursive(
    SCALARS | small_arrays(),
    lambda things: st.one_of(
        st.lists(things, max_size=5),
        st.lists(things, max_size=5).map(tuple),
        st.dictionaries(KEYS, things, max_size=5),
    ),
    max_leaves=20,
)


@settings(deadline=None, max_examples=200)
@given(THINGS, st.binary(max_size=20))
def test_what_arrives_is_what_was_written(thing, end):
    stream = _core.terse(thing, BELOW, end)
    if stream is None:
        # Only for what is in it twice: an empty tuple, an array that the strategy has drawn
        # twice.
        assert not isinstance(thing, (np.ndarray,) + ATOMS)
    else:
        assert stream[0] == 1 and stream.endswith(end)
        assert same(_core.loads(stream), thing)
    assert same(pickler.loads(pickler.dumps(thing, [], end=end)), thing)


ATOMS = (bool, int, float, str, bytes, type(None), type(function))


def test_what_is_made_is_the_receiver_s_own():
    array = np.arange(6.0).reshape(2, 3)
    # (Both are views.)
    stream = _core.terse((array, [np.arange(9.0)[2:5]]), BELOW)
    first, second = _core.loads(stream), _core.loads(stream)
    first[0][:] = 7
    assert array[0, 0] == 0 and second[0][0, 0] == 0
    assert first[0].flags.owndata and first[0].base is None
    assert first[0].flags.aligned and first[1][0].flags.aligned


def nested(depth):
    return [nested(depth - 1)] if depth else 1


def not_simple():
    """Yield what is not simple, and what it is."""
    array, cycle = np.ones(3), []
    cycle.append(cycle)
    yield "a subclass", OrderedDict(a=1)
    yield "a subclass of int", [type("I", (int,), {})(3)]
    yield "an integer that is too long", 2 ** 63
    yield "another one", -(2 ** 63) - 1
    yield "half of a pair", "\ud800"
    yield "long text", "x" * 5000
    yield "long bytes", b"x" * 5000
    yield "text that comes twice", ["x" * 70] * 2
    yield "bytes that come twice", (("x" * 70).encode(),) * 2
    yield "much of all", [str(number) * 800 for number in range(100, 220)]
    yield "many things", list(range(300))
    yield "many things in some lists", [[0] * 100] + [[1] * 100] + [[2] * 100]
    yield "many items of a dict", dict.fromkeys(range(300))
    yield "deep things", nested(30)
    yield "a cycle", cycle
    yield "an array twice", [array, array]
    yield "a list twice", ([cycle[:0]] * 2,)
    yield "a view of a shared array", snp.ones(3).view(np.ndarray)[1:]
    yield "a view of other memory", np.frombuffer(bytes(80))
    yield "a view of a view of that", np.frombuffer(bytes(80))[1:]
    yield "a large array", np.zeros(BELOW // 8)
    yield "items at a distance", np.ones((4, 4))[:, ::2]
    yield "nothing, of a huge shape", np.zeros(0).reshape(0, 2 ** 40)
    yield "an array of objects", np.array([1, None])
    yield "records", np.zeros(2, [("a", "i4")])
    yield "the other order of bytes", np.zeros(2, ">f8" if sys.byteorder == "little" else "<f8")
    yield "text in an array", np.array(["a"])
    yield "dates", np.zeros(2, "M8[s]")
    yield "a class with metadata", np.zeros(2, np.dtype("f8", metadata={"a": 1}))
    yield "an array of another class", np.ma.ones(3)
    yield "a shared array", snp.ones(3)
    yield "a number of numpy's", np.float64(3)
    yield "a function without a name", lambda: 0
    yield "a key that is no atom", {function: 1}
    yield "a method", Class().method
    yield "a function of a class", Class.method
    yield "a function of C", len
    yield "a class", Class
    yield "an object", Class()
    yield "complex", 1j
    yield "a set", {1}


def test_the_rest_is_left_to_a_pickler():
    for what, thing in not_simple():
        assert _core.terse(thing, BELOW) is None, what
        assert _core.terse([1, (thing,)], BELOW) is None, what
        assert _core.terse({"key": thing}, BELOW) is None, what
    assert _core.terse(np.zeros(8191), 10 ** 9) is not None
    assert _core.terse(np.zeros(8192), 10 ** 9) is None
    assert _core.terse([np.zeros(8191) for _ in range(6)], 10 ** 9) is None
    nothing = np.zeros(0).reshape(0, 2 ** 40)
    assert pickler.loads(pickler.dumps([nothing], []))[0].shape == nothing.shape


def test_what_comes_twice_arrives_once():
    array, inner = np.arange(3), []
    thing = {"a": [array, inner], "b": (array, inner)}
    made = pickler.loads(pickler.dumps(thing, []))
    assert made["a"][0] is made["b"][0] and made["a"][1] is made["b"][1]
    text = "long text" * 10
    made = pickler.loads(pickler.dumps([text, text], []))
    assert made[0] is made[1]
    # Those that nobody else refers to cannot: as many of them as there may be.
    assert _core.terse([[number] for number in range(100)], BELOW) is not None


def test_a_function_that_is_another_by_its_name_now(monkeypatch):
    kept = function
    monkeypatch.setitem(globals(), "function", other)
    assert _core.terse(kept, BELOW) is None
    monkeypatch.delitem(globals(), "function")
    assert _core.terse(kept, BELOW) is None
    assert _core.terse(other, BELOW) is not None
    monkeypatch.setattr(other, "__module__", None)
    assert _core.terse(other, BELOW) is None


@pytest.mark.parametrize("cls", [list, dict])
@pytest.mark.parametrize("grows", [False, True])
def test_code_that_runs_meanwhile(monkeypatch, cls, grows):
    """What is written may be changed by the comparison of a key in `sys.modules`."""
    names, runs = "snp_test_nowhere", []
    inner = [object() for _ in range(3)]

    class Key:
        def __hash__(self):
            return hash(names)

        def __eq__(self, key):
            if names == key and not runs:
                runs.append(1)
                if grows:
                    thing.update({n: [n] for n in range(9, 99)}) if cls is dict else thing.extend(
                        [[n] for n in range(99)]
                    )
                else:
                    thing.clear()
                del inner[:]
            return False

    def asks(x):
        pass

    monkeypatch.setattr(asks, "__module__", names)
    thing = [[1], asks, [2], inner] if cls is list else {1: [1], 2: asks, 3: [2], 4: inner}
    modules = dict(sys.modules)
    try:
        sys.modules[Key()] = None
        assert _core.terse(["first", thing, thing], BELOW) is None
    finally:
        sys.modules.clear()
        sys.modules.update(modules)
    assert runs == [1]


def test_names_that_are_no_plain_text(monkeypatch):
    class Text(str):
        __hash__ = str.__hash__

        def __eq__(self, text):
            raise AssertionError("asked")

    monkeypatch.setattr(function, "__module__", Text(__name__))
    assert _core.terse(function, BELOW) is None


def test_modules_that_are_being_imported_are_waited_for(tmp_path):
    (tmp_path / "slowly.py").write_text("import time; time.sleep(0.5)\ndef there(): return 5")
    code = (
        "import sys, threading, time; sys.path.insert(0, {!r})\n"
        "from shared_numpy import _core\n"
        "threads = [threading.Thread(target=lambda: sys.stdout.write('%d\\n' % _core.loads(stream)()))\n"
        "           for _ in range(2)]\n"
        "stream = bytes.fromhex(sys.argv[1])\n"
        "for thread in threads:\n"
        "    thread.start()\n"
        "    time.sleep(0.1)\n"
    ).format(str(tmp_path))
    stream = b"\1g" + struct.pack("<I6sI5s", 6, b"slowly", 5, b"there")
    assert run_python(code, stream.hex()).split() == ["5", "5"]


def test_functions_are_imported_where_they_arrive(tmp_path):
    (tmp_path / "somewhere.py").write_text("def there(): return 5")
    code = (
        "import sys; sys.path.insert(0, {!r})\n"
        "from shared_numpy import _core\n"
        "print(_core.loads(bytes.fromhex(sys.argv[1]))())"
    ).format(str(tmp_path))
    name = [len(b"somewhere"), b"somewhere", len(b"there"), b"there"]
    stream = b"\1g" + struct.pack("<I9sI5s", *name)
    assert run_python(code, stream.hex()) == "5\n"
    with pytest.raises(ImportError):
        _core.loads(stream)
    gone = b"\1g" + struct.pack("<I2sI9s", 2, b"os", 9, b"not there")
    with pytest.raises(AttributeError, match="not there"):
        _core.loads(gone)


def test_refused_things_are_as_they_were():
    things = [np.ones(3), "text", [1], (2,), {"a": 1}, object()]
    before = [sys.getrefcount(each) for each in things]
    for _ in range(100):
        assert _core.terse(things, BELOW) is None
        _core.loads(_core.terse(things[:-1], BELOW))
    assert [sys.getrefcount(each) for each in things] == before


SAMPLE = [1, 2.5, "text", b"bytes", None, (True, np.arange(6).reshape(2, 3)), {"key": [1]}]


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_damaged_streams_are_refused_or_something_else(data):
    stream = bytearray(_core.terse(SAMPLE, BELOW))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(1, len(stream) - 1))
        # (What would be imported is not tried.)
        stream[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != ord("g")))
    length = data.draw(st.integers(2, len(stream)))
    try:
        repr(_core.loads(bytes(stream[:length])))
    except (ValueError, TypeError, MemoryError):
        pass


# Arrays in shared memory.


def ways():
    """Yield views of a shared array, and what is to be seen of them."""
    base = snp.array(np.arange(120).reshape(4, 5, 6), "i4")
    yield base
    yield base[1]
    yield base[1, 2, 3:4]
    yield base[1:, ::-2, 2]
    yield base.transpose(2, 0, 1)
    yield base[:, 1:1]
    yield base[0, 0, 0, ...]
    yield np.broadcast_to(base[0, 0], (3, 6))
    yield base.view(np.ndarray)[2:, :, ::3]
    yield base.view("u1")[..., 1:-1]
    read_only = base[2]
    read_only.flags.writeable = False
    yield read_only
    yield snp.zeros((), "c16")
    yield snp.zeros((3, 0, 2))
    yield snp.array(np.arange(6).reshape(2, 3), order="F")


def test_shared_arrays_go_by_handle():
    for array in ways():
        handles = []
        stream = _core.terse(("it", array), BELOW, b"end", handles)
        assert stream.endswith(b"end") and len(handles) == 1 and len(stream) < 500
        text, other = _core.loads(stream)
        assert type(other) is type(array) and text == "it"
        assert (other.dtype, other.shape) == (array.dtype, array.shape)
        assert other.strides == array.strides or 0 in array.shape
        assert other.flags.writeable == array.flags.writeable
        assert place_of(other) == place_of(array) or 0 in array.shape
        assert (other == array).all() and by_reference.memory_of(other) is not None
        # It was received: it is not cancelled any more.
        assert not _core.cancel(handles[0])
        if array.size and array.flags.writeable:
            array[...] = 7
            assert (other == 7).all()
        del other, array


def test_large_arrays_are_moved():
    for array in (np.arange(1000.0), np.arange(1000).reshape(20, 50).T, np.ones((1, 999))[0]):
        for writeable in (True, False):
            array = array.view()
            array.flags.writeable = writeable
            handles = []
            stream = _core.terse([array], BELOW, b"", handles)
            assert len(handles) == 1 and len(stream) < 500
            (other,) = _core.loads(stream)
            assert same(other, array) and by_reference.memory_of(other) is None
            assert type(other.base) is _core.Block and other.base.private
            # It goes on as what it is, a plain array of the receiver's own.
            assert _core.terse(other, 10 ** 5) is not None
            (again,) = pickler.loads(pickler.dumps([other], []))
            assert same(again, array) and place_of(again) != place_of(other)
            del other, again
    assert _core.terse(np.zeros(1000), BELOW, b"", []) is not None
    for limit in (8000, 7999):
        assert _core.terse(np.zeros(1000), BELOW, b"", [], limit) is None
    gc.collect()
    pickler.cancel(handles)
    Arena.default().cancel_unreceived(0)


@pytest.mark.parametrize("thing", [b"x" * 5000, bytes(range(256)) * 8000], ids=["few", "many"])
def test_long_bytes_are_copied_out_of_shared_memory(thing):
    before = counts()
    for whole in (thing, [1, {"key": (thing[:-1], 2)}], {thing[:]: thing[1:]}):
        handles = []
        stream = _core.terse(whole, len(thing) - 1, b"end", handles)
        assert handles and stream.endswith(b"end") and len(stream) < 500
        assert same(_core.loads(stream), whole)
        # Nobody has the memory any more, and nobody can have it again.
        assert counts() == before
        assert not any(map(_core.cancel, handles))
        with pytest.raises(snp.StaleHandleError):
            _core.loads(stream)
        assert same(pickler.loads(pickler.dumps(whole, [])), whole)
    handles = []
    assert _core.terse([thing, thing], BELOW, b"", handles) is None
    _core.terse(thing, len(thing), b"", handles, len(thing))
    assert not handles
    # Few are written as they are, whatever the threshold.
    assert len(_core.terse(b"x" * 4000, 0, b"", handles)) > 4000 and not handles
    q = snp.Queue()
    q.put({"image": thing})
    assert same(q.get(), {"image": thing})
    q.put(thing)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(1, 10) | st.integers(1, 109), st.integers(0, 255)),
        min_size=1, max_size=3,
    )
)  # fmt: skip
def test_damaged_references_of_bytes(changes):
    handles = []
    stream = bytearray(_core.terse(b"x" * 5000, BELOW, b"", handles))
    for place, byte in changes:
        stream[place] = byte if byte != ord("g") else 0
    try:
        assert len(repr(_core.loads(bytes(stream)))) < 5 * 5000
    except (ValueError, TypeError, MemoryError, snp.StaleHandleError, snp.ForeignHandleError):
        pass
    pickler.cancel(handles)


def test_nothing_is_sent_of_what_is_not_simple():
    shared, large, handles = snp.ones(3), np.zeros(10 ** 6), [b"another's"]
    for last in (lambda: 0, object(), large[::2], 1j, shared, "text" * 2000):
        assert _core.terse([shared, large, b"x" * 5000, last], BELOW, b"", handles) is None
        assert handles == [b"another's"]
    unlinked = snp.ones(3)
    unlinked.unlink()
    with pytest.raises(ValueError, match="unlinked"):
        _core.terse([shared, unlinked], BELOW, b"", handles)
    # The first one's, for whoever called to cancel.
    assert len(handles) == 2 and _core.cancel(handles[1])
    masked, attributed = np.ma.ones(3), snp.ones(3)
    attributed.label = "mine"
    for more in (masked, attributed, snp.zeros(2, [("a", "i4")]), snp.array(["text"])):
        assert _core.terse(more, BELOW, b"", []) is None
        (made,) = pickler.loads(pickler.dumps([more], []))
        assert type(made) is type(more) and getattr(made, "label", 0) == getattr(more, "label", 0)


def test_arrays_that_are_changed_before_they_are_sent():
    def asks(x):
        pass

    asks.__module__, asks.__qualname__ = __name__, "asks"
    array, runs = snp.array(np.arange(6)), []

    class Name(str):
        """Changes the array when the function is looked up."""

        def __hash__(self):
            return str.__hash__(self)

        def __eq__(self, other):
            runs.append(1)
            array.shape = change
            return str.__eq__(self, other)

    names = vars(sys.modules[__name__])
    # The room that was left is for one dimension, then for two.
    for change, arrives in (((2, 3), False), ((3, 2), True)):
        del runs[:]
        key, handles = Name("asks"), []
        names[key] = asks
        try:
            stream = _core.terse([array, asks], BELOW, b"", handles)
        finally:
            del names[key]
        assert runs and len(handles) == (stream is not None) == arrives
    names["asks"] = asks
    try:
        made = _core.loads(stream)
    finally:
        del names["asks"]
    assert made[0].shape == (3, 2) and (made[0] == array).all() and made[1] is asks


def test_a_class_that_somebody_registers_is_left_to_the_pickler():
    code = (
        "import numpy as np\n"
        "import shared_numpy as snp\n"
        "from shared_numpy._pickling import by_reference, pickler\n"
        "def pack(array): return array.tolist()\n"
        "array = snp.ones(2)\n"
        "assert type(pickler.loads(pickler.dumps(array, []))) is snp.ndarray\n"
        "snp.register_type(snp.ndarray, pack, list)\n"
        "assert pickler.loads(pickler.dumps(array, [])) == [1, 1]\n"
        "assert pickler.loads(pickler.dumps([array, {1}], [])) == [[1, 1], {1}]\n"
    )
    run_python(code)


def test_a_handle_that_was_cancelled():
    handles = []
    stream = _core.terse(snp.ones(3), BELOW, b"", handles)
    pickler.cancel(handles)
    gc.collect()
    with pytest.raises(snp.StaleHandleError):
        _core.loads(stream)


BYTES = st.integers(0, 255).filter(lambda byte: byte != ord("g"))


@settings(deadline=None, max_examples=500)
@given(
    st.lists(
        # Mostly where it lies, not its handle.
        st.tuples(st.integers(1, 46) | st.integers(1, 145), BYTES),
        min_size=1,
        max_size=3,
    )
)
def test_damaged_references(changes):
    array, handles = snp.array(np.arange(24).reshape(4, 6), "i2")[1:, ::-2], []
    stream = bytearray(_core.terse(array, BELOW, b"", handles))
    for place, byte in changes:
        stream[place] = byte
    try:
        made = _core.loads(bytes(stream))
    except (ValueError, TypeError, MemoryError, snp.StaleHandleError, snp.ForeignHandleError):
        made = None
    if isinstance(made, np.ndarray) and made.size and made.base is not None:
        # Whatever it is, it lies within a block.
        block = by_reference._base_of(made)
        first, end = np.lib.array_utils.byte_bounds(made) if NUMPY_2 else np.byte_bounds(made)
        assert block.address <= first and end <= block.address + block.nbytes
    pickler.cancel(handles)


NUMPY_2 = int(np.__version__.split(".")[0]) >= 2


def test_streams_that_end_early():
    stream = _core.terse(SAMPLE, BELOW)
    for length in range(1, len(stream)):
        with pytest.raises(ValueError, match="damaged"):
            _core.loads(stream[:length])
    for wrong in (b"\1", b"\1?", b"\1" + b"l\1\0\0\0" * 50 + b"N"):
        with pytest.raises(ValueError, match="damaged"):
            _core.loads(wrong)
    # An array of more items than there can be.
    for lengths in ([2 ** 62, 8], [-1], [-1, -1]):
        head = struct.pack("<2s3B", b"\1a", 12, 2, len(lengths))
        with pytest.raises(ValueError):
            _core.loads(head + struct.pack("<%dq" % len(lengths), *lengths) + bytes(100))
    # A dtype that there is not.
    with pytest.raises(ValueError, match="damaged"):
        _core.loads(struct.pack("<2s3B", b"\1a", 17, 2, 0) + bytes(100))


def test_what_streams_are_read_from():
    for stream in (_core.terse(SAMPLE, BELOW), pickle.dumps(SAMPLE)):
        assert repr(_core.loads(stream)) == repr(SAMPLE)
        assert repr(_core.loads(np.frombuffer(stream, "u1"))) == repr(SAMPLE)
    for wrong in (None, "text", 5, np.frombuffer(bytes(200), "u1")[::2]):
        with pytest.raises(TypeError):
            _core.loads(wrong)
    assert isnan(_core.loads(_core.terse(float("nan"), BELOW)))


def test_without_numpy_s_functions_in_c():
    """Nothing that has arrays is written, but all is read."""
    code = (
        "import sys\n"
        "import numpy as np\n"
        "from shared_numpy import _core\n"
        "assert _core.array_maker() == 'Python'\n"
        "assert _core.terse([np.ones(3)], 1000) is None\n"
        "assert _core.loads(_core.terse([1, 'x'], 1000)) == [1, 'x']\n"
        "for each in sys.argv[1:]:\n"
        "    array = _core.loads(bytes.fromhex(each))\n"
        "    stream = np.frombuffer(bytes.fromhex(each), 'u1')\n"
        "    assert (_core.loads(stream) == array).all()\n"
        "    print(array.dtype.str, array.shape, array.strides, array.flags.writeable,\n"
        "          array.flags.owndata, array.tobytes('A').hex())\n"
    )
    arrays = [np.ones(3, each) for each in "?bBhHiIlLqQefdgFDG"] + [np.array(5)]
    arrays += [np.arange(6).reshape(2, 3), np.arange(6).reshape(2, 3).copy("F"), np.ones((0, 2))]
    arrays[2].flags.writeable = False
    streams = [_core.terse(each, BELOW).hex() for each in arrays]
    lines = run_python(code, *streams, env=dict(os.environ, SHARED_NUMPY_C_API="0")).splitlines()
    assert lines == [
        "{} {} {} {} True {}".format(
            each.dtype.str, each.shape, each.strides, each.flags.writeable, each.tobytes("A").hex()
        )
        for each in arrays
    ]
