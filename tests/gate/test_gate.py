"""The gate itself: jobs run in order and fail alone, and no test is lost in the selection.

What holds: a job starts after what it needs and only if that passed; no more jobs
compute at a time than there are lanes; a job that fails, or takes too long, stops no other,
and leaves no process; every file of tests is in one suite; over the versions each line of
a test meets each start method.
"""

import collections
import glob
import itertools
import os
import subprocess
import sys
import threading
import time

import aarch64
import jobs
import matrix
import pytest
import suites
from conftest import ROOT, eventually
from jobs import Failed, Job


@pytest.fixture(autouse=True)
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LOGS", str(tmp_path))


def states(run):
    return {name: ended.state for name, ended in run.ended.items()}


def test_jobs_run_after_what_they_need_and_within_the_lanes():
    running, most, order = set(), [0], []
    lock = threading.Lock()

    def work(job):
        with lock:
            running.add(job.name)
            most[0] = max(most[0], len(running))
            order.append(job.name)
        time.sleep(0.01)
        with lock:
            running.discard(job.name)

    made = [Job("last", work, ["a", "b"])] + [Job(name, work) for name in "abcdef"]
    run = jobs.Run(made, lanes=2)
    assert run.go()
    assert most[0] <= 2 and order[:2] == ["a", "b"] or order[:2] == ["b", "a"]
    assert order.index("last") > max(order.index("a"), order.index("b"))
    assert set(states(run).values()) == {"passed"} and len(run.ended) == 7


def test_jobs_that_wait_take_no_lane():
    both = threading.Barrier(2, timeout=20)
    made = [Job("computes", lambda job: both.wait() and None)]
    made.append(Job("waits", lambda job: both.wait() and None, waits=True))
    assert jobs.Run(made, lanes=1).go()


def test_a_failed_job_stops_only_those_that_need_it(capsys):
    def fail(job):
        job.run([sys.executable, "-c", "print('because of this'); raise SystemExit(3)"])

    made = [Job("bad", fail), Job("lost", fail, ["bad"]), Job("lost too", fail, ["lost"])]
    made.append(Job("good", lambda job: "all is well"))
    made.append(Job("defect", lambda job: 1 // 0))
    run = jobs.Run(made, lanes=1)
    assert not run.go()
    assert states(run) == {
        "bad": "failed", "lost": "not run", "lost too": "not run", "good": "passed",
        "defect": "failed",
    }  # fmt: skip
    assert "ended with 3" in run.ended["bad"].tell
    assert "ZeroDivisionError" in run.ended["defect"].tell
    assert "because of this" in capsys.readouterr().out


def test_a_job_that_takes_too_long_is_killed_with_its_children(tmp_path):
    path = tmp_path / "pid"
    code = (
        "import subprocess, sys, time; child = subprocess.Popen([sys.executable, '-c',"
        " 'import time; time.sleep(1000)']); open(sys.argv[1], 'w').write(str(child.pid));"
        "time.sleep(1000)"
    )

    def work(job):
        with pytest.raises(Failed, match="took over 2 s"):
            job.run([sys.executable, "-c", code, str(path)], seconds=2)

    assert jobs.Run([Job("slow", work)], lanes=1).go()
    child = int(path.read_text())

    def is_gone():
        try:
            with open("/proc/%d/stat" % child) as file:
                return file.read().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    eventually(is_gone)


def test_jobs_need_what_there_is():
    with pytest.raises(AssertionError):
        jobs.Run([Job("a", print, ["nothing"])], lanes=1)
    with pytest.raises(AssertionError):
        jobs.Run([Job("a", print), Job("a", print)], lanes=1)


def test_every_file_of_tests_is_in_one_suite():
    found = [file for suite in suites.SUITES for file in suites.files(suite)]
    pattern = os.path.join(ROOT, "tests", "**", "test_*.py")
    there = [os.path.relpath(path, ROOT) for path in glob.glob(pattern, recursive=True)]
    assert sorted(found) == sorted(there + ["cpython_tests"])
    # Modules of tests are imported by their names alone.
    names = [os.path.basename(path) for path in there]
    assert len(set(names)) == len(names)
    # Nor does a suite name a folder without tests.
    for parts in suites.PARTS.values():
        assert all(suites.files_in(part) for part in parts)


def test_journeys_are_shared_by_the_oldest_and_the_newest():
    def journeys(versions, complete):
        pythons = collections.OrderedDict((version, "python") for version in versions)
        names = [job.name for job in matrix.gate(pythons, complete, [])]
        return [name for name in names if name.startswith("journeys")]

    versions = ["3.6", "3.8", "3.12", "3.13"]
    assert journeys(versions, False) == ["journeys on 3.13, quick", "journeys on 3.6, paired"]
    assert journeys(versions, True) == ["journeys on 3.13, whole", "journeys on 3.6, whole"]
    assert journeys(["3.8"], False) == ["journeys on 3.8, quick"]


def test_clusters_are_on_the_oldest_that_has_a_dask_and_the_newest():
    def clusters(versions, complete=False):
        pythons = collections.OrderedDict((version, "python") for version in versions)
        names = [job.name for job in matrix.gate(pythons, complete, [])]
        return [name for name in names if name.startswith("clusters")]

    versions = ["3.6", "3.8", "3.12", "3.13"]
    assert clusters(versions) == ["clusters on 3.13, paired", "clusters on 3.8, quick"]
    assert clusters(versions, True) == ["clusters on 3.13, whole", "clusters on 3.8, whole"]
    assert clusters(["3.9"]) == ["clusters on 3.9, paired"] and clusters(["3.6"]) == []


def test_chosen_interpreters_leave_out_what_does_not_depend_on_them(capsys):
    names = [job.name for job in matrix.gate({"3.8": "python"}, False, [])]
    left = [job.name for job in matrix.narrowed(matrix.gate({"3.8": "python"}, False, []))]
    missing = [name for name in names if name not in left]
    assert missing == [
        "types", "manual", "core, AddressSanitizer", "source distribution",
        "install from source distribution on 3.8",
    ]  # fmt: skip
    assert capsys.readouterr().out == "left to a run over all interpreters: %s\n" % "; ".join(missing)


TESTS = """
import pytest

@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_both(method, size): pass

@pytest.mark.every_method
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_every(method): pass

@pytest.mark.parametrize("method", ["spawn"])
def test_one(method): pass

def test_none(): pass

@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_slow(method): pass
"""
# Tests that the gate shares out between two interpreters.
SHARED_OUT = """
import pytest

@pytest.mark.oldest
def test_there(): pass

@pytest.mark.newest
def test_here(): pass

@pytest.mark.newest
@pytest.mark.whole
def test_complete(): pass
"""


@pytest.fixture(scope="module")
def selected(tmp_path_factory):
    """What pytest selects of `TESTS` by amount and minor version."""
    folder = tmp_path_factory.mktemp("selection")
    with open(os.path.join(ROOT, "conftest.py")) as file:
        text = file.read()
    # As another version would see it.
    text = text.replace("sys.version_info[1]", 'int(os.environ["MINOR"])')
    (folder / "conftest.py").write_text(text)
    marks = ["slow", "every_method", "whole", "oldest", "newest"]
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    " + "\n    ".join(marks) + "\n")
    (folder / "test_selected.py").write_text(TESTS)
    (folder / "test_shared_out.py").write_text(SHARED_OUT)

    def select(amount, minor, file="test_selected.py", *arguments):
        output = subprocess.check_output(
            [sys.executable, "-m", "pytest", "-q", "--collect-only", "--amount", amount]
            + [str(folder / file)] + list(arguments) + ["-p", "no:cacheprovider", "-p", "no:supervisor"],
            env=dict(os.environ, MINOR=str(minor), PYTHONPATH=os.path.join(ROOT, "tests")),
            cwd=str(folder),
            universal_newlines=True,
        )
        return {line.split("::")[1] for line in output.splitlines() if "::" in line}

    return select


def test_pairs_are_all_met(selected):
    whole = selected("whole", 6)
    assert len(whole) == 12 + 2 + 1 + 1 + 2
    by_version = {minor: selected("paired", minor) for minor in (6, 7, 8)}
    for tests in by_version.values():
        assert len([test for test in tests if "test_both" in test]) == 4
        assert {"test_every[fork]", "test_every[spawn]", "test_one[spawn]", "test_none"} <= tests
        assert len([test for test in tests if "test_slow" in test]) == 1
    # Three versions in a row meet all lines under all methods.
    assert set(itertools.chain(*by_version.values())) == whole
    # On one version the methods take turns.
    methods = [suites.method_of(test) for test in by_version[6] if "test_both" in test]
    assert set(methods) == set(suites.METHODS)


def functions_of(tests):
    return {test.partition("[")[0] for test in tests}


def test_turns_are_taken_by_versions_in_a_row(selected):
    minors = (9, 10, 11)
    quick = selected("quick", 9)
    turns = [selected("turns", minor) for minor in minors]
    assert all(functions_of(tests) < functions_of(quick) for tests in turns)

    # Each test has its turn on one of them.
    assert sorted(itertools.chain(*map(functions_of, turns))) == sorted(functions_of(quick))
    # A number says whose turn it is, on any version.
    chosen = [selected("turns", 6, "test_selected.py", "--turn=%d" % number) for number in range(3)]
    assert sorted(map(sorted, map(functions_of, chosen))) == sorted(map(sorted, map(functions_of, turns)))


def test_quick_and_slow_are_the_parts_of_paired(selected):
    quick, slow, all_ = (selected(amount, 8) for amount in ("quick", "slow", "paired"))
    assert quick | slow == all_ and not quick & slow
    assert len(slow) == 1


def test_two_interpreters_share_tests_out(selected):
    def on(interpreter, amount="quick"):
        return selected(amount, 8, "test_shared_out.py", "--interpreter", interpreter)

    assert on("oldest") == {"test_there"} and on("newest") == {"test_here"}
    assert selected("paired", 8, "test_shared_out.py") == {"test_there", "test_here"}
    assert len(selected("whole", 8, "test_shared_out.py")) == 3


def test_what_is_not_emulated_is_there():
    """The lists of what is left out name tests that there are."""
    sources = glob.glob(os.path.join(ROOT, "tests", "crash", "**", "*.rs"), recursive=True)
    core = "".join(open(path, encoding="utf-8").read() for path in sources)
    for name in list(aarch64.NOT_EMULATED) + list(aarch64.NOT_ON_VM):
        assert '("{}"'.format(name) in core, name
    for name in aarch64.NOT_STEPPED_ON_VM:
        assert 'name: "{}"'.format(name) in core, name
    for name in aarch64.NOT_EMULATED_OF_PACKAGE:
        path, _, test = name.partition("[")[0].partition("::")
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            assert "def {}(".format(test) in file.read(), name
    assert all(os.path.exists(os.path.join(ROOT, path)) for path in aarch64.FIRST)
