"""Runs given tests again and again, where tests that race would fail.

    python3 dev/stress.py TEST ... [--pythons 3.6 3.13] [--times 20] [--amount quick]

A TEST is what pytest takes (``tests/queues/test_queues.py``, ``tests/arena/test_arena.py::test_x``), or
``core:NAME`` and ``crash:NAME``, tests of the core by a part of their names. They run in a
random order, on the oldest and the newest interpreter at the same time, beside a busy
process for each processor. A round with a failure is the last, and shows what repeats it. The
amounts are those of `suites`; all of a test is run unless one is given.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import builds
import interpreters
import jobs
import matrix
import suites
from jobs import Failed, Job

HOG = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(100000))"


# For so many seconds a round may take: that of all tests takes an hour.
ROUND_SECONDS = 4 * 3600


def stress(python, version, tests, amount, times, seed, job):
    """Run tests of the package `times` times, each time in another order."""
    for number in range(times):
        words, environment = suites.command(
            python, tests, amount, os.path.join(suites.REPORTS, "stress-%s.xml" % version)
        )
        order = str(seed + number)
        environment.update(SHARED_NUMPY_TEST_FACTOR="1", SNP_SEED=order)
        try:
            job.run(words + ["--shuffle", order], ROUND_SECONDS, env=environment)
        except Failed:
            raise Failed("run %d of %d, --shuffle %s" % (number + 1, times, order))
    return "%d times" % times


def stress_core(target, name, times, seed, job):
    """Run tests of the core `times` times, each time with another seed."""
    for number in range(times):
        environment = dict(os.environ, SNP_SEED=str(seed + number))
        try:
            job.run(["cargo", "test"] + matrix.CORE + ["--test", target, "--", name], env=environment)
        except Failed:
            raise Failed("run %d of %d, SNP_SEED=%d" % (number + 1, times, seed + number))
    return "%d times" % times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--pythons", nargs="*", default=[])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--amount", default="whole")
    options = parser.parse_args()
    pythons = interpreters.find_all()
    versions = options.pythons or sorted({list(pythons)[0], list(pythons)[-1]})
    unknown = [version for version in versions if version not in pythons]
    if unknown or not versions:
        sys.exit("not on this machine: " + ", ".join(unknown))
    seed = int(os.environ.get("SNP_SEED", random.SystemRandom().randrange(1, 1 << 30)))
    core = [test.split(":", 1) for test in options.tests if test.startswith(("core:", "crash:"))]
    others = [test for test in options.tests if not test.startswith(("core:", "crash:"))]
    made = []
    if others:
        made.append(Job("quick wheel", builds.build_quick))
        for version in versions:
            work = partial(matrix.install, version, pythons[version], builds.quick_wheel)
            made.append(Job("install " + version, work, ["quick wheel"]))
    ready = [job.name for job in made]
    for version in versions if others else []:
        python = matrix.python_of(version)
        work = partial(stress, python, version, others, options.amount, options.times, seed)
        made.append(Job("on " + version, work, ready, waits=True))
    for target, name in core:
        work = partial(stress_core, target, name, options.times, seed)
        made.append(Job("%s %s" % (target, name), work, ready, waits=True))
    signal.signal(signal.SIGTERM, jobs.interrupted)
    os.makedirs(suites.REPORTS, exist_ok=True)
    hogs = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(jobs.processors_here())]
    start = time.monotonic()
    try:
        passed = jobs.Run(made, jobs.lanes_here(), waiting=8).go()
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
    print("%d s, SNP_SEED=%d" % (time.monotonic() - start, seed))
    if not passed:
        sys.exit("FAILED")


if __name__ == "__main__":
    main()
