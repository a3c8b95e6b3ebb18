"""Runs every check on every CPython of the machine, and tells what passed.

    python3 dev/matrix.py test [3.6 3.13 ...]
    python3 dev/matrix.py test-full [3.6 3.13 ...]
    python3 dev/matrix.py kill-full
    python3 dev/matrix.py wheel
    python3 dev/matrix.py bench [3.6 3.13 ...]

`test` runs the suites in full on the oldest, on 3.8 and on the newest of the
interpreters; on the others without the slow tests, and those marked `in_turn` under one
start method each. `test-full` runs them in full on all. `kill-full` kills processes of
the core after every instruction of every operation, and at 25,000 random moments. In CI
(the variable CI is set) 3.6 and 3.7 must be there.
"""

import collections
import concurrent.futures
import contextlib
import glob
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree

import environments
import interpreters
from environments import ROOT

DIST = os.path.join(ROOT, "dist")
REPORTS = os.path.join(ROOT, "build", "reports")
BESIDE = os.path.join(ROOT, "build", "beside.txt")
SOURCES = ["shared_memory", "tests", "cpython_tests", "dev", "benchmarks", "examples"]
TEST_PACKAGES = ["numpy>=1.17", "pytest", "hypothesis"]
# What there are integrations for, or extras.
TEST_PACKAGES += ["cloudpickle", "tqdm", "joblib", "loky", "pandas"]
BUILD_PACKAGES = ["maturin>=1,<2", "ziglang"]

# The release wheel runs on systems with this glibc and later.
GLIBC = (2, 17)

# Name of a suite -> pytest's arguments. CPython's own tests come from 3.8 and from
# the interpreter itself; in a complete run from all.
SUITES = collections.OrderedDict([("tests", ["tests"]), ("cpython", ["cpython_tests"])])
SUITE_SECONDS = 1500
# How many times as much the tests of processes do in a complete run.
COMPLETE_FACTOR = 10

# What several threads share.
PRINTING, INSTALLING = threading.Lock(), threading.Lock()

COMMANDS = ("test", "test-full", "kill-full", "wheel", "bench")

Result = collections.namedtuple("Result", "passed failed skipped seconds")


class Failed(Exception):
    """A suite came to no end."""


def say(text):
    print("\n=== " + text, flush=True)


def check(title, command, **options):
    """Run a command in sight; stop everything if it fails."""
    say(title)
    print("$ " + " ".join(command), flush=True)
    if subprocess.call(command, cwd=ROOT, stdin=subprocess.DEVNULL, **options):
        sys.exit("FAILED: " + title)


@contextlib.contextmanager
def checked_beside(title, command, **options):
    """Run a command beside what the block does; what it prints is seen at its end.

    Both must succeed. The command is waited for in any case: its children are groups of
    their own, which would stay if it were killed.
    """
    say("%s: started, the output comes below" % title)
    os.makedirs(os.path.dirname(BESIDE), exist_ok=True)
    start = time.monotonic()
    with open(BESIDE, "w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, **options
        )
    try:
        yield
    finally:
        code = process.wait()
    with open(BESIDE, errors="replace") as file:
        text = file.read()
    say("%s, %.0f s" % (title, time.monotonic() - start))
    print("$ {}\n{}".format(" ".join(command), text), flush=True)
    if code:
        sys.exit("FAILED: " + title)


def path_without_python():
    """Return a PATH on which cargo and the linker are, and no interpreter."""
    folder = os.path.join(ROOT, "build", "nopython")
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for tool in ("cargo", "rustc", "rustdoc", "rustup", "cc", "gcc", "ld", "as", "ar"):
        found = shutil.which(tool)
        if found:
            os.symlink(found, os.path.join(folder, tool))
    return folder


def check_sources():
    check("format", ["cargo", "fmt", "--check"])
    clippy = ["cargo", "clippy", "--locked", "--all-targets"]
    check("clippy, extension", clippy + ["--", "-D", "warnings"])
    check("clippy, core", clippy + ["--no-default-features", "--", "-D", "warnings"])


def core_checked_beside():
    """Test the core beside what the block does: most of it is one process at a time."""
    return checked_beside(
        "core, with no interpreter on PATH",
        ["cargo", "test", "--locked", "--no-default-features"],
        env=dict(os.environ, PATH=path_without_python()),
    )


def check_memory():
    """Run the parts of the core that need no system under AddressSanitizer."""
    nightly = subprocess.run(
        ["rustc", "+nightly", "-vV"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    host = re.search(r"^host: (.*)$", nightly.stdout.decode(), re.M)
    if nightly.returncode or not host:
        say("AddressSanitizer: skipped, it needs a nightly compiler (rustup toolchain)")
        return
    # The model checker switches stacks, which the sanitizer takes for overflows.
    check(
        "core under AddressSanitizer",
        ["cargo", "+nightly", "test", "--locked", "--no-default-features"]
        + ["--target", host.group(1), "--target-dir", "build/asan"]
        + ["--test", "core", "--", "--skip", "lock::"],
        env=dict(os.environ, RUSTFLAGS="-Zsanitizer=address"),
    )


def kill_full():
    core = ["cargo", "test", "--release", "--locked", "--no-default-features", "--test"]
    check("death at every instruction and at random", core + ["crash", "--", "--full"])


def builder():
    """Return a python that has maturin, of the newest interpreter."""
    version, executable = list(interpreters.find_all().items())[-1]
    if version == "3.6":
        sys.exit("maturin 1 needs CPython 3.7 or later; only 3.6 was found")
    return environments.make("build", executable, BUILD_PACKAGES)


def build_wheel():
    """Build the release wheel and return its path."""
    python = builder()
    shutil.rmtree(DIST, ignore_errors=True)
    path = os.path.dirname(python) + os.pathsep + os.environ["PATH"]
    check(
        "release wheel",
        [python, "-m", "maturin", "build", "--release", "--locked", "--zig"]
        + ["--compatibility", "manylinux2014", "--out", DIST],
        env=dict(os.environ, PATH=path),
    )
    (wheel,) = glob.glob(os.path.join(DIST, "*.whl"))
    name = os.path.basename(wheel)
    if "-cp36-abi3-" not in name or "manylinux2014" not in name:
        sys.exit("FAILED: %s is no cp36-abi3 wheel for manylinux2014" % name)
    check_symbols(wheel)
    return wheel


def check_symbols(wheel):
    """Stop if the extension asks for a newer glibc than `GLIBC`."""
    folder = os.path.join(ROOT, "build", "symbols")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.unpack_archive(wheel, folder, "zip")
    (extension,) = glob.glob(os.path.join(folder, "shared_numpy", "*.so"))
    table = environments.run(["objdump", "-T", extension])
    versions = {
        tuple(map(int, version.split(".")))
        for version in re.findall(r"GLIBC_([0-9.]+)", table)
    }
    if not versions:
        sys.exit("FAILED: objdump shows no symbol of glibc")
    latest = ".".join(map(str, max(versions)))
    print("newest symbol: GLIBC_" + latest)
    if max(versions) > GLIBC:
        sys.exit("FAILED: a symbol of GLIBC_%s is newer than %d.%d" % ((latest,) + GLIBC))


def build_sdist():
    """Build the source distribution and return its path."""
    check("source distribution", [builder(), "-m", "maturin", "sdist", "--out", DIST])
    (sdist,) = glob.glob(os.path.join(DIST, "*.tar.gz"))
    return sdist


def check_source_installs(pythons, sources, versions):
    """Install from each source on each version, and run the demo in small."""
    for version in versions:
        for source in sources:
            python = environments.make(
                "source-" + version, pythons[version], ["--prefer-binary", "numpy>=1.17"]
            )
            say("pip install %s on %s" % (os.path.relpath(source, ROOT), version))
            environments.install(python, source)
            check(
                "demo on " + version,
                [python, "-m", "shared_numpy", "demo", "--frames", "2", "--side", "500"],
            )


def run_suite(python, version, suite, full, complete):
    """Run a suite and return its result; what pytest prints is seen at its end."""
    report = os.path.join(REPORTS, "%s-%s.xml" % (suite, version))
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["--junitxml", report] + SUITES[suite]
    if not full:
        command += ["-m", "not slow"]
    if complete and suite == "cpython":
        command += ["--all-sources"]
    start = time.monotonic()
    output = os.path.join(REPORTS, "%s-%s.txt" % (suite, version))
    factor = COMPLETE_FACTOR if complete else 1
    environment = dict(os.environ, SHARED_NUMPY_TEST_FACTOR=str(factor))
    with open(output, "w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment
        )
        try:
            code = process.wait(SUITE_SECONDS * factor)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = None
    seconds = time.monotonic() - start
    with open(output, errors="replace") as file:
        text = file.read()
    with PRINTING:
        slow = "" if full else ", without the slow ones"
        say("%s on %s%s, %.0f s" % (suite, version, slow, seconds))
        print("$ {}\n{}".format(" ".join(command), text), flush=True)
    if code is None:
        raise Failed("%s on %s took over %d s" % (suite, version, SUITE_SECONDS * factor))
    if not os.path.exists(report):
        raise Failed("%s on %s ended with %d and no report" % (suite, version, code))
    cases = xml.etree.ElementTree.parse(report).iter("testcase")
    passed, failed, skipped = 0, 0, []
    for case in cases:
        kinds = {child.tag: child for child in case}
        if "failure" in kinds or "error" in kinds:
            failed += 1
        elif "skipped" in kinds:
            skipped.append((case.get("name"), kinds["skipped"].get("message")))
        else:
            passed += 1
    if (code or not passed) and not failed:
        failed = 1
    return Result(passed, failed, skipped, seconds)


def table(results, missing):
    """Print interpreter x suite, then why tests were skipped."""
    say("summary")
    suites = list(SUITES)
    row = "{:8}" + " {:>34}" * len(suites)
    print(row.format("CPython", *suites))
    for version, found in results.items():
        cells = []
        for suite in suites:
            result = found[suite]
            cells.append(
                "{} passed, {} failed, {} skipped".format(
                    result.passed, result.failed, len(result.skipped)
                )
            )
        print(row.format(version, *cells))
    for version in missing:
        print("{:8} not on this machine: skipped".format(version))
    reasons = collections.OrderedDict()
    for version, found in results.items():
        for result in found.values():
            for name, reason in result.skipped:
                reasons.setdefault((name, reason), []).append(version)
    for (name, reason), versions in reasons.items():
        print("skipped on {}: {}: {}".format(", ".join(versions), name, reason))
    passed = sum(result.passed for found in results.values() for result in found.values())
    failed = sum(result.failed for found in results.values() for result in found.values())
    print("\n%d passed, %d failed" % (passed, failed), flush=True)
    return failed


def test(pythons, missing, complete):
    """Run everything; return the number of failed tests."""
    start = time.monotonic()
    oldest, latest = list(pythons)[0], list(pythons)[-1]
    check_sources()
    with core_checked_beside():
        check_memory()
        wheel = build_wheel()
        sdist = build_sdist()
        if complete:
            check_source_installs(pythons, [ROOT, sdist], pythons)
        else:
            check_source_installs(pythons, [sdist], sorted({oldest, latest}))
    shutil.rmtree(REPORTS, ignore_errors=True)
    os.makedirs(REPORTS)
    check(
        "every file is syntax of " + oldest,
        [pythons[oldest], "-m", "compileall", "-q", "-f"] + SOURCES,
    )

    def is_full(version):
        return complete or version in (oldest, "3.8", latest)

    def run_all(version):
        with INSTALLING:
            python = environments.make("test-" + version, pythons[version], TEST_PACKAGES)
            environments.install(python, wheel)
        full = is_full(version)
        return collections.OrderedDict(
            (suite, run_suite(python, version, suite, full, complete)) for suite in SUITES
        )

    # Two at a time: most of what they do is to wait for each other's processes. Those
    # that take longest come first, so that none of them runs alone at the end.
    order = sorted(pythons, key=lambda version: not is_full(version))
    with concurrent.futures.ThreadPoolExecutor(2) as lanes:
        found = {version: lanes.submit(run_all, version) for version in order}
        try:
            results = {version: found[version].result() for version in order}
        except Failed as error:
            for future in found.values():
                future.cancel()
            sys.exit("FAILED: {}".format(error))
    failed = table(collections.OrderedDict((v, results[v]) for v in pythons), missing)
    print("%.0f minutes" % ((time.monotonic() - start) / 60))
    return failed


def bench(pythons):
    check("arena", ["cargo", "bench", "--locked", "--no-default-features", "--bench", "arena"])
    wheel = build_wheel()
    for version, executable in pythons.items():
        peers = ["shared-memory38"] if version in ("3.6", "3.7") else []
        python = environments.make("bench-" + version, executable, ["numpy>=1.17"] + peers)
        environments.install(python, wheel)
        for peer in ("SharedArray", "iceoryx2", "faster-fifo"):
            # Where there is none for this version the benchmark says so.
            subprocess.call([python, "-m", "pip", "install", "-q", peer], stderr=subprocess.DEVNULL)
        check("blocks on " + version, [python, "benchmarks/blocks.py"])
        check("channels on " + version, [python, "benchmarks/channels.py"])
        check("rings on " + version, [python, "benchmarks/rings.py"])
        check("executors on " + version, [python, "benchmarks/executors.py"])
        check("doors on " + version, [python, "benchmarks/doors.py"])
        check("backport on " + version, [python, "benchmarks/backport.py"])


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    command, wanted = sys.argv[1], sys.argv[2:]
    pythons = interpreters.find_all()
    known = ["3.%d" % minor for minor in range(interpreters.OLDEST, interpreters.NEWEST + 1)]
    for version in wanted:
        if version not in pythons:
            sys.exit("CPython %s is not on this machine; found: %s" % (version, ", ".join(pythons)))
    missing = [version for version in known if version not in pythons]
    if os.environ.get("CI") and {"3.6", "3.7"} & set(missing):
        sys.exit("FAILED: CI needs CPython 3.6 and 3.7; found: " + ", ".join(pythons))
    if not pythons:
        sys.exit("no CPython from %s to %s was found" % (known[0], known[-1]))
    if wanted:
        pythons = collections.OrderedDict((v, pythons[v]) for v in known if v in wanted)
        missing = []
    if command == "wheel":
        build_wheel()
    elif command == "kill-full":
        kill_full()
    elif command == "bench":
        bench(pythons)
    elif test(pythons, missing, command == "test-full"):
        sys.exit(1)


if __name__ == "__main__":
    main()
