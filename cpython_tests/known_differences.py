"""CPython's tests that cannot pass, each with its reason.

A test that is listed and passes is an error: its row has to go.
"""

import collections

# `sources` and `interpreters` are ranges of minor versions of CPython 3, both
# ends included; `methods` are start methods. The test fails in all combinations.
Difference = collections.namedtuple("Difference", "test sources interpreters methods reason")

ALL = ("fork", "spawn", "forkserver")

_NEVER_IMPORTED = (
    "the program that it runs never imports the package, so that the interpreter's own "
    "tracker is at work, which warns there before 3.10"
)

KNOWN = [
    Difference(
        "TestNamedResource.test_global_named_resource_spawn",
        (10, 10),
        (6, 9),
        ALL,
        _NEVER_IMPORTED,
    ),
    Difference(
        "TestNamedResource.test_global_named_resource_spawn",
        (11, 13),
        (6, 9),
        ("spawn",),
        _NEVER_IMPORTED,
    ),
    Difference(
        "TestResourceTracker.test_resource_tracker_exit_code",
        (13, 13),
        (8, 12),
        ALL,
        "the tracker is the standard library's, whose exit codes come with 3.13",
    ),
]


def find(test, source, interpreter, method):
    """Return the `Difference` that says why a test fails, or None.

    Parameters
    ----------
    test : str
        "Class.method".
    source, interpreter : int
        Minor versions: where the test comes from, and what runs it.
    method : str
        The start method.
    """
    for known in KNOWN:
        if (
            known.test == test
            and known.sources[0] <= source <= known.sources[1]
            and known.interpreters[0] <= interpreter <= known.interpreters[1]
            and method in known.methods
        ):
            return known
    return None
