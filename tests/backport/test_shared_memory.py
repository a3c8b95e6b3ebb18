"""`SharedMemory`: the constructor, names, sizes, pickling, closing.

Properties:

* Bad arguments get 3.8's errors, in 3.8's order, before anything is made.
* A constructor that fails, wherever it does, leaves no segment that it made,
  no descriptor, and everything that was there before.
* `close` is idempotent and `BufferError` comes when views of `buf` exist.
* What is made from `buf` and keeps no view keeps the mapping itself.
"""

import errno
import gc
import mmap
import os
import pickle
import sys
import threading
import time

import pytest
from conftest import MORE, exists, run_python

from shared_numpy import resource_tracker, shared_memory
from shared_numpy._system import posixshmem
from shared_numpy.shared_memory import SharedMemory


@pytest.fixture
def shm(name):
    segment = SharedMemory(name, create=True, size=64)
    yield segment
    segment.close()
    segment.unlink()


def descriptors():
    return set(os.listdir("/proc/self/fd"))


def mapped(name):
    """Tell whether this process maps the segment, asking the system."""
    with open("/proc/self/maps") as maps:
        return any("/dev/shm/" + name in line for line in maps)


class TestArguments:
    @pytest.mark.parametrize("size", [-1, -0.5, float("nan"), -(2 ** 70)])
    @pytest.mark.parametrize("create", [False, True])
    def test_negative_size(self, size, create):
        with pytest.raises(ValueError) as raised:
            SharedMemory(create=create, size=size)
        assert str(raised.value) == "'size' must be a positive integer"

    @pytest.mark.parametrize("size", ["10", None, [1], 1j])
    def test_size_of_a_wrong_type(self, size):
        with pytest.raises(TypeError):
            SharedMemory("x", create=True, size=size)

    @pytest.mark.parametrize("size", [0, 0.0, False])
    def test_nothing_to_create(self, size):
        with pytest.raises(ValueError) as raised:
            SharedMemory(create=True, size=size)
        message = "'size' must be a positive number different from zero"
        assert str(raised.value) == message

    def test_no_name_to_attach_to(self):
        with pytest.raises(ValueError) as raised:
            SharedMemory()
        assert str(raised.value) == "'name' can only be None if create=True"

    def test_order_of_checks(self):
        with pytest.raises(ValueError) as raised:
            SharedMemory(size=-1)
        assert "positive integer" in str(raised.value)
        with pytest.raises(ValueError) as raised:
            SharedMemory(create=True, reserve="yes")
        assert "different from zero" in str(raised.value)

    @pytest.mark.parametrize("reserve", ["yes", 2, [], 0, 1.0])
    def test_reserve_of_a_wrong_type(self, name, reserve):
        with pytest.raises(TypeError) as raised:
            SharedMemory(name, create=True, size=1, reserve=reserve)
        assert repr(reserve) in str(raised.value)

    def test_options_are_keywords(self, name):
        with pytest.raises(TypeError):
            SharedMemory(name, True, 1, True)

    @pytest.mark.parametrize("bad", [3, b"x", []])
    def test_name_of_a_wrong_type(self, bad):
        with pytest.raises(TypeError):
            SharedMemory(bad, create=True, size=1)
        with pytest.raises(TypeError):
            SharedMemory(bad)

    def test_names_that_are_no_c_strings(self, name):
        for create in (False, True):
            with pytest.raises(ValueError) as raised:
                SharedMemory(name + "\0", create=create, size=1)
            assert str(raised.value) == "embedded null character"
            with pytest.raises(UnicodeEncodeError):
                SharedMemory(name + "\udc80", create=create, size=1)

    @pytest.mark.parametrize("bad", ["", "a/b"])
    def test_invalid_names(self, bad):
        for create in (False, True):
            with pytest.raises(OSError) as raised:
                SharedMemory(bad, create=create, size=1)
            assert raised.value.errno == errno.EINVAL
            assert raised.value.filename == "/" + bad

    def test_existing_and_missing(self, shm, new_name):
        with pytest.raises(FileExistsError) as raised:
            SharedMemory(shm.name, create=True, size=1)
        assert raised.value.filename == "/" + shm.name
        assert exists(shm.name)
        missing = new_name()
        with pytest.raises(FileNotFoundError) as raised:
            SharedMemory(missing)
        assert raised.value.filename == "/" + missing

    @pytest.mark.skipif(sys.version_info >= (3, 10), reason="3.10 refuses floats")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_float_size(self, name):
        shm = SharedMemory(name, create=True, size=10.7)
        assert shm.size == 10
        shm.close()
        shm.unlink()

    @pytest.mark.skipif(sys.version_info < (3, 10), reason="before 3.10 it works")
    def test_float_size_refused(self, name):
        with pytest.raises(TypeError):
            SharedMemory(name, create=True, size=10.0)

    @pytest.mark.parametrize("reserve", [None, False, True])
    def test_sizes_beyond_everything(self, name, reserve):
        for size in (2 ** 62, 2 ** 63 - 1):
            with pytest.raises(OSError):
                SharedMemory(name, create=True, size=size, reserve=reserve)
            assert not exists(name)
        for size in (2 ** 63, 2 ** 64, 2 ** 200):
            with pytest.raises(OverflowError):
                SharedMemory(name, create=True, size=size, reserve=reserve)
            assert not exists(name)


class TestAttributes:
    def test_automatic_name(self):
        shm = SharedMemory(create=True, size=1)
        try:
            assert shm.name.startswith("psm_")
            assert len(shm.name) == 12
            int(shm.name[4:], 16)
            assert shm._name == "/" + shm.name
            assert exists(shm.name)
            assert os.stat("/dev/shm/" + shm.name).st_mode & 0o777 == 0o600
        finally:
            shm.close()
            shm.unlink()

    def test_automatic_name_is_tried_again(self, new_name, monkeypatch):
        names = ["/" + new_name(), "/" + new_name()]
        first = SharedMemory(names[0][1:], create=True, size=1)
        monkeypatch.setattr(shared_memory, "_make_filename", iter(names).__next__)
        second = SharedMemory(create=True, size=1)
        assert second._name == names[1]
        for shm in (first, second):
            shm.close()
            shm.unlink()

    @pytest.mark.parametrize("size", [1, 10, 4095, 4096, 4097, 100000])
    def test_size_is_the_exact_request(self, name, size):
        shm = SharedMemory(name, create=True, size=size)
        assert shm.size == len(shm.buf) == os.stat("/dev/shm/" + name).st_size == size
        other = SharedMemory(name, size=7)
        assert other.size == len(other.buf) == size
        for each in (shm, other):
            each.close()
        shm.unlink()

    def test_one_leading_slash_is_hidden(self, name):
        shm = SharedMemory("/" + name, create=True, size=1)
        assert shm.name == "/" + name
        assert shm._name == "//" + name
        other = SharedMemory(name)
        assert other.name == name
        other.close()
        shm.close()
        shm.unlink()

    def test_repr_and_pickle(self, shm):
        expected = "SharedMemory({!r}, size=64)".format(shm.name)
        assert repr(shm) == expected
        assert shm.__reduce__() == (SharedMemory, (shm.name, False, 64))
        shm.buf[:3] = b"abc"
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            copy = pickle.loads(pickle.dumps(shm, protocol))
            assert bytes(copy.buf[::2][:2]) == b"ac"
            copy.buf[1] = ord("B") + protocol
            assert shm.buf[1] == ord("B") + protocol
            copy.close()

    def test_subclass(self, name):
        class Mine(SharedMemory):
            pass

        shm = Mine(name, create=True, size=2)
        copy = pickle.loads(pickle.dumps(SharedMemory(name)))
        assert repr(shm).startswith("Mine(")
        assert shm.__reduce__()[0] is Mine
        copy.close()
        shm.close()
        shm.unlink()

    def test_flags_of_a_subclass(self, shm, new_name):
        """CPython's tests attach by a subclass with flags of its own."""

        class AttachOrCreate(SharedMemory):
            _flags = os.O_CREAT | os.O_RDWR

        other = AttachOrCreate(shm.name)
        assert other.size == shm.size
        other.close()

        class Exclusive(SharedMemory):
            _flags = os.O_CREAT | os.O_EXCL | os.O_RDWR

        with pytest.raises(ValueError) as raised:
            Exclusive(new_name())
        assert str(raised.value) == "cannot mmap an empty file"

    def test_read_and_write_are_shared(self, shm):
        other = SharedMemory(shm.name)
        shm.buf[:5] = b"hello"
        assert bytes(other.buf[:5]) == b"hello"
        other.buf[63] = 9
        assert shm.buf[63] == 9
        assert shm.buf.format == "B" and shm.buf.nbytes == 64 and not shm.buf.readonly
        other.close()


class TestClose:
    def test_is_idempotent(self, shm):
        before = descriptors()
        shm.close()
        assert len(before - descriptors()) >= 1
        shm.close()
        assert shm.buf is None
        assert not mapped(shm.name)

    def test_what_works_after_it(self, shm):
        name = shm.name
        shm.close()
        assert (shm.name, shm.size) == (name, 64)
        assert repr(shm) == "SharedMemory({!r}, size=64)".format(name)
        again = pickle.loads(pickle.dumps(shm))
        again.close()

    def test_buf_is_released(self, shm):
        buf = shm.buf
        shm.close()
        with pytest.raises(ValueError):
            buf[0]

    @pytest.mark.parametrize(
        "export",
        [
            lambda buf: buf[1:3],
            memoryview,
            lambda buf: buf.cast("I"),
            lambda buf: buf.toreadonly() if hasattr(buf, "toreadonly") else buf[:],
        ],
    )
    def test_exports_refuse_it(self, shm, export):
        view = export(shm.buf)
        for _ in range(2):
            with pytest.raises(BufferError) as raised:
                shm.close()
            assert str(raised.value) == "cannot close exported pointers exist"
            assert shm.buf is None
        bytes(view)
        assert mapped(shm.name)
        del view
        shm.close()
        assert not mapped(shm.name)

    def test_ctypes_export_refuses_it(self, shm):
        import ctypes

        view = (ctypes.c_char * 64).from_buffer(shm.buf)
        with pytest.raises(BufferError):
            shm.close()
        view[0] = b"x"
        del view
        gc.collect()
        shm.close()

    def test_threads_may_close_at_once(self, shm):
        """No descriptor is closed twice: its number may be another's by then."""
        errors = []

        def close(segment, barrier):
            barrier.wait()
            try:
                segment.close()
            except Exception as error:
                errors.append(error)

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for _ in range(300):
                segment = SharedMemory(shm.name)
                barrier = threading.Barrier(2)
                threads = [
                    threading.Thread(target=close, args=(segment, barrier))
                    for _ in range(2)
                ]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
        finally:
            sys.setswitchinterval(interval)
        assert errors == []

    def test_deleting_with_a_lost_descriptor_is_silent(self, name):
        run_python(
            """
import os, sys
from shared_numpy.shared_memory import SharedMemory
shm = SharedMemory(sys.argv[1], create=True, size=64)
shm.unlink()
os.close(shm._fd)
del shm
""",
            name,
        )

    def test_deleting_with_an_export_is_silent(self, name):
        output = run_python(
            """
import gc, os, sys
from shared_numpy.shared_memory import SharedMemory
shm = SharedMemory(sys.argv[1], create=True, size=64)
before = len(os.listdir("/proc/self/fd"))
view = shm.buf[1:3]
shm.unlink()
del shm
gc.collect()
view[0] = 7
print(view[0], before - len(os.listdir("/proc/self/fd")))
del view
gc.collect()
print(any(sys.argv[1] in line for line in open("/proc/self/maps")))
print(before - len(os.listdir("/proc/self/fd")))
""",
            name,
        )
        assert output.split() == ["7", "1", "False", "1"]

    def test_an_export_at_exit_is_silent(self, name):
        run_python(
            """
import sys
from shared_numpy.shared_memory import SharedMemory
shm = SharedMemory(sys.argv[1], create=True, size=64)
view = shm.buf[1:3]
shm.unlink()
""",
            name,
        )

    def test_an_instance_that_outlives_its_module_is_silent(self, new_name):
        # At interpreter shutdown the globals of modules are cleared one module after the other,
        # in the order in which they were imported or from the last to the first.
        run_python(
            """
import sys
import types
before = sys.modules["before"] = types.ModuleType("before")
from shared_numpy import shared_memory
after = sys.modules["after"] = types.ModuleType("after")
for module, name in zip((before, after), sys.argv[1:]):
    module.segment = shared_memory.SharedMemory(name, create=True, size=64)
    module.segment.unlink()
sys.kept = before, shared_memory, after
""",
            new_name(),
            new_name(),
        )

    def test_a_failed_instance_is_silent(self, shm, new_name):
        for arguments in [(new_name(),), ("",), (shm.name, True, 10), (None, True, -1)]:
            failed = SharedMemory.__new__(SharedMemory)
            with pytest.raises((OSError, ValueError)):
                failed.__init__(*arguments)
            failed.close()
            failed.unlink()
            repr(failed)
            del failed
        assert exists(shm.name)

    def test_second_unlink(self, name):
        shm = SharedMemory(name, create=True, size=1)
        shm.close()
        shm.unlink()
        with pytest.raises(FileNotFoundError):
            shm.unlink()

    def test_unlink_leaves_the_memory(self, name):
        shm = SharedMemory(name, create=True, size=1)
        shm.unlink()
        shm.buf[0] = 3
        assert shm.buf[0] == 3
        shm.close()


class TestArraysOutliveClose:
    """What numpy makes of `buf` refers to the mapping, not to a view.

    These run in processes of their own: where the promise is broken, the
    interpreter crashes.
    """

    START = """
import gc, os, sys
import numpy as np
from shared_numpy.shared_memory import SharedMemory
name = sys.argv[1]
def mapped():
    return any("/dev/shm/" + name in line for line in open("/proc/self/maps"))
shm = SharedMemory(name, create=True, size=8192)
"""

    def test_ndarray(self, name):
        run_python(
            self.START
            + """
array = np.ndarray((2, 512), np.float64, buffer=shm.buf)
array[:] = 1.5
shm.close()
shm.unlink()
array[1, 511] = 2.5
assert array.sum() == 1023 * 1.5 + 2.5
row = array[1]
del array, shm
gc.collect()
assert row[511] == 2.5 and mapped()
del row
gc.collect()
assert not mapped()
""",
            name,
        )

    def test_garbage_collected_without_close(self, name):
        run_python(
            self.START
            + """
array = np.ndarray(8192, np.uint8, buffer=shm.buf)
shm.unlink()
del shm
gc.collect()
array[:] = 9
assert array.sum() == 9 * 8192
del array
assert not mapped()
""",
            name,
        )

    def test_frombuffer(self, name):
        """It keeps a view from numpy 1.22 on, and before only the object `buf`."""
        output = run_python(
            self.START
            + """
array = np.frombuffer(shm.buf, np.uint8)
try:
    shm.close()
except BufferError:
    print("BufferError")
array[:] = 7
assert array.sum() == 7 * 8192
assert mapped()
del array
gc.collect()
shm.close()
assert not mapped()
shm.unlink()
print(np.__version__)
""",
            name,
        ).split()
        version = tuple(map(int, output[-1].split(".")[:2]))
        assert output[:-1] == (["BufferError"] if version >= (1, 22) else [])

    def test_asarray(self, name):
        run_python(
            self.START
            + """
array = np.asarray(shm.buf)
try:
    shm.close()
except BufferError:
    pass
array[:] = 7
assert array.sum() == 7 * 8192
shm.unlink()
""",
            name,
        )

    def test_at_exit(self, name):
        run_python(
            self.START
            + """
class Late:
    def __init__(self, array):
        self.array = array
    def __del__(self):
        self.array[:] = 1
late = Late(np.ndarray(8192, np.uint8, buffer=shm.buf))
shm.close()
shm.unlink()
""",
            name,
        )

    def test_in_threads(self, name):
        run_python(
            self.START
            + """
import threading
def work(array):
    for k in range(2000):
        array[k % 8192] = k % 256
threads = []
for _ in range(4):
    other = SharedMemory(name)
    threads.append(threading.Thread(target=work, args=(
        np.ndarray(8192, np.uint8, buffer=other.buf),)))
    threads[-1].start()
    other.close()
for thread in threads:
    thread.join()
shm.close()
shm.unlink()
""",
            name,
        )


class TestFailuresLeaveNothing:
    def test_each_step(self, name, monkeypatch):
        """Whichever call fails, with whatever, it is as if nothing had been."""

        resource_tracker.ensure_running()  # Its descriptor is none of theirs.

        class Fault(BaseException):
            pass

        def fail(*arguments, **options):
            raise Fault

        steps = [
            (os, "ftruncate"),
            (shared_memory.shm_space._core, "room"),
            (os, "fstat"),
            (shared_memory.shm_space._core, "reserve"),
            (mmap, "mmap"),
            (resource_tracker, "register"),
        ]
        for owner, function in steps:
            with monkeypatch.context() as patch:
                patch.setattr(owner, function, fail)
                before = descriptors()
                with pytest.raises(Fault):
                    SharedMemory(name, create=True, size=10, reserve=True)
                assert descriptors() == before
                assert not exists(name), function
                with pytest.raises(Fault):
                    SharedMemory(create=True, size=10, reserve=True)
                assert descriptors() == before

    def test_the_tracker_forgets_what_was_not_made(self, name, monkeypatch):
        """Even if the exception comes right after it was told."""
        told = []

        class Fault(BaseException):
            pass

        def fail(*arguments):
            raise Fault

        monkeypatch.setattr(resource_tracker, "register", lambda *_: told.append("+"))
        monkeypatch.setattr(resource_tracker, "unregister", lambda *_: told.append("-"))
        monkeypatch.setattr(mmap, "mmap", fail)
        with pytest.raises(Fault):
            SharedMemory(name, create=True, size=10)
        # Whether the first was heard is not known: twice is like once.
        assert told == ["+", "+", "-"]
        with pytest.raises(FileNotFoundError):
            SharedMemory(name)
        assert told == ["+", "+", "-"]

    def test_a_failure_is_not_hidden_by_cleaning_up(self, name, monkeypatch):
        def fail(*arguments):
            os.unlink("/dev/shm/" + name)
            raise KeyError("the failure")

        monkeypatch.setattr(mmap, "mmap", fail)
        with pytest.raises(KeyError):
            SharedMemory(name, create=True, size=10)

    def test_only_a_lack_of_memory_is_called_so(self, name, monkeypatch):
        def fail(*arguments):
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr(shared_memory.shm_space._core, "reserve", fail)
        with pytest.raises(OSError) as raised:
            SharedMemory(name, create=True, size=10, reserve=True)
        assert raised.value.errno == errno.EIO

    def test_a_failing_unlink_tells_the_tracker_nothing(self, name, monkeypatch):
        told = []
        shm = SharedMemory(name, create=True, size=10)
        shm.close()
        shm.unlink()
        monkeypatch.setattr(resource_tracker, "unregister", lambda *_: told.append(1))
        with pytest.raises(FileNotFoundError):
            shm.unlink()
        assert told == []

    def test_attaching_never_removes(self, shm, monkeypatch):
        def fail(*arguments):
            raise OSError(errno.ENOMEM, "no memory")

        for owner, function in [(mmap, "mmap"), (os, "fstat")]:
            with monkeypatch.context() as patch:
                patch.setattr(owner, function, fail)
                before = descriptors()
                with pytest.raises(OSError):
                    SharedMemory(shm.name, reserve=True)
                assert descriptors() == before
            assert exists(shm.name)

    def test_attaching_to_what_cannot_be_mapped(self, new_name):
        """3.8 removes such a segment of somebody else."""
        for size, error in [(2 ** 62, OSError), (0, ValueError)]:
            name = new_name()
            fd = posixshmem.shm_open(
                "/" + name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600
            )
            os.ftruncate(fd, size)
            with pytest.raises(error):
                SharedMemory(name)
            assert exists(name)
            os.close(fd)
            posixshmem.shm_unlink("/" + name)

    def test_descriptors_run_out(self, name):
        output = run_python(
            """
import errno, os, resource, sys
from shared_numpy.shared_memory import SharedMemory
name = sys.argv[1]
first = SharedMemory(name + "_first", create=True, size=1)  # starts the tracker
first.close(); first.unlink()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
while True:
    try:
        taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        break
for free in range(4):
    try:
        shm = SharedMemory(name, create=True, size=10)
    except OSError as error:
        assert error.errno == errno.EMFILE, error
        print(free, "refused")
    else:
        print(free, "made")
        shm.close()
        shm.unlink()
    assert not os.path.exists("/dev/shm/" + name)
    os.close(taken.pop())
""",
            name,
        )
        assert output.split("\n")[:4] == [
            "0 refused",
            "1 made",
            "2 made",
            "3 made",
        ]

    def test_one_descriptor_for_each(self, name):
        output = run_python(
            """
import os, resource, sys
import numpy as np
from shared_numpy.shared_memory import SharedMemory
def descriptors():
    return len(os.listdir("/proc/self/fd"))
first = SharedMemory(sys.argv[1], create=True, size=100)  # Starts the tracker.
before = descriptors()
attached = [SharedMemory(sys.argv[1]) for _ in range(10)]
print(descriptors() - before)
arrays = [np.ndarray(100, "u1", buffer=shm.buf) for shm in attached]
for shm in attached:
    shm.close()
print(descriptors() - before)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
more = [SharedMemory(sys.argv[1]) for _ in range(40)]
arrays[3][5] = 7
print(arrays[9][5], first.buf[5], more[39].buf[5])
for shm in more:
    shm.close()
first.close()
first.unlink()
""",
            name,
        )
        assert output == "10\n0\n7 7 7\n"

    @pytest.mark.slow
    def test_signals_at_any_moment(self, new_name, alarm):
        """An exception from a signal handler arrives between any two bytecodes.

        Without the tracker: that of 3.8 to 3.13 takes a lock, which such an
        exception can leave taken (bpo-29988).
        """
        assert threading.current_thread() is threading.main_thread()
        interrupted = completed = 0
        name = new_name()
        before = descriptors()
        delay = 1e-6
        end = time.monotonic() + 4
        while time.monotonic() < end:
            delay = delay * 1.003 if delay < 90e-6 else 1e-6
            shm = SharedMemory.__new__(SharedMemory)
            if alarm(delay, lambda: shm.__init__(name, create=True, size=4096, track=False)):
                completed += 1
            else:
                interrupted += 1
            if shm.buf is None:
                assert not exists(name)
            else:
                shm.close()
                shm.unlink()
        assert descriptors() == before
        assert interrupted > 100 and completed > 100


@pytest.mark.slow
def test_many_rounds_stay_flat(new_name):
    """Tens of thousands of rounds cost no descriptor, no mapping and no memory."""

    def pages():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1])

    def rounds(number):
        for _ in range(number):
            shm = SharedMemory(name, create=True, size=4096)
            shm.buf[0] = 1
            shm.close()
            shm.unlink()

    name = new_name()
    rounds(2000)
    gc.collect()
    before = descriptors(), pages()
    rounds(40000 * MORE)
    gc.collect()
    assert descriptors() == before[0]
    assert pages() - before[1] < 256  # 1 MiB, 26 bytes a round: less than any object takes.


@pytest.mark.parametrize("character", [":", "\n", "\u00e9"])
@pytest.mark.skipif(
    resource_tracker._ANY_NAME, reason="this version's tracker carries any name"
)
def test_names_that_the_tracker_cannot_carry(name, character):
    odd = name + character
    try:
        os.fsencode(odd)
    except UnicodeEncodeError:
        pytest.skip("no file has such a name in this locale")
    with pytest.raises(ValueError) as raised:
        SharedMemory(odd, create=True, size=1)
    assert "track=False" in str(raised.value)
    assert not exists(odd)
    shm = SharedMemory(odd, create=True, size=1, track=False)
    shm.close()
    shm.unlink()


def test_track_false_tells_the_tracker_nothing(name, monkeypatch):
    told = []
    for function in ("register", "unregister"):
        monkeypatch.setattr(
            resource_tracker,
            function,
            lambda path, kind, function=function: told.append((function, path, kind)),
        )
    shm = SharedMemory(name, create=True, size=1, track=False)
    shm.close()
    shm.unlink()
    assert told == []
    shm = SharedMemory(name, create=True, size=1)
    other = SharedMemory(name, track=True)
    for each in (shm, other):
        each.close()
    shm.unlink()
    path = "/" + name
    assert told == [
        ("register", path, "shared_memory"),
        ("register", path, "shared_memory"),
        ("unregister", path, "shared_memory"),
    ]
