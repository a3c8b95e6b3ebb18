"""Journeys: whole programs as users write them, run and checked from outside.

Each file of ``tests/journeys`` is one user's job, a complete program. Run from outside, it prints
what it says that it prints, ends with the exit code that it says, writes nothing to stderr,
and leaves no process and no name in /dev/shm; where it works in rounds, the descriptors and the
memory of its processes and the use of /dev/shm do not grow.

Comments under a program's docstring tell how it is run, one ``# key: value`` a line:

========  ========================================================================================
prints    A line of output (as doctest compares: ``...`` stands for anything); repeated, in order.
methods   The start methods under which it makes sense, or "none". All three by default. The
          program finds the method in ``sys.argv[1]``.
run       The command, for sh, in a folder that has the program; METHOD is the start method.
          ``python NAME.py METHOD`` by default.
needs     Modules, commands, paths (or patterns of them), "root", "mounts", "CPython>=3.8"; without
          them the journey is skipped.
shm       The size of /dev/shm, such as 64m.
stderr    A line of stderr, like ``prints``.
exit      The exit code, 0 by default; -9 for one that SIGKILL ends.
seconds   How long it may take, 120 by default.
signal    ``SIGINT after TEXT within SECONDS``: the signal goes to its process group at a random
          moment after a line that begins with TEXT; repeated, one signal each.
========  ========================================================================================

In the gate each journey runs once: half of them on the oldest interpreter and half on the
newest, and every third under each start method. With ``--amount whole`` each runs under all its
methods.
"""

import ast
import collections
import doctest
import fnmatch
import glob
import importlib.util
import os
import random
import re
import shlex
import shutil
import signal
import sys
from contextlib import suppress

import outside
import pytest
from conftest import ROOT

FOLDER = os.path.join(ROOT, "tests", "journeys")
METHODS = ["fork", "spawn", "forkserver"]
INTERPRETERS = ["oldest", "newest"]

KEYS = ["prints", "methods", "run", "needs", "shm", "stderr", "exit", "seconds", "signal"]

# A leak of one descriptor or one array in each round is more than this by the last round.
FEWEST_ROUNDS = 12
# (What begins or ends when a sample is taken has some: an executor's watch of its processes has three.)
FEW_DESCRIPTORS = 3
LITTLE_MEMORY = 8 << 20


class Journey:
    """A program of `FOLDER`, and what the comments under its docstring say."""

    def __init__(self, path, text=None):
        self.path = str(path)
        self.name = os.path.basename(self.path)[: -len(".py")]
        if text is None:
            with open(self.path, encoding="utf-8") as file:
                text = file.read()
        self.said = self.settings(text)

    def settings(self, text):
        docstring = ast.parse(text).body[0]
        assert ast.get_docstring(ast.parse(text)), "it has no docstring"
        said = collections.defaultdict(list)
        # (3.6 and 3.7 tell the docstring's last line, later versions its first.)
        lines = text.split("\n")
        last = getattr(docstring, "end_lineno", docstring.lineno)
        for line in lines[last:]:
            found = re.match(r"# (\w+): ?(.*)$", line)
            if not found:
                break
            assert found.group(1) in KEYS, line
            said[found.group(1)].append(found.group(2))
        return said

    def only(self, key, default):
        """The value of a key that is said at most once."""
        values = self.said.get(key, [default])
        assert len(values) == 1, key
        return values[0]

    @property
    def methods(self):
        said = self.only("methods", " ".join(METHODS)).split()
        assert said == ["none"] or set(said) <= set(METHODS)
        return [None] if said == ["none"] else said

    @property
    def needs(self):
        return " ".join(self.said["needs"]).split()

    def missing(self):
        """Return the first of its needs that is not here."""
        return next((need for need in self.needs if not is_here(need)), None)

    def command(self, method):
        command = self.only("run", "exec python %s.py METHOD" % self.name)
        command = re.sub(r"\bMETHOD\b", method or "", command)
        return re.sub(r"(?<![\w./-])python(?=\s)", shlex.quote(sys.executable), command)

    def signals(self, seed):
        """The signals that it gets, each at a moment that is chosen at random."""
        chance, found = random.Random("%s %s" % (seed, self.name)), []
        for said in self.said["signal"]:
            name, text, seconds = re.match(r"(SIG\w+) after (.+) within ([\d.]+)$", said).groups()
            found.append((text, chance.uniform(0, float(seconds)), getattr(signal, name).value))
        return found

    def problems(self, report):
        """Return what is wrong with a run, in words."""
        found = []
        code = int(self.only("exit", "0"))
        if report["code"] != code:
            found.append("it ended with %s instead of %d" % (report["code"], code))
        for key, stream in (("prints", "output"), ("stderr", "errors")):
            if not is_like(self.said[key], report[stream]):
                found.append("%s should be %r" % (stream, "\n".join(self.said[key])))
        if report["processes"]:
            found.append("it left processes: %s" % report["processes"])
        if report["names"]:
            found.append("it left in /dev/shm: %s" % report["names"])
        return found + growth(report["samples"])


def is_here(need):
    """Tell whether this machine and this interpreter have something that a journey needs."""
    if need == "root":
        return os.geteuid() == 0
    if need == "mounts":
        return has_own_shm()
    if need.startswith("CPython>="):
        return sys.version_info >= tuple(map(int, need[len("CPython>=") :].split(".")))
    if need.startswith("/"):
        return bool(glob.glob(need))
    return bool(importlib.util.find_spec(need) or shutil.which(need))


def has_own_shm(known=[]):
    """Tell whether a program can be given a /dev/shm of its own here."""
    if not known:
        known.append(outside.watch("true")["private"])
    return known[0]


def is_like(lines, text):
    wanted = "".join(line + "\n" for line in lines)
    return wanted == text or doctest.OutputChecker().check_output(wanted, text, doctest.ELLIPSIS)


def growth(samples):
    """Return what has grown from the second third of a program's rounds to the last.

    Medians are compared: a single sample may be of a moment in which a process is started.
    """
    if not samples:
        return []
    found = []
    if len(samples) < FEWEST_ROUNDS:
        found.append("it has %d rounds, too few to see growth" % len(samples))
    series = [("/dev/shm", [sample["shm"] for sample in samples], LITTLE_MEMORY)]
    for kind, some in (("descriptors", FEW_DESCRIPTORS), ("memory", LITTLE_MEMORY)):
        values = collections.defaultdict(list)
        for sample in samples:
            for pid, value in sample[kind].items():
                values[pid].append(value)
        series += [("%s of process %s" % (kind, pid), each, some) for pid, each in values.items()]
    for what, values, some in series:
        third = len(values) // 3
        before, last = sorted(values[third:-third]), sorted(values[-third:])
        # Some processes live for a few rounds only.
        lived = third and len(values) > len(samples) / 2
        if lived and last[len(last) // 2] > before[len(before) // 2] + some:
            found.append("%s grows: %s" % (what, values))
    return found


def run(journey, method, folder, timeout=None, **options):
    """Run a journey in a folder; fail with all that is wrong with it."""
    shutil.copy(journey.path, str(folder))
    timeout = timeout or float(journey.only("seconds", "120"))
    report = outside.watch(
        journey.command(method),
        shm=journey.only("shm", None),
        timeout=timeout,
        interrupt=journey.signals(os.environ.get("SNP_SEED")),
        cwd=str(folder),
        **options
    )
    problems = journey.problems(report)
    if report["code"] is None:
        problems[0] = "it did not end within %d s" % timeout
    assert not problems, "%s\n\n---- stdout\n%s\n---- stderr\n%s" % (
        "\n".join(problems), report["output"], report["errors"],
    )  # fmt: skip


JOURNEYS = [Journey(path) for path in sorted(glob.glob(os.path.join(FOLDER, "*.py")))]


def lines():
    """The tests: each journey under each of its methods, and which of them the gate runs where."""
    for number, journey in enumerate(JOURNEYS):
        methods = journey.methods
        chosen = methods[number // 2 % len(methods)]
        where = INTERPRETERS[number % 2]
        if any(fnmatch.fnmatch(need, "CPython>=*") for need in journey.needs):
            where = "newest"
        for method in methods:
            marks = [getattr(pytest.mark, where)] + [pytest.mark.whole] * (method != chosen)
            name = "-".join(filter(None, [journey.name, method]))
            yield pytest.param(journey, method, id=name, marks=marks)


@pytest.mark.every_method
@pytest.mark.parametrize("journey, method", list(lines()))
def test_journey(journey, method, tmp_path):
    if journey.missing():
        pytest.skip("there is no " + journey.missing())
    if journey.only("shm", None) and not has_own_shm():
        pytest.skip("a /dev/shm of another size needs a mount namespace")
    run(journey, method, tmp_path)


# ---- the harness itself --------------------------------------------------------------------

WRONG = {
    "result": ("print(41)", "output should be '42'"),
    "too little": ("", "output should be '42'"),
    "exit": ("print(42); raise SystemExit(3)", "it ended with 3 instead of 0"),
    "stderr": ("print(42); print('careful', file=sys.stderr)", "errors should be ''"),
    "segment": (
        "print(42); open('/dev/shm/snp-%x-left' % os.getpid(), 'w')",
        "it left in /dev/shm: ['snp-",
    ),
    "process": (
        "print(42); subprocess.Popen(['sleep', '600'], start_new_session=True)",
        "it left processes: ['sleep 600']",
    ),
    "daemon": (
        "print(42, flush=True)\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork() == 0: time.sleep(600)",
        "it left processes: ['",
    ),
    "hang": ("print(42, flush=True); time.sleep(600)", "it did not end within 2 s"),
    "deaf": (
        "print(42, flush=True); signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready',"
        " flush=True); time.sleep(600)",
        "it did not end within 2 s",
    ),
}
GROWS = {
    "descriptors": ("kept.append(os.open('/dev/null', os.O_RDONLY))", "descriptors of process"),
    "memory": ("kept.append(b'x' * (2 << 20))", "memory of process"),
    "a worker's memory": (
        "worker.stdin.write('more\\n'); worker.stdin.flush(); worker.stdout.readline()",
        "memory of process",
    ),
    "shm": ("os.write(shm, bytes(2 << 20))", "/dev/shm grows: ["),
}
BEGIN = '''"""A program that {}."""
# prints: 42
# signal: SIGINT after ready within 0.1
import os, signal, subprocess, sys, time
'''
ROUNDS = '''"""A program whose {} grows."""
# prints: ...
import fcntl, os, struct, subprocess, sys, termios, time
kept = []
def unread():
    return struct.unpack("i", fcntl.ioctl(1, termios.FIONREAD, bytes(4)))[0]
code = "import sys; kept = [print(flush=True) or b'x' * (2 << 20) for line in sys.stdin]"
worker = subprocess.Popen(
    [sys.executable, "-c", code], stdin=-1, stdout=-1, universal_newlines=True
)
shm = os.open("/dev/shm/snp-%x-x" % os.getpid(), os.O_RDWR | os.O_CREAT)
os.unlink("/dev/shm/snp-%x-x" % os.getpid())
for number in range(20):
    {}
    print("round", number, flush=True)
    while unread():  # A machine that is busy must not make one sample of all.
        time.sleep(0.001)
worker.communicate()
'''


def said_of(text, folder, **options):
    """Run a program as a journey; return what is said to be wrong with it."""
    path = folder / "it.py"
    path.write_text(text)
    (folder / "run").mkdir()
    try:
        run(Journey(path), None, folder / "run", **options)
    except AssertionError as error:
        return str(error)
    return ""


def test_a_good_program_passes(tmp_path):
    assert said_of(BEGIN.format("is good") + "print(42)", tmp_path) == ""


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_seen(what, private, tmp_path):
    code, told = WRONG[what]
    options = dict(private=private, timeout=2, patience=0.5)
    said = said_of(BEGIN.format(what) + code, tmp_path, **options)
    for name in re.findall("snp-[0-9a-f]+-left", said):
        # Where /dev/shm is everybody's it is still there.
        with suppress(FileNotFoundError):
            os.unlink("/dev/shm/" + name)
    assert told in said


def test_a_program_that_does_not_grow_passes(tmp_path):
    assert said_of(ROUNDS.format("nothing", "pass"), tmp_path) == ""


@pytest.mark.parametrize("what", GROWS)
def test_growth_is_seen(what, tmp_path):
    code, told = GROWS[what]
    if what == "shm" and not has_own_shm():
        pytest.skip("other programs use this /dev/shm")
    assert told in said_of(ROUNDS.format(what, code), tmp_path)


def test_the_gate_runs_each_journey_once_and_each_pair():
    tests = collections.defaultdict(list)
    pairs = collections.Counter()
    for line in lines():
        journey, method = line.values
        where, *whole = [mark.name for mark in line.marks]
        if not whole:
            tests[journey.name].append(where)
            pairs[where, method] += 1
    assert set(tests) == {journey.name for journey in JOURNEYS}
    assert all(len(places) == 1 for places in tests.values())
    every = {(where, method) for where in INTERPRETERS for method in METHODS}
    assert every <= set(pairs)
