"""How much of the tests a run takes, in which order, and what each costs.

Options for all tests of this project; see ``dev/suites.py`` for the amounts.
"""

import os
import random
import sys
import zlib

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "tests"))

import supervisor  # noqa: E402


def pytest_addoption(parser, pluginmanager):
    supervisor.register(pluginmanager)
    parser.addoption(
        "--amount",
        choices=["whole", "paired", "quick", "slow", "turns"],
        default="whole",
        help="paired: one start method for each line of a test; quick: and no slow test;"
        " slow: what quick leaves out of paired; turns: a third of quick, the others on the next"
        " two minor versions",
    )
    parser.addoption(
        "--interpreter",
        choices=["oldest", "newest"],
        help="leave out the tests that the gate runs on the other of the two only",
    )
    parser.addoption(
        "--turn",
        type=int,
        default=sys.version_info[1],
        help="which third of the tests the amount turns takes: the number is that of a minor"
        " version, the interpreter's by default",
    )
    parser.addoption("--shuffle", metavar="SEED", help="run the tests in a random order")


# How many minor versions in a row share the tests of the amount "turns".
TURNS = 3


def turn(name, line, methods, minor):
    """Return the start method under which a line of a test runs on CPython 3.`minor`.

    Parameters
    ----------
    name : str
        The test.
    line : int
        Which combination of the test's other parameters.
    methods : sequence of str
        The start methods that it has.
    minor : int
        The minor version. Three in a row run a line under each of three methods.
    """
    return sorted(methods)[(zlib.crc32(name.encode()) + line + minor) % len(methods)]


def paired(items):
    """Return the tests of which each line runs under one start method."""
    lines = {}
    for item in items:
        parameters = dict(getattr(item, "callspec", None) and item.callspec.params or {})
        method = parameters.pop("method", None)
        if method is not None and not item.get_closest_marker("every_method"):
            name = item.nodeid.partition("[")[0]
            line = repr(sorted(parameters.items(), key=lambda pair: pair[0]))
            lines.setdefault(name, {}).setdefault(line, {})[method] = item
    others = set()
    for name, test in lines.items():
        for number, methods in enumerate(test.values()):
            kept = turn(name, number, methods, sys.version_info[1])
            others.update(item for method, item in methods.items() if method != kept)
    return [item for item in items if item not in others]


def has_its_turn(item, minor):
    """Tell whether a test, with all its lines, runs on CPython 3.`minor`; of three minor
    versions in a row one does."""
    return ((zlib.crc32(item.nodeid.partition("[")[0].encode()) >> 8) + minor) % TURNS == 0


def pytest_collection_modifyitems(config, items):
    amount = config.getoption("--amount")
    kept = items if amount == "whole" else paired(items)
    if amount != "whole":
        kept = [item for item in kept if not item.get_closest_marker("whole")]
    other = {"oldest": "newest", "newest": "oldest"}.get(config.getoption("--interpreter"))
    if other is not None:
        kept = [item for item in kept if not item.get_closest_marker(other)]
    if amount in ("quick", "slow", "turns"):
        wanted = amount == "slow"
        kept = [item for item in kept if bool(item.get_closest_marker("slow")) == wanted]
    if amount == "turns":
        kept = [item for item in kept if has_its_turn(item, config.getoption("--turn"))]
    seed = config.getoption("--shuffle")
    if seed is not None:
        kept = list(kept)
        random.Random(seed).shuffle(kept)
    left_out = set(items) - set(kept)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
    items[:] = kept


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    item.cpu_before = sum(os.times()[:4])
    yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item, call):
    # The report of the teardown is the last, and takes this along.
    if call.when == "teardown":
        cpu = sum(os.times()[:4]) - item.cpu_before
        item.user_properties.append(("cpu", "{:.2f}".format(cpu)))
