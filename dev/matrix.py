"""Runs the checks of this project, and tells what passed.

    python3 dev/matrix.py test [3.6 3.13 ...]
    python3 dev/matrix.py test-full [3.6 3.13 ...]
    python3 dev/matrix.py quick [3.11]
    python3 dev/matrix.py docs
    python3 dev/matrix.py sdist
    python3 dev/matrix.py kill-full
    python3 dev/matrix.py test-aarch64
    python3 dev/matrix.py test-aarch64-vm [16 4]
    python3 dev/matrix.py wheel
    python3 dev/matrix.py bench [3.13]
    python3 dev/matrix.py bench-costs [3.8 3.13 ...]
    python3 dev/matrix.py bench-full [3.6 3.13 ...]

`test` is the gate: tests, start methods and interpreters in pairs. `test-full`
is every combination of the three, the tests of processes ten times as long, installs
from source everywhere, the mutants, and both commands of the README on bare machines. With versions `test`
leaves out what does not depend on the interpreter, and says so. `docs` builds the manual. `quick` is for use while one works:
one interpreter, a third of the tests that are not slow (chosen by the seed), a wheel without the
last optimisations. `kill-full` kills processes of the core after every
instruction of every operation, and at 25,000 random moments. `test-aarch64` and
`test-aarch64-vm` test on an emulated 64-bit Arm; the second on kernels whose pages are of so
many KiB. `bench` measures all scenarios beside their peers, by the newest of the interpreters, and
writes the figures into `benchmarks/results`, README and docs; `bench-costs` does so with what operations
cost and its page; `bench-full` takes more rounds of both and Ray as well, and runs every benchmark on
every interpreter.

A run has one seed, from the variable SNP_SEED or of the moment. In CI (the variable CI is
set) CPython 3.6 and 3.7, rustfmt and clippy must be there; elsewhere they are skipped.
"""

import collections
import os
import platform
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial

import aarch64
import builds
import environments
import interpreters
import jobs
import manual
import suites
import times
from environments import ROOT
from jobs import Failed, Job

SOURCES = ["shared_memory", "tests", "cpython_tests", "dev", "benchmarks", "examples"]
TEST_PACKAGES = ["numpy>=1.17", "pytest", "hypothesis"]
# What there are integrations for, or extras.
TEST_PACKAGES += ["cloudpickle", "tqdm", "joblib", "loky", "pandas"]
# For clusters of Dask. The first version is the last one for CPython 3.8, and so the oldest of the
# extra "dask".
CLUSTER_PACKAGES = ["numpy>=1.17", "pytest", "hypothesis", "dask>=2023.5", "distributed>=2023.5"]
OLDEST_OF_CLUSTERS = (3, 8)
# For TLS between hosts.
CLUSTER_PACKAGES += ["cryptography"]
# What looks at types; they serve newer interpreters only.
TYPE_PACKAGES = ["numpy", "mypy", "basedpyright", "jedi"]
# What the package is measured beside; Ray is large, and takes long.
PEERS = ["joblib", "SharedArray", "iceoryx2", "faster-fifo", "pyarraypool", "mpire"]
CHART_PACKAGES = ["matplotlib>=3.7"]
# The packages whose users the modules of `shared_numpy.compat` serve, each as pip takes it. (The
# last one names packages that its module for shared memory does not need.)
ORIGINALS = [["SharedArray", "npshmex"], ["pyarraypool"], ["--no-deps", "pygments", "jztools"]]
# The first CPython whose standard library has shared memory.
OLDEST_WITH_MODULE = (3, 8)

# The package of the memory orders, which is its own for the sake of what it depends on.
ORDERS = os.path.join("tests", "orders", "Cargo.toml")
KNOWN = ["3.%d" % minor for minor in range(interpreters.OLDEST, interpreters.NEWEST + 1)]
# Suites of whole programs: on the oldest interpreter and on the newest.
ENDS = ("cli", "journeys")
CORE = ["--locked", "--no-default-features"]
# Every single instruction takes about half an hour; a limit for what hangs.
CORE_SECONDS = 2 * 3600


def in_ci():
    return bool(os.environ.get("CI"))


# ---- jobs -----------------------------------------------------------------------------


def cargo_has(tool):
    """Tell whether cargo has a subcommand."""
    try:
        return not subprocess.call(
            ["cargo", tool, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        return False


def skipped(what):
    """Return what a job without its tool tells; in CI it fails."""
    if in_ci():
        raise Failed("CI needs " + what)
    return "skipped: there is no " + what


def check_format(job):
    if not cargo_has("fmt"):
        return skipped("rustfmt")
    job.run(["cargo", "fmt", "--check"])
    if has_orders():
        job.run(["cargo", "fmt", "--check", "--manifest-path", ORDERS])


def check_syntax(python, job):
    job.run([python, "-m", "compileall", "-q", "-f"] + SOURCES)


def check_lints(job):
    if not cargo_has("clippy"):
        return skipped("clippy")
    clippy = ["cargo", "clippy", "--locked", "--all-targets"]
    job.run(clippy + ["--", "-D", "warnings"])
    # The tests are the same without the extension module.
    job.run(clippy[:-1] + ["--lib", "--no-default-features", "--", "-D", "warnings"])


def check_core(arguments, job):
    """Run tests of the core, with no interpreter on PATH."""
    environment = dict(os.environ, PATH=builds.path_without_python())
    job.run(["cargo", "test"] + CORE + arguments, seconds=CORE_SECONDS, env=environment)
    return "" if "--no-run" in arguments else suites.core_counts(job)


def has_orders():
    """Tell whether the package is here: cargo leaves packages in packages out of a source
    distribution."""
    return os.path.exists(os.path.join(ROOT, ORDERS))


def check_orders(job):
    """Run the core's words under a model checker that knows weak memory."""
    if not has_orders():
        return "skipped: a source distribution has no tests/orders"
    folder = ["--target-dir", os.path.join(builds.BUILD, "orders")]
    package = ["--locked", "--manifest-path", ORDERS] + folder
    if cargo_has("clippy"):
        job.run(["cargo", "clippy", "--all-targets"] + package + ["--", "-D", "warnings"])
    job.run(["cargo", "test"] + package)
    return suites.core_counts(job)


def check_memory(job):
    """Run the parts of the core that need no system under AddressSanitizer."""
    nightly = subprocess.run(
        ["rustc", "+nightly", "-vV"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    told = nightly.stdout.decode()
    host = re.search(r"^host: (.*)$", told, re.M)
    # (A compiler without rustup tells its own version.)
    if nightly.returncode or not host or "-nightly" not in told:
        return "skipped: it needs a nightly compiler (a toolchain of rustup)"
    # The model checker switches stacks, which the sanitizer takes for overflows.
    job.run(
        ["cargo", "+nightly", "test"] + CORE
        + ["--target", host.group(1), "--target-dir", "build/asan"]
        + ["--test", "core", "--", "--skip", "lock::"],
        env=dict(
            os.environ,
            RUSTFLAGS="-Zsanitizer=address",
            LSAN_OPTIONS="suppressions=" + os.path.join(ROOT, "tests", "core", "sanitizer.txt"),
        ),
    )  # fmt: skip
    return suites.core_counts(job)


def check_mutants(job):
    """Break the core on purpose: a test that changed may notice a fault no longer."""
    job.run([sys.executable, "-u", "dev/mutants.py"], seconds=CORE_SECONDS)
    return job.output().strip().splitlines()[-1]


def make_environment(version, executable, job):
    environments.make("test-" + version, executable, TEST_PACKAGES)


def install(version, executable, wheel, job):
    """Install a wheel into the environment of an interpreter."""
    python = environments.make("test-" + version, executable, TEST_PACKAGES)
    environments.install_once(python, wheel())


def check_types(version, executable, wheel, job):
    """Run type checkers over what users write, and compare the stubs with the package."""
    if tuple(map(int, version.split("."))) < (3, 10):
        return "skipped: type checkers need CPython 3.10 or later"
    python = environments.make("types", executable, TYPE_PACKAGES)
    environments.install_once(python, wheel())
    folder = os.path.join("tests", "typing")
    files = [os.path.join(folder, name) for name in ("least.py", "user.py")]
    cache = os.path.join(builds.BUILD, "mypy")
    job.run([python, "-m", "mypy", "--strict", "--cache-dir", cache] + files)
    job.run([python, "-m", "basedpyright", "--pythonpath", python, "--project", folder])
    stubtest = ["--mypy-config-file", os.path.join(folder, "mypy.ini")]
    stubtest += ["--allowlist", os.path.join(folder, "stubtest.txt")]
    job.run([python, "-m", "mypy.stubtest", "shared_numpy"] + stubtest)
    job.run([python, os.path.join(folder, "completes.py")])
    for file in files:
        job.run([python, file])


def python_of(version):
    return os.path.join(environments.ENVIRONMENTS, "test-" + version, "bin", "python")


def check_source(version, executable, source, job):
    """Install from a source on a version, and run the demo in small."""
    python = environments.make("source-" + version, executable, ["--prefer-binary", "numpy>=1.17"])
    # One target folder for all, so that dependencies are compiled once.
    target = os.path.join(builds.BUILD, "source-target")
    pip = [python, "-m", "pip", "install", "--no-deps", "--force-reinstall", source()]
    # (How fast the result is, the wheel's tests tell.)
    quickly = dict(CARGO_PROFILE_RELEASE_LTO="off", CARGO_PROFILE_RELEASE_CODEGEN_UNITS="16")
    job.run(pip, env=dict(os.environ, CARGO_TARGET_DIR=target, **quickly))
    job.run([python, "-m", "shared_numpy", "demo", "--frames", "2", "--side", "500"])


def check_bare_machines(job):
    """Run both commands of the README on bare machines."""
    job.run(["sh", "dev/fresh_machine.sh", os.path.join(builds.BUILD, "fresh")], seconds=4 * 3600)
    return job.output().partition("=== fresh machines")[2].strip().replace("\n", "; ")


def check_other_systems(job):
    """Compile for systems where only the backport works, and test the core on musl."""
    there = builds.installed_targets()
    told = []
    for target in builds.BACKPORT_TARGETS:
        if target not in there:
            told.append("{} skipped: rustup target add {}".format(target, target))
            continue
        # No interpreter of that system is here, and the stable ABI needs none.
        environment = dict(os.environ, PYO3_NO_PYTHON="1", RUSTFLAGS="-D warnings")
        folder = ["--target-dir", os.path.join(builds.BUILD, "targets")]
        job.run(["cargo", "check", "--locked", "--target", target] + folder, env=environment)
        told.append(target + " compiles")
    if builds.MUSL in there:
        job.run(
            ["cargo", "test", "--target", builds.MUSL] + CORE + ["--lib", "--test", "core", "--test", "crash"],
            seconds=CORE_SECONDS,
        )
        told.append("{}: {}".format(builds.MUSL, suites.core_counts(job)))
    else:
        told.append("{} skipped: rustup target add {}".format(builds.MUSL, builds.MUSL))
    return "; ".join(told)


def build_other_wheels(job):
    """Build the release wheels for other systems than this one."""
    there = builds.installed_targets()
    told = []
    for target, compatibility in builds.OTHER_WHEELS.items():
        if target in there:
            wheel = builds.build_for(job, target, compatibility, "release", builds.DIST)
            told.append(os.path.basename(wheel))
        else:
            told.append("{} skipped: rustup target add {}".format(target, target))
    return "; ".join(told)


def check_32_bits(job):
    """Run the backport's tests on an interpreter of 32 bits."""
    if os.getuid() != 0:
        return "skipped: it needs root (chroot, mount)"
    if platform.machine() != "x86_64" or builds.TARGET_32 not in builds.installed_targets():
        return "skipped: it needs an x86-64 and {} (rustup target add)".format(builds.TARGET_32)
    wheel = builds.build_32_bits(job)
    tests = ["--amount", "paired"] + suites.files("backport")
    job.run(["sh", "dev/machine32.sh", wheel, builds.BUILD] + tests, seconds=3600)
    return job.output().strip().splitlines()[-1]


def suite_jobs(version, amount, results, names=suites.ON_EACH, options=()):
    """Return the jobs that run suites on a version, with more options for pytest."""
    made = []
    for suite in names:
        work = partial(run_suite, version, suite, amount, results, options)
        name = "{} on {}, {}".format(suite, version, amount)
        # These sleep for half of their time.
        made.append(Job(name, work, ["install " + version], waits=suite in ("cpython", "gate")))
    return made


def run_suite(version, suite, amount, results, options, job):
    return suites.run(job, python_of(version), version, suite, amount, results, options)


def cluster_jobs(pythons, complete, results):
    """Return the jobs that test clusters of Dask: on the oldest interpreter that has a Dask which the
    package knows, and on the newest."""
    able = [each for each in pythons if tuple(map(int, each.split("."))) >= OLDEST_OF_CLUSTERS]
    made = []
    for version in collections.OrderedDict.fromkeys(able[-1:] + able[:1]):
        work = partial(make_cluster_environment, version, pythons[version])
        environment = "environment for clusters on " + version
        made.append(Job(environment, work, waits=True))
        # (What takes long runs on the newest.)
        amount = "whole" if complete else "paired" if version == able[-1] else "quick"
        work = partial(run_clusters, version, pythons[version], builds.wheel, amount, results)
        name = "clusters on {}, {}".format(version, amount)
        # (Its processes wait for each other, and for network and disk.)
        made.append(Job(name, work, ["wheel", environment], waits=True))
    return made


def make_cluster_environment(version, executable, job):
    environments.make("clusters-" + version, executable, CLUSTER_PACKAGES)


def run_clusters(version, executable, wheel, amount, results, job):
    python = environments.make("clusters-" + version, executable, CLUSTER_PACKAGES)
    environments.install_once(python, wheel())
    if amount == "whole" and os.getuid() == 0:
        # For hosts that are namespaces; elsewhere their tests are skipped, with the reason.
        job.run(["sh", "dev/preflight.sh", "python3", "ip"])
    return suites.run(job, python, version, "clusters", amount, results)


def first_of(pythons):
    """Return the version that is tried first: the newest."""
    return list(pythons)[-1]


def amount_of(suite, version, oldest, complete):
    """Return how much of a suite an interpreter runs that is not the first."""
    if complete:
        return "whole"
    if version == oldest:
        return "paired"
    # 3.7 has a resource tracker of ours, and 3.8 is what the backport is compared with.
    has_own = version in ("3.7", "3.8") and suite in ("backport", "cpython")
    # The others differ little from each other: a test runs on one in three of them.
    return "quick" if has_own else "turns"


# Jobs whose result is the same on all interpreters.
ALIKE = ("types", "manual", "core, AddressSanitizer", "source distribution", "install from source")


def narrowed(made):
    """Return the jobs of `made` but those that do not depend on the interpreter, and print
    which these are: for a run over interpreters that somebody has chosen."""
    left_out = [job.name for job in made if job.name.startswith(ALIKE)]
    print("left to a run over all interpreters: " + "; ".join(left_out))
    return [job for job in made if job.name not in left_out]


def gate(pythons, complete, results):
    """Return the jobs of `test` and `test-full`, in the order in which they start."""
    oldest, first = list(pythons)[0], first_of(pythons)
    others = [version for version in pythons if version != first]
    # The long ones first, so that none of them runs alone at the end.
    others.sort(key=lambda version: version not in (oldest, "3.8"))
    made = [Job("format", check_format), Job("syntax", partial(check_syntax, pythons[oldest]))]
    for version in [first] + others:
        work = partial(make_environment, version, pythons[version])
        made.append(Job("environment " + version, work, waits=True))
    made += [Job("wheel", builds.build_wheel, ["format"]), Job("lints", check_lints, ["format"])]
    for version in [first] + others:
        work = partial(install, version, pythons[version], builds.wheel)
        made.append(Job("install " + version, work, ["wheel", "environment " + version]))
    types = partial(check_types, first, pythons[first], builds.wheel)
    made.append(Job("types", types, ["wheel"]))
    pages = partial(manual.build, first, pythons[first], builds.wheel)
    made.append(Job("manual", pages, ["wheel"]))
    # Of a single interpreter nothing is left out for the other one.
    shared = bool(others) and not complete
    on_first, on_others = (["--interpreter=" + each] * shared for each in ("newest", "oldest"))
    made += suite_jobs(first, "whole" if complete else "quick", results, options=on_first)
    made += cluster_jobs(pythons, complete, results)
    # What takes long in one piece, before the many short ones.
    made.append(Job("core, AddressSanitizer", check_memory, ["lints"]))
    crash = ["--test", "crash"] + (["--", "--full"] if complete else [])
    # Cargo compiles one command at a time: a job that waited for it would keep a lane.
    compiled = ["--lib", "--test", "core", "--test", "crash", "--no-run"]
    made.append(Job("core, compiled", partial(check_core, compiled), ["lints"]))
    made.append(Job("core, processes", partial(check_core, crash), ["core, compiled"]))
    made.append(Job("core, orders", check_orders, ["core, compiled"]))
    for version in others:
        for suite in suites.ON_EACH:
            if version == oldest or suite not in ENDS and (complete or suite != "gate"):
                amount = amount_of(suite, version, oldest, complete)
                made += suite_jobs(version, amount, results, [suite], on_others)
    made.append(Job("core", partial(check_core, ["--lib", "--test", "core"]), ["core, compiled"]))
    if not complete:
        names = [suite for suite in suites.ON_EACH if suite not in ("gate", "journeys")]
        made += suite_jobs(first, "slow", results, names)
    made.append(Job("source distribution", builds.build_sdist, ["wheel"]))
    sources = [("source distribution", builds.sdist)]
    if complete:
        sources.append(("checkout", lambda: ROOT))
    for name, source in sources:
        before = "source distribution"
        # The gate's wheel is built by the newest one, from the same files.
        for version in pythons if complete else [oldest]:
            work = partial(check_source, version, pythons[version], source)
            made.append(Job("install from {} on {}".format(name, version), work, [before]))
            # One after the other: they compile into one folder.
            before = made[-1].name
    if complete:
        made.append(Job("mutants", check_mutants, ["core, processes"]))
        made.append(Job("other systems", check_other_systems, ["core"]))
        made.append(Job("backport, 32 bits", check_32_bits, ["wheel"]))
        made.append(Job("bare machines", check_bare_machines, ["lints"]))
    return made


def quick(pythons, results):
    """Return the jobs of `quick`."""
    version = first_of(pythons)
    executable = pythons[version]
    made = [
        Job("format", check_format),
        Job("syntax", partial(check_syntax, list(interpreters.find_all().values())[0])),
        Job("environment " + version, partial(make_environment, version, executable), waits=True),
        Job("quick wheel", builds.build_quick, ["format"]),
        Job("lints", check_lints, ["format"]),
    ]
    made.append(
        Job(
            "install " + version,
            partial(install, version, executable, builds.quick_wheel),
            ["quick wheel", "environment " + version],
        )
    )
    turn = "--turn=%d" % (seed() % 3)
    made += suite_jobs(version, "turns", results, ["arrays", "pools", "backport"], [turn])
    made.append(Job("core", partial(check_core, ["--lib", "--test", "core"]), ["lints"]))
    return made


def docs(pythons):
    """Return the jobs of `docs`."""
    version = first_of(pythons)
    pages = partial(manual.build, version, pythons[version], builds.quick_wheel)
    return [Job("quick wheel", builds.build_quick), Job("manual", pages, ["quick wheel"])]


# ---- commands --------------------------------------------------------------------------


def seed():
    """Return the run's seed, which all its processes find in their environment."""
    chosen = str(random.SystemRandom().randrange(1, 1 << 31))
    return int(os.environ.setdefault("SNP_SEED", chosen))


def run_jobs(made, results, missing=()):
    """Run jobs, print what came of them, and return whether all passed."""
    start = time.monotonic()
    print("SNP_SEED=%d repeats what this run chooses at random" % seed(), flush=True)
    signal.signal(signal.SIGTERM, jobs.interrupted)
    run = jobs.Run(made, jobs.lanes_here())
    passed = run.go()
    ended = run.ended.values()
    if results:
        found = times.of(results, ended)
        times.save(found)
        times.show(found)
        show_skips(results, missing)
    for each in ended:
        if each.state != "passed":
            print("{}: {} ({})".format(each.state.upper(), each.name, each.tell))
    cases = [case for result in results for case in result.cases]
    core = sum(
        int(count) for each in ended if each.name.startswith("core")
        for count in re.findall(r"(\d+) passed", each.tell)
    )  # fmt: skip
    bad = sum(case.state == "failed" for case in cases)
    bad = bad or sum(each.state != "passed" for each in ended)
    good = core + sum(case.state == "passed" for case in cases)
    minutes = (time.monotonic() - start) / 60
    print("\n{:.1f} minutes, SNP_SEED={}".format(minutes, seed()))
    print("{} passed, {} failed".format(good, bad), flush=True)
    return passed


def show_skips(results, missing):
    """Print why tests were skipped, and which interpreters there are not."""
    print()
    for version in missing:
        print("CPython {} is not on this machine: skipped".format(version))
    reasons = collections.OrderedDict()
    for result in results:
        for case in result.cases:
            if case.state == "skipped":
                name = case.name.partition("[")[0]
                versions = reasons.setdefault((name, case.reason), [])
                if result.version not in versions:
                    versions.append(result.version)
    for (name, reason), versions in reasons.items():
        print("skipped on {}: {}: {}".format(", ".join(versions), name, reason))


def kill_full(job):
    release = ["cargo", "test", "--release"] + CORE
    job.run(release + ["--test", "crash", "--", "--full"], seconds=24 * 3600)
    return suites.core_counts(job)


def show(command):
    """Run a command in sight; stop everything if it fails."""
    print("$ " + " ".join(command), flush=True)
    if subprocess.call(command, cwd=ROOT, stdin=subprocess.DEVNULL):
        sys.exit("FAILED: " + " ".join(command))


def with_peers(python, packages):
    """Install a wheel and peers into an environment; print and return the peers that cannot be."""
    environments.install_once(python, builds.wheel())
    missing = [package for package in packages if not environments.add(python, package)]
    for package in missing:
        print("{} is left out: pip does not install it for {}".format(package, python), flush=True)
    return missing


def bench(pythons, complete):
    """Measure everything beside its peers, and write the figures into README, docs and charts."""
    version = first_of(pythons)
    packages = ["numpy>=1.17"] + CHART_PACKAGES
    python = environments.make("bench-" + version, pythons[version], packages)
    missing = with_peers(python, PEERS + ["ray"] * complete)
    command = [python, "benchmarks/compare.py", "--amount", "full" if complete else "usual"]
    for package in missing:
        command += ["--left-out", package]
    show(command + ["--out", "benchmarks/results/compare.json"])
    show([python, "dev/results.py"])
    if complete:
        bench_clusters(python)


def bench_clusters(python):
    """Measure clusters of Dask beside Ray, and write what follows for many hosts."""
    missing = [package for package in CLUSTER_PACKAGES if not environments.add(python, package)]
    if missing:
        print("clusters are left out: pip does not install " + ", ".join(missing), flush=True)
        return
    show([python, "benchmarks/dask.py", "--out", "benchmarks/results/dask.json"])
    show([python, "dev/scale.py"])


def bench_costs(pythons, complete):
    """Measure what operations cost, and write the figures into their page."""
    # Compiled before, so that this takes none of the run's time.
    show(["cargo", "bench"] + CORE + ["--bench", "arena", "--no-run"])
    able = [each for each in pythons if tuple(map(int, each.split("."))) >= OLDEST_WITH_MODULE]
    command = [for_costs(first_of(pythons), pythons), "benchmarks/costs.py"]
    for version in collections.OrderedDict.fromkeys(able[:1] + able[-1:]):
        command += ["--backport", for_costs(version, pythons)]
    if able:
        command += ["--doors", with_originals(able, pythons)]
    command += ["--amount", "full" if complete else "usual"]
    show(command + ["--out", "benchmarks/results/costs.json"])
    show([command[0], "dev/results.py", "--no-charts"])


def for_costs(version, pythons):
    """Return the python of an environment with the package and numpy alone."""
    python = environments.make("costs-" + version, pythons[version], ["numpy>=1.17"])
    environments.install_once(python, builds.wheel())
    return python


def with_originals(versions, pythons):
    """Return the python of an environment with as many of the original packages as can be had: of
    the newest interpreter that can have so many."""
    most, best = -1, None
    for version in reversed(versions):
        python = environments.make("doors-" + version, pythons[version], ["numpy>=1.17"])
        environments.install_once(python, builds.wheel())
        count = sum(environments.add(python, *words) for words in ORIGINALS)
        if count > most:
            most, best = count, python
        if count == len(ORIGINALS):
            break
    return best


def bench_each(pythons):
    """Run each benchmark of its own, on each interpreter."""
    for version, executable in pythons.items():
        peers = ["shared-memory38"] if version in ("3.6", "3.7") else []
        python = environments.make("peers-" + version, executable, ["numpy>=1.17"] + peers)
        with_peers(python, PEERS)
        for name in ("limits", "blocks", "channels", "rings", "executors", "doors", "backport"):
            show([python, "benchmarks/%s.py" % name])


def chosen(wanted):
    """Return the interpreters to use, and which of the known ones are missing."""
    pythons = interpreters.find_all()
    for version in wanted:
        if version not in pythons:
            sys.exit("CPython %s is not on this machine; found: %s" % (version, ", ".join(pythons)))
    missing = [version for version in KNOWN if version not in pythons]
    if in_ci() and {"3.6", "3.7"} & set(missing):
        sys.exit("FAILED: CI needs CPython 3.6 and 3.7; found: " + ", ".join(pythons))
    if not pythons:
        sys.exit("no CPython from %s to %s was found" % (KNOWN[0], KNOWN[-1]))
    if wanted:
        return collections.OrderedDict((v, pythons[v]) for v in KNOWN if v in wanted), []
    return pythons, missing


COMMANDS = ("test", "test-full", "quick", "kill-full", "wheel", "bench", "bench-costs", "bench-full")
COMMANDS += ("test-aarch64", "test-aarch64-vm")
COMMANDS += ("docs", "sdist")


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    command, words = sys.argv[1], sys.argv[2:]
    pythons, missing = chosen(words) if command != "test-aarch64-vm" else ({}, [])
    results = []
    if command == "test-aarch64":
        made = aarch64.user_jobs(results)
    elif command == "test-aarch64-vm":
        made = aarch64.vm_jobs(words or ["16"])
    elif command == "kill-full":
        made = [Job("core, processes, at every instruction", kill_full)]
    elif command in ("wheel", "bench", "bench-costs", "bench-full"):
        made = [Job("wheel", builds.build_wheel)]
        if command == "wheel":
            made.append(Job("wheels for other systems", build_other_wheels, ["wheel"]))
    elif command == "quick":
        made = quick(pythons, results)
    elif command == "docs":
        made = docs(pythons)
    elif command == "sdist":
        made = [Job("source distribution", builds.build_sdist)]
    else:
        made = gate(pythons, command == "test-full", results)
        if words and command == "test":
            made = narrowed(made)
    if not run_jobs(made, results, missing):
        sys.exit(1)
    if command in ("bench", "bench-full"):
        bench(pythons, command == "bench-full")
    if command in ("bench-costs", "bench-full"):
        bench_costs(pythons, command == "bench-full")
    if command == "bench-full":
        bench_each(pythons)


if __name__ == "__main__":
    main()
