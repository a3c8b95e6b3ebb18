"""Virtual environments under ``build/envs``, made once and kept.

``python3 dev/environments.py demo PYTHON`` builds the package from the checkout,
installs it into an environment of that interpreter and prints its python.
"""

import hashlib
import os
import shutil
import subprocess
import sys

from interpreters import version_of

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENVIRONMENTS = os.path.join(ROOT, "build", "envs")

# The first pip that takes wheels for manylinux2014 and sources with a pyproject.toml.
OLDEST_PIP = (19, 3)

# How many lines of a failed command's output are shown.
SHOWN_LINES = 30


def run(command, **options):
    """Run a command quietly; on failure show the end of its output, and stop."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        universal_newlines=True,
        cwd=ROOT,
        **options
    )
    output = process.communicate()[0]
    if process.returncode:
        # On stderr: the caller may be reading stdout for an interpreter's path.
        sys.stderr.write("".join(output.splitlines(True)[-SHOWN_LINES:]))
        sys.exit("failed with {}: {}".format(process.returncode, " ".join(command)))
    return output


def make(name, executable, packages):
    """Return the python of the environment `name`, made anew if it is outdated.

    Parameters
    ----------
    name : str
        Folder under ``build/envs``.
    executable : str
        The interpreter to make it with.
    packages : list of str
        What pip installs.
    """
    folder = os.path.join(ENVIRONMENTS, name)
    python = os.path.join(folder, "bin", "python")
    wanted = hashlib.sha256(
        repr((executable, version_of(executable), sorted(packages))).encode()
    ).hexdigest()
    stamp = os.path.join(folder, "stamp")
    if os.path.exists(stamp) and version_of(python):
        with open(stamp) as file:
            if file.read() == wanted:
                return python
    shutil.rmtree(folder, ignore_errors=True)
    run([executable, "-m", "venv", folder])
    # Compiling all modules takes longer than the rest, and most are never imported.
    pip = [python, "-m", "pip", "install", "-q", "--no-compile"]
    found = run([python, "-m", "pip", "--version"]).split()[1]
    if tuple(map(int, found.split(".")[:2])) < OLDEST_PIP:
        run(pip + ["-U", "pip"])
    if packages:
        run(pip + packages)
    with open(stamp, "w") as file:
        file.write(wanted)
    return python


def add(python, *packages):
    """Install more packages into an environment; return whether that was possible."""
    command = [python, "-m", "pip", "install", "-q", "--no-compile"] + list(packages)
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return subprocess.call(command, stdin=subprocess.DEVNULL, cwd=ROOT, **quiet) == 0


def install(python, source):
    """Install the package into an environment that has what it depends on.

    Parameters
    ----------
    python : str
        The environment's python.
    source : str
        A wheel, a source distribution, or the checkout.
    """
    command = [python, "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall"]
    run(command + [source])


def install_once(python, wheel):
    """Install a wheel, unless that very file was the last to be installed so."""
    stamp = os.path.join(os.path.dirname(os.path.dirname(python)), "installed")
    with open(wheel, "rb") as file:
        wanted = hashlib.sha256(file.read()).hexdigest()
    if os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == wanted:
                return
        os.remove(stamp)
    install(python, wheel)
    with open(stamp, "w") as file:
        file.write(wanted)


def demo(executable):
    """Return a python in which the checkout is built and installed."""
    version = version_of(executable)
    if version is None or version < (3, 6):
        sys.exit(executable + " is no CPython from 3.6 on")
    # numpy from a wheel: without one for this interpreter, say so at once.
    python = make("demo-%d.%d" % version[:2], executable, ["--prefer-binary", "numpy>=1.17"])
    install(python, ROOT)
    return python


if __name__ == "__main__":
    if sys.argv[1:2] != ["demo"] or len(sys.argv) != 3:
        sys.exit(__doc__)
    print(demo(shutil.which(sys.argv[2]) or sys.argv[2]))
