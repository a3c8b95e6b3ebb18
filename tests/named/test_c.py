"""What C and C++ see of named arrays, by ``shared_numpy.h``: the same as Python, or an error.

What holds: the header compiles without a warning as C99 and as C++11; each array has the
shape, strides, dtype and items that Python has; each file that is damaged, or contradicts
itself, is refused, and a reader never reads outside of it.
"""

import os
import re
import shutil
import subprocess
import zlib

import named_files
import numpy as np
import pytest
from array_programs import DTYPES, RECORDS
from conftest import MORE, ROOT, other_users, run_command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from named_files import content_of, path_of, put
from test_named_layout import ALL, MADE_BEFORE, NOT_EXPRESSIBLE

import shared_numpy as snp

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow", "-O1"]
LANGUAGES = {
    "c": (["cc", "gcc", "clang"], ["-std=c99", "-D_POSIX_C_SOURCE=200809L"]),
    "c++": (["c++", "g++", "clang++"], ["-std=c++11", "-x", "c++"]),
}
OK, BAD_NAME, NOT_FOUND, DENIED, NOT_AN_ARRAY, OTHER_VERSION, SYSTEM_ERROR = range(7)


@pytest.fixture(scope="module", params=sorted(LANGUAGES))
def reader(request, tmp_path_factory):
    """The program of ``tests/c/reader.c``, compiled as C or as C++."""
    compilers, options = LANGUAGES[request.param]
    compiler = next(filter(None, map(shutil.which, compilers)), None)
    if compiler is None:
        pytest.skip("no compiler for {}".format(request.param))
    program = str(tmp_path_factory.mktemp("c") / "reader")
    command = [compiler] + options + STRICT + sanitizers(compiler, tmp_path_factory)
    command += ["-I", snp.get_include(), os.path.join(ROOT, "tests", "c", "reader.c")]
    subprocess.check_call(command + ["-o", program])
    return program


def sanitizers(compiler, tmp_path_factory):
    """Return the options by which a program ends at a read outside of memory, if they work."""
    options = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    folder = tmp_path_factory.mktemp("sanitizers")
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    command = [compiler] + options + [str(source), "-o", str(folder / "empty")]
    works = run_command(command).returncode == 0 and not subprocess.call([str(folder / "empty")])
    return options if works else []


def read(reader, *names):
    """Return the words that the program prints for each array."""
    process = run_command([reader] + list(names))
    assert (process.returncode, process.stderr) == (0, ""), process
    # (Nothing but a newline ends a line: a descr is ASCII.)
    lines = [line.split("\t") for line in process.stdout.split("\n")[:-1]]
    assert len(lines) == len(names)
    return lines


def expected(array):
    """Return the same words, by numpy."""
    head = array.base.head
    items = bytes(np.frombuffer(array.base, "u1")[head.data :][: array.nbytes])
    descr = ""
    if content_of(array.base.name)[:6] == b"\x93NUMPY":
        descr = ascii(np.lib.format.dtype_to_descr(array.dtype))
    words = ["0", array.dtype.str[1], array.dtype.str[0], head.order, str(array.itemsize)]
    words += [str(array.nbytes), "".join("%d," % each for each in array.shape)]
    return words + ["".join("%d," % each for each in array.strides), descr, str(zlib.crc32(items))]


def fill(array):
    memory = np.frombuffer(array.base, "u1")[array.base.head.data :][: array.nbytes]
    memory[:] = np.arange(1, array.nbytes + 1) % 100


@settings(
    max_examples=60 * MORE, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
@given(ALL, st.lists(st.integers(0, 3), max_size=4).map(tuple), st.sampled_from("CF"))
def test_c_reads_what_python_reads(reader, dtype, shape, order):
    name = "snptest_c_%d" % os.getpid()
    a = snp.create(name, shape, dtype, order)
    try:
        fill(a)
        [words] = read(reader, name)
        right = expected(a)
        if not a.nbytes:
            words[7] = right[7] = ""  # numpy's versions differ in strides over nothing.
        assert words == right
    finally:
        snp.delete(name)


def test_usual_dtypes(reader, new_name):
    dtypes = DTYPES + RECORDS + [np.dtype(NOT_EXPRESSIBLE[each]) for each in NOT_EXPRESSIBLE]
    dtypes += [np.dtype([("x" * length, "f4")]) for length in range(4000, 4060, 7)]
    dtypes += [np.dtype([("x" * length, "f4")]) for length in range(8090, 8160, 7)]
    dtypes += [np.dtype([(each, "u1") for each in ("'", '"', "'\"", "\\", "\\'", "\n", "\u4e2d")])]
    arrays = [snp.create(new_name(), (2, 3, 4), dtype, "F") for dtype in dtypes]
    names = [array.base.name for array in arrays]
    for array in arrays:
        fill(array)
    assert read(reader, *names) == [expected(array) for array in arrays]
    for name in names:
        snp.delete("shm://" + name)


def test_what_has_no_array_s_name(reader, name):
    long = "n" * 256
    told = read(reader, "shm://", "", "a/b", "shm://a/b", ".", "shm:///..", "/a", long, name)
    assert [int(each[0]) for each in told] == [BAD_NAME] * 8 + [NOT_FOUND]
    assert name in told[-1][1]
    snp.create(name, 3)
    assert [each[0] for each in read(reader, "shm://" + name, "shm:///" + name)] == ["0"] * 2
    snp.delete(name)
    assert int(read(reader, name)[0][0]) == NOT_FOUND


def test_arrays_in_another_folder(reader, new_name, monkeypatch):
    folder, name = "/dev/shm/" + new_name(), new_name()
    os.mkdir(folder)
    snp.create(name, 3)
    snp.create(name, 4, directory=folder)
    snp.create("only", 5, directory=folder)

    def lengths(*names):
        return [each[6] if each[0] == "0" else int(each[0]) for each in read(reader, *names)]

    monkeypatch.delenv("SHARED_NUMPY_DIR", raising=False)
    paths = [folder + "/" + name, "shm://{}/{}".format(folder, name), "shm:///dev/shm/" + name]
    assert lengths(name, "only", *paths) == ["3,", NOT_FOUND, "4,", "4,", "3,"]
    for variable in (folder, folder + "/"):
        monkeypatch.setenv("SHARED_NUMPY_DIR", variable)
        assert lengths(name, "only", *paths) == ["4,", "5,", "4,", "4,", "3,"]
    snp.delete(name)
    assert lengths(name, folder + "/" + name, "/" + 70 * "n" + "/x") == ["3,", NOT_FOUND, NOT_FOUND]
    snp.delete(name)
    snp.delete("only")
    os.rmdir(folder)


def test_what_is_something_else(reader, name):
    path = path_of(name)
    for make, remove in [
        (os.mkdir, os.rmdir), (os.mkfifo, os.unlink),
        (lambda path: os.symlink("/etc/passwd", path), os.unlink),
        (lambda path: open(path, "w").close(), os.unlink),
    ]:  # fmt: skip
        make(path)
        [told] = read(reader, name)
        assert int(told[0]) == NOT_AN_ARRAY and name in told[1]
        remove(path)


@other_users
def test_another_user_s(reader, name):
    snp.create(name, 3)
    os.chown(path_of(name), 54321, -1)
    assert int(read(reader, name)[0][0]) == DENIED
    os.unlink(path_of(name))


def test_an_older_and_a_newer_version(reader, name):
    snp.create(name, 3)
    content = content_of(name)
    put(name, named_files.forged(content, version=3))
    [told] = read(reader, name)
    assert int(told[0]) == OTHER_VERSION and "newer" in told[1]
    shutil.copyfile(os.path.join(MADE_BEFORE, "plain"), path_of(name))
    [told] = read(reader, name)
    assert int(told[0]) == OTHER_VERSION and "older" in told[1]
    os.unlink(path_of(name))


def refused(reader, new_name, contents):
    """Every file is refused, and left as it is."""
    contents = list(contents)
    names = [new_name() for _ in contents]
    for name, content in zip(names, contents):
        put(name, content)
    try:
        told = read(reader, *names)
        accepted = [
            content[-400:] for content, each in zip(contents, told)
            if int(each[0]) not in (NOT_AN_ARRAY, OTHER_VERSION)
        ]  # fmt: skip
        assert not accepted, (len(accepted), accepted[0])
        assert all(content_of(name) == content for name, content in zip(names, contents))
    finally:
        for name in names:
            os.unlink(path_of(name))


@pytest.mark.parametrize("dtype", ["<f8", RECORDS[2], NOT_EXPRESSIBLE["crossed"]], ids=str)
def test_damaged_files_are_refused(reader, new_name, dtype):
    name = new_name()
    snp.create(name, (2, 3), dtype)
    content = content_of(name)
    snp.delete(name)
    refused(reader, new_name, named_files.damaged(content))


def test_files_that_lie_are_refused(reader, new_name):
    name = new_name()
    snp.create(name, (2, 3), "<f8")
    content = content_of(name)
    snp.delete(name)
    refused(reader, new_name, named_files.lying(content))
    files = []
    for each in named_files.ALIKE:
        snp.create(name, *each)
        files.append(content_of(name))
        snp.delete(name)
    refused(reader, new_name, named_files.crossed(files))


def test_strict_c_is_told_what_to_define(reader, tmp_path):
    compiler = next(filter(None, map(shutil.which, LANGUAGES["c"][0])), None)
    if compiler is None:
        pytest.skip("no compiler for c")
    source = tmp_path / "strict.c"
    source.write_text("#include <shared_numpy.h>\nint main(void) { return 0; }\n")
    command = [compiler, "-I", snp.get_include(), str(source), "-o", str(tmp_path / "strict")]
    process = run_command(command + ["-std=c99"])
    assert process.returncode and "define _POSIX_C_SOURCE as 200809L" in process.stderr
    assert run_command(command + ["-std=gnu99"]).returncode == 0


def test_the_example_of_the_manual(reader, name, tmp_path):
    with open(os.path.join(ROOT, "docs", "named-arrays.md"), encoding="utf-8") as file:
        [example] = re.findall(r"```c\n(.*?)```", file.read(), re.DOTALL)
    example = example.replace("readme-weights", name).replace(">\n", ">\nint main(void) {", 1)
    source = tmp_path / "example.c"
    source.write_text(example + "return 0; }\n")
    compilers, options = LANGUAGES["c"]
    compiler = next(filter(None, map(shutil.which, compilers)), None)
    if compiler is None:
        pytest.skip("no compiler for c")
    program = str(tmp_path / "example")
    command = [compiler] + options + STRICT + ["-I", snp.get_include(), str(source)]
    subprocess.check_call(command + ["-o", program])
    process = run_command([program])
    assert process.returncode == 1 and "there is no array of this name" in process.stderr
    snp.create(name, (3, 4), "f4", fill=2.5)
    assert run_command([program]).stdout == "3 x 4, 2.500000\n"
    snp.delete(name)


def test_the_header_stands_in_the_checkout_s_folder(reader):
    with open(os.path.join(snp.get_include(), "shared_numpy.h")) as file:
        text = file.read()
    with open(os.path.join(ROOT, "include", "shared_numpy.h")) as file:
        assert file.read() == text
