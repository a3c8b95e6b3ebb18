"""Breaks the arena's core on purpose, and sees whether a test notices.

    python3 dev/mutants.py [NAME ...]

Each file in `tests/mutants/` is a patch that takes one care out of the code. Its
first line names the tests that must fail, any of them, the quickest first: `lib NAME` is one
beside the code, `core NAME` one of `tests/core`, `orders NAME` one of `tests/orders`,
`crash NAME` one of `tests/crash`, and `crash step:NAME` the operations of that name under death
at every change. All of these tests must pass on the code as it is. A mutant that passes them
survives, and is an error; so is a patch that does not apply or does not compile.

It is not optimized, but for the dependencies: most of the time would go into that.
"""

import collections
import contextlib
import filecmp
import glob
import os
import shutil
import signal
import subprocess
import sys
import time

from environments import ROOT

PATCHES = os.path.join(ROOT, "tests", "mutants")
TREE = os.path.join(ROOT, "build", "mutants")
COPIED = ["src", "tests", "benchmarks", "Cargo.toml", "Cargo.lock", "build.rs"]
# Seconds that a build and a test may take; a test that hangs longer is noticed as well. What it
# waits for in vain ends sooner.
BUILD_SECONDS, TEST_SECONDS, HANG_SECONDS = 1800, 300, 60

# The arenas of tests that fail are left behind, under names of this run.
PREFIX = "snp-mutant-%d" % os.getpid()

ENVIRONMENT = dict(
    os.environ,
    RUST_BACKTRACE="0",
    SNP_PREFIX=PREFIX,
    SNP_LIMIT=str(HANG_SECONDS),
    CARGO_PROFILE_TEST_OPT_LEVEL="0",
    CARGO_PROFILE_TEST_DEBUG="0",
    # The copy lies in this repository, and is none of its own.
    GIT_CEILING_DIRECTORIES=os.path.dirname(TREE),
)
CARGO = ["cargo", "test", "--locked"]
# Which package: the core, or that of the memory orders, which tells its own optimisations.
CORE = ["--config", 'profile.test.package."*".opt-level=2', "--no-default-features"]
ORDERS = ["--manifest-path", os.path.join("tests", "orders", "Cargo.toml"), "--lib"]

# A test: what cargo builds for it, and what it runs of that.
Test = collections.namedtuple("Test", "text target name operation")


def parse(text):
    """Return the test that a patch names so."""
    target, name = text.split(" ", 1)
    built = CORE + (["--lib"] if target == "lib" else ["--test", target])
    built = tuple(ORDERS if target == "orders" else built)
    if name.startswith("step:"):
        return Test(text, built, "step_", name[len("step:") :])
    return Test(text, built, name, "")


def run(command, seconds, environment=ENVIRONMENT):
    """Run a command in the copy; return whether it succeeded in time, and what it printed."""
    process = subprocess.Popen(
        command,
        cwd=TREE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode == 0, output.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return False, "it took over %d s" % seconds
    finally:
        # Cargo and the tests; their children end with them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def files(folder):
    """Return the paths of what is copied, below a folder."""
    found = set()
    for name in COPIED:
        if os.path.isfile(os.path.join(folder, name)):
            found.add(name)
        for path, folders, names in os.walk(os.path.join(folder, name)):
            # What cargo has built beside a package stays.
            folders[:] = [each for each in folders if each != "target"]
            found.update(os.path.relpath(os.path.join(path, each), folder) for each in names)
    return found


def copy_tree():
    """Make the copy what the code is; only what differs is written, and compiled."""
    wanted = files(ROOT)
    for name in files(TREE) - wanted:
        os.remove(os.path.join(TREE, name))
    for name in wanted:
        source, target = os.path.join(ROOT, name), os.path.join(TREE, name)
        if not os.path.exists(target) or not filecmp.cmp(source, target, shallow=False):
            os.makedirs(os.path.dirname(target), exist_ok=True)
            # Not with its time: cargo must see that it is another one.
            shutil.copyfile(source, target)


def build(test):
    return run(CARGO + list(test.target) + ["--no-run"], BUILD_SECONDS)


def passes(test):
    """Run a test that was built."""
    environment = dict(ENVIRONMENT, SNP_OPERATION=test.operation)
    return run(CARGO + list(test.target) + ["--", test.name], TEST_SECONDS, environment)


def check_code(tests):
    """Stop unless all tests pass without a mutant: else they would catch anything."""
    copy_tree()
    for test in tests:
        for succeeds, output in (build(test), passes(test)):
            if not succeeds:
                sys.exit("FAILED without a mutant: %s\n%s" % (test.text, output))


def survives(patch, tests):
    """Return why the mutant is an error; None if it was caught."""
    copy_tree()
    if subprocess.call(["git", "apply", patch], cwd=TREE, env=ENVIRONMENT):
        return "the patch does not apply"
    for test in tests:
        start = time.monotonic()
        compiles, output = build(test)
        if not compiles:
            return "the patch does not compile:\n" + output
        built = time.monotonic()
        succeeds, output = passes(test)
        if not succeeds:
            print(
                "  caught by %s, %.0f s; built in %.0f s"
                % (test.text, time.monotonic() - built, built - start)
            )
            return None
    return "no test notices it"


def main():
    wanted = sys.argv[1:]
    paths = sorted(glob.glob(os.path.join(PATCHES, "*.patch")))
    mutants = collections.OrderedDict()
    for path in paths:
        with open(path) as file:
            tests = file.readline().split(":", 1)[1].split(",")
        name = os.path.splitext(os.path.basename(path))[0]
        mutants[name] = path, [parse(test.strip()) for test in tests]
    unknown = [name for name in wanted if name not in mutants]
    if unknown or not mutants:
        sys.exit("no mutant is named %s; there are: %s" % (unknown, ", ".join(mutants)))
    start = time.monotonic()
    chosen = wanted or list(mutants)
    tests = sorted({test for name in chosen for test in mutants[name][1]})
    check_code(tests)
    print("%d tests pass without a mutant, %.0f s" % (len(tests), time.monotonic() - start))
    failed = []
    for name in chosen:
        print(name, flush=True)
        why = survives(*mutants[name])
        if why:
            print("  SURVIVES: " + why, flush=True)
            failed.append(name)
    for left in glob.glob("/dev/shm/%s-*" % PREFIX):
        os.remove(left)
    minutes = (time.monotonic() - start) / 60
    print("%d mutants, %d caught; %.0f minutes" % (len(chosen), len(chosen) - len(failed), minutes))
    if failed:
        sys.exit("FAILED: " + ", ".join(failed))


if __name__ == "__main__":
    main()
