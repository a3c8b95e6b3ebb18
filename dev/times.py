"""Where the time of a run goes: tables, and ``build/times.json``."""

import collections
import json
import os

import suites
from environments import ROOT

PATH = os.path.join(ROOT, "build", "times.json")
SLOWEST = 50


def of(results, jobs):
    """Return all times of a run, as it is written to `PATH`.

    Parameters
    ----------
    results : list of suites.Result
        The Python suites.
    jobs : iterable of jobs.Ended
        All jobs.

    Returns
    -------
    dict
        "jobs": name -> seconds. "suites": "suite version method" -> seconds.
        "tests": rows of suite, version, name, seconds, seconds of processor time.
    """
    by_suite = collections.Counter()
    tests = []
    for result in results:
        for case in result.cases:
            method = suites.method_of(case.name)
            by_suite["{} {} {}".format(result.suite, result.version, method)] += case.seconds
            tests.append([result.suite, result.version, case.name, case.seconds, case.cpu])
    tests.sort(key=lambda row: -row[3])
    return {
        "jobs": {job.name: round(job.seconds, 1) for job in jobs},
        "suites": {name: round(seconds, 1) for name, seconds in sorted(by_suite.items())},
        "tests": tests,
    }


def save(times):
    os.makedirs(os.path.dirname(PATH), exist_ok=True)
    with open(PATH, "w") as file:
        json.dump(times, file, indent=1)


def show(times):
    """Print the tables: suite x interpreter x start method, jobs, the slowest tests."""
    print("\nseconds by suite, start method and interpreter")
    cells = {tuple(name.split()): seconds for name, seconds in times["suites"].items()}
    versions = sorted({version for _, version, _ in cells}, key=_number)
    rows = sorted({(suite, method) for suite, _, method in cells})
    line = "{:10} {:10}" + " {:>6}" * (len(versions) + 1)
    print(line.format("suite", "method", *(versions + ["all"])))
    for suite, method in rows:
        seconds = [cells.get((suite, version, method), 0) for version in versions]
        print(line.format(suite, method, *map("{:.0f}".format, seconds + [sum(seconds)])))
    sums = [sum(s for (_, v, _), s in cells.items() if v == version) for version in versions]
    print(line.format("all", "", *map("{:.0f}".format, sums + [sum(sums)])))
    print("\nseconds by job")
    for name, seconds in times["jobs"].items():
        print("{:8.1f}  {}".format(seconds, name))
    print("\nthe slowest tests: seconds, of them processor time (a test that waits has little)")
    for suite, version, name, seconds, cpu in times["tests"][:SLOWEST]:
        print("{:8.1f} {:8.1f}  {:5} {}".format(seconds, cpu, version, name))


def _number(version):
    return tuple(map(int, version.split(".")))
