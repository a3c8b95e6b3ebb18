"""CPython's own tests pass on the package, but for the known differences.

Each of CPython's tests is a test here, for each source and start method. The
tests of one source and method run in one process, when the first is asked for.

The loader is checked by pointing it at the standard library's own modules, and
by breaking the package in ways that CPython's tests must notice.
"""

import functools
import json
import os
import subprocess
import sys
import tempfile

import interpreters
import known_differences
import pytest
import run
import supervisor

RUN = run.__file__
METHODS = ("fork", "spawn", "forkserver")
SECONDS = 600
pytestmark = pytest.mark.limit(SECONDS + 60)
MINOR = sys.version_info[1]


@functools.lru_cache(maxsize=None)
def source(minor):
    """Return CPython 3.`minor`'s file of tests, or None."""
    executable = sys.executable if minor == MINOR else interpreters.find(minor)
    return executable and run.source_of(executable)


@functools.lru_cache(maxsize=None)
def outcomes(minor, method, target="package", only="", environment=()):
    """Run the tests; return {name: [outcome, reason, seconds]}."""
    descriptor, report = tempfile.mkstemp(suffix=".json")
    os.close(descriptor)
    command = [sys.executable, RUN, source(minor), method, "--json", report]
    command += ["--target", target, "--only", only]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        env=dict(os.environ, **dict(environment)),
    )
    try:
        output = process.communicate(timeout=SECONDS)[0]
        with open(report) as file:
            return json.loads(file.read() or "{}"), output
    except subprocess.TimeoutExpired:
        supervisor.kill_tree(process.pid)
        raise
    finally:
        os.unlink(report)


# How many tests each source has: a loader that loses some must not go unnoticed.
NUMBER = {8: 13, 9: 13, 10: 20, 11: 20, 12: 20, 13: 24}

@functools.lru_cache(maxsize=None)
def names(minor):
    """List the tests of a source without running them."""
    code = (
        "import os, sys; sys.path[:0] = [{!r}]; "
        "os.environ.update(CPYTHON_TESTS_SOURCE={!r}, CPYTHON_TESTS_TARGET='package'); "
        "import cases, unittest; "
        "print(*sorted(c.__name__ + '.' + n for c in cases.CASES "
        "for n in unittest.defaultTestLoader.getTestCaseNames(c)))"
    ).format(os.path.dirname(RUN), source(minor))
    return subprocess.check_output([sys.executable, "-c", code]).decode().split()


def pytest_generate_tests(metafunc):
    if "cpython_test" not in metafunc.fixturenames:
        return
    everything = metafunc.config.getoption("--all-sources")
    minors = range(8, interpreters.NEWEST + 1) if everything else sorted({8, max(8, MINOR)})
    rows = []
    for minor in minors:
        if source(minor) is None:
            reason = "no tests of CPython 3.%d on this machine" % minor
            rows.append(pytest.param(minor, "", "", marks=pytest.mark.skip(reason=reason)))
            continue
        for method in METHODS:
            for name in names(minor):
                rows.append(pytest.param(minor, method, name, id="3.%d-%s-%s" % (minor, method, name)))
    metafunc.parametrize("minor, method, cpython_test", rows)


def test_cpython(minor, method, cpython_test):
    found, output = outcomes(minor, method)
    assert cpython_test in found, output
    outcome, reason, _ = found[cpython_test]
    known = known_differences.find(cpython_test, minor, MINOR, method)
    if known:
        assert outcome == "failed", "it passes: remove it from known_differences"
        pytest.skip("known difference: " + known.reason)
    if outcome == "skipped":
        pytest.skip("CPython skips it: " + reason)
    assert outcome == "passed", reason


@pytest.mark.parametrize("minor", sorted({8, max(8, MINOR)}))
def test_none_is_lost(minor):
    if source(minor) is None:
        pytest.skip("no tests of CPython 3.%d on this machine" % minor)
    assert len(names(minor)) >= NUMBER.get(minor, 24)


@pytest.mark.slow
@pytest.mark.skipif(MINOR < 8, reason="the standard library has nothing to test")
@pytest.mark.parametrize("method", METHODS)
def test_the_loader_passes_on_the_standard_library(method):
    if source(MINOR) is None:
        pytest.skip("no tests of CPython 3.%d on this machine" % MINOR)
    found, output = outcomes(MINOR, method, "stdlib")
    assert len(found) >= NUMBER.get(MINOR, 24), output
    assert all(outcome != "failed" for outcome, _, _ in found.values()), output


# Ways to break the package: they are put into the tests' process by a module
# that the interpreter imports at its start.
BREAKS = {
    "unlink does nothing": (
        "test_shared_memory_basics",
        "shared_memory.SharedMemory.unlink = lambda self: None",
    ),
    "a list forgets a change of type": (
        "ShareableList_basics",
        "shared_memory.list_layout.FORMAT[bool] = b'q'.ljust(8, bytes(1))",
    ),
    "a pickled segment makes a new one": (
        "across_processes",
        "shared_memory.SharedMemory.__reduce__ = "
        "lambda self: (type(self), (None, True, self.size))",
    ),
}


@pytest.mark.parametrize("broken", sorted(BREAKS))
def test_breaking_the_package_is_noticed(broken, tmp_path):
    if source(8) is None:
        pytest.skip("no tests of CPython 3.8 on this machine")
    only, change = BREAKS[broken]
    (tmp_path / "sitecustomize.py").write_text(
        "from shared_numpy import shared_memory\n" + change + "\n"
    )
    environment = (("PYTHONPATH", str(tmp_path)),)
    intact, output = outcomes(8, "spawn", only=only)
    assert [outcome for outcome, _, _ in intact.values()] == ["passed"], output
    found, output = outcomes(8, "spawn", only=only, environment=environment)
    assert [outcome for outcome, _, _ in found.values()] == ["failed"], output
