"""The Python suites: which files each has, and how one is run and read.

A suite runs in one process of pytest, on one interpreter. What it does is chosen by
its `amount`:

* ``"whole"``: every test under every start method;
* ``"paired"``: every test, each line of a test that has a start method under one of
  them, the next one on the next minor version (see ``tests/conftest.py``);
* ``"quick"``: the same without those that are marked `slow`;
* ``"turns"``: a third of ``"quick"``, the others on the next two minor versions (``--turn``);
* ``"slow"``: what ``"paired"`` has and ``"quick"`` has not.
"""

import collections
import glob
import os
import re
import xml.etree.ElementTree

from environments import ROOT
from jobs import Failed

REPORTS = os.path.join(ROOT, "build", "reports")
SUITE_SECONDS = 1500
# How many times as much the tests of processes do in a complete run.
COMPLETE_FACTOR = 10

METHODS = ("fork", "spawn", "forkserver")

# Folders and files below ``tests``, by suite.
PARTS = collections.OrderedDict(
    [
        ("backport", ["backport"]),
        ("arrays", ["arena", "arrays", "named", "package", "pickling", "queues", "system"]),
        # The tools that run the others: the same on every interpreter.
        ("gate", ["gate"]),
        ("pools", ["compat", "pool"]),
        # The command, and whole programs as users write them: on the oldest interpreter and on
        # the newest.
        ("cli", ["cli"]),
        ("journeys", ["test_journeys.py"]),
        # Clusters of Dask, in environments of their own.
        ("clusters", ["clusters"]),
    ]
)
SUITES = list(PARTS) + ["cpython"]
# Those that run in the environment of each interpreter.
ON_EACH = [suite for suite in SUITES if suite != "clusters"]

Case = collections.namedtuple("Case", "name state seconds cpu reason")
Result = collections.namedtuple("Result", "suite version cases seconds")


def files(suite):
    """Return the files and folders of a suite, as pytest takes them."""
    if suite == "cpython":
        return ["cpython_tests"]
    return [file for part in PARTS[suite] for file in files_in(part)]


def files_in(part):
    """Return the files with tests of a folder below ``tests``, or the one file that it names."""
    path = os.path.join(ROOT, "tests", part)
    found = [path] if os.path.isfile(path) else sorted(glob.glob(os.path.join(path, "test_*.py")))
    return [os.path.relpath(each, ROOT) for each in found]


def command(python, arguments, amount, report):
    """Return the command that runs tests, and the environment for it.

    Parameters
    ----------
    python : str
        The interpreter, of an environment with the package.
    arguments : list of str
        Files, or what else pytest takes.
    amount : str
        "whole", "paired", "quick", "turns" or "slow".
    report : str
        The file for the report.
    """
    words = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", report]
    # (In one word: pytest looks for folders' options before it knows ours.)
    words += ["--amount=" + amount] + arguments
    factor = COMPLETE_FACTOR if amount == "whole" else 1
    environment = dict(os.environ, SHARED_NUMPY_TEST_FACTOR=str(factor))
    # Hundreds of programs import numpy: it is compiled by the first of them, not by each.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return words, environment


def run(job, python, version, suite, amount, results, options=()):
    """Run a suite as a job; its `Result` is appended to `results`.

    Parameters
    ----------
    job : jobs.Job
        The job whose log has the output.
    python, version : str
        The interpreter, and its version.
    suite, amount : str
        Which tests, and how many of them.
    results : list of Result
        What is appended to.
    options : sequence of str
        More options for pytest.
    """
    os.makedirs(REPORTS, exist_ok=True)
    report = os.path.join(REPORTS, "-".join([suite, version, amount]) + ".xml")
    if os.path.exists(report):
        os.remove(report)
    arguments = files(suite)
    if suite == "cpython" and amount == "whole":
        arguments = ["--all-sources"] + arguments
    arguments = list(options) + arguments
    words, environment = command(python, arguments, amount, report)
    seconds = SUITE_SECONDS * (COMPLETE_FACTOR if amount == "whole" else 1)
    code = job.run(words, seconds, fails=False, env=environment)
    return finish(code, report, suite, version, results)


def finish(code, report, suite, version, results):
    """Append the `Result` in pytest's report to `results`; return its counts, or fail."""
    if not os.path.exists(report):
        raise Failed("pytest ended with {} and no report".format(code))
    result = read(report, suite, version)
    results.append(result)
    counts = collections.Counter(case.state for case in result.cases)
    told = "{} passed, {} failed, {} skipped".format(
        counts["passed"], counts["failed"], counts["skipped"]
    )
    # 5: it found no test, where an amount leaves none.
    if code not in (0, 5) or counts["failed"]:
        raise Failed(told if counts["failed"] else "pytest ended with {}; {}".format(code, told))
    return told


def read(report, suite, version):
    """Return the `Result` that pytest wrote into a file."""
    cases, seconds = [], 0.0
    for each in xml.etree.ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag: child for child in each}
        state, reason = "passed", ""
        if "failure" in kinds or "error" in kinds:
            state = "failed"
        elif "skipped" in kinds:
            state, reason = "skipped", kinds["skipped"].get("message")
        name = "{}::{}".format(each.get("classname").replace("tests.", "", 1), each.get("name"))
        cpu = [
            float(each.get("value")) for each in each.iter("property") if each.get("name") == "cpu"
        ]
        cases.append(Case(name, state, float(each.get("time")), sum(cpu), reason))
        seconds += float(each.get("time"))
    return Result(suite, version, cases, seconds)


def core_counts(job):
    """Return how many tests of the core have passed, by what they print."""
    text = job.output()
    counts = re.findall(r"^test result: ok\. (\d+) passed|^(\d+) passed$", text, re.M)
    return "{} passed".format(sum(int(one or other) for one, other in counts))


def method_of(name):
    """Return the start method that is a part of a test's name, or "-"."""
    words = re.split(r"[\[\]-]", name)
    return next((method for method in METHODS if method in words), "-")
