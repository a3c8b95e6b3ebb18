"""Builds that jobs share: the release wheel, the source distribution, a quick extension.

Each is made once, and kept until one of its inputs changes.
"""

import collections
import glob
import hashlib
import os
import platform
import re
import shutil
import subprocess
import threading

import environments
import interpreters
import package_page
from environments import ROOT
from jobs import Failed

DIST = os.path.join(ROOT, "dist")
BUILD = os.path.join(ROOT, "build")
BUILD_PACKAGES = ["maturin>=1,<2"]
# Links the release wheel, so that it needs no newer glibc than it says.
RELEASE_PACKAGES = BUILD_PACKAGES + ["ziglang"]

# The release wheels for this machine.
WHEELS = "*manylinux2014_{}*.whl".format(platform.machine())

# The release wheel runs on systems with this glibc and later.
GLIBC = (2, 17)

# What a wheel is made of.
INPUTS = ["src", "shared_memory", "build.rs", "Cargo.toml", "Cargo.lock", "pyproject.toml"]
INPUTS += ["README.md", "LICENSE", "rustfmt.toml", "dev/unwind.c", "dev/package_page.py"]


def fingerprint(paths):
    """Return a text that changes with the files below some paths of the checkout."""
    found = hashlib.sha256()
    for path in paths:
        path = os.path.join(ROOT, path)
        files = [path] if os.path.isfile(path) else []
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(each for each in folders if each != "__pycache__")
            files += [os.path.join(folder, name) for name in sorted(names)]
        for file in files:
            if not file.endswith((".pyc", ".so")):
                found.update(os.path.relpath(file, ROOT).encode() + b"\0")
                with open(file, "rb") as stream:
                    found.update(hashlib.sha256(stream.read()).digest())
    return found.hexdigest()


class Kept:
    """Something built, with the fingerprint of its inputs beside it."""

    def __init__(self, name, inputs):
        self._stamp = os.path.join(BUILD, name + ".stamp")
        self._wanted = fingerprint(inputs)

    def is_fresh(self):
        if not os.path.exists(self._stamp):
            return False
        with open(self._stamp) as stamp:
            return stamp.read() == self._wanted

    def remember(self):
        os.makedirs(BUILD, exist_ok=True)
        with open(self._stamp, "w") as stamp:
            stamp.write(self._wanted)


def builder(packages):
    """Return a python that has maturin, of the newest interpreter."""
    version, executable = list(interpreters.find_all().items())[-1]
    if version == "3.6":
        raise Failed("maturin 1 needs CPython 3.7 or later; only 3.6 was found")
    name = "build" if packages == BUILD_PACKAGES else "build-release"
    return environments.make(name, executable, packages)


def maturin(job, packages, *arguments, **variables):
    python = builder(packages)
    variables["PATH"] = os.path.dirname(python) + os.pathsep + os.environ["PATH"]
    job.run([python, "-m", "maturin"] + list(arguments), env=dict(os.environ, **variables))


def maturin_by_zig(job, target, *arguments, **variables):
    """Run maturin for a system, linked by zig; glibc's unwinder stays the system's."""
    if target.endswith("-linux-gnu"):
        folder = os.path.join(BUILD, "unwind", target)
        os.makedirs(folder, exist_ok=True)
        library = os.path.join(folder, "libgcc_s.so.1")
        machine = target.partition("-")[0].replace("i686", "x86")
        job.run(
            [builder(RELEASE_PACKAGES), "-m", "ziglang", "cc", "-target"]
            + ["%s-linux-gnu.%d.%d" % ((machine,) + GLIBC), "-shared", "-nostdlib", "-fPIC"]
            + ["-Wl,-soname,libgcc_s.so.1", "-o", library, os.path.join("dev", "unwind.c")]
        )
        variables["RUSTFLAGS"] = "-C link-arg=" + library
    maturin(job, RELEASE_PACKAGES, "build", "--zig", "--locked", *arguments, **variables)


def _only(pattern):
    found = glob.glob(pattern)
    if len(found) != 1:
        raise Failed("{} matches {} files instead of one".format(pattern, len(found)))
    return found[0]


def wheel():
    """Return the path of the release wheel for this machine, which was built."""
    return _only(os.path.join(DIST, WHEELS))


def sdist():
    """Return the path of the source distribution, which was built."""
    return _only(os.path.join(DIST, "*.tar.gz"))


def _forget(ending):
    for old in glob.glob(os.path.join(DIST, "*" + ending)):
        os.remove(old)


def build_wheel(job):
    """Build the release wheel, and check what it is and what it needs."""
    kept = Kept("wheel", INPUTS)
    if kept.is_fresh() and glob.glob(os.path.join(DIST, WHEELS)):
        return "kept: its inputs are the same"
    _forget(".whl")
    here = platform.machine() + "-unknown-linux-gnu"
    maturin_by_zig(job, here, "--release", "--compatibility", "manylinux2014", "--out", DIST)
    name = os.path.basename(wheel())
    if "-cp36-abi3-" not in name or "manylinux2014" not in name:
        raise Failed("%s is no cp36-abi3 wheel for manylinux2014" % name)
    newest = _check_symbols(wheel())
    package_page.rewrite_wheel(wheel())
    kept.remember()
    return "newest symbol: GLIBC_%d.%d" % newest


def _check_symbols(wheel):
    """Return the newest version of glibc that the extension asks for; refuse one that is too
    new, and an unwinder that is not the system's."""
    folder = os.path.join(BUILD, "symbols")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.unpack_archive(wheel, folder, "zip")
    table = environments.run(["objdump", "-T", _only(os.path.join(folder, "shared_numpy", "*.so"))])
    if not re.search(r"\*UND\*.* _Unwind_", table):
        raise Failed("the extension has an unwinder of its own")
    versions = {
        tuple(map(int, version.split(".")))[:2]
        for version in re.findall(r"GLIBC_([0-9]+\.[0-9.]+)", table)
    }
    if not versions:
        raise Failed("objdump shows no symbol of glibc")
    if max(versions) > GLIBC:
        raise Failed("a symbol of GLIBC_%d.%d is newer than %d.%d" % (max(versions) + GLIBC))
    return max(versions)


def build_sdist(job):
    """Build the source distribution."""
    _forget(".tar.gz")
    # In the environment that built the wheel, so that a run makes one.
    maturin(job, RELEASE_PACKAGES, "sdist", "--out", DIST)
    package_page.rewrite_sdist(sdist())


def build_quick(job):
    """Build a wheel in little time: for this machine, and without the last optimisations."""
    folder = os.path.join(BUILD, "quick")
    kept = Kept("quick", INPUTS)
    if kept.is_fresh() and glob.glob(os.path.join(folder, "*.whl")):
        return "kept: its inputs are the same"
    shutil.rmtree(folder, ignore_errors=True)
    maturin(job, BUILD_PACKAGES, "build", "--profile", "quick", "--locked", "--out", folder)
    kept.remember()
    return ""


MUSL = "x86_64-unknown-linux-musl"

# The wheels beside the one for this machine, and the oldest system that each is for.
OTHER_WHEELS = collections.OrderedDict(
    [
        ("aarch64-unknown-linux-gnu", "manylinux2014"),
        (MUSL, "musllinux_1_2"),
    ]
)

# Where only the backport works.
TARGET_32 = "i686-unknown-linux-gnu"
BACKPORT_TARGETS = [TARGET_32, "armv7-unknown-linux-gnueabihf"]
BACKPORT_TARGETS += ["x86_64-apple-darwin", "aarch64-apple-darwin"]


def installed_targets():
    """Return the targets for which rustup has a standard library."""
    try:
        text = subprocess.check_output(["rustup", "target", "list", "--installed"])
    except (OSError, subprocess.CalledProcessError):
        return set()
    return set(text.decode().split())


def build_for(job, target, compatibility, profile, folder):
    """Build a wheel for another system than this into a folder, and return its path."""
    tag = compatibility + "_" + target.partition("-")[0]
    pattern = os.path.join(folder, "*{}*.whl".format(tag))
    for old in glob.glob(pattern):
        os.remove(old)
    words = ["--profile", profile, "--target", target]
    words += ["--compatibility", compatibility, "--out", folder]
    # The stable ABI needs no interpreter of that system.
    maturin_by_zig(job, target, *words, PYO3_NO_PYTHON="1")
    package_page.rewrite_wheel(_only(pattern))
    return _only(pattern)


def build_32_bits(job):
    """Build a wheel for i686 and return its path."""
    return build_for(job, TARGET_32, "manylinux2014", "quick", os.path.join(BUILD, "wheel32"))


def quick_wheel():
    """Return the path of the wheel of `build_quick`, which was built."""
    return _only(os.path.join(BUILD, "quick", "*.whl"))


def path_without_python():
    """Return a PATH on which cargo and the linker are, and no interpreter."""
    folder = os.path.join(BUILD, "nopython")
    os.makedirs(folder, exist_ok=True)
    for tool in ("cargo", "rustc", "rustdoc", "rustup", "cc", "gcc", "ld", "as", "ar"):
        found, link = shutil.which(tool), os.path.join(folder, tool)
        if found and not (os.path.islink(link) and os.readlink(link) == found):
            # In one step: jobs that run beside this one use the folder.
            new = "%s-%d" % (link, threading.get_ident())
            os.symlink(found, new)
            os.replace(new, link)
    return folder
