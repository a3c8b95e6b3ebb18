"""The command's frame: help, usage, exit codes, and readers that stop reading.

* ``shared-numpy`` and ``python -m shared_numpy`` are the same.
* Wrong usage ends with 2 and says on standard error what is wrong.
* The exit code is right, and there is no traceback, whoever closes the output.
* A setting that cannot be used is told, and ends with 4.
"""

import os
import re
import subprocess
import sys

import pytest
from cli.commands import COMMAND, shared_numpy
from cli.test_ls import place  # noqa: F401
from conftest import needs_arenas, run_command, run_python

from shared_numpy._command import arguments, main, output

SCRIPT = os.path.join(os.path.dirname(sys.executable), "shared-numpy")


@pytest.mark.parametrize("command", [COMMAND, [SCRIPT]])
def test_version_and_help(command):
    if not os.path.exists(command[0]):
        pytest.skip("the scripts of this interpreter are elsewhere")
    process = run_command(command + ["--version"])
    assert (process.returncode, process.stderr) == (0, "")
    assert re.match(r"shared-numpy \d+\.\d+\.\d+\n$", process.stdout)
    process = run_command(command + ["--help"])
    assert (process.returncode, process.stderr) == (0, "")
    for name, _ in main.COMMANDS:
        assert re.search("^ +{} ".format(name), process.stdout, re.M), name


@pytest.mark.parametrize("name", [name for name, _ in main.COMMANDS])
def test_each_subcommand_has_help(name):
    process = shared_numpy(name, "--help")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("usage: shared-numpy " + name)


@pytest.mark.parametrize(
    "words", [[], ["nonsense"], ["doctor", "--nonsense"], ["demo", "--frames", "0"], ["run"],
              ["run", "-c"], ["run", "-O", "x.py"]]
)  # fmt: skip
def test_wrong_usage(words):
    process = shared_numpy(*words)
    assert process.returncode == 2 and process.stdout == ""
    assert "Traceback" not in process.stderr and "shared-numpy" in process.stderr


def test_no_numpy_is_loaded():
    code = (
        "import sys; from shared_numpy._command import findings, main\n"
        # (Only what a named array says of itself takes numpy, and there may be some.)
        "findings.CHECKS = [each for each in findings.CHECKS if each is not findings.leftovers]\n"
        "assert main.main(['doctor', '--json']) in (0, 1)\n"
        "from shared_numpy._command import clean, ls, removal, run, survey\n"
        "assert 'numpy' not in sys.modules, sorted(sys.modules)"
    )
    run_python(code)


@pytest.mark.parametrize("words", [["--help"], ["doctor"], ["doctor", "--json"], ["--version"]])
def test_a_reader_that_has_gone(words):
    """The exit code is as with a reader, and nothing complains."""
    wanted = shared_numpy(*words).returncode
    reader, writer = os.pipe()
    os.close(reader)
    process = run_command(COMMAND + words, stdout=writer)
    os.close(writer)
    assert (process.returncode, process.stderr) == (wanted, "")


@needs_arenas
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_report_that_cannot_be_written_does_not_change_what_clean_returns(words, place, new_name):
    """The work is done; another command ends with 6, and so does one that only says what it would do."""
    place.kill(place.start("kept = snp.zeros(10)"))
    command = ["clean", place.arena()] + words
    with open("/dev/full", "w") as full:
        dry = shared_numpy(*(command + ["--dry-run"]), env=place.env, stdout=full)
        assert dry.returncode == 6 and "No space left" in dry.stderr
        done = shared_numpy(*command, env=place.env, stdout=full)
        missing = shared_numpy("clean", new_name(), *words, env=place.env, stdout=full)
        listed = shared_numpy("ls", *words, env=place.env, stdout=full)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1 and "No space left" in done.stderr, done.stderr
    assert missing.returncode == 3 and "No space left" in missing.stderr
    assert listed.returncode == 6 and "No space left" in listed.stderr
    assert [name for name in os.listdir(place.path) if name.startswith("snp-")] == []


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams(closed):
    wanted = shared_numpy("doctor").returncode
    script = 'exec "$@" {}'.format(closed)
    process = run_command(["sh", "-c", script, "sh"] + COMMAND + ["doctor"])
    assert process.returncode == wanted
    assert "Traceback" not in process.stdout + process.stderr


def test_an_encoding_without_block_characters():
    code = (
        "from shared_numpy._command import output\n"
        "output.line(output.bar(0.5, 8) + output.time(2e-6) + '\\udc80')"
    )
    environment = dict(os.environ, PYTHONIOENCODING="ascii")
    assert run_python(code, env=environment) == "####2.0 \\xb5s\\udc80\n"
    environment = dict(os.environ, PYTHONIOENCODING="utf-8")
    assert run_python(code, env=environment) == "████2.0 µs\\udc80\n"


def test_an_interrupt_is_no_error():
    code = (
        "import os, signal, sys\n"
        "from shared_numpy._command import findings, main\n"
        "findings.CHECKS = [lambda: os.kill(os.getpid(), signal.SIGINT) or []]\n"
        "sys.exit(main.main(['doctor']))"
    )
    process = run_command([sys.executable, "-c", code])
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "")


def test_options_stand_anywhere():
    def add(parser):
        parser.add_argument("names", nargs="*", metavar="NAME")
        parser.add_argument("--force", action="store_true")
        parser.add_argument("--older-than")

    def parsed(*words):
        parser = arguments.Parser(prog="x")
        add(parser)
        found = arguments.parse(parser, add, list(words))
        return found.names, found.force, found.older_than

    assert parsed() == ([], False, None)
    assert parsed("a", "--force", "b") == (["a", "b"], True, None)
    assert parsed("--older-than", "1h", "a", "b") == (["a", "b"], False, "1h")
    assert parsed("a", "--older-than=1h", "--", "--force", "-h") == (
        ["a", "--force", "-h"], False, "1h",
    )  # fmt: skip
    for wrong in (["a", "--farce"], ["-x"], ["a", "--older-than"]):
        with pytest.raises(SystemExit) as raised:
            parsed(*wrong)
        assert raised.value.code == 2


def test_units():
    assert [output.size(n) for n in (0, 1023, 1024, 1536, 1 << 20, 100 << 30, (1 << 20) - 1)] == [
        "0 B", "1023 B", "1 KiB", "1.5 KiB", "1 MiB", "100 GiB", "1 MiB",
    ]  # fmt: skip
    assert [output.duration(n) for n in (-1, 0, 119, 120, 7199, 7200, 172800)] == [
        "0 s", "0 s", "119 s", "2 min", "119 min", "2 h", "2 d",
    ]  # fmt: skip
    assert [output.time(n) for n in (3e-9, 2.7e-6, 0.0412, 1.5)] == [
        "3.0 ns", "2.7 µs", "41 ms", "1.5 s",
    ]  # fmt: skip


TABLE = """
import sys
from shared_numpy._command import output
output.table(["name", "size"], [["a[red]b", "1"], ["long name" * 20, "22"]], right=["size"])
"""


def test_a_table_in_a_pipe_is_plain_and_whole():
    lines = run_python(TABLE).splitlines()
    assert lines == [
        "name".ljust(180) + "  size", "a[red]b".ljust(180) + "     1", "long name" * 20 + "    22",
    ]  # fmt: skip


def test_a_table_at_a_terminal_keeps_names():
    """Also if `rich` draws it, for which brackets are markup."""
    import pty

    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", TABLE], stdout=slave)
    os.close(slave)
    text = b""
    try:
        while True:
            got = os.read(master, 65536)
            if not got:
                break
            text += got
    except OSError:
        pass  # The other end is closed.
    assert process.wait() == 0
    os.close(master)
    assert b"a[red]b" in text


def test_a_reader_of_one_line():
    """As with ``| head -1``, under ``set -o pipefail``."""
    words = " ".join(COMMAND + ["doctor"])
    wanted = shared_numpy("doctor").returncode
    process = run_command(["bash", "-c", "set -o pipefail; {} | head -1".format(words)])
    assert (process.returncode, process.stderr) == (wanted, "")
    assert len(process.stdout.splitlines()) == 1
