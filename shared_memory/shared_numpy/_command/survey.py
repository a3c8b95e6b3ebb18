"""What is in shared memory, whose it is, and whether anybody uses it.

`survey` looks at the files in /dev/shm and in the folder that SHARED_NUMPY_DIR says. It joins no
arena, takes no lock and changes nothing. It is a picture of a moment: files come and go while it
looks, and one that goes is left out.

How it knows who uses a file:

* `/proc` tells which processes have mapped or opened it. That is complete only in the machine's first
  namespace of processes, and for a user who may read every process: `Survey.sees_all`.
* The processes of an arena lock bytes of its lock file. The kernel tells of these locks across
  namespaces and users, so an arena is known to be in use, or orphaned, wherever its lock file can be
  opened.
"""

import os
from typing import NamedTuple

from .files import look_at
from .items import (  # noqa: F401 (`survey` is the module that subcommands ask)
    ARENA,
    AWAITED,
    IN_USE,
    JOBLIB,
    KINDS,
    MANAGER,
    NAMED,
    NOT_KNOWN,
    ORPHANED,
    SEGMENT,
    SEMAPHORE,
    TORCH,
    UNKNOWN,
    UNUSED,
    Item,
    Nameless,
    Process,
)
from .names import SHM, file_at, folders, full_name, lock_of, status_of, without_suffix  # noqa: F401
from .users import add_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional

__all__ = ["KINDS", "Item", "Process", "Survey", "folders", "survey"]


class Survey:
    """What `survey` has found.

    Attributes
    ----------
    items : list of Item
        Sorted by name.
    sees_all : bool
        Whether every process that may use something was seen.
    unseen : str
        Why not, or "".
    nameless : list of Nameless
        The files that have no name any more, on the same file systems, of all users.
    spaces : list of Space
        How much of each file system is used.
    """

    def __init__(self) -> None:
        self.items = []  # type: List[Item]
        self.sees_all, self.unseen = False, ""
        self.nameless = []  # type: List[Nameless]
        self.spaces = []  # type: List[Space]


class Space(NamedTuple):
    """How much of a file system is used.

    Attributes
    ----------
    folder : str
        Where it is mounted, or a folder on it.
    used : int
        The bytes that are used, as the file system says.
    named : int
        Of these those of the files that have names and were seen, whoever owns them.
    """

    folder: str
    used: int
    named: int


def survey(all_users: bool = True, names: "Optional[List[str]]" = None) -> Survey:
    """Look at what is in shared memory.

    Parameters
    ----------
    all_users : bool
        Whether to tell of what other users own, too.
    names : list of str, optional
        Look at these only: names or paths, with ``shm://`` or without. A plain name is looked for
        in the folder that the environment says first, then in /dev/shm, as `attach` does.

    Returns
    -------
    Survey

    Raises
    ------
    ValueError
        SHARED_NUMPY_DIR cannot be a folder for shared memory.
    OSError
        A folder cannot be listed.
    """
    found = Survey()
    places = folders()
    wanted = None if names is None else {full_name(name) for name in names}
    inside = {file_at(path) for path in places}
    sizes = {}  # type: Dict[Any, int]
    for folder in places:
        listed = set(os.listdir(folder))
        for plain in sorted(listed):
            if without_suffix(plain) != plain and without_suffix(plain) in listed:
                continue  # It is told of with the arena's memory.
            name = plain if folder == SHM else os.path.join(folder, plain)
            if wanted is not None and without_suffix(name) not in wanted:
                continue
            item = look_at(folder, plain, name, inside)
            if item is not None:
                sizes[item.files[0]] = item.size
                if all_users or item.uid == os.geteuid():
                    found.items.append(item)
    found.items.sort(key=lambda item: item.name)
    if names is None:
        found.spaces = _spaces(places, sizes)
    add_processes(found, places)
    return found


def _spaces(places, sizes):
    """Return how much is used of each file system on which the folders lie."""
    spaces = {}  # type: Dict[int, Space]
    for place in places:
        status = status_of(place)
        if status is None or status.st_dev in spaces:
            continue
        try:
            whole = os.statvfs(place)
        except OSError:
            continue
        named = sum(size for (device, _), size in sizes.items() if device == status.st_dev)
        used = (whole.f_blocks - whole.f_bfree) * whole.f_frsize
        spaces[status.st_dev] = Space(place, used, named)
    return list(spaces.values())
