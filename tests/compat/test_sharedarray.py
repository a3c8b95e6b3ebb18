"""SharedArray's names over this package: the same calls, the same files.

What a file holds is checked by code of this test's own, and by SharedArray itself where that
is installed.
"""

import importlib.util
import mmap
import os
import struct

import numpy as np
import pytest
from conftest import exists, run_python

import shared_numpy as snp
import shared_numpy.compat.sharedarray as sa

TYPES = ["?", "i1", "u1", "i2", "u4", "i8", "f2", "f4", "f8", "g", "c8", "c16", "S3", "U2", "V5"]


def written(array, most, gap=0):
    """Return the bytes of a file that SharedArray makes of an array."""
    head = b"[SharedArray]\0\0\0" + struct.pack(
        "=Qiii", array.nbytes, array.dtype.num, array.itemsize, array.ndim
    )
    lengths = list(array.shape) + [0] * (most - array.ndim)
    return array.tobytes() + bytes(gap) + head + struct.pack("=%dq" % most, *lengths)


def items(dtype, shape):
    count = int(np.prod(shape))
    raw = np.arange(count * np.dtype(dtype).itemsize) % 2
    if np.dtype(dtype).char == "U":
        return np.array(["ab", "c"] * count, dtype)[:count].reshape(shape)
    return np.frombuffer(raw.astype("u1").tobytes(), dtype, count).reshape(shape)


def test_in_shared_memory(name):
    for key in ("shm://" + name, name):
        a = sa.create(key, (2, 3), "f4")
        assert isinstance(a, snp.ndarray) and a.dtype == "f4" and not a.any()
        a[1] = 7
        b, c = sa.attach("shm://" + name), sa.attach(key, True)
        b[0] = 5
        assert a.tolist() == c.tolist() == [[5] * 3, [7] * 3] and not c.flags.writeable
        assert sa.ArrayDesc(name.encode(), np.float32, (2, 3)) in sa.list()
        with pytest.raises(FileExistsError):
            sa.create(key, 3)
        sa.delete(name)
        assert not exists(name) and a[0, 0] == 5
        for call in (sa.attach, sa.delete):
            with pytest.raises(FileNotFoundError):
                call(key)
    assert sa.create(name, 3).dtype == float
    sa.delete(name)


@pytest.mark.parametrize("dtype", TYPES)
def test_files_are_those_of_sharedarray(dtype, tmp_path):
    path = str(tmp_path / "array")
    for shape in ((3, 2), (), (0, 4), 5, [2, np.int64(2)]):
        a = sa.create("file://" + path, shape, dtype)
        assert a.dtype == dtype and not a.tobytes().strip(b"\0") and a.flags.c_contiguous
        a[...] = items(dtype, a.shape)
        with open(path, "rb") as file:
            assert file.read() == written(a, sa._DIMENSIONS_HERE)
        sa.delete("file://" + path)
        assert not os.path.exists(path)
        for most in (32, 64):
            with open(path, "wb") as file:
                file.write(written(a, most, 100))
            b = sa.attach("file://" + path)
            assert (b.dtype, b.shape, b.tobytes()) == (a.dtype, a.shape, a.tobytes())
            assert not sa.attach("file://" + path, ro=True).flags.writeable
            os.unlink(path)


def test_a_file_is_shared_and_stays(tmp_path):
    name = "file://" + str(tmp_path / "array")
    a = sa.create(name, 1000)
    a[:] = 1
    run_python(
        "import sys, shared_numpy.compat.sharedarray as sa\n"
        "a = sa.attach(sys.argv[1]); a += 1; sa.msync(a, sa.MS_SYNC)\n",
        name,
    )
    assert (a == 2).all()
    with pytest.raises(FileExistsError):
        sa.create(name, 1000)
    del a
    assert (sa.attach(name) == 2).all()


def test_what_is_none_is_refused_and_stays(tmp_path, name):
    path = str(tmp_path / "file")
    good = written(np.arange(6.0).reshape(2, 3), 64)
    tail = len(good) - 48
    wrong = [b"", b"x", good[1:], good[:-1], bytes(len(good)), good[tail:]]
    for at, value in ((16, 99), (24, 9999), (28, 7), (32, 65), (32, -1), (36, -2), (36, 1 << 62)):
        at += 48
        kind = "=Q" if at == 64 else "=q" if at >= 84 else "=i"
        bad = bytearray(good)
        bad[at : at + struct.calcsize(kind)] = struct.pack(kind, value)
        wrong.append(bytes(bad))
    for content in wrong:
        with open(path, "wb") as file:
            file.write(content)
        for call in (sa.attach, sa.delete):
            with pytest.raises(OSError, match="SharedArray"):
                call("file://" + path)
        with open(path, "rb") as file:
            assert file.read() == content
    with open("/dev/shm/" + name, "wb") as file:
        file.write(good)
    for call in (sa.attach, sa.delete):
        with pytest.raises(OSError):
            call("shm://" + name)
    os.unlink("/dev/shm/" + name)
    for call in (sa.attach, sa.delete, lambda each: sa.create(each, 3)):
        with pytest.raises(OSError, match="shm://"):
            call("http://" + name)
        with pytest.raises(TypeError):
            call(3)


def test_what_a_file_cannot_hold_is_refused_before_it_is_made(tmp_path):
    path = str(tmp_path / "file")
    for dtype in ([("a", "i4")], "M8[s]", ">f8", object, "(2,)i4", "S0"):
        with pytest.raises(ValueError):
            sa.create("file://" + path, 3, dtype)
    for shape in (-1, (1,) * 65):
        with pytest.raises(ValueError, match="shape"):
            sa.create("file://" + path, shape)
    with pytest.raises(OSError):
        sa.create("file://" + path, 1 << 58)
    with pytest.raises(OSError):
        sa.create("file://" + str(tmp_path / "none" / "file"), 3)
    assert os.listdir(str(tmp_path)) == []


def locked():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmLck"))


def test_memory_is_locked_and_let_go(tmp_path, name):
    arrays = [sa.create(name, 100), sa.create("file://" + str(tmp_path / "a"), 100)]
    for a in arrays:
        before = locked()
        sa.mlock(a)
        assert locked() - before == mmap.PAGESIZE >> 10 or locked() - before == mmap.PAGESIZE >> 9
        sa.munlock(a)
        assert locked() == before
        with pytest.raises(OSError):
            sa.msync(a, sa.MS_SYNC | sa.MS_ASYNC)
    with pytest.raises(TypeError):
        sa.mlock([1, 2])
    with pytest.raises(ValueError):
        sa.mlock(arrays[0][::2])
    sa.delete(name)


@pytest.mark.skipif(not importlib.util.find_spec("SharedArray"), reason="there is no SharedArray")
@pytest.mark.parametrize("maker, reader", [("sa", "SharedArray"), ("SharedArray", "sa")])
def test_files_go_between_it_and_this(maker, reader, tmp_path):
    code = (
        "import sys, numpy as np, SharedArray, shared_numpy.compat.sharedarray as sa\n"
        "for dtype in {}:\n"
        "    name = 'file://%s/%s' % (sys.argv[1], dtype.replace('?', 'bool'))\n"
        "    a = {}.create(name, (2, 3), dtype); b = {}.attach(name)\n"
        "    a.view('u1')[...] = 1 if dtype[0] != 'U' else 0\n"
        "    assert (b.dtype, b.shape, b.tobytes()) == (a.dtype, a.shape, a.tobytes()), dtype\n"
        "    {}.delete(name)\n"
    ).format(TYPES, maker, reader, reader)
    run_python(code, str(tmp_path))
