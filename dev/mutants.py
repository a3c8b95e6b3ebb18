"""Breaks the arena's core on purpose, and sees whether a test notices.

    python3 dev/mutants.py [NAME ...]

Each file in `tests/mutants/` is a patch that takes one care out of the code. Its
first line names the tests that must fail, any of them: `lib NAME` is one beside the
code, `core NAME` one of `tests/core`, `crash NAME` one of `tests/crash`, and `crash step:NAME`
the operations of that name under death at every instruction. A mutant that
passes them all survives, and is an error; so is a patch that does not apply or
does not compile.
"""

import glob
import os
import shutil
import subprocess
import sys
import time

from environments import ROOT

PATCHES = os.path.join(ROOT, "tests", "mutants")
TREE = os.path.join(ROOT, "build", "mutants")
COPIED = ["src", "tests", "benchmarks", "Cargo.toml", "Cargo.lock", "build.rs"]
SECONDS = 600

# The arenas of tests that fail are left behind, under names of this run.
PREFIX = "snp-mutant-%d" % os.getpid()


def cargo(arguments, environment, quiet=True):
    """Run cargo in the copy; return its exit code."""
    process = subprocess.Popen(
        ["cargo"] + arguments,
        cwd=TREE,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else None,
        stderr=subprocess.DEVNULL if quiet else None,
    )
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        # It hangs: noticed as well.
        process.kill()
        process.wait()
        return 1


def copy_tree():
    os.makedirs(TREE, exist_ok=True)
    for name in COPIED:
        source, target = os.path.join(ROOT, name), os.path.join(TREE, name)
        if os.path.isdir(source):
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target)
        else:
            shutil.copy2(source, target)


def command(test):
    """Return the arguments and the environment that run one test."""
    target, name = test.split(" ", 1)
    environment = dict(os.environ, RUST_BACKTRACE="0", SNP_PREFIX=PREFIX)
    which = ["--lib"] if target == "lib" else ["--test", target]
    run = ["test", "--locked", "--no-default-features"] + which + ["--"]
    if name.startswith("step:"):
        environment["SNP_OPERATION"] = name[len("step:") :]
        name = "step"
    return run + [name], environment


def survives(patch):
    """Return why the mutant is an error; None if it was caught."""
    with open(patch) as file:
        tests = file.readline().split(":", 1)[1].split(",")
    copy_tree()
    # The copy lies in this repository, and is none of its own.
    outside = dict(os.environ, GIT_CEILING_DIRECTORIES=os.path.dirname(TREE))
    if subprocess.call(["git", "apply", patch], cwd=TREE, env=outside):
        return "the patch does not apply"
    built = ["test", "--locked", "--no-default-features", "--no-run"]
    if cargo(built, os.environ):
        return "the patch does not compile"
    for test in tests:
        arguments, environment = command(test.strip())
        start = time.monotonic()
        if cargo(arguments, environment):
            print("  caught by %s, %.0f s" % (test.strip(), time.monotonic() - start))
            return None
    return "no test notices it"


def main():
    wanted = sys.argv[1:]
    failed = []
    patches = sorted(glob.glob(os.path.join(PATCHES, "*.patch")))
    names = {os.path.splitext(os.path.basename(patch))[0]: patch for patch in patches}
    unknown = [name for name in wanted if name not in names]
    if unknown or not names:
        sys.exit("no mutant is named %s; there are: %s" % (unknown, ", ".join(names)))
    for name, patch in names.items():
        if wanted and name not in wanted:
            continue
        print(name, flush=True)
        why = survives(patch)
        if why:
            print("  SURVIVES: " + why, flush=True)
            failed.append(name)
    count = len(wanted or names)
    print("%d mutants, %d caught" % (count, count - len(failed)))
    for left in glob.glob("/dev/shm/%s-*" % PREFIX):
        os.remove(left)
    if failed:
        sys.exit("FAILED: " + ", ".join(failed))


if __name__ == "__main__":
    main()
