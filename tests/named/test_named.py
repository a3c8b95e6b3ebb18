"""Named arrays: what is found under a name is the array that was made, or an error.

What holds: attaching yields the same memory, dtype, shape and order; a read-only mapping
cannot be written to by anything; whatever else has the name, or a damaged one, is refused
and left as it is; who is killed while making one leaves nothing.
"""

import ctypes
import errno
import gc
import mmap
import os
import pickle
import signal
import stat
import subprocess
import sys
import time
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from array_programs import DTYPES, RECORDS
from conftest import complete, eventually, exists, run_command, run_python, run_script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shared_numpy as snp
from shared_numpy import named
from shared_numpy._system import file_mapping


# Arrays in the making have other names than those of other programs, which remove what they
# find left over.
PREFIXES = ".snp-test-replacing-%d-" % os.getpid(), ".snp-test-making-%d-" % os.getpid()
OWN = """
from shared_numpy import named
named._TEMPORARY, named._MAKING = {}
""".format(PREFIXES)


@pytest.fixture(autouse=True, scope="module")
def own_prefixes():
    before = named._TEMPORARY, named._MAKING
    named._TEMPORARY, named._MAKING = PREFIXES
    yield
    named._TEMPORARY, named._MAKING = before


def sent(thing):
    return ForkingPickler.loads(ForkingPickler.dumps(thing))


def test_made_attached_deleted(name):
    a = snp.create("shm://" + name, (3, 4), "f4", order="F")
    assert type(a) is snp.ndarray and a.is_shared() and a.flags.f_contiguous
    assert (a == 0).all() and snp.name_of(a) == name
    b = snp.attach(name)
    assert (b.dtype, b.shape, b.flags.f_contiguous) == (a.dtype, a.shape, True)
    b[1, 2] = 5
    assert a[1, 2] == 5
    [found] = [each for each in snp.list_named() if each.name == "shm://" + name]
    assert (found.dtype, found.shape, found.order) == (np.dtype("f4"), (3, 4), "F")
    snp.delete("shm://" + name)
    a[0, 0] = 9
    assert b[0, 0] == 9 and not exists(name)
    for call in (snp.attach, snp.delete):
        with pytest.raises(FileNotFoundError, match=name):
            call(name)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    st.sampled_from(DTYPES + RECORDS + [np.dtype((np.record, RECORDS[0])), np.dtype("U")]),
    st.lists(st.integers(0, 4), max_size=5).map(tuple),
    st.sampled_from("CF"),
)
def test_every_dtype_and_shape(dtype, shape, order):
    name = "snptest_named_%d" % os.getpid()
    a = snp.create(name, shape, dtype, order)
    try:
        expected = np.zeros(shape, dtype, order)
        named._mapped.clear()  # As another process finds it.
        b = snp.attach(name)
        for each in (a, b):
            assert (each.dtype, each.shape) == (expected.dtype, expected.shape)
            assert each.dtype.type is expected.dtype.type
            assert each.dtype.isalignedstruct == expected.dtype.isalignedstruct
            assert each.flags.c_contiguous == expected.flags.c_contiguous
            assert each.flags.f_contiguous == expected.flags.f_contiguous
            # As they lie: in another order the bytes between fields would be anything.
            assert each.tobytes("A") == expected.tobytes("A") and each.flags.aligned
        if b.size and b.itemsize:
            ctypes.memset(b.__array_interface__["data"][0], 65, 1)
            assert a.tobytes("A") == b.tobytes("A") and a.tobytes("A")[0] == 65
    finally:
        snp.delete(name)


def test_shapes_as_numpy_takes_them(name):
    a = snp.create(name, 5)
    assert (a.shape, a.dtype) == ((5,), np.dtype(float))
    a.unlink()
    a.unlink()
    assert not exists(name)
    assert snp.create(name, np.array([2, 3]), int).shape == (2, 3)
    snp.delete(name)


def test_a_readonly_mapping(name):
    a = snp.create(name, 4)
    b = snp.attach(name, readonly=True)
    a[0] = 3
    assert b[0] == 3 and not b.flags.writeable
    for change in (lambda: b.__setitem__(0, 1), lambda: b.setflags(write=True)):
        with pytest.raises(ValueError):
            change()
    # And as it was mapped it stays, where it is sent.
    with pytest.raises(ValueError):
        sent(b).setflags(write=True)
    code = (
        "import ctypes, shared_numpy as snp, sys\n"
        "a = snp.attach(sys.argv[1], readonly=True)\n"
        "ctypes.memset(a.__array_interface__['data'][0], 1, 1)\n"
    )
    process = run_command([sys.executable, "-c", code, name])
    assert process.returncode == -signal.SIGSEGV
    assert a[0] == 3
    snp.delete(name)


def test_in_other_processes(name):
    a = snp.create(name, (2, 3), "i4")
    code = (
        "import shared_numpy as snp, sys\n"
        "a = snp.attach('shm://' + sys.argv[1])\n"
        "a[1] += 7\n"
        "print(a.shape, a.dtype)\n"
    )
    assert run_python(code, name) == "(2, 3) int32\n"
    assert (a[1] == 7).all() and exists(name)
    snp.delete(name)


def test_it_stays_when_its_maker_ends(name):
    run_python("import shared_numpy as snp, sys; snp.create(sys.argv[1], 3)[:] = 4", name)
    assert (snp.attach(name) == 4).all()
    snp.delete(name)


CHANNEL = """
import multiprocessing, sys
import numpy as np, shared_numpy as snp

class Frame(snp.ndarray):
    pass

def work(a):
    a[0] += 1
    return a[::-1]

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    a = snp.create(sys.argv[2], (4, 2), "f4", "F")
    with multiprocessing.Pool(1) as pool:
        back = pool.apply(work, (a,))
        frame = pool.apply(work, (a.view(Frame),))
        pool.close()
        pool.join()
    q = snp.Queue()
    q.put([a[1:, ::-1]])
    again = q.get()[0]
    again[0, 0] = 9
    assert (a[0] == 2).all() and a[1, 1] == 9 and type(frame) is Frame
    assert back.base is a.base and back.strides == a[::-1].strides
    snp.delete(sys.argv[2])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_by_reference_through_channels(tmp_path, name, method):
    process = run_script(tmp_path, CHANNEL, method, name)
    assert (process.returncode, process.stderr) == (0, ""), process.stderr


def test_what_was_deleted_or_replaced_is_stale(name):
    a = snp.create(name, 3)
    late = ForkingPickler.dumps(a)
    snp.delete(name)
    # Who has it still has it.
    assert ForkingPickler.loads(late).base is a.base
    del a
    gc.collect()
    with pytest.raises(snp.StaleHandleError, match="deleted"):
        ForkingPickler.loads(late)
    b = snp.create(name, 3)
    with pytest.raises(snp.StaleHandleError, match="deleted"):
        ForkingPickler.loads(late)
    b.unlink()
    with pytest.raises(ValueError, match="unlinked"):
        sent(b)
    c = snp.create(name, 3)
    b.unlink()  # Not the other's name.
    assert exists(name)
    c.unlink()
    assert type(pickle.loads(pickle.dumps(c))) is np.ndarray


def test_one_that_is_too_large(name):
    with pytest.raises(OSError, match=r"an array with a name of .*shared_numpy.delete") as raised:
        snp.create(name, 1 << 50)
    assert raised.value.errno == errno.ENOSPC and not exists(name)


def test_names_that_are_taken(name):
    a = snp.create(name, 3)
    for _ in range(2):
        with pytest.raises(FileExistsError, match=name) as caught:
            snp.create(name, (5, 5))
        for part in ("shape (3,), dtype float64", "exist_ok=True", "replace=True", "delete()"):
            assert part in str(caught.value)
    assert a.shape == (3,) and snp.attach(name).shape == (3,)
    snp.delete(name)
    shm = snp.SharedMemory(name, create=True, size=100)
    with pytest.raises(FileExistsError, match=r"taken \(.*no array.*\): choose another name"):
        snp.create(name, 3)
    for call in (snp.attach, snp.delete):
        with pytest.raises(ValueError, match="no array"):
            call(name)
    assert exists(name) and name not in str(snp.list_named())
    shm.close()
    shm.unlink()


def test_another_user_s(name, monkeypatch):
    snp.create(name, 3)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    for call in (snp.attach, snp.delete):
        with pytest.raises(PermissionError, match="another user"):
            call(name)
    with pytest.raises(FileExistsError, match=r"taken \(.*another user.*\): choose another name"):
        snp.create(name, 3)
    monkeypatch.undo()
    snp.delete(name)


@pytest.mark.parametrize("bad", ["", "shm://", "a/b", "shm://a/b", ".", "..", "a\0b", "n" * 256])
def test_names_that_cannot_be(bad):
    for call in (lambda: snp.create(bad, 3), lambda: snp.attach(bad), lambda: snp.delete(bad)):
        with pytest.raises(ValueError, match="name"):
            call()


def test_misuse(name):
    with pytest.raises(ValueError, match="file://"):
        snp.create("file://x", 3)
    with pytest.raises(TypeError, match="str"):
        snp.create(7, 3)
    with pytest.raises(TypeError, match="references to Python objects"):
        snp.create(name, 3, object)
    with pytest.raises(ValueError, match="negative"):
        snp.create(name, (3, -1))
    with pytest.raises(ValueError, match="order"):
        snp.create(name, 3, order="K")
    with pytest.raises(TypeError):
        snp.create(name, 1.5)
    with pytest.raises(OSError, match="no room") as caught:
        snp.create(name, 1 << 50)
    assert caught.value.errno == 28
    with pytest.raises(ValueError):
        snp.create(name, (1,) * 65)
    assert not exists(name)


def test_something_else_of_that_name(name):
    path = "/dev/shm/" + name
    os.mkdir(path)
    try:
        for call in (snp.attach, snp.delete):
            with pytest.raises((OSError, ValueError)):
                call(name)
        snp.list_named()
    finally:
        os.rmdir(path)
    os.symlink("/etc/passwd", path)
    with pytest.raises(OSError):
        snp.attach(name)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(ValueError, match="no file"):
        snp.attach(name)
    os.unlink(path)


def test_who_is_killed_while_making_one_leaves_nothing_or_all(name):
    code = (
        "import shared_numpy as snp, sys\n"
        "snp.create(sys.argv[1] + 'w', 1).unlink()\n"
        "print(flush=True)\n"
        "snp.create(sys.argv[1], 1 << 20)\n"
    )
    for microseconds in range(0, 5000, 500):
        process = subprocess.Popen([sys.executable, "-c", code, name], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(microseconds * 1e-6)
        process.kill()
        process.communicate()
        if exists(name):
            assert snp.attach(name).shape == (1 << 20,)
            snp.delete(name)


def test_memory_outlives_all_but_its_arrays(name):
    a = snp.create(name, 1000)
    view = a[10:20]
    view[:] = 3
    snp.delete(name)
    a.base.close()
    del a
    gc.collect()
    assert (view == 3).all()


def test_a_descriptor_is_not_kept_open(name):
    before = len(os.listdir("/proc/self/fd"))
    a = snp.create(name, 10)
    assert len(os.listdir("/proc/self/fd")) == before
    readonly = snp.attach(name, readonly=True)
    a[3] = 5
    assert readonly[3] == 5
    views = [snp.attach(name) for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert all(view.base is a.base for view in views)
    local = named.take(name)
    assert local[3] == 5 and len(os.listdir("/proc/self/fd")) == before


def test_where_unreserved_memory_is_counted(name, monkeypatch):
    """Then a mapping keeps a descriptor, as everybody's."""
    monkeypatch.setattr(file_mapping, "_FLAGS", mmap.MAP_SHARED)  # Refused, without a file.
    a = snp.create(name, 10)
    named._mapped.clear()
    b = snp.attach(name, readonly=True)
    a[3] = 5
    assert b[3] == 5
    with pytest.raises(ValueError):
        b.setflags(write=True)
    snp.delete(name)


FEW = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import shared_numpy as snp
arrays = [snp.create("%s-%d" % (sys.argv[1], i), 10) for i in range(300)]
arrays += [snp.attach("%s-%d" % (sys.argv[1], i), readonly=i % 2) for i in range(300)]
for i in range(300):
    arrays[i][:] = i
assert all((arrays[i] == i % 300).all() for i in range(600))
for i in range(300):
    snp.delete("%s-%d" % (sys.argv[1], i))
"""


def test_more_arrays_than_descriptors(new_name):
    run_python(FEW, new_name())


# With `exist_ok` and `replace`.


def test_an_array_that_exists_is_taken(name):
    a = snp.create(name, (3, 4), "f4", "F", exist_ok=True, fill=7)
    b = snp.create("shm://" + name, (3, 4), "f4", "F", exist_ok=True, fill=8)
    assert (a == 7).all() and b.base is a.base and b.flags.f_contiguous
    others = [((4, 3), "f4", "F"), ((3, 4), "f8", "F"), ((3, 4), "f4", "C"), ((3, 4), ">f4", "F")]
    for other in others:
        with pytest.raises(FileExistsError) as caught:
            snp.create(name, *other, exist_ok=True)
        text = str(caught.value)
        assert "shape (3, 4), dtype float32 and order 'F'" in text and name in text
        assert "shape {}, dtype {} and order {!r}".format(
            other[0], np.dtype(other[1]), other[2]
        ) in text
    with pytest.raises(FileExistsError):
        snp.create(name, (3, 4), "f4", "F")
    assert (a == 7).all()
    snp.delete(name)
    # With one dimension the orders are one.
    a = snp.create(name, 3, order="F")
    assert snp.create(name, 3, exist_ok=True).base is a.base
    snp.delete(name)


def test_an_array_is_replaced(name):
    old = snp.create(name, 3)
    late = ForkingPickler.dumps(old)
    new = snp.create(name, (2, 2), "i4", replace=True, fill=[[1, 2], [3, 4]])
    assert (old == 0).all() and old.shape == (3,) and new.tolist() == [[1, 2], [3, 4]]
    assert snp.attach(name).base is new.base and (sent(new) == new).all()
    with pytest.raises(snp.StaleHandleError, match="deleted or replaced"):
        sent(old)
    with pytest.raises(snp.StaleHandleError, match="deleted or replaced"):
        sent([old[1:]])
    assert ForkingPickler.loads(late).base is old.base  # Who has it still has it.
    old.unlink()
    assert exists(name)
    snp.delete(name)
    with pytest.raises(snp.StaleHandleError, match="deleted or replaced"):
        sent(new)
    # There need not be one.
    again = snp.create(name, 3, replace=True)
    assert (again == 0).all() and len(left_of_replacing()) == 0
    snp.delete(name)


def left_of_replacing():
    return [each for each in os.listdir("/dev/shm") if each.startswith(named._TEMPORARY)]


def test_what_cannot_be_asked_for(name):
    with pytest.raises(ValueError, match="not both"):
        snp.create(name, 3, exist_ok=True, replace=True)
    with pytest.raises(TypeError):
        snp.create(name, 3, float, "C", True)
    for options in ({}, {"exist_ok": True}, {"replace": True}):
        with pytest.raises(ValueError):
            snp.create(name, 3, fill=[1, 2], **options)
        assert not exists(name)
    snp.create(name, 2)
    with pytest.raises(ValueError):
        snp.create(name, 3, fill=[1, 2], replace=True)
    assert snp.create(name, 2, exist_ok=True, fill=[1, 2, 3]).tolist() == [0, 0]
    snp.delete(name)


KINDS = {
    "folder": (os.mkdir, os.rmdir),
    "pipe": (os.mkfifo, os.unlink),
    "link": (lambda path: os.symlink("/etc/passwd", path), os.unlink),
    "file": (lambda path: open(path, "w").close(), os.unlink),
}


@pytest.mark.parametrize("options", [{"exist_ok": True}, {"replace": True}])
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("late", [False, True])
def test_what_is_of_another_kind_is_left_alone(name, kind, options, late, monkeypatch):
    make, remove = KINDS[kind]
    path = "/dev/shm/" + name
    if late:
        # It comes when there was an array a moment ago.
        snp.create(name, 3)
        existing = named._existing

        def then(*arguments):
            found = existing(*arguments)
            if exists(name):
                snp.delete(name)
                make(path)
            return found

        monkeypatch.setattr(named, "_existing", then)
        options = {"replace": True}
    else:
        make(path)
    before = os.lstat(path).st_ino if not late else None
    with pytest.raises((OSError, ValueError)):
        snp.create(name, 4, **options)
    after = os.lstat(path)
    assert before in (None, after.st_ino) and not left_of_replacing()
    remove(path)


def test_what_comes_between_an_exchange_and_the_look_at_it(name, monkeypatch):
    """Of another kind, and meanwhile ours is deleted, or replaced by another program."""
    path, rename = "/dev/shm/" + name, named._rename
    for meanwhile in ("deleted", "replaced"):
        steps = []

        def step(old, new, exchange):
            steps.append(exchange)
            if len(steps) == 1:
                snp.delete(name)
                os.mkfifo(path)
            elif len(steps) == 2:
                snp.delete(name)
                if meanwhile == "replaced":
                    snp.create(name, 9)
            rename(old, new, exchange)

        snp.create(name, 3)
        monkeypatch.setattr(named, "_rename", step)
        with pytest.raises(ValueError, match="no file"):
            snp.create(name, 4, replace=True)
        monkeypatch.undo()
        assert stat.S_ISFIFO(os.stat(path).st_mode)
        assert steps == ([True, True, False] if meanwhile == "deleted" else [True, True])
        os.unlink(path)
        # The other program's array is not removed: it has the temporary name.
        left = left_of_replacing()
        assert len(left) == (meanwhile == "replaced")
        for each in left:
            assert snp.attach(each).shape == (9,)
            snp.delete(each)


def test_another_user_s_is_neither_taken_nor_replaced(name, monkeypatch):
    a = snp.create(name, 3)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    for options in ({"exist_ok": True}, {"replace": True}):
        with pytest.raises(PermissionError, match="another user"):
            snp.create(name, 3, **options)
    monkeypatch.undo()
    assert snp.attach(name).base is a.base
    snp.delete(name)


RACE = """
import os, sys
import numpy as np, shared_numpy as snp
name, what, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
me = os.getpid()
for i in range(count):
    if what == "exist_ok":
        a = snp.create("%s-%d" % (name, i), 1000, "i8", exist_ok=True, fill=me)
        assert (a == a[0]).all() and a[0] > 0, a
        print(a[0])
    elif what == "replace":
        snp.create(name, 1000, "i8", replace=True, fill=me)
    else:
        a = snp.attach(name)
        assert (a == a[0]).all() and a[0] > 0, a
"""


def run_together(*programs):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OWN + RACE] + list(each),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        for each in programs
    ]
    outputs = [complete(process, 60) for process in processes]
    for process, (_, errors) in zip(processes, outputs):
        assert (process.returncode, errors) == (0, "")
    return [output.split() for output, _ in outputs]


def test_several_programs_make_one_array(new_name):
    name = new_name()
    seen = run_together(*[(name, "exist_ok", "200")] * 3)
    for i in range(200):
        snp.delete("%s-%d" % (name, i))
    assert seen[0] == seen[1] == seen[2]


def test_a_name_leads_to_a_whole_array_while_it_is_replaced(name):
    snp.create(name, 1000, "i8", fill=1)
    run_together(
        (name, "replace", "300"), (name, "replace", "300"), (name, "attach", "600")
    )
    snp.delete(name)
    assert not left_of_replacing()


def test_who_is_killed_while_replacing_leaves_nothing_for_long(name):
    """The next one removes it, and not what a living one has."""
    snp.create(name, 3)
    code = OWN + (
        "import os, signal, sys, shared_numpy as snp\n"
        "rename = named._rename\n"
        "def die(*arguments):\n"
        "    if sys.argv[2] == 'after':\n"
        "        rename(*arguments)\n"
        "    os.kill(os.getpid(), getattr(signal, sys.argv[3]))\n"
        "    rename(*arguments)\n"
        "named._rename = die\n"
        "snp.create(sys.argv[1], 5, replace=True)\n"
    )
    for when in ("before", "after"):
        process = subprocess.Popen([sys.executable, "-c", code, name, when, "SIGKILL"])
        assert process.wait() == -signal.SIGKILL
        assert len(left_of_replacing()) == 1
        assert snp.attach(name).shape == ((3,) if when == "before" else (5,))
        assert not [each for each in snp.list_named() if named._TEMPORARY in each.name]
        snp.create(name, 3, replace=True)
        assert not left_of_replacing()
    process = subprocess.Popen([sys.executable, "-c", code, name, "before", "SIGSTOP"])
    try:
        # (A SIGCONT that comes before the SIGSTOP would be lost.)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        snp.create(name, 4, replace=True)
        assert len(left_of_replacing()) == 1
    finally:
        process.send_signal(signal.SIGCONT)
    assert process.wait(60) == 0 and not left_of_replacing()
    assert snp.attach(name).shape == (5,)
    snp.delete(name)


@pytest.mark.filterwarnings("ignore")  # Exceptions in callbacks, files that closed themselves.
def test_exceptions_while_an_array_is_replaced(name, alarm):
    """At any moment: the name leads to the old array or the new one, and nothing is left."""
    snp.create(name, 3, "i8")
    rng = np.random.RandomState(5)
    for i in range(300):
        ended = alarm(
            rng.randint(1, 600) * 1e-6,
            lambda: snp.create(name, 3, "i8", replace=True, fill=i + 1),
        )
        found = snp.attach(name)
        assert found[0] == i + 1 or not ended
        assert len(set(found.tolist())) == 1
    snp.create(name, 3, replace=True)
    assert not left_of_replacing()
    snp.delete(name)


def test_whatever_the_umask(name):
    code = (
        "import os, sys\n"
        "os.umask(int(sys.argv[2], 8))\n"
        "import shared_numpy as snp\n"
        "from shared_numpy._core import Arena, LOCK_SUFFIX\n"
        "a = snp.zeros(3)\n"
        "b = snp.create(sys.argv[1], 3)\n"
        "arena = Arena.default().name\n"
        "for each in (arena, arena + LOCK_SUFFIX, sys.argv[1]):\n"
        "    print(oct(os.stat('/dev/shm/' + each).st_mode & 0o7777), end=' ')\n"
        "snp.delete(sys.argv[1])\n"
    )
    for umask in ("777", "277", "0"):
        assert run_python(code, name, umask) == "0o600 0o600 0o600 "




SHARED_ARRAY = """
from concurrent.futures import ProcessPoolExecutor
import shared_numpy.compat.sharedarray as SharedArray

def add_one(shm_key):
    x = SharedArray.attach(shm_key)
    x += 1

if __name__ == "__main__":
    import multiprocessing, sys
    multiprocessing.set_start_method(sys.argv[1])

    shm_key = sys.argv[2]
    ex = ProcessPoolExecutor()

    big_data = SharedArray.create(shm_key, int(2e7))
    big_data += 1

    f = ex.submit(add_one, shm_key)
    f.result()
    SharedArray.delete(shm_key)
    print(big_data[0])     # 2.0
    ex.shutdown()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_shared_array_by_hand(tmp_path, name, method):
    """npshmex's second example; its last line prints what is not defined there."""
    process = run_script(tmp_path, SHARED_ARRAY, method, "shm://" + name)
    assert (process.stdout, process.stderr) == ("2.0\n", "")


KEEPS_ITS_LOCK = """
import os, sys
import shared_numpy as snp
from shared_numpy._core import LOCK_SUFFIX, Arena
from shared_numpy.compat import sharedarray

array = snp.zeros(1000)
name = Arena.default().name + LOCK_SUFFIX
number = ":%d " % os.stat("/dev/shm/" + name).st_ino

def is_locked():
    with open("/proc/locks") as file:
        return any(number in line and line.split()[4] == str(os.getpid()) for line in file)

assert is_locked()
snp.list_named()
sharedarray.list()
assert is_locked()
for use in (snp.attach, snp.delete, lambda name: sharedarray.attach("shm://" + name)):
    for each in (name, "/dev/shm/" + name):
        try:
            use(each)
        except (OSError, ValueError):
            pass
        assert is_locked(), (use, each)
assert os.path.exists("/dev/shm/" + name)
try:
    snp.create("mine" + LOCK_SUFFIX, 3)
except ValueError as error:
    assert "does not end" in str(error), error
assert not os.path.exists("/dev/shm/mine" + LOCK_SUFFIX)
"""


def test_a_process_keeps_the_lock_by_which_others_see_that_it_lives():
    """The kernel takes it away when any descriptor of the arena's lock file is closed."""
    run_python(KEEPS_ITS_LOCK)
