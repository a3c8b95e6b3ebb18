"""Runs CPython's tests of shared memory from one file, under one start method.

    python cpython_tests/run.py SOURCE METHOD [--target stdlib] [--only NAME] [--json FILE]

SOURCE is a version (3.8) or a file ``_test_multiprocessing.py``.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "dev"))


def source_of(executable):
    """Return the file with the tests of an interpreter, or None."""
    code = "import os, test; print(os.path.join(test.__path__[0], '_test_multiprocessing.py'))"
    try:
        output = subprocess.check_output([executable, "-c", code], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    path = output.decode().strip()
    return path if os.path.exists(path) else None


class Result(unittest.TextTestResult):
    """Keeps an outcome and a reason for each test."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.outcomes = {}
        self.started = 0.0

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()

    def note(self, test, outcome, text=""):
        # The first that is no success stays; a subtest counts as its test.
        test = getattr(test, "test_case", test)
        name = "{}.{}".format(type(test).__name__, test._testMethodName)
        if self.outcomes.get(name, ["passed"])[0] == "passed":
            seconds = round(time.monotonic() - self.started, 2)
            self.outcomes[name] = [outcome, text, seconds]

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "passed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "failed", self._exc_info_to_string(err, test))

    def addError(self, test, err):
        super().addError(test, err)
        if hasattr(test, "_testMethodName"):
            self.note(test, "failed", self._exc_info_to_string(err, test))

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "failed", self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped", reason)


def options_of(description, find, add):
    """Return the options of the command line, `source` as what `find` tells of it.

    `add` adds the command's own options to a parser.
    """
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("source")
    parser.add_argument("--target", choices=["package", "stdlib"], default="package")
    parser.add_argument("--only", default="", help="run tests whose name contains this")
    parser.add_argument("--json", help="write the outcomes to this file")
    add(parser)
    options = parser.parse_args()
    if not os.path.exists(options.source):
        import interpreters

        executable = interpreters.find(int(options.source.split(".")[1]))
        source = executable and find(executable)
        if not source:
            parser.error("no tests of CPython {} on this machine".format(options.source))
        options.source = source
    return options


def run_cases(cases, wanted, report):
    """Run the tests that are `wanted`, write their outcomes to the file `report`, if any.

    Returns the exit code.
    """
    suite = unittest.TestSuite()
    for case in cases:
        suite.addTests(filter(wanted, unittest.defaultTestLoader.loadTestsFromTestCase(case)))
    result = unittest.TextTestRunner(resultclass=Result, verbosity=2).run(suite)
    if report:
        with open(report, "w") as file:
            json.dump(result.outcomes, file)
    return 0 if result.wasSuccessful() else 1


def main():
    options = options_of(
        __doc__,
        source_of,
        lambda parser: parser.add_argument("method", choices=["fork", "spawn", "forkserver"]),
    )
    os.environ["CPYTHON_TESTS_SOURCE"] = options.source
    os.environ["CPYTHON_TESTS_TARGET"] = options.target
    multiprocessing.set_start_method(options.method)
    import cases

    return run_cases(cases.CASES, lambda test: options.only in test.id(), options.json)


if __name__ == "__main__":
    sys.exit(main())
