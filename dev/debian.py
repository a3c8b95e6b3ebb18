"""Debian's packages, unpacked into folders: of other architectures, and beside this system.

Nothing is installed in this system, and no script of a package runs: what a program needs of
them is done by the caller. They are fetched by this system's `apt-get`, with its settings
and keys, from its mirror.
"""

import glob
import os
import re
import shutil
import subprocess

from jobs import Failed

# Has Python 3.13, QEMU 10, and kernels with pages of 16 KiB.
RELEASE = os.environ.get("RELEASE", "trixie")

# Packages hold the files of these folders below /usr.
LINKS = ("bin", "sbin", "lib", "lib64")


def mirror():
    """Return where this system has Debian's packages from; None if it is no Debian."""
    try:
        text = subprocess.check_output(
            ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)"],
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"^Debian (\S+)$", text.decode(), re.M)
    return found and found.group(1)


class Packages:
    """Packages of one architecture.

    Parameters
    ----------
    folder : str
        Where their lists are kept.
    architecture : str
        As Debian names it: "arm64", "amd64".
    """

    def __init__(self, folder, architecture):
        self._lists = os.path.join(folder, "state", "lists")
        self._archives = os.path.join(folder, "cache", "archives")
        for name in (self._lists, self._archives):
            os.makedirs(os.path.join(name, "partial"), exist_ok=True)
        status, sources = os.path.join(folder, "status"), os.path.join(folder, "sources.list")
        open(status, "w").close()
        with open(sources, "w") as file:
            file.write("deb {} {} main\n".format(mirror(), RELEASE))
        options = {
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Debug::NoLocking": "true",
            "Dir::State": os.path.join(folder, "state"),
            "Dir::State::status": status,
            "Dir::Cache": os.path.join(folder, "cache"),
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
        }
        self._apt = ["apt-get", "-qq"]
        for name, value in options.items():
            self._apt += ["-o", "{}={}".format(name, value)]

    def unpack(self, job, names, root, only=""):
        """Unpack packages into a folder, with all that they need; once.

        Parameters
        ----------
        job : jobs.Job
            Runs the commands.
        names : list of str
            The packages.
        root : str
            The folder, which is made anew.
        only : str
            Nothing is unpacked but packages whose names begin so.
        """
        stamp, wanted = root + ".stamp", " ".join([RELEASE] + names)
        if os.path.exists(stamp):
            with open(stamp) as file:
                if file.read() == wanted:
                    return
        shutil.rmtree(root, ignore_errors=True)
        job.run(self._apt + ["update"])
        job.run(self._apt + ["--yes", "--download-only", "install"] + names)
        found = glob.glob(os.path.join(self._archives, only + "*.deb"))
        if not found:
            raise Failed("apt-get has fetched no package")
        for name in LINKS:
            os.makedirs(os.path.join(root, "usr", name))
            os.symlink("usr/" + name, os.path.join(root, name))
        for package in found:
            job.run(["dpkg-deb", "--extract", package, root])
        shutil.rmtree(self._archives)
        os.makedirs(os.path.join(self._archives, "partial"))
        with open(stamp, "w") as file:
            file.write(wanted)
