"""`ShareableList`: what the comparison with the standard library leaves out.

Properties:

* An item read is the item written (trailing NULs of strings aside), for all
  items, in both layouts, in this process and in another.
* A failed assignment changes no byte; a failed constructor leaves no segment.
* Indices outside of the list are refused on both sides.
* Bytes that are no list are refused with a `ValueError`, whatever they are.
"""

import pickle
import struct
import sys

import pytest
from conftest import exists, run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared_numpy import shared_memory
from shared_numpy._system import list_layout
from shared_numpy.shared_memory import ShareableList, SharedMemory


@pytest.fixture
def make(name):
    """A function that makes lists under `name`, each in place of the last."""
    current = []

    def end():
        while current:
            last = current.pop()
            last.shm.close()
            last.shm.unlink()

    def new(items):
        end()
        current.append(ShareableList(items, name=name))
        return current[-1]

    yield new
    end()


@pytest.fixture(params=[False, True], ids=["3.8's layout", "3.9's layout"])
def layout(request, monkeypatch):
    """Both layouts on every interpreter."""
    cumulative = request.param
    for function in (list_layout.pack, list_layout.offsets):
        monkeypatch.setattr(function, "__defaults__", (cumulative,))
    return cumulative


def test_the_layout_is_the_interpreters():
    assert list_layout.CUMULATIVE == (sys.version_info >= (3, 9))
    assert list_layout.pack.__defaults__ == (list_layout.CUMULATIVE,)
    assert list_layout.offsets.__defaults__ == (list_layout.CUMULATIVE,)


def bytes_of(sl):
    return bytes(sl.shm.buf)


def stripped(item):
    if isinstance(item, str):
        return item.rstrip("\0")
    if isinstance(item, bytes):
        return item.rstrip(b"\0")
    return item


items = st.one_of(
    st.integers(-(2 ** 63), 2 ** 63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none(),
    st.text(max_size=30),
    st.binary(max_size=30),
)
shared_examples = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck)
)


def same(a, b):
    return type(a) is type(b) and a == b


@shared_examples
@given(st.lists(items, max_size=12), st.lists(st.tuples(st.integers(0, 11), items)))
def test_items_are_kept(layout, make, sequence, changes):
    sl = make(sequence)
    expected = [stripped(item) for item in sequence]
    rooms = [
        max(
            8 * (len(item) // 8 + 1),
            8 * -(-len(item.encode() if isinstance(item, str) else item) // 8),
        )
        if isinstance(item, (str, bytes))
        else 8
        for item in sequence
    ]
    for position, value in changes:
        if position >= len(sequence):
            continue
        size = len(value.encode() if isinstance(value, str) else value) if isinstance(
            value, (str, bytes)
        ) else 8
        before = bytes_of(sl)
        if size > rooms[position]:
            with pytest.raises(ValueError):
                sl[position] = value
            assert bytes_of(sl) == before
        else:
            sl[position] = value
            expected[position] = stripped(value)
    other = ShareableList(name=sl.shm.name)
    for each in (sl, other):
        assert len(each) == len(expected)
        assert all(map(same, each, expected))
        for position in range(len(expected)):
            assert same(each[position - len(expected)], expected[position])
    other.shm.close()


def test_text_is_sized_by_its_encoding(make):
    """Sized by its characters, it would be cut in the middle."""
    for text in ["\u00e9" * 9, "\u4e2d\u6587" * 20, "\U0001f600", "a" * 7 + "\u00e9"]:
        sl = make([text])
        assert sl[0] == text
        sl[0] = text[::-1]
        assert sl[0] == text[::-1]


def test_both_sides_are_checked(layout, make):
    sl = make([1, 2, 3])
    before = bytes_of(sl)
    for position in (3, -4, 100, -100, 2 ** 70, -(2 ** 70)):
        with pytest.raises(IndexError) as raised:
            sl[position]
        assert str(raised.value) == "index out of range"
        with pytest.raises(IndexError) as raised:
            sl[position] = 5
        assert str(raised.value) == "assignment index out of range"
    assert bytes_of(sl) == before


@pytest.mark.parametrize("position", [slice(0, 1), 1.0, "1", None])
def test_positions_of_a_wrong_type(make, position):
    sl = make([1, 2, 3])
    with pytest.raises(TypeError):
        sl[position]
    with pytest.raises(TypeError):
        sl[position] = 1


@pytest.mark.parametrize(
    "value, error",
    [
        (2 ** 63, struct.error),
        (-(2 ** 63) - 1, struct.error),
        ([], KeyError),
        (1j, KeyError),
        ("x" * 17, ValueError),
        (b"x" * 17, ValueError),
        ("\u00e9" * 9, ValueError),
        ("\udc80", UnicodeEncodeError),
    ],
)
def test_a_failed_assignment_changes_nothing(layout, make, value, error):
    sl = make(["0123456789", 1, None])
    for position in range(3):
        before = bytes_of(sl)
        with pytest.raises(error):
            sl[position] = value
        assert bytes_of(sl) == before


@pytest.mark.parametrize(
    "sequence, error",
    [
        ([2 ** 63], struct.error),
        ([1, []], KeyError),
        (["\udc80"], UnicodeEncodeError),
        (7, TypeError),
        ([b"x" * 10000000], ValueError),
    ],
)
def test_a_failed_constructor_leaves_nothing(name, sequence, error):
    with pytest.raises(error):
        ShareableList(sequence, name=name)
    assert not exists(name)


def test_a_constructor_interrupted_late_leaves_nothing(name, monkeypatch):
    class Fault(BaseException):
        pass

    def fail(*arguments):
        raise Fault

    monkeypatch.setattr(list_layout, "offsets", fail)
    with pytest.raises(Fault):
        ShareableList([1], name=name)
    assert not exists(name)


def test_the_longest_string(make):
    longest = b"x" * (10000000 - 9)
    sl = make([longest])
    assert sl[0] == longest
    assert sl.format == "9999992s"
    with pytest.raises(ValueError) as raised:
        make([longest + b"y"])
    assert "9,999,991" in str(raised.value) and "9,999,992" in str(raised.value)


def test_iterators_are_read_once(make):
    assert list(make(iter([1, "two", 3.0]))) == [1, "two", 3.0]
    first = make([1, 2])
    copy = ShareableList(first)
    assert list(copy) == [1, 2]
    copy.shm.close()
    copy.shm.unlink()


def test_a_list_in_a_longer_segment(layout, new_name):
    content = list_layout.pack([1, "two"])
    name = new_name()
    shm = SharedMemory(name, create=True, size=len(content) + 100)
    shm.buf[: len(content)] = content
    assert list(ShareableList(name=name)) == [1, "two"]
    shm.close()
    shm.unlink()


@shared_examples
@given(st.lists(items, min_size=1, max_size=8))
def test_lists_of_the_other_layout_are_refused(sequence):
    for cumulative in (False, True):
        with pytest.raises(ValueError):
            list_layout.offsets(list_layout.pack(sequence, not cumulative), cumulative)


@shared_examples
@given(st.lists(items, min_size=1, max_size=8))
def test_lists_that_were_cut_are_refused(sequence):
    for cumulative in (False, True):
        content = list_layout.pack(sequence, cumulative)
        assert len(list_layout.offsets(content, cumulative)) == len(sequence) + 1
        for size in range(len(content)):
            with pytest.raises(ValueError):
                list_layout.offsets(content[:size], cumulative)


@pytest.mark.parametrize(
    "table, cumulative",
    [
        ((2, 0, 16, 8), True),
        ((2, 8, 8, 16), True),
        ((1, 8, 16), True),
        ((1, 0, 12), True),
        ((2, 16, -8), False),
        ((1, 0), False),
        ((1, 12), False),
        ((-1, 0), True),
        ((-1, 8), False),
    ],
)
def test_unsound_tables_are_refused(table, cumulative):
    content = struct.pack("%dq" % len(table), *table) + bytes(200)
    with pytest.raises(ValueError):
        list_layout.offsets(content, cumulative)


class Text(str):
    pass


class Mine(ShareableList):
    pass


def test_subclasses_of_the_item_types(name):
    for item in (Text("abc"), type("Bytes", (bytes,), {})(b"abc")):
        with pytest.raises(KeyError) as raised:
            ShareableList([item], name=name)
        assert raised.value.args == (type(item),)
    sl = ShareableList(["abc"], name=name)
    sl[0] = Text("xyz")
    assert sl[0] == "xyz" and type(sl[0]) is str
    sl.shm.close()
    sl.shm.unlink()


NUMBERS = [
    ("float64", 1.5), ("float32", 0.1), ("float16", 0.1), ("int64", -(2 ** 63)), ("int8", -5),
    ("uint8", 255), ("uint64", 2 ** 63 - 1), ("intp", 7), ("bool_", True), ("str_", "\xe4\u20ac"),
    ("bytes_", b"ab\0c"),
]  # fmt: skip


@pytest.mark.parametrize("kind, value", NUMBERS)
def test_scalars_of_numpy_s_are_stored_as_their_values(make, layout, kind, value):
    numpy = pytest.importorskip("numpy")
    scalar = getattr(numpy, kind)(value)
    python = scalar.item()
    sl = make([0, scalar, "x" * 20])
    assert type(sl[1]) is type(python) and sl[1] == scalar == python
    assert bytes_of(sl) == bytes_of(make([0, python, "x" * 20]))
    for position in (0, 2):
        if position == 2 or not isinstance(python, (str, bytes)):
            sl = make([0, 1, "x" * 20])
            sl[position] = scalar
            assert type(sl[position]) is type(python) and sl[position] == python
    assert sl.count(scalar) and list(sl).index(scalar) == sl.index(scalar)


def test_other_scalars_of_numpy_s_are_refused(make):
    numpy = pytest.importorskip("numpy")
    others = [numpy.complex64(1j), numpy.datetime64("2020-01-01"), numpy.datetime64(5, "ns")]
    others += [numpy.timedelta64(5, "ns"), numpy.void(b"abc"), numpy.zeros(1, "i4,f4")[0]]
    if numpy.dtype(numpy.longdouble).itemsize > 8:
        others.append(numpy.longdouble(1))
    sl = make([1, "two"])
    before = bytes_of(sl)
    for scalar in others:
        with pytest.raises(TypeError, match="numpy.* has no Python value that a ShareableList"):
            sl[0] = scalar
        with pytest.raises(TypeError, match="numpy.* has no Python value that a ShareableList"):
            ShareableList([1, scalar])
    for large in (numpy.uint64(2 ** 63), numpy.uint64(2 ** 64 - 1)):
        with pytest.raises(struct.error):
            sl[0] = large
    with pytest.raises(KeyError):
        sl[0] = numpy.zeros(())  # An array is none.
    assert bytes_of(sl) == before


def test_subclass_of_the_list(name):
    sl = Mine([1], name=name)
    copy = pickle.loads(pickle.dumps(sl))
    assert type(copy) is Mine and repr(copy).startswith("Mine([1]")
    copy.shm.close()
    sl.shm.close()
    sl.shm.unlink()


@shared_examples
@given(st.binary(min_size=1, max_size=80))
def test_any_bytes(layout, name, content):
    check_attaching(name, content)


@shared_examples
@given(
    st.lists(st.sampled_from([0, 1, 2, 3, 8, -8, 16, 2 ** 61, 2 ** 62, 2 ** 63 - 1]), min_size=1)
)
def test_any_numbers(layout, name, numbers):
    check_attaching(name, struct.pack("%dq" % len(numbers), *numbers))


def check_attaching(name, content):
    """Attach to bytes that may be no list: all that may come is an error."""
    shm = SharedMemory(name, create=True, size=len(content))
    shm.buf[:] = content
    try:
        try:
            sl = ShareableList(name=name)
        except ValueError as error:
            assert "ShareableList" in str(error)
        else:
            assert len(sl) == struct.unpack_from("q", content)[0]
            for position in range(len(sl)):
                try:
                    sl[position]
                except (struct.error, UnicodeDecodeError):
                    pass
                except ValueError as error:
                    assert "unknown format" in str(error)
            sl.shm.close()
        assert exists(name)
    finally:
        shm.close()
        shm.unlink()


def test_the_bytes_of_both_layouts():
    """Worked out by hand from the description of the layouts."""
    words = struct.Struct("q").pack
    data = words(7) + b"abc".ljust(8, b"\0")
    tail = b"q".ljust(8, b"\0") + b"8s".ljust(8, b"\0") + b"\0\1"
    sizes = words(2) + words(8) + words(8) + data + tail
    offsets = words(2) + words(0) + words(8) + words(16) + data + tail
    assert list_layout.pack([7, "abc"], cumulative=False) == sizes
    assert list_layout.pack([7, "abc"], cumulative=True) == offsets
    assert list_layout.pack([], cumulative=False) == words(0)
    assert list_layout.pack([], cumulative=True) == words(0) + words(0)


def test_pickle_is_by_name(make):
    sl = make([1, "two"])
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(sl, protocol))
        copy[0] = protocol
        assert sl[0] == protocol
        copy.shm.close()


def test_another_process(make):
    sl = make([1, 2.5, True, None, "\u00e9", b"\xff"])
    output = run_python(
        """
import sys
from shared_numpy.shared_memory import ShareableList
sl = ShareableList(name=sys.argv[1])
print(ascii(list(sl)))
sl[0] = None
sl[3] = "changed"
sl.shm.close()
# Not a child of the process that made it: the tracker here must leave it alone.
from shared_numpy import resource_tracker
resource_tracker.unregister(sl.shm._name, "shared_memory")
""",
        sl.shm.name,
    )
    assert output == "[1, 2.5, True, None, '\\xe9', b'\\xff']\n"
    assert list(sl) == [None, 2.5, True, "changed", "\u00e9", b"\xff"]


def test_format_and_private_format(make):
    sl = make([1, 2.5, True, None, "text", b"a longer text"])
    assert sl.format == "qdxxxxxxx?xxxxxx?x8s16s"
    assert sl._get_packing_format(4) == sl._get_packing_format(-2) == "8s"
    for position in (6, -7):
        with pytest.raises(IndexError):
            sl._get_packing_format(position)


@pytest.mark.skipif(sys.version_info < (3, 9), reason="comes with 3.9")
def test_generic_alias():
    assert ShareableList[int].__origin__ is ShareableList


@pytest.mark.skipif(sys.version_info >= (3, 9), reason="3.8 has none")
def test_no_generic_alias():
    with pytest.raises(TypeError):
        ShareableList[int]


def test_closed(make):
    sl = make([1])
    sl.shm.close()
    for use in (
        lambda: sl[0],
        lambda: sl.__setitem__(0, 1),
        lambda: len(sl),
        lambda: list(sl),
        lambda: repr(sl),
        lambda: sl.format,
    ):
        with pytest.raises(TypeError):
            use()


def test_readers_are_complete():
    assert len(shared_memory._READERS) == 3
