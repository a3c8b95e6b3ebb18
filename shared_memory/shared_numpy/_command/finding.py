"""One thing that a check has found."""

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

# From the worst on: what fails or will fail; what may surprise; what is only told.
LEVELS = ("error", "warning", "ok")


class Finding(NamedTuple):
    """One thing that `diagnose` has looked at.

    Attributes
    ----------
    level : str
        ``"error"``: something fails or is about to. ``"warning"``: something may surprise.
        ``"ok"``: nothing is wrong.
    topic : str
        What was looked at: ``"interpreter"``, ``"kernel"``, ``"folder"``, ``"space"``,
        ``"memory limit"``, ``"limits"``, ``"logout"``, ``"start method"``, ``"huge pages"``,
        ``"leftovers"`` or ``"extras"``.
    title : str
        What was found, with values.
    meaning : str
        What follows from it.
    advice : str
        What to do; empty if there is nothing to do.
    """

    level: str
    topic: str
    title: str
    meaning: str
    advice: str


def read(path: str) -> "Optional[str]":
    """Return the text of a file, or None if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None
