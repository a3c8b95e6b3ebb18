"""How things travel: classes, plain arrays, messages and tokens.

What holds: what arrives is of the type, dtype and value that was sent; what is shared
aliases, what is plain is the receiver's own; what fails half-way leaves nothing; a token
is good once.
"""

import gc
import pickle
import pickletools
import sys
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from array_programs import DTYPES, RECORDS
from conftest import run_python, run_script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shared_numpy as snp
from shared_numpy import _core, arrays
from shared_numpy._pickling import by_reference, pickler
from shared_numpy._core import Arena
from shared_numpy.integrations import multiprocessing as plain_arrays


def counts():
    gc.collect()
    assert Arena.default().check() == []
    stats = Arena.default().stats()
    return stats["blocks"], stats["handles"]


@pytest.fixture(autouse=True)
def nothing_stays():
    before = counts()  # What a failed test keeps, others need not answer for.
    yield
    plain_arrays.unregister()
    assert counts() == before


def sent(thing):
    """What arrives of a thing that goes through a channel of `multiprocessing`."""
    return ForkingPickler.loads(ForkingPickler.dumps(thing))


def pack(thing, handles):
    """Lay a message down; the last of `handles` is its own."""
    return _core.lay_down(pickler.dumps(thing, handles), handles)


def unpack(handle):
    stream, _keeper = _core.take_up(handle)
    return pickler.loads(stream)


def passed(thing):
    """What arrives of a thing that goes through a channel of this package."""
    return unpack(pack(thing, []))


def is_moved(array):
    return arrays.block_of(array) is not None and by_reference.memory_of(array) is None


# Classes of numpy's.


@pytest.mark.parametrize("send", [sent, passed])
def test_masked_arrays(send):
    shared, mask = snp.array([1.0, 2.0, 3.0]), snp.array([False, True, False])
    masked = np.ma.MaskedArray(shared, mask, fill_value=9, hard_mask=True, copy=False)
    masked.note = "a note"
    back = send(masked)
    assert type(back) is np.ma.MaskedArray and back.note == "a note"
    assert back.fill_value == 9 and back.hardmask and back.sum() == 4
    assert type(back.data) is snp.ndarray
    back.data[0] = 7
    assert shared[0] == 7
    without = send(np.ma.MaskedArray(shared))
    assert without.mask is np.ma.nomask and without.data.is_shared()
    plain = np.ma.MaskedArray(np.zeros(10**5), [True] + [False] * (10**5 - 1))
    back = send(plain)
    assert type(back.data) is np.ndarray and back.mask[0] and back.count() == 10**5 - 1
    assert is_moved(back.data) == (send is passed)
    records = np.ma.MaskedArray(snp.zeros(2, RECORDS[0]), mask=[(1, 0, 1), (0, 0, 0)])
    back = send(records)
    assert back.mask.tobytes() == records.mask.tobytes() and back.dtype == records.dtype
    assert send(np.ma.masked) is np.ma.masked


@pytest.mark.parametrize("send", [sent, passed])
def test_records_and_matrices(send):
    records = snp.zeros(3, RECORDS[0]).view(np.recarray)
    back = send(records[1:])
    assert type(back) is np.recarray and back.dtype == records.dtype
    back.a[0] = 5
    assert records.a[1] == 5
    matrix = snp.array([[1.0, 2.0], [3.0, 4.0]]).view(np.matrix)
    back = send(matrix.T)
    assert type(back) is np.matrix and (back == matrix.T).all()
    back[0, 1] = 9
    assert matrix[1, 0] == 9
    for plain in (np.matrix([[1, 2]]), np.zeros(2, RECORDS[0]).view(np.recarray)):
        back = send(plain)
        assert type(back) is type(plain) and (back == plain).all()


def test_what_is_not_shared_goes_as_before():
    """Importing this package changes nothing for them."""
    for array in (
        np.ma.MaskedArray([1, 2], [True, False]),
        np.zeros(2, RECORDS[0]).view(np.recarray),
        np.zeros((2, 2)).view(np.matrix),
    ):
        array.note = lambda: 0  # Which numpy leaves out of a masked array's pickle.
        data = ForkingPickler.dumps(array) if isinstance(array, np.ma.MaskedArray) else None
        assert data is None or b"shared_numpy" not in bytes(data)
        del array.note
        assert b"shared_numpy" not in bytes(ForkingPickler.dumps(array))


class Image(np.ndarray):
    pass


class Slotted(np.ndarray):
    __slots__ = ()


class Frame:
    def __init__(self, pixels, exposure):
        self.pixels, self.exposure = pixels, exposure


def flatten(frame):
    return frame.pixels, frame.exposure


def unflatten(parts):
    return Frame(*parts)


@pytest.mark.parametrize("send", [sent, passed])
def test_registered_classes(send):
    snp.register_type(Image)
    snp.register_type(Slotted)
    snp.register_type(Frame, flatten, unflatten)
    pixels = snp.zeros(3)
    image = pixels.view(Image)
    image.place = "here"
    back = send(image)
    back[0] = 4
    assert type(back) is Image and back.place == "here" and pixels[0] == 4
    assert type(send(np.zeros(3).view(Image))) is Image
    assert type(send(pixels.view(Slotted))) is type(send(np.zeros(2).view(Slotted))) is Slotted
    back = send({"frames": [Frame(pixels, 0.5)]})["frames"][0]
    back.pixels[1] = 6
    assert back.exposure == 0.5 and pixels[1] == 6


def test_misuse_of_register_type():
    for wrong in (3, "x", None):
        with pytest.raises(TypeError, match="class"):
            snp.register_type(wrong)
    for functions in ((), (flatten,), (flatten, 3)):
        with pytest.raises(TypeError, match="functions"):
            snp.register_type(Frame, *functions)
    for cls in (list, dict, np.ndarray, type):
        with pytest.raises(ValueError, match="always"):
            snp.register_type(cls, flatten, unflatten)


# Plain arrays.


def test_plain_arrays_are_moved():
    large, small = np.arange(1000), np.arange(10)
    assert not is_moved(sent(large))
    plain_arrays.register(1000)
    back = sent(large)
    assert is_moved(back) and type(back) is np.ndarray and (back == large).all()
    back[0] = 5
    assert large[0] == 0
    assert not is_moved(sent(small)) and (sent(small) == small).all()
    # A view of a shared array is one there, too.
    shared = snp.zeros(3)
    view = sent(np.asarray(shared))
    view[0] = 7
    assert type(view) is np.ndarray and shared[0] == 7
    plain_arrays.register(0)
    assert is_moved(sent(small))
    plain_arrays.unregister()
    assert not is_moved(sent(large)) and (sent(large) == large).all()
    with pytest.raises(ValueError, match="-1"):
        plain_arrays.register(-1)


SHARING = """
import multiprocessing, sys
import numpy as np, shared_numpy as snp
from shared_numpy import arrays
from shared_numpy.integrations import multiprocessing as plain_arrays

def grandchild(connection):
    connection.send(np.arange(5000))

def child(connection):
    connection.send(np.arange(5000))
    process = multiprocessing.Process(target=grandchild, args=(connection,))
    process.start()
    process.join()

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    plain_arrays.register()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=child, args=(theirs,))
    process.start()
    for _ in range(2):
        array = ours.recv()
        assert arrays.block_of(array) is not None and array[4999] == 4999
    process.join()
    assert process.exitcode == 0
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_plain_arrays_are_moved_by_children_too(tmp_path, method):
    process = run_script(tmp_path, SHARING, method)
    assert (process.returncode, process.stderr) == (0, "")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    st.sampled_from(DTYPES + RECORDS),
    st.lists(st.integers(0, 4), max_size=4).map(tuple),
    st.lists(st.sampled_from(["T", "reverse", "step", "repeat"]), max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_plain_arrays_arrive_as_they_are(dtype, shape, ways, readonly, large):
    """Below the threshold and above it, against numpy's own copy."""
    from array_programs import view_of

    size = int(np.prod(shape)) * dtype.itemsize
    fill = bytes(size) if dtype.kind == "U" or dtype.names else bytes(range(1, 65)) * (size // 64 + 1)
    array = np.ndarray(shape, dtype, bytearray(fill)[:size] if size else bytearray(64))
    for way in ways:
        array = view_of(array, way)
    if readonly:
        array.flags.writeable = False
    expected = array.copy(order="K")
    plain_arrays.register(0 if large else 1 << 30)
    back = sent(array)
    assert is_moved(back) == large
    assert (type(back), back.dtype, back.shape) == (np.ndarray, expected.dtype, expected.shape)
    for field in dtype.names or [Ellipsis]:  # But for what lies between fields.
        assert back[field].tobytes() == expected[field].tobytes()
    assert back.flags.writeable == array.flags.writeable
    assert back.dtype.isalignedstruct == array.dtype.isalignedstruct
    repeated = [axis for axis in range(array.ndim) if not array.strides[axis]]
    if large and array.size and any(array.shape[axis] > 1 for axis in repeated):
        # One that can be written to becomes as large as it looks.
        for axis in [] if array.flags.writeable else repeated:
            assert array.shape[axis] == 1 or back.strides[axis] == 0
    elif array.flags.f_contiguous or array.flags.c_contiguous:
        assert back.flags.c_contiguous == array.flags.c_contiguous
        assert back.flags.f_contiguous == array.flags.f_contiguous


def test_arrays_of_objects_go_by_value():
    objects = np.array([{"a": 1}, None, [2]] * 10000, dtype=object)
    plain_arrays.register(0)
    for send in (sent, passed):
        back = send(objects)
        assert back.dtype == object and back.tolist() == objects.tolist()
        records = np.zeros(2, [("a", "i4"), ("b", object)])
        assert send(records).tolist() == records.tolist()


def test_the_most_dimensions():
    most = 64 if int(np.__version__.split(".")[0]) >= 2 else 32
    shared = snp.full((1,) * (most - 1) + (3,), 7)
    for send in (sent, passed):
        back = send(shared)
        back[...] = 8
        assert back.shape == shared.shape and (shared == 8).all()
        assert send(np.zeros(shared.shape)).shape == shared.shape
    assert passed(np.zeros((1,) * (most - 1) + (10**5,))).size == 10**5


# Messages and tokens.


def test_a_message_that_fails_half_way_leaves_nothing():
    a = snp.ones(3)
    for what in ([a, a[1:], np.zeros(10**5), lambda: 0], {"a": a, "b": (a, object.__new__)}):
        for make in (lambda: pack(what, []), lambda: snp.send(what)):
            handles = []
            try:
                packet = pack(what, handles)
            except Exception:
                pickler.cancel(handles)
            else:
                unpack(packet)
            assert counts() == (1, 0)
    with pytest.raises(Exception):
        snp.send([a, np.zeros(10**5), lambda: 0])
    assert counts() == (1, 0)


def test_a_pickler_inside_another():
    class Nested:
        def __reduce__(self):
            return bytes, (pack(snp.ones(2), []),)

    handles = []
    packet = pack([snp.zeros(3), Nested(), snp.ones(4)], handles)
    # Those of the inner one are its own.
    assert len(handles) == 3
    one, inner, two = unpack(packet)
    assert one.sum() == 0 and two.sum() == 4 and unpack(inner).sum() == 2


def test_a_message_is_for_one():
    packet = pack([snp.ones(3), np.ones(10**5)], [])
    assert unpack(packet)[1].sum() == 10**5
    with pytest.raises(snp.StaleHandleError):
        unpack(packet)


def test_a_message_that_cannot_be_loaded_frees_what_it_held():
    class Bad:
        def __reduce__(self):
            return divmod, (1, 0)

    packet = pack([snp.ones(3), Bad(), np.ones(10**5)], [])
    with pytest.raises(ZeroDivisionError):
        unpack(packet)
    assert counts() == (0, 0)


def test_handles():
    shared, plain = snp.zeros(3), np.zeros(10**5)
    handle = snp.send({"deep": [(shared, plain), "text" * 5000]})
    assert isinstance(handle, bytes) and len(handle) <= 106
    raw = bytes(handle)
    assert type(raw) is bytes
    again = pickle.loads(pickle.dumps(handle))
    assert again == handle == snp.Handle(raw) and hash(again) == hash(handle)
    assert type(again) is snp.Handle and str(handle) == repr(handle) == repr(again)
    assert len(pickle.dumps(handle)) < 200
    back = snp.receive(raw)
    back["deep"][0][0][0] = 3
    back["deep"][0][1][0] = 4
    assert shared[0] == 3 and plain[0] == 0
    for each in (handle, again, raw):
        with pytest.raises(snp.StaleHandleError, match="<Handle .*received or cancelled"):
            snp.receive(each)
    assert not handle.cancel()
    assert snp.receive(snp.send(None)) is None


def test_a_cancelled_handle():
    handle = snp.send([snp.ones(3), np.zeros(10**5)])
    assert counts() == (3, 3)
    assert handle.cancel() and not handle.cancel()
    assert counts() == (0, 0)
    with pytest.raises(snp.StaleHandleError):
        snp.receive(handle)


def test_a_handle_in_another_program():
    handle = snp.send({"a": snp.full(3, 5)})
    code = (
        "import shared_numpy as snp, sys\n"
        "print(snp.receive(bytes.fromhex(sys.argv[1]))['a'].sum())\n"
    )
    assert run_python(code, bytes(handle).hex()) == "15\n"


def test_a_handle_outlives_its_maker():
    code = "import shared_numpy as snp; print(bytes(snp.send(snp.full(3, 5))).hex())"
    handle = snp.Handle(bytes.fromhex(run_python(code).strip()))
    assert snp.receive(handle).sum() == 15


def test_what_is_no_handle():
    for call in (snp.Handle, snp.receive):
        for wrong in (b"", b"snpRE", bytes(100)):
            with pytest.raises(ValueError, match="send makes no such handle"):
                call(wrong)
        for wrong in (None, "x", bytearray(3), snp.ones(1)):
            with pytest.raises(TypeError, match="shared_numpy.send has returned"):
                call(wrong)
        with pytest.raises(ValueError, match="Arena.receive takes it"):
            call(Arena.default().send(arrays.block_of(snp.ones(3))))
    Arena.default().cancel_unreceived(0)
    handle = snp.send(1)
    with pytest.raises(ValueError, match="shared_numpy.receive takes it"):
        snp.Arena.receive(handle)
    assert handle.cancel()
    with pytest.raises(ValueError):
        snp.receive(b"snpREF" + bytes(60))
    token = bytearray(bytes(snp.send(1)))
    whole = bytes(token)
    for at in range(6, len(token)):
        token[at] ^= 4
        with pytest.raises(ValueError):
            snp.receive(bytes(token))
        token[at] ^= 4
    assert snp.receive(whole) == 1


def test_a_block_that_holds_no_message():
    block = arrays.block_of(snp.zeros(100))
    with pytest.raises(ValueError, match="no message"):
        snp.receive(b"snpREF" + Arena.default().send(block))
    array = block.array(block.nbytes, "u1")
    array[:16] = np.frombuffer(b"snpMSG01" + (10**6).to_bytes(8, sys.byteorder), "u1")
    with pytest.raises(ValueError, match="no message"):
        snp.receive(b"snpREF" + Arena.default().send(block))


def test_a_handle_of_a_worker_outlives_the_program(tmp_path):
    code = (
        "import multiprocessing, sys\n"
        "import shared_numpy as snp\n"
        "def work():\n"
        "    print(bytes(snp.send([snp.full(3, 5)])).hex(), flush=True)\n"
        "if __name__ == '__main__':\n"
        "    a = snp.ones(3)\n"
        "    process = multiprocessing.Process(target=work)\n"
        "    process.start()\n"
        "    process.join()\n"
    )
    output = run_script(tmp_path, code).stdout
    assert snp.receive(snp.Handle(bytes.fromhex(output.strip())))[0].sum() == 15


def test_a_handle_of_another_program_is_cancelled():
    code = "import shared_numpy as snp; print(bytes(snp.send(snp.full(3, 5))).hex())"
    handle = snp.Handle(bytes.fromhex(run_python(code).strip()))
    assert handle.cancel() and not handle.cancel()
    with pytest.raises(snp.StaleHandleError):
        snp.receive(handle)


def test_older_interpreters_can_read_it():
    for thing in ([1, "x", snp.ones(3), bytearray(5), np.ones(9)], [np.ones(3), {5}]):
        stream = pickler.dumps(thing, [], end=b"and more")
        assert max(code.proto for code, _, _ in pickletools.genops(stream)) <= 4
        assert repr(pickle.loads(stream)) == repr(thing)


def test_what_a_reducer_sends_elsewhere_is_not_the_message_s():
    import multiprocessing

    ours, theirs = multiprocessing.Pipe()

    class Sends:
        def __init__(self, fails=False):
            self.fails = fails

        def __reduce__(self):
            ours.send(snp.full(3, 4))
            return (lambda: 0) if self.fails else int, (1,)

    assert passed([snp.ones(3), Sends()])[1] == 1
    assert theirs.recv().sum() == 12
    with pytest.raises(Exception):
        snp.send([snp.ones(3), Sends(fails=True)])
    assert theirs.recv().sum() == 12
    ours.close()
    theirs.close()


def test_what_is_one_s_own_is_so_for_one():
    plain_arrays.register(0)
    data = ForkingPickler.dumps(np.arange(1000))
    one = ForkingPickler.loads(data)
    with pytest.raises(snp.StaleHandleError):
        ForkingPickler.loads(data)
    assert one[999] == 999


def test_without_room_arrays_go_by_value(monkeypatch):
    plain_arrays.register(0)

    def full(*arguments):
        raise snp.ArenaFullError("full")

    monkeypatch.setattr(_core, "copy", full)
    back = sent(np.arange(1000))
    assert (back == np.arange(1000)).all() and not is_moved(back)


def test_unregistering_gives_back_what_was_registered(monkeypatch):
    registry = ForkingPickler._extra_reducers
    assert np.ndarray not in registry
    shared = snp.zeros(3)
    plain_arrays.register(5)
    plain_arrays.register(7)
    plain_arrays.unregister()
    assert np.ndarray not in registry
    sent(np.asarray(shared))[0] = 5
    assert shared[0] == 0
    monkeypatch.setitem(registry, np.ndarray, lambda array: (list, ()))
    plain_arrays.register(0)
    assert sent(np.ones(3)).sum() == 3
    plain_arrays.unregister()
    assert sent(np.ones(3)) == []


def test_a_writable_array_that_repeats_is_expanded():
    base = np.zeros(5000)
    wide = np.lib.stride_tricks.as_strided(base, (3, 5000), (0, 8), writeable=True)
    fixed = np.broadcast_to(base, (3, 5000))
    back = passed([wide, fixed])
    assert 0 not in back[0].strides and back[1].strides == (0, 8)
    assert back[0].flags.writeable and not back[1].flags.writeable


# Children that die before they have read what they were given.

EARLY = """
import gc, multiprocessing, os, signal, sys, time
import shared_numpy as snp
from shared_numpy._core import Arena

def work(*things):
    time.sleep(100)

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    q, a = snp.Queue(), snp.ones(3)
    q.put([a, a])
    processes = [multiprocessing.Process(target=work, args=(q, a)) for _ in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    del process, processes
    gc.collect()
    arena = Arena.default()
    arena.reap()
    stats = arena.stats()
    assert stats["handles"] == 2, stats  # The message and its array.
    del q, a
    gc.collect()
    arena.reap()
    stats = arena.stats()
    assert (stats["blocks"], stats["handles"]) == (0, 0), stats
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_that_dies_at_once(tmp_path, method):
    process = run_script(tmp_path, EARLY, method)
    assert (process.returncode, process.stderr) == (0, "")
