"""Checks of what is installed: the interpreter, the wheel, numpy, other packages."""

import glob
import multiprocessing
import os
import platform
import sys

from .. import _core
from .finding import Finding, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Iterator, Optional

_OLDEST, _NEWEST = (3, 6), (3, 15)
_NUMPY = (1, 17)


def interpreter() -> "Iterator[Finding]":
    """Look at the interpreter, the wheel and numpy."""
    numpy = version_of("numpy")
    title = "{} {}, shared-numpy {} ({}), numpy {}".format(
        platform.python_implementation(),
        platform.python_version(),
        _core.__version__,
        wheel() or "not from a wheel",
        numpy or "missing",
    )
    if not hasattr(_core, "Arena"):
        yield Finding(
            "error", "interpreter", title,
            "Arrays in shared memory need 64-bit Linux, and this is {} {} with pointers of {} bits. "
            "SharedMemory, ShareableList and managers work.".format(
                os.uname().sysname, os.uname().machine, 64 if sys.maxsize > 1 << 32 else 32
            ),
            "Use a 64-bit interpreter on Linux for arrays.",
        )  # fmt: skip
    elif numpy is None:
        yield Finding(
            "error", "interpreter", title,
            "Arrays need numpy, and {} has none.".format(sys.executable),
            "pip install 'numpy>=1.17'",
        )  # fmt: skip
    elif _numbers(numpy) < _NUMPY:
        yield Finding(
            "error", "interpreter", title, "Arrays need numpy 1.17 or later.",
            "pip install 'numpy>=1.17'",
        )  # fmt: skip
    elif not _OLDEST <= sys.version_info[:2] <= _NEWEST:
        yield Finding(
            "warning", "interpreter", title,
            "It is tested on CPython {}.{} to {}.{}.".format(*_OLDEST + _NEWEST),
            "If something fails, try one of these versions.",
        )  # fmt: skip
    else:
        yield Finding("ok", "interpreter", title, "The interpreter and numpy are supported.", "")


def _numbers(version):
    """Return the first two numbers of a version."""
    parts = (version.split(".") + ["0"])[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)


def version_of(package: str) -> "Optional[str]":
    """Return the version of an installed package without importing it, or None.

    (CPython 3.6 and 3.7 have no `importlib.metadata`.)
    """
    folder = _metadata_of(package)
    if folder is not None:
        for file in ("METADATA", "PKG-INFO"):
            for line in (read(os.path.join(folder, file)) or "").splitlines():
                if line.startswith("Version:"):
                    return line[len("Version:") :].strip()
    return None


def wheel() -> "Optional[str]":
    """Return the tag of the wheel from which this package was installed, or None."""
    folder = _metadata_of("shared_numpy")
    text = (read(os.path.join(folder, "WHEEL")) if folder else None) or ""
    tags = [line[len("Tag:") :].strip() for line in text.splitlines() if line.startswith("Tag:")]
    return tags[0] if tags else None


def _metadata_of(package):
    """Return the folder with the metadata of an installed package, or None."""
    for place in sys.path:
        for ending in ("-*.dist-info", "-*.egg-info"):
            found = sorted(glob.glob(os.path.join(glob.escape(place or "."), package + ending)))
            found = [path for path in found if os.path.isdir(path)]
            if found:
                return found[-1]
    return None


_METHODS = {
    "fork": "Children begin as copies of their parent: fast, and unsafe where the parent has threads.",
    "spawn": "Children are new interpreters that import the main module: it needs "
    'if __name__ == "__main__".',
    "forkserver": "Children are copies of a server that has no threads, and import the main module: "
    'it needs if __name__ == "__main__".',
}


def start_method() -> "Iterator[Finding]":
    """Tell by which start method `multiprocessing` makes processes."""
    chosen = multiprocessing.get_start_method(allow_none=True)
    method = chosen or multiprocessing.get_all_start_methods()[0]
    title = "Start method {}{}".format(method, "" if chosen else ", the default")
    meaning = _METHODS.get(method, "")
    yield Finding("ok", "start method", title, meaning + " Arrays go to all by reference.", "")


# Package, and what it is for.
_EXTRAS = (
    ("cloudpickle", "lambdas and closures as functions"),
    ("tqdm", "progress bars"),
    ("rich", "tables of this command at a terminal"),
)


def extras() -> "Iterator[Finding]":
    """Tell which packages are there that are used where they are installed."""
    there, missing = [], []
    for package, what in _EXTRAS:
        version = version_of(package)
        if version is None:
            missing.append("{} ({})".format(package, what))
        else:
            there.append("{} {}".format(package, version))
    title = "Optional packages: {}".format(", ".join(there) or "none")
    if missing:
        meaning = "Not installed, and done without: {}.".format(", ".join(missing))
        names = " ".join(each.split()[0] for each in missing)
        yield Finding("ok", "extras", title, meaning, "If you want these: pip install " + names)
    else:
        yield Finding("ok", "extras", title, "All are installed.", "")
