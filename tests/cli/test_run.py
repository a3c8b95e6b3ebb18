"""``shared-numpy run``: a program as ``python`` runs it, with the backport in it and in its children.

* Output, errors and exit code are those of ``python PROGRAM``, byte for byte.
* ``multiprocessing.shared_memory`` is there in the program and in every child, under every start
  method, also where the main module is a package's ``__main__`` or ``-c``, and in programs that it
  executes.
"""

import os
import signal
import subprocess
import sys

import pytest
from cli.commands import COMMAND
from conftest import eventually, run_command

RUN = COMMAND + ["run"]

SAYS = """
import sys
print(__name__, sys.argv, repr(sys.path[0]), globals().get("__file__"), sys.flags.optimize)
print([name for name in sys.path if "_command" in name], sys.stdin.read())
"""
PROGRAMS = {
    "right": "",
    "code": "sys.exit(7)",
    "text": "sys.exit('a text')",
    "error": "def f():\n    1 / 0\nf()",
    "syntax": "1 +",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "interrupted": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "closed": "import os; os.close(2); os._exit(3)",
}


def run_both(words, options=(), **settings):
    """Run a program by ``python`` and by ``run``; return the three results of each."""
    found = []
    for command in ([sys.executable], [sys.executable] + list(options) + RUN[1:]):
        if len(found) == 0:
            command = command + list(options)
        with subprocess.Popen(
            command + words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            **settings
        ) as process:
            output = process.communicate("some input", timeout=100)
        found.append((process.returncode,) + output)
    return found


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@pytest.mark.parametrize("way", ["script", "module", "package", "code"])
def test_it_is_as_with_python(tmp_path, name, way):
    code = SAYS + PROGRAMS[name] + "\n"
    (tmp_path / "program.py").write_text(code)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(code)
    words = {
        "script": [str(tmp_path / "program.py")],
        "module": ["-m", "program"],
        "package": ["-m", "package"],
        "code": ["-c", code],
    }[way]
    expected, found = run_both(words + ["-m", "--help", "a b", "--"], cwd=str(tmp_path))
    assert found == expected


@pytest.mark.parametrize(
    "words", [["none.py"], ["-m", "none"], ["-"], ["-cimport sys; print(sys.argv)", "x"]]
)
def test_odd_programs_are_as_with_python(tmp_path, words):
    expected, found = run_both(words, cwd=str(tmp_path))
    assert found == expected


def test_options_of_the_interpreter_hold(tmp_path):
    (tmp_path / "program.py").write_text(SAYS + "import warnings; warnings.warn('w')\n")
    options = ["-O", "-W", "error"]
    expected, found = run_both([str(tmp_path / "program.py")], options)
    assert found == expected and "error" not in found[1] and "UserWarning" in found[2]


@pytest.mark.parametrize(
    "options",
    [["-u"], ["-uO", "-Xfoo"], ["-X", "foo=1", "-X", "bar"], ["-bX", "dev"], ["-Wd", "-s"],
     ["-X", "pycache_prefix=none", "-X", "no_debug_ranges", "-B"]],
)  # fmt: skip
def test_all_options_of_the_interpreter_hold(options):
    code = (
        "import sys; print(sorted(sys._xoptions.items()), sys.flags, sys.warnoptions)\n"
        "print(type(sys.stdout.buffer).__name__, getattr(sys, 'pycache_prefix', None))"
    )
    expected, found = run_both(["-c", code, "-u"], options)
    assert found == expected and found[0] == 0
    if "u" in options[0]:
        assert "FileIO" in found[1]


@pytest.mark.parametrize(
    "line, expected",
    [
        ("-m shared_numpy run x -u", ""),
        ("-mshared_numpy", ""),
        ("-Bum shared_numpy", "-Bu"),
        ("-i -X -m -W -c -m shared_numpy", "-i -X -m -W -c"),
        ("-Xm -Wcm -c code", "-Xm -Wcm"),
        ("--check-hash-based-pycs never -m shared_numpy", "--check-hash-based-pycs never"),
        ("-u /bin/shared-numpy run -O", "-u"),
        ("-u - -O", "-u"),
        ("-u -- program -O", "-u"),
        ("-u", None),
        ("", None),
    ],
)
def test_options_are_what_goes_before_the_program(line, expected):
    from shared_numpy._command.run import options_of

    assert options_of(line.split()) == (None if expected is None else expected.split())


CHILD = """
from multiprocessing import shared_memory
def child(name):
    from multiprocessing.managers import SharedMemoryManager
    shm = shared_memory.SharedMemory(name)
    shm.buf[0] += 1
    shm.close()
"""
PARENT = """
import multiprocessing, sys
def main(child):
    from multiprocessing import shared_memory
    shm = shared_memory.SharedMemory(create=True, size=1)
    for method in multiprocessing.get_all_start_methods():
        process = multiprocessing.get_context(method).Process(target=child, args=(shm.name,))
        process.start()
        process.join()
        assert process.exitcode == 0, method
    print(shm.buf[0])
    shm.close()
    shm.unlink()
"""


def run(words, **options):
    """Run a program that must end well and quietly; return what it prints."""
    process = run_command(RUN + words, **options)
    assert (process.returncode, process.stderr) == (0, ""), process.stderr
    return process.stdout


@pytest.mark.parametrize("way", ["script", "package", "code"])
def test_children_of_every_start_method_have_the_backport(tmp_path, way):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    # In the package's main module the functions are imported; there children do not run it again.
    (tmp_path / "package" / "child.py").write_text(CHILD)
    main = "from package.child import child\n" + PARENT
    (tmp_path / "package" / "__main__.py").write_text(
        main + "if __name__ == '__main__':\n    main(child)\n"
    )
    (tmp_path / "program.py").write_text(
        CHILD + PARENT + "if __name__ == '__main__':\n    main(child)\n"
    )
    words = {
        "script": ["program.py"],
        "package": ["-m", "package"],
        "code": ["-c", main + "main(child)\n"],
    }[way]
    assert run(words, cwd=str(tmp_path)) == "3\n"


def test_programs_that_it_executes_have_it():
    code = (
        "import os, subprocess, sys\n"
        "own = 'from multiprocessing import shared_memory as s; print(s.__name__)'\n"
        "subprocess.check_call([sys.executable, '-c', own])\n"
        "os.execv(sys.executable, [sys.executable, '-c', own])"
    )
    own = sys.version_info < (3, 8)
    name = "shared_numpy.shared_memory" if own else "multiprocessing.shared_memory"
    assert run(["-c", code]).split() == [name] * 2


def test_sitecustomize_of_the_user_s_own_is_imported(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.mine = __file__\n")
    environment = dict(os.environ, PYTHONPATH=str(tmp_path))
    code = "import sitecustomize; print(mine, sitecustomize.__file__)"
    expected, found = run_both(["-c", code], env=environment)
    assert found == expected and found[1].split() == [str(tmp_path / "sitecustomize.py")] * 2


def test_a_run_in_a_run():
    code = "import sys; from multiprocessing import shared_memory; print(sys.argv[1])"
    assert run(["-m", "shared_numpy", "run", "-c", code, "here"]) == "here\n"


def test_signals_reach_the_program(tmp_path):
    """It is the process that was started, so supervisors stop it and not something around it."""
    (tmp_path / "program.py").write_text(
        "import os, time\n"
        "with open('ready', 'w') as file:\n    file.write(str(os.getpid()))\n"
        "time.sleep(100)\n"
    )
    with subprocess.Popen(RUN + ["program.py"], cwd=str(tmp_path)) as process:
        try:
            eventually(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text())
            assert (tmp_path / "ready").read_text() == str(process.pid)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == -signal.SIGTERM
        finally:
            process.kill()


@pytest.mark.skipif(sys.version_info >= (3, 8), reason="nothing has to be installed there")
@pytest.mark.parametrize("option", ["-E", "-I"])
def test_an_isolated_interpreter_is_refused(option):
    process = run_command([sys.executable, option, "-m", "shared_numpy", "run", "-c", "print(1)"])
    assert (process.returncode, process.stdout) == (4, "")
    assert "-E, -I and -S" in process.stderr
