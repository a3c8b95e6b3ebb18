"""How each kind of thing in shared memory is removed, and when that is refused.

Nothing that a process is seen to use is ever removed, whatever was asked for. What shows that nobody
uses a thing differs:

* An arena of this user: no process has a lock on its lock file. The kernel tells of these locks across
  namespaces and users, so that is certain. `_core.clean_arena` has the one rule, by which any program
  removes arenas when it starts: also one that is damaged goes, if it is known to be an arena of this
  version and of the lock file beside it.
* What a killed manager left: nobody has the lock on the manager's file, and no process that is seen
  has a block of it. The lock is held while the blocks go. `leftovers` has this rule for both, too.
* An arena of another version, of which a file was replaced, or whose header was overwritten: the same
  locks, if its lock file is there. It goes by name and with ``--force`` only.
* Everything else has no lock. The processes that can be seen are asked what they have mapped; where not
  all can be seen that proves nothing, and ``--force`` is needed.

A thing counts as removed when all its files are gone.
"""

import os
import shlex
import shutil
import stat
from contextlib import suppress
from typing import NamedTuple

from .. import _core
from .._system import leftovers
from . import output, survey
from .exit_codes import DONE, FAILED, REFUSED
from .users import GRACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional

REMOVED, WOULD_REMOVE, KEPT = "removed", "would be removed", "kept"

# The end of a reason that holds unless it is named and forced.
_BY_FORCE = "; by name, --force removes it"
# An arena that is not in order and younger, in seconds, may be in the making.
_IN_THE_MAKING = 10


class Outcome(NamedTuple):
    """What was done with a thing.

    Attributes
    ----------
    item : survey.Item
        The thing, as it was before.
    action : str
        ``"removed"``, ``"would be removed"`` or ``"kept"``.
    reason : str
        Why it was kept, or "".
    code : int
        The exit code that this asks for.
    """

    item: "survey.Item"
    action: str
    reason: str = ""
    code: int = DONE


class Removal:
    """Removes things that a survey has found.

    Parameters
    ----------
    found : survey.Survey
        The survey, of the same moment.
    named : bool
        Whether the user named the things.
    force : bool
        Whether to remove what may be in use by processes that cannot be seen, or is not in order.
    dry : bool
        Only say what would be done.
    """

    def __init__(
        self, found: "survey.Survey", named: bool = False, force: bool = False, dry: bool = False
    ) -> None:
        self.found, self.named, self.force, self.dry = found, named, force, dry

    def remove(self, item: "survey.Item") -> "List[Outcome]":
        """Remove one thing; what belongs together goes together."""
        if item.state == survey.IN_USE:
            return [_kept(item, "in use{}".format(_by_whom(item)), REFUSED)]
        if item.uid != os.geteuid() and os.geteuid() != 0:
            return [
                _kept(
                    item,
                    "it belongs to user {0}, who can remove it, as root can".format(item.uid),
                    FAILED,
                )
            ]
        if item.kind == survey.MANAGER:
            return self._remove_manager(item)
        if item.kind == survey.ARENA or _has_lock_file(item):
            return [self._remove_arena(item)]
        return [self._remove_file(item)]

    # ---- arenas

    def _remove_arena(self, item):
        if item.uid == os.geteuid() and (_has_lock_file(item) or not self.named):
            outcome = self._clean_arena(item)
            if outcome.action != KEPT or not (self.named and self.force):
                return outcome
        if not _has_lock_file(item):
            if survey.status_of(item.path) is None and not self.dry:
                # A program that started has removed it meanwhile.
                return _checked(item, "it could not be removed")
            return self._remove_file(item)
        in_order = item.look is not None and item.look["kind"] == "arena" and not item.note
        if not in_order and not self.force:
            why = item.note or "it is not in order"
            return _kept(item, why + "; --force removes it", REFUSED)
        if self.dry:
            return Outcome(item, WOULD_REMOVE)
        try:
            _core.remove_arena(item.name)
        except (OSError, ValueError) as error:
            return _kept(item, str(error), FAILED)
        return _checked(item, "a process has it")

    def _clean_arena(self, item):
        """Remove an arena by the rule by which any program does when it starts."""
        try:
            verdict, count, why = _core.clean_arena(
                item.name, 0.0 if self.named else GRACE, self.dry
            )
        except ValueError as error:
            # (Not a name that an arena can have.)
            return _kept(item, str(error), FAILED)
        if verdict == "unclear":
            return _kept(item, why + _BY_FORCE, REFUSED)
        if verdict == "young":
            return _kept(item, "it may be in the making", DONE)
        if verdict == "awaited":
            left = item.awaited_for
            text = "{:,} handle{} for a receiver{}; `shared-numpy clean {}` removes it all the same"
            text = text.format(
                count,
                " waits" if count == 1 else "s wait",
                "" if left is None else ", for {} more".format(output.duration(left)),
                shlex.quote(item.name),
            )
            return _kept(item, text, DONE)
        if verdict == "goes" and self.dry:
            return Outcome(item, WOULD_REMOVE)
        return _checked(item, "a process has it by now")

    # ---- managers

    def _remove_manager(self, item):
        folder, plain = os.path.split(item.path)
        number = leftovers.number_of(plain)
        mine = item.uid == os.geteuid() and folder == "/dev/shm" and _has_manager_file(number)
        if not mine:
            # (Without the file nothing tells whether the manager lives.)
            return [self._remove_file(item)] if self.named else []
        group = [
            each
            for each in self.found.items
            if each.kind == survey.MANAGER and number_in(each) == number
        ]
        for each in group:
            if any(user.alive for user in each.users):
                text = "{} of the same manager is in use{}".format(each.name, _by_whom(each))
                return [_kept(item, text, REFUSED)]
        file = leftovers.file_of(number)
        if self.dry and leftovers.is_deserted(file):
            return [_of_folder(each) or Outcome(each, WOULD_REMOVE) for each in group]
        if not self.dry:
            with suppress(OSError):
                leftovers.clean_one(file)
        if leftovers.has_file(number):
            why = "its manager lives, or a process has one of its blocks"
            return [_kept(item, why, REFUSED)]
        return [_of_folder(each) or _checked(each, "it could not be removed") for each in group]

    # ---- files

    def _remove_file(self, item):
        """Remove something that has no lock."""
        if not self.found.sees_all and not self.force:
            text = "nobody can tell from here whether it is in use ({}); --force removes it"
            return _kept(item, text.format(self.found.unseen), REFUSED)
        try:
            status = os.lstat(item.path)
        except OSError:
            return _kept(item, "it has gone meanwhile", DONE)
        if (status.st_dev, status.st_ino) != item.files[0]:
            return _kept(item, "another file has got its name meanwhile", REFUSED)
        is_folder = stat.S_ISDIR(status.st_mode)
        if is_folder and item.kind != survey.JOBLIB:
            return _of_folder(item)
        if self.dry:
            return Outcome(item, WOULD_REMOVE)
        try:
            if is_folder:
                shutil.rmtree(item.path)
            else:
                os.unlink(item.path)
        except OSError as error:
            return _kept(item, str(error), FAILED)
        return _checked(item, "it could not be removed")


def number_in(item: "survey.Item") -> str:
    """Return the number of the manager whose file or block an item is."""
    return leftovers.number_of(os.path.basename(item.path))


def _kept(item, reason, code):
    return Outcome(item, KEPT, reason, code)


def _by_whom(item):
    """Return which processes use a thing, in words."""
    pids = [str(user.pid) for user in item.users if user.alive and not user.elsewhere]
    if not any(user.alive for user in item.users) and item.maker is not None and item.maker.alive:
        return ": process {}, which has made it, lives".format(item.maker.pid)
    if not pids:
        return ", by a process that is not seen from here"
    shown = ", ".join(pids[:4]) + (", ..." if len(pids) > 4 else "")
    return " by process{} {}".format("" if len(pids) == 1 else "es", shown)


def _of_folder(item):
    """Return the outcome for a folder, which stays, and None for anything else."""
    if not os.path.isdir(item.path) or os.path.islink(item.path):
        return None
    return _kept(item, "it is a folder: rm -r removes it", REFUSED)


def _has_manager_file(number):
    """Tell whether there is a manager's file of this user, whose lock tells whether it lives."""
    status = survey.status_of(os.path.join("/dev/shm", leftovers.file_of(number)))
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _has_lock_file(item):
    return survey.lock_of(item.path) is not None


def _checked(item, reason):
    """Return the outcome of a removal, by what is there now."""
    left = [path for path in (item.path, item.path + _core.LOCK_SUFFIX) if _is_still(item, path)]
    if not left:
        return Outcome(item, REMOVED)
    return _kept(item, reason, DONE if item.age < _IN_THE_MAKING else REFUSED)


def _is_still(item, path):
    """Tell whether a path leads to a file of an item."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in item.files
