"""Which CPythons are on this machine.

``python3 dev/interpreters.py`` lists them.
"""

import functools
import glob
import os
import re
import shutil
import subprocess

OLDEST, NEWEST = 6, 15


@functools.lru_cache(maxsize=None)
def version_of(executable):
    """Return the (major, minor, micro) of a CPython, or None if it is none."""
    code = (
        "import sys; print(sys.implementation.name, sys.maxsize > 2**32,"
        " hasattr(sys, '_is_gil_enabled') and not sys._is_gil_enabled(),"
        " *sys.version_info[:3])"
    )
    try:
        output = subprocess.run(
            [executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            timeout=60,
        ).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        return None
    fields = output.split()
    if fields[:3] != ["cpython", "True", "False"]:
        return None
    return tuple(map(int, fields[3:6]))


def _candidates(minor):
    roots = [os.environ.get("PYENV_ROOT", ""), os.path.expanduser("~/.pyenv")]
    for root in dict.fromkeys(filter(None, roots)):
        for folder in glob.glob(os.path.join(root, "versions", "3.%d.*" % minor)):
            if re.match(r"3\.\d+\.\d+$", os.path.basename(folder)):
                yield os.path.join(folder, "bin", "python")
    for command in ("python3.%d" % minor, "python3"):
        found = shutil.which(command)
        if found:
            yield found


def find(minor):
    """Return the newest CPython 3.`minor` of this machine, or None."""
    found = [
        (version, path)
        for path in dict.fromkeys(_candidates(minor))
        for version in [version_of(path)]
        if version and version[:2] == (3, minor)
    ]
    return max(found)[1] if found else None


def find_all():
    """Return {"3.6": path, ...} of all that are found, oldest first."""
    minors = range(OLDEST, NEWEST + 1)
    return {"3.%d" % minor: path for minor in minors for path in [find(minor)] if path}


def newest():
    """Return the minor version of the newest CPython of this machine."""
    return max(minor for minor in range(OLDEST, NEWEST + 1) if find(minor))


if __name__ == "__main__":
    for version, path in find_all().items():
        print(version, path)
