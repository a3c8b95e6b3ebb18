"""Runs CPython's own tests of executors on `shared_numpy.ProcessPoolExecutor`.

    python cpython_tests/executors.py SOURCE [--target stdlib] [--only NAME] [--json FILE]

SOURCE is a version (3.8), or a file ``test_concurrent_futures.py`` or a folder of that
name. Its modules are imported under their own names, in children too, with the class
under test in place of the standard library's; nothing of them is copied.
"""

import importlib.abc
import importlib.util
import itertools
import multiprocessing.util
import os
import re
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))

NAME = "test.test_concurrent_futures"
VARIABLE = "CPYTHON_TESTS_EXECUTORS"

# Replacements in the text of the tests.
REDIRECTIONS = [
    (r"\bfutures\.ProcessPoolExecutor\b", '__import__("shared_numpy").ProcessPoolExecutor'),
    (r"from concurrent\.futures import (\{executor_type\}|ProcessPoolExecutor)", r"from shared_numpy import \1"),
]


def source_of(executable):
    """Return the file or folder with the tests of an interpreter, or None."""
    code = "import os, test; print(os.path.join(test.__path__[0], 'test_concurrent_futures'))"
    try:
        output = subprocess.check_output([executable, "-c", code], stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        return None
    path = output.decode().strip()
    found = [each for each in (path, path + ".py") if os.path.exists(each)]
    return found[0] if found else None


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules of the tests at `path`, and changes their text."""

    def __init__(self, path, redirections):
        self.path = path
        self.redirections = redirections

    def find_spec(self, name, path=None, target=None):
        if name != NAME and not name.startswith(NAME + "."):
            return None
        file = self.path + name[len(NAME) :].replace(".", "/")
        is_package = os.path.isdir(file)
        if is_package:
            file += "/__init__.py"
        elif not file.endswith(".py"):
            file += ".py"
        if not os.path.exists(file):
            return None
        spec = importlib.util.spec_from_file_location(
            name, file, loader=self, submodule_search_locations=[self.path] if is_package else None
        )
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        path = module.__spec__.origin
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for pattern, replacement in self.redirections:
            text = re.sub(pattern, replacement, text)
        exec(compile(text, path, "exec", dont_inherit=True), module.__dict__)


def install():
    """Find the tests where the variable of the environment says."""
    target, path = os.environ[VARIABLE].split(":", 1)
    sys.meta_path.insert(0, Finder(path, REDIRECTIONS if target == "package" else []))


def cases(path):
    """Return the test cases for pools of processes."""
    names = [NAME]
    if os.path.isdir(path):
        names = [
            "{}.{}".format(NAME, file[:-3])
            for file in sorted(os.listdir(path))
            if file.startswith("test_") and file.endswith(".py")
        ]
    found = {}
    for name in names:
        module = importlib.import_module(name)
        for case in vars(module).values():
            if isinstance(case, type) and issubclass(case, unittest.TestCase):
                if case.__name__.startswith("ProcessPool"):
                    found[case.__name__] = case
    return [case for _, case in sorted(found.items())]


def main():
    import run

    def add(parser):
        parser.add_argument("--without", default="", help="but not these, separated by commas")
        parser.add_argument("--share", default="1/1", help="of these only every Nth: 1/N to N/N")

    options = run.options_of(__doc__, source_of, add)
    os.environ[VARIABLE] = "{}:{}".format(options.target, options.source)
    # Children import `sitecustomize`, which calls `install`.
    folders = [os.path.join(HERE, "site"), HERE]
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)
    install()
    # They would end the resource tracker after each module, and all that it looks after.
    multiprocessing.util._cleanup_tests = lambda: None
    without = options.without.split(",")
    share, shares = map(int, options.share.split("/"))
    numbers = itertools.count(1)

    def is_wanted(test):
        if options.only not in test.id() or test._testMethodName in without:
            return False
        return next(numbers) % shares == share % shares

    return run.run_cases(cases(options.source), is_wanted, options.json)


if __name__ == "__main__":
    sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "dev")]
    sys.exit(main())
