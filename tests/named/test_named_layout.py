"""The files of named arrays: numpy reads them, and a file that lies is refused.

What holds: `np.load(mmap_mode=...)` gives what `attach` gives, for each dtype that numpy's format
can express, and refuses the file of any other; files of version 1 are arrays like all others;
a file whose head, items and tail do not agree in every byte is refused and left as it is, however
right its checksum is; a process that is killed while it makes or replaces an array leaves the
old one, the new one or none.
"""

import ctypes
import json
import os
import pickle
import shutil
import struct
import sys
import warnings
import zlib

import named_files
import numpy as np
import pytest
from array_programs import DTYPES, RECORDS
from conftest import MORE, ROOT, exists, run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from named_files import content_of, forged, parts_of, path_of, put

import shared_numpy as snp
from shared_numpy import named

try:
    from numpy._core._rational_tests import rational
except ImportError:
    from numpy.core._rational_tests import rational

def attach_anew(name, **options):
    """Attach as another process does, which has not mapped the array yet."""
    named._mapped.clear()
    return snp.attach(name, **options)


# What numpy reads.


def fields(draw, formats):
    names = st.text(min_size=1, max_size=5)
    count = draw(st.integers(0, 4))
    names = draw(st.lists(names, min_size=2 * count, max_size=2 * count, unique=True))
    formats = [draw(formats) for _ in range(count)]
    return names[:count], names[count:], formats


@st.composite
def records(draw, formats):
    """A dtype with fields, gaps, titles, alignment; its fields may overlap or be crossed."""
    names, titles, formats = fields(draw, formats)
    if draw(st.booleans()):
        dtype = np.dtype(list(zip(names, formats)), align=draw(st.booleans()))
    else:
        offsets, end = [], 0
        for each in formats:
            offsets.append(end + draw(st.integers(0, 5)))
            end = offsets[-1] + each.itemsize
        if draw(st.integers(0, 3)) == 0:
            offsets = draw(st.permutations(offsets))
        ends = [offset + each.itemsize for offset, each in zip(offsets, formats)]
        described = {"names": names, "formats": formats, "offsets": offsets}
        described["itemsize"] = max(ends + [0]) + draw(st.integers(0, 5))
        if draw(st.booleans()):
            described["titles"] = titles
        dtype = np.dtype(described)
    return np.dtype((np.record, dtype)) if draw(st.booleans()) else dtype


SIMPLE = DTYPES + [np.dtype(each) for each in ("M8[25s]", "m8", "V0", "S", "<U3", ">c8", ">u2")]
ALL = st.recursive(
    st.sampled_from(SIMPLE + RECORDS),
    lambda inner: records(inner)
    | st.builds(
        lambda dtype, shape: np.dtype((dtype, tuple(shape))),
        # (numpy has no arrays of what has no bytes, or makes something else of them.)
        inner.filter(lambda dtype: dtype.itemsize),
        st.lists(st.integers(1, 3), min_size=1, max_size=2),
    ),
    max_leaves=6,
)


def numpy_can_express(dtype):
    """Ask numpy: whether its reader makes the dtype again of what its writer makes of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            descr = np.lib.format.dtype_to_descr(dtype)
        return np.lib.format.descr_to_dtype(eval(repr(descr))) == dtype
    except (TypeError, ValueError):
        return False


def has_numpy_s_head(name):
    return content_of(name)[:6] == b"\x93NUMPY"


@settings(
    max_examples=300 * MORE, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
@given(ALL, st.lists(st.integers(0, 3), max_size=4).map(tuple), st.sampled_from("CF"))
def test_numpy_reads_what_attach_gives(dtype, shape, order):
    name = "snptest_layout_%d" % os.getpid()
    # Fields that are arrays have more bytes than they have in all tests' arrays.
    a = snp.create(name, shape, dtype, order)
    try:
        expected = np.zeros(shape, dtype, order)
        memory = np.frombuffer(a.base, "u1")[a.base.head.data :][: a.nbytes]
        memory[:] = np.arange(a.nbytes) % 100
        expected_bytes = memory.tobytes()
        b = attach_anew(name, readonly=True)
        assert (b.shape, b.strides, b.dtype) == (a.shape, a.strides, a.dtype)
        assert (b.shape, b.dtype) == (expected.shape, expected.dtype)
        assert b.strides == expected.strides or not expected.nbytes
        # (What has no fields is not aligned, which numpy cannot always say.)
        aligned = bool(expected.dtype.names and expected.dtype.isalignedstruct)
        assert b.dtype.isalignedstruct == aligned
        assert b.dtype.type is expected.dtype.type
        before = content_of(name)
        if not has_numpy_s_head(name):
            assert not numpy_can_express(b.dtype)
            for options in ({}, {"mmap_mode": "r"}, {"mmap_mode": "r+"}):
                with pytest.raises(ValueError):
                    np.load(path_of(name), **options)
            with pytest.raises(Exception):  # (As it refuses what is no pickle.)
                np.load(path_of(name), allow_pickle=True)
        else:
            assert numpy_can_express(b.dtype)
            for mode in ("r", "r+", "c", None):
                c = np.load(path_of(name), mmap_mode=mode)
                assert (c.shape, c.dtype) == (b.shape, b.dtype)
                assert c.strides == b.strides or mode is None or not c.size
                if mode is not None:
                    assert c.flags.c_contiguous == b.flags.c_contiguous
                    assert c.flags.f_contiguous == b.flags.f_contiguous
                    # (A read copies fields, and not what lies between them.)
                    address = c.__array_interface__["data"][0]
                    assert ctypes.string_at(address, a.nbytes) == expected_bytes
                del c
        assert content_of(name) == before
    finally:
        snp.delete(name)


@pytest.mark.parametrize("dtype", DTYPES + RECORDS + [np.dtype((np.record, RECORDS[1]))])
def test_usual_dtypes_have_numpy_s_header(name, dtype):
    for shape, order in [((), "C"), ((0,), "C"), ((3, 2), "F")]:
        snp.create(name, shape, dtype, order)
        assert has_numpy_s_head(name)
        assert np.load(path_of(name), mmap_mode="r").dtype == dtype
        snp.delete(name)


def test_numpy_s_mapping_is_the_same_memory(name):
    a = snp.create(name, (2, 3), "i4", "F")
    b = np.load(path_of(name), mmap_mode="r+")
    b[1, 2] = 7
    a[0, 1] = 8
    assert a[1, 2] == 7 and b[0, 1] == 8 and (a == b).all()
    del b
    assert attach_anew(name).tolist() == [[0, 8, 0], [0, 0, 7]]
    snp.delete(name)


NOT_EXPRESSIBLE = {
    "crossed": {"names": ["a", "b"], "formats": ["f4", "i2"], "offsets": [4, 0]},
    "overlapping": {"names": ["a", "b"], "formats": ["f4", "u1"], "offsets": [0, 2]},
    "without a name": {"names": [""], "formats": ["V3"]},
    "within": [("a", [("b", {"names": ["a", "b"], "formats": ["u2"] * 2, "offsets": [2, 0]})])],
    "long": [("a" * 10000, "f4")],
}


@pytest.mark.parametrize("kind", sorted(NOT_EXPRESSIBLE))
def test_dtypes_that_numpy_s_format_has_not(name, kind):
    dtype = np.dtype(NOT_EXPRESSIBLE[kind])
    a = snp.create(name, (2, 3), dtype, "F")
    b = attach_anew(name)
    assert (b.dtype, b.strides) == (dtype, a.strides)
    assert content_of(name)[:4096] == b"snpNAMED\2" + bytes(4087)
    with pytest.raises(ValueError):
        np.load(path_of(name), mmap_mode="r")
    snp.delete(name)


def test_headers_up_to_8192_bytes(name):
    """A longer one begins later, or there is none: at each length around the limits."""
    seen = {}
    for length in list(range(3990, 4060)) + list(range(8090, 8160)):
        a = snp.create(name, 3, [("a" * length, "i2")])
        a["a" * length] = [1, 2, 3]
        data = a.base.head.data
        if has_numpy_s_head(name):
            content = content_of(name)
            assert content[data - 1 : data] == b"\n" and content[8:10] == struct.pack("<H", data - 10)
            assert np.load(path_of(name), mmap_mode="r").tolist() == [(1,), (2,), (3,)]
            text = content[10:data].rstrip()
            seen.setdefault(data, []).append(len(text))
        else:
            assert data == 4096
            seen.setdefault(None, []).append(length)
        snp.delete(name)
    # (Of a header one byte is a newline.)
    assert max(seen[4096]) == 4096 - 11 and min(seen[8192]) == 4096 - 10
    assert max(seen[8192]) == 8192 - 11 and seen[None]


def test_names_that_need_quotes_and_escapes(name):
    names = ["'", '"', "'\"", "\\", "\n", "ä", "\u4e2d", "\U0001f600", "\ud800", "a, b", "\0"]
    dtype = np.dtype([(each, "u1") for each in names] + [(("title ä'", "titled"), "<f4", (2,))])
    snp.create(name, 3, dtype)
    assert max(content_of(name)[10:4096]) < 128
    assert np.load(path_of(name), mmap_mode="r").dtype == dtype == attach_anew(name).dtype
    snp.delete(name)


def test_arrays_as_items_are_further_dimensions(name):
    for dtype in (np.dtype(("f4", (2,))), np.dtype((np.dtype(("f4", (2,))), (3, 1)))):
        for order in "CF":
            a = snp.create(name, (4, 5), dtype, order)
            expected = np.zeros((4, 5), dtype, order)
            for each in (a, attach_anew(name), np.load(path_of(name), mmap_mode="r")):
                assert (each.dtype, each.shape) == (expected.dtype, expected.shape)
                assert each.strides == expected.strides
            assert snp.create(name, (4, 5), dtype, order, exist_ok=True).base is not None
            snp.delete(name)


def test_records_stay_records(name):
    dtype = np.dtype((np.record, [("x", "i4"), ("y", "f8")]))
    snp.create(name, 2, dtype)[0] = (3, 4.5)
    a = attach_anew(name)
    assert a.dtype.type is np.record and a[0].x == 3 and a.view(np.recarray).y[0] == 4.5
    assert np.load(path_of(name), mmap_mode="r").view(np.recarray).y[0] == 4.5
    [found] = [each for each in snp.list_named() if each.name == "shm://" + name]
    assert found.dtype.type is np.record
    # Who asks for the one has the other: their items are the same.
    assert snp.create(name, 2, np.dtype(dtype.descr), exist_ok=True)[0]["x"] == 3
    snp.delete(name)


def test_dtypes_that_others_would_take_for_something_else(name):
    parts = np.dtype(("u4", [("low", "u2"), ("high", "u2")]))
    for dtype in (np.dtype(rational), parts, np.dtype([("a", rational)])):
        with pytest.raises(TypeError, match="take a view"):
            snp.create(name, 3, dtype)
        assert not exists(name)


@pytest.mark.filterwarnings("error")
def test_metadata_is_left_out(name):
    dtype = np.dtype("f8", metadata={"unit": "m"})
    for each in (dtype, np.dtype([("a", dtype)])):
        assert snp.create(name, 3, each).dtype == attach_anew(name).dtype == each
        np.load(path_of(name), mmap_mode="r")
        snp.delete(name)


@pytest.mark.parametrize("shape", [(1 << 62, 4), (0, 1 << 62, 2), (1 << 63,), (0, 1 << 64)])
@pytest.mark.parametrize("dtype", ["u1", "f8", "V0"])
def test_shapes_that_no_array_has(name, shape, dtype):
    with pytest.raises(ValueError, match="too large"):
        snp.create(name, shape, dtype)
    assert not exists(name)


# What is refused.


def test_the_bytes_are_as_they_are_drawn(name):
    snp.create(name, (2, 3), ">i2", "F")[...] = [[1, 2, 3], [4, 5, 6]]
    content = content_of(name)
    header = b"{'descr': '>i2', 'fortran_order': True, 'shape': (2, 3), }"
    details = b'{"owner": null, "dtype": ">i2"}'
    expected = b"\x93NUMPY\x01\x00" + struct.pack("<H", 4086) + header.ljust(4085) + b"\n"
    expected += struct.pack(">6h", 1, 4, 2, 5, 3, 6).ljust(64, b"\0")
    tail = struct.pack("=2Q", 2, 3) + b"'>i2'\0" + details + b"\0"
    tail += bytes(-len(tail) % 8)
    size = 4096 + 64 + len(tail) + 88
    uuid = content[-24:-8]
    tail += b"snpNAMED" + struct.pack("=IIQQQQII", 2, 2, 4096, 12, size, 2, 5, len(details))
    tail += b"Fi>" + bytes(5) + uuid + bytes(4)
    assert content == expected + tail + struct.pack("=I", zlib.crc32(tail))
    assert forged(content) == content and len(set(uuid)) > 4
    snp.delete(name)


def refused(name, content, match="no array"):
    """Every call refuses a file, and leaves it as it is."""
    put(name, content)
    for call in (
        snp.attach,
        snp.delete,
        lambda name: snp.attach(name, readonly=True),
        lambda name: snp.create(name, 3, exist_ok=True),
        lambda name: snp.create(name, 3, replace=True),
        named.take,
    ):
        with pytest.raises(ValueError, match=match):
            call(name)
    assert name not in str(snp.list_named())
    assert content_of(name) == content


def accepted(name, content, shape):
    put(name, content)
    assert attach_anew(name).shape == shape
    assert name in str(snp.list_named())


DAMAGED = [np.dtype("f8"), np.dtype((np.record, RECORDS[2])), np.dtype(NOT_EXPRESSIBLE["crossed"])]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DAMAGED, ids=["plain", "records", "crossed"])
def test_damaged_files_are_refused(name, dtype):
    """Every length of one, and one with any byte changed that is no item."""
    snp.create(name, (2, 3), dtype)
    content = content_of(name)
    for wrong in named_files.damaged(content):
        refused(name, wrong)
    rng = np.random.RandomState(5)
    # The items, and the zeros behind them, which mean nothing.
    for at in range(4096, len(parts_of(content)[1])):
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randint(8)
        accepted(name, bytes(changed), (2, 3))
    accepted(name, forged(content, uuid=bytes(16)), (2, 3))
    snp.delete(name)


@pytest.mark.slow
def test_tails_that_lie_are_refused_however_right_their_checksum(name):
    snp.create(name, (2, 3), "<f8")
    content = content_of(name)
    accepted(name, forged(content), (2, 3))
    for wrong in named_files.lying(content):
        refused(name, wrong)
    good = {"owner": None, "dtype": "<f8"}
    deep = b'{"owner": null, "dtype": ' + b'{"base": ' * 20000 + b"1" + b"}" * 20001
    for details in [
        dict(good, dtype="O"), dict(good, dtype={"base": "O", "shape": [2]}),
        dict(good, dtype={"base": "<f8", "shape": [1]}), dict(good, dtype="nonsense"),
        dict(good, dtype=7), dict(good, dtype=None), dict(good, dtype=["<f8"]), dict(good, dtype=""),
        dict(good, dtype="<i8"), dict(good, dtype=">f8"), dict(good, dtype="<f4"),
        dict(good, dtype="<f8,<f8"), dict(good, dtype="(2,)<f8"), dict(good, dtype="<f99"),
        dict(good, dtype="<f8 "), dict(good, dtype="<M8[us]"), dict(good, dtype="<U" + "9" * 30),
        dict(good, dtype={"names": ["a"]}), dict(good, owner=7), {"dtype": "<f8"}, {"owner": None},
        {}, [], None, "text", 7,
    ]:  # fmt: skip
        refused(name, forged(content, new_details=json.dumps(details).encode()))
    for details in (b"", b"{", b"\xff", b'{"owner": null, "dtype": "<f8"}\0', deep, b"[" * 99999):
        refused(name, forged(content, new_details=details))
    # What a later version adds does not matter.
    accepted(name, forged(content, new_details=json.dumps(dict(good, more=[1])).encode()), (2, 3))
    accepted(name, forged(content, new_details=json.dumps(dict(good, owner="x")).encode()), (2, 3))
    snp.delete(name)


def test_records_that_cannot_be_are_refused(name):
    snp.create(name, 3, [("a", "<f4"), ("b", "<i4")])
    content = content_of(name)
    good = json.loads(parts_of(content)[4].decode())["dtype"]
    for changed in [
        {"offsets": [0, 5]}, {"offsets": [4, 0]}, {"offsets": [0, -1]}, {"offsets": [0]},
        {"offsets": [0, 0]}, {"offsets": "04"}, {"itemsize": 7}, {"itemsize": 9}, {"itemsize": -1},
        {"itemsize": "8"}, {"names": ["a"]}, {"names": ["a", "a"]}, {"names": ["b", "a"]},
        {"names": [1, 2]}, {"formats": ["<f4", "<f4"]}, {"formats": ["<f4", "O"]},
        {"formats": ["<f4", None]}, {"titles": ["a", "b"]}, {"titles": [[], []]}, {"titles": None},
        {"formats": ["<f4", {"base": "<i2", "shape": [2]}]},
        {"formats": ["<f4", {"base": "<i2", "shape": [-2]}]},
        {"formats": ["<f4", {"base": "<i2", "shape": [1 << 70]}]},
        {"record": 7, "names": []}, {"aligned": None, "offsets": [0, 2]},
    ]:  # fmt: skip
        details = {"owner": None, "dtype": dict(good, **changed)}
        refused(name, forged(content, new_details=json.dumps(details).encode()))
    for missing in good:
        details = {key: value for key, value in good.items() if key != missing}
        details = {"owner": None, "dtype": details}
        refused(name, forged(content, new_details=json.dumps(details).encode()))
    os.unlink(path_of(name))


def test_heads_and_tails_that_contradict_each_other(name, new_name):
    """Each is right for itself: of another array of as many bytes."""
    files = []
    for each in named_files.ALIKE:
        snp.create(name, *each)
        files.append(content_of(name))
        snp.delete(name)
    for wrong in named_files.crossed(files):
        refused(name, wrong)
    npy = new_name()
    with open(path_of(npy), "wb") as file:
        np.save(file, np.zeros(1000))
    refused(npy, content_of(npy))
    os.unlink(path_of(npy))
    os.unlink(path_of(name))


# Files of version 1.

MADE_BEFORE = os.path.join(ROOT, "tests", "data", "named-version-1")
NESTED = [("a", "u1"), ("b", ">f4", (2,)), ("n", [(("a title", "x"), "M8[us]"), ("s", "S3")])]
CROSSED = {"names": ["late", "early", "inner"], "formats": ["<f4", "<i2", "u1"]}
CROSSED = dict(CROSSED, offsets=[4, 0, 5], itemsize=10)
VERSION_1 = {
    "plain": ("f8", (3, 4), "C"),
    "fortran": (">i2", (2, 3), "F"),
    "records": ((np.record, np.dtype(NESTED, align=True)), (2,), "C"),
    "crossed": (CROSSED, (3,), "C"),
    "nothing": ("<U2", (0, 3), "F"),
    "scalar": ("c16", (), "C"),
}


@pytest.fixture(params=sorted(VERSION_1))
def made_before(request, name):
    """An array that version 1 has made: its name, dtype, shape and order."""
    if sys.byteorder != "little":
        pytest.skip("the files were made on a machine of the other byte order")
    shutil.copyfile(os.path.join(MADE_BEFORE, request.param), path_of(name))
    dtype, shape, order = VERSION_1[request.param]
    return name, np.dtype(dtype), shape, order


def test_arrays_of_version_1_are_arrays(made_before):
    name, dtype, shape, order = made_before
    a, b = attach_anew(name), snp.attach(name, readonly=True)
    expected = np.zeros(shape, dtype, order)
    for each in (a, b):
        assert (each.dtype, each.shape) == (dtype, shape)
        assert each.strides == expected.strides or not expected.nbytes
        assert each.dtype.type is dtype.type
        assert each.dtype.isalignedstruct == dtype.isalignedstruct
        address = each.__array_interface__["data"][0]
        items = (np.arange(expected.nbytes) * 7 % 120).astype("u1")
        assert ctypes.string_at(address, each.nbytes) == items.tobytes()
    [found] = [each for each in snp.list_named() if each.name == "shm://" + name]
    assert (found.dtype, found.shape, found.order) == (dtype, shape, order)
    assert snp.create(name, shape, dtype, order, exist_ok=True).base is a.base
    with pytest.raises(ValueError):
        np.load(path_of(name), mmap_mode="r")
    new = snp.create(name, shape, dtype, order, replace=True)
    assert attach_anew(name).dtype == dtype and new.base is not a.base
    snp.delete(name)


def test_arrays_of_version_1_are_deleted_and_taken(made_before):
    name, dtype, shape, _ = made_before
    content = content_of(name)
    snp.delete(name)
    assert not exists(name)
    put(name, content)
    os.chmod(path_of(name), 0o600)
    assert named.take(name).dtype == dtype and not exists(name)


def test_damaged_files_of_version_1_are_refused(made_before):
    name = made_before[0]
    content = content_of(name)
    described = 64 + struct.unpack_from("=I", content, 12)[0]
    for length in list(range(0, described + 1, 17)) + [4095, len(content) - 1]:
        refused(name, content[:length])
    refused(name, content + b"x")
    rng = np.random.RandomState(5)
    for at in [at for at in range(described) if not 32 <= at < 48]:  # The uuid may be any.
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randint(8)
        refused(name, bytes(changed))
    os.unlink(path_of(name))


def test_descriptions_of_version_1_that_cannot_be(name):
    with open(os.path.join(MADE_BEFORE, "plain"), "rb") as file:
        content = file.read()
    good = {"dtype": "<f8", "shape": [3, 4], "order": "C"}
    for description in [
        dict(good, dtype="O"), dict(good, dtype={"base": "O", "shape": [2]}), {}, [], None,
        dict(good, dtype="nonsense"), dict(good, dtype=7), dict(good, shape=[-3, 4]),
        dict(good, shape=[1 << 62, 1 << 62]), dict(good, shape=[4, 4]), dict(good, shape="34"),
        dict(good, shape=[True, 12]), dict(good, order="X"), dict(good, order=[]),
    ]:  # fmt: skip
        text = json.dumps(description).encode()
        head = bytearray(content[:4096])
        struct.pack_into("=I", head, 12, len(text))
        struct.pack_into("=I", head, 48, zlib.crc32(text))
        head[64 : 64 + len(text)] = text
        refused(name, bytes(head) + content[4096:])
    os.unlink(path_of(name))


# Deaths.

KILLED = """
import os, random, signal, sys, time
import numpy as np
import shared_numpy as snp
from shared_numpy import named

name, count = sys.argv[1], int(sys.argv[2])
named._TEMPORARY = ".snp-test-replacing-%x-" % os.getpid()
random.seed(5)
seen = set()

def look():
    if not os.path.exists("/dev/shm/" + name):
        return None
    named._mapped.clear()
    for found in (snp.attach(name), np.load("/dev/shm/" + name, mmap_mode="r")):
        assert found.size and (found == found.flat[0]).all(), found
    return found.shape, int(found.flat[0])

snp.create(name, 2, "u4", fill=1)
for i in range(count):
    made = i % 2 == 0
    if made:
        snp.delete(name)
    before = look()
    after = (i % 5 + 1, 70 + i), i + 3
    pid = os.fork()
    if pid == 0:
        snp.create(name, after[0], "u4", "CF"[i % 2], replace=not made, fill=after[1])
        os._exit(0)
    time.sleep(random.random() * 0.002)
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    found = look()
    assert found in (before, after) and (found == after or status), (found, before, after)
    seen.add(found == after)
    if found is None:
        snp.create(name, 2, "u4", fill=1)
snp.create(name, 2, replace=True)  # It removes what they have left.
left = [each for each in os.listdir("/dev/shm") if each.startswith(named._TEMPORARY)]
assert not left, left
snp.delete(name)
print(sorted(seen))
"""


@pytest.mark.slow
def test_processes_killed_at_any_moment_leave_the_old_the_new_or_none(name):
    assert run_python(KILLED, name, str(150 * MORE)) == "[False, True]\n"


def test_what_is_sent_is_not_the_layout(name):
    """A pickle of an array that lies in a file is as whole as any."""
    a = snp.create(name, 3, "i4", fill=[1, 2, 3])
    assert pickle.loads(pickle.dumps(a)).tolist() == [1, 2, 3]
    snp.delete(name)
