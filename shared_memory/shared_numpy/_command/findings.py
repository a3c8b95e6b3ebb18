"""What is right and wrong on this machine: ``snp.diagnose()`` and ``shared-numpy doctor``.

Each check is a function that yields findings. It only reads: no check makes, removes or attaches
anything, and none imports numpy. Checks that read files of the system take the folder that stands
for ``/``, so that tests can show them other systems.
"""

from .check_installation import extras, interpreter, start_method
from .check_memory import folder, leftovers, memory_limit, space
from .check_system import huge_pages, kernel, limits, logout
from .finding import LEVELS, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List


CHECKS = (
    interpreter,
    kernel,
    folder,
    space,
    memory_limit,
    limits,
    logout,
    start_method,
    huge_pages,
    leftovers,
    extras,
)


def diagnose() -> "List[Finding]":
    """Look for what is wrong with this machine's settings for shared memory.

    It looks at the interpreter and the wheel, the kernel, the folder for shared memory and its
    space, limits of memory, descriptors and processes, logind's ``RemoveIPC``, the start method,
    huge pages, what killed programs left, and packages that are used where they are installed. It
    changes nothing. ``shared-numpy doctor`` prints the same.

    Returns
    -------
    list of Finding
        The worst first. A finding is a named tuple: ``level`` (``"error"``, ``"warning"`` or
        ``"ok"``), ``topic``, ``title``, ``meaning``, ``advice``; all are str.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> worst = snp.diagnose()[0]
    >>> worst.level in ("error", "warning", "ok")
    True
    """
    found = []  # type: List[Finding]
    for check in CHECKS:
        found.extend(check())
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
