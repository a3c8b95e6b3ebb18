"""`shared_numpy._system.posixshmem` has the signatures and errors of 3.8's.

Properties:

* Arguments: keywords work; wrong types are `TypeError`, numbers that no C int
  holds `OverflowError`, surrogates `UnicodeEncodeError`, NULs `ValueError`.
* A failing call is an `OSError` with errno, message and the original `str`.
* A signal's handler runs when it interrupts a call; the call is then made
  again, unless the handler raises, which ends it.
* Descriptors are not inherited by executed programs.
"""

import errno
import os

import pytest
from conftest import run_python, shimmed

from shared_numpy import _core
from shared_numpy._system.posixshmem import shm_open, shm_unlink

CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR


class Index:
    """An integer by `__index__` only."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def test_open_write_unlink(name):
    fd = shm_open("/" + name, CREATE, 0o600)
    try:
        os.write(fd, b"frame")
        assert os.stat("/dev/shm/" + name).st_size == 5
        assert os.stat("/dev/shm/" + name).st_mode & 0o777 == 0o600
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
        assert shm_unlink("/" + name) is None


def test_keywords_and_default_mode(name):
    before = os.umask(0)
    try:
        os.close(shm_open(path="/" + name, flags=CREATE))
        assert os.stat("/dev/shm/" + name).st_mode & 0o777 == 0o777
        shm_unlink(path="/" + name)
        os.close(shm_open(flags=CREATE, path="/" + name, mode=0o640))
        assert os.stat("/dev/shm/" + name).st_mode & 0o777 == 0o640
        shm_unlink("/" + name)
    finally:
        os.umask(before)


def test_objects_with_index_are_integers(name):
    os.close(shm_open("/" + name, Index(CREATE), Index(0o600)))
    assert os.stat("/dev/shm/" + name).st_mode & 0o777 == 0o600
    shm_unlink("/" + name)


def test_subclass_of_str(name):
    class Name(str):
        pass

    os.close(shm_open(Name("/" + name), CREATE, 0o600))
    shm_unlink(Name("/" + name))


@pytest.mark.parametrize(
    "arguments",
    [
        (b"/x", 0),
        (None, 0),
        (3, 0),
        ("/x", 0.0),
        ("/x", "0"),
        ("/x", None),
        ("/x", 0, 0.0),
        ("/x", 0, None),
        ("/x",),
        (),
        ("/x", 0, 0, 0),
    ],
)
def test_wrong_types_open(arguments):
    with pytest.raises(TypeError):
        shm_open(*arguments)


@pytest.mark.parametrize("arguments", [(b"/x",), (None,), (3,), (), ("/x", 0)])
def test_wrong_types_unlink(arguments):
    with pytest.raises(TypeError):
        shm_unlink(*arguments)


def test_unknown_keyword():
    with pytest.raises(TypeError):
        shm_open("/x", 0, nonsense=1)
    with pytest.raises(TypeError):
        shm_unlink("/x", nonsense=1)


def test_the_type_is_named():
    with pytest.raises(TypeError) as raised:
        shm_open(b"/x", 0)
    assert str(raised.value) == "shm_open() argument 'path' must be str, not bytes"


@pytest.mark.parametrize("number", [2 ** 31, -(2 ** 31) - 1, 2 ** 63, 2 ** 200])
def test_numbers_too_large(number):
    with pytest.raises(OverflowError):
        shm_open("/x", number)
    with pytest.raises(OverflowError):
        shm_open("/x", 0, number)


@pytest.mark.parametrize("call", [lambda path: shm_open(path, CREATE, 0o600), shm_unlink])
def test_names_that_are_no_c_strings(call, name):
    with pytest.raises(ValueError) as raised:
        call("/" + name + "\0tail")
    assert str(raised.value) == "embedded null character"
    with pytest.raises(UnicodeEncodeError):
        call("/" + name + "\udc80")


@pytest.mark.parametrize("path", ["", "/", "/a/b"])
@pytest.mark.parametrize("call", [lambda path: shm_open(path, CREATE, 0o600), shm_unlink])
def test_invalid_names(path, call):
    with pytest.raises(OSError) as raised:
        call(path)
    # glibc's shm_unlink calls such a name missing.
    assert raised.value.errno in (errno.EINVAL, errno.ENOENT)
    assert raised.value.filename is path


def test_length_limit(name):
    longest = "/" + name + "x" * (254 - len(name))
    assert len(longest) == 255
    os.close(shm_open(longest, CREATE, 0o600))
    shm_unlink(longest)
    with pytest.raises(OSError) as raised:
        shm_open("/" + name + "x" * (256 - len(name)), CREATE, 0o600)
    assert raised.value.errno in (errno.ENAMETOOLONG, errno.EINVAL)


def test_errors_carry_the_original_path(name):
    path = "/" + name
    with pytest.raises(FileNotFoundError) as raised:
        shm_open(path, os.O_RDWR)
    assert raised.value.filename is path
    assert raised.value.errno == errno.ENOENT
    assert raised.value.strerror == os.strerror(errno.ENOENT)
    with pytest.raises(FileNotFoundError) as raised:
        shm_unlink(path)
    assert raised.value.filename is path
    os.close(shm_open(path, CREATE, 0o600))
    try:
        with pytest.raises(FileExistsError) as raised:
            shm_open(path, CREATE)
        assert raised.value.filename is path
    finally:
        shm_unlink(path)


def test_room_is_what_the_system_says(name):
    fd = shm_open("/" + name, CREATE, 0o600)
    shm_unlink("/" + name)
    system = os.fstatvfs(fd)
    room = _core.room(fd)
    os.close(fd)
    # Others use the same memory: equal but for what they do in between.
    assert abs(room - system.f_bavail * system.f_frsize) < 1 << 30
    with pytest.raises(ValueError):
        _core.room(-1)
    with pytest.raises(OSError) as raised:
        _core.room(1023)
    assert raised.value.errno == errno.EBADF


def test_reserve_refuses_bad_arguments():
    for arguments in [(-1, 1), (0, 2 ** 63)]:
        with pytest.raises(ValueError):
            _core.reserve(*arguments)
    with pytest.raises(OverflowError):
        _core.reserve(0, -1)
    with pytest.raises(TypeError):
        _core.reserve(0, 1.5)
    with pytest.raises(OSError) as raised:
        _core.reserve(1023, 4096)
    assert raised.value.errno == errno.EBADF


@pytest.fixture(scope="module")
def interrupting(tmp_path_factory):
    """The environment in which each call is interrupted three times."""
    environment = shimmed("interruptions", tmp_path_factory.mktemp("shim"))
    # What the shim and Python print comes in the order in which they print it.
    return dict(environment, INTERRUPTIONS="3", PYTHONUNBUFFERED="1")


INTERRUPTED = """
import os, signal, sys
from shared_numpy import _core
from shared_numpy._system import posixshmem
handled = []
def handler(*_):
    handled.append(1)
    if len(handled) == int(sys.argv[2]):
        raise KeyError("from the handler")
signal.signal(signal.SIGUSR1, handler)
flags = os.O_CREAT | os.O_EXCL | os.O_RDWR
"""


def test_interrupted_calls_are_repeated(interrupting, name):
    code = INTERRUPTED + """
fd = posixshmem.shm_open("/" + sys.argv[1], flags, 0o600)
print(len(handled))
_core.reserve(fd, (4 << 20) + 4096)
print(len(handled), os.fstat(fd).st_blocks * 512 == (4 << 20) + 4096)
posixshmem.shm_unlink("/" + sys.argv[1])
print(len(handled))
"""
    output = run_python(code, name, "0", env=interrupting)
    chunk = "+2097152"
    asked = ["0" + chunk] + ["2097152" + chunk] * 4 + ["4194304+4096"]
    assert output.split() == ["3"] + asked + ["6", "True", "9"]


def test_signals_are_attended_to_between_chunks(interrupting, name):
    """Some kernels interrupt no reservation: then the pause must."""
    code = INTERRUPTED + """
fd = posixshmem.shm_open("/" + sys.argv[1], flags, 0o600)
posixshmem.shm_unlink("/" + sys.argv[1])
try:
    _core.reserve(fd, 64 << 20)
except KeyError:
    print(len(handled), os.fstat(fd).st_blocks * 512)
"""
    environment = dict(interrupting, INTERRUPTIONS="0", SUCCEED="1")
    output = run_python(code, name, "2", env=environment).split()
    assert output == ["0+2097152", "2097152+2097152", "2", str(4 << 20)]


@pytest.mark.parametrize("fatal", ["1", "2", "3"])
def test_a_handler_that_raises_ends_the_call(interrupting, name, fatal):
    code = INTERRUPTED + """
try:
    posixshmem.shm_open("/" + sys.argv[1], flags, 0o600)
except KeyError:
    print(len(handled))
"""
    assert run_python(code, name, fatal, env=interrupting).split() == [fatal]
    assert not os.path.exists("/dev/shm/" + name)


@pytest.mark.parametrize("call", ["shm_unlink", "reserve"])
def test_a_handler_that_raises_ends_the_other_calls(interrupting, name, call):
    code = INTERRUPTED + """
fd = os.open("/dev/shm/" + sys.argv[1], flags, 0o600)
try:
    if sys.argv[3] == "reserve":
        _core.reserve(fd, 4 << 20)
    else:
        posixshmem.shm_unlink("/" + sys.argv[1])
except KeyError:
    print(len(handled), os.path.exists("/dev/shm/" + sys.argv[1]))
os.unlink("/dev/shm/" + sys.argv[1])
"""
    output = run_python(code, name, "2", call, env=interrupting).split()
    assert output[-2:] == ["2", "True"]


def test_other_threads_run_meanwhile():
    """The GIL is released: a thread counts on while memory is reserved."""
    code = """
import os, sys, threading, time
from shared_numpy import _core
from shared_numpy._system import posixshmem
path = "/snptest_gil_%d" % os.getpid()
fd = posixshmem.shm_open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
posixshmem.shm_unlink(path)
seen, done = [], threading.Event()
def count():
    while not done.is_set():
        seen.append(time.perf_counter())
        time.sleep(0.0005)
sys.setswitchinterval(100)  # Only a released GIL lets the thread run.
thread = threading.Thread(target=count)
thread.start()
start = time.perf_counter()
_core.reserve(fd, 256 << 20)
end = time.perf_counter()
done.set()
thread.join()
print(sum(start < moment < end for moment in seen))
"""
    assert int(run_python(code)) > 2
