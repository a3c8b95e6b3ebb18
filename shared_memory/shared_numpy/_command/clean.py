"""Remove what killed programs left in shared memory.

Without a NAME: arenas of this user that no process has and in which nothing waits for a receiver, also
damaged ones, and what killed managers left and no process has mapped. Any program that makes arrays
removes the same when it starts. Named arrays, segments and semaphores of any package go by NAME only, if
no process is seen to use them. Nothing that a process is seen to use is removed, whatever is asked for.

--force removes a thing of which nobody can tell from here whether it is in use (in a container, or
where other users' processes cannot be looked into), and an arena of another version, or of which a
file was replaced or overwritten.
"""

import argparse
import os
import re

from . import output, removal, survey
from .exit_codes import DONE, FAILED, NOT_FOUND, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
# A century, in seconds.
_LONGEST = 100 * 366 * 86400


def add_arguments(parser: "Any") -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="as `ls` shows it, or a path; without a folder it is looked for where SHARED_NUMPY_DIR "
        "says first",
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument(
        "--older-than",
        type=seconds,
        metavar="T",
        help="only what was made longer ago: 90, 90s, 15m, 12h, 7d, 2w",
    )
    parser.add_argument("--force", action="store_true", help="see above")
    parser.add_argument("--json", action="store_true", help="print JSON")


def seconds(text: str) -> float:
    """Return the seconds of a duration such as "90", "15m" or "1.5h".

    Raises
    ------
    argparse.ArgumentTypeError
        It is none, or longer than a century.
    """
    match = re.match(r"([0-9]+(?:\.[0-9]+)?) ?([a-z]*)$", text.strip())
    if match is None or match.group(2) not in _UNITS:
        raise argparse.ArgumentTypeError(
            "{!r} is not a duration: a number with s, m, h, d or w, as in 90s or 12h".format(text)
        )
    number = float(match.group(1)) * _UNITS[match.group(2)]
    if number > _LONGEST:
        raise argparse.ArgumentTypeError(
            "{!r} is longer than a century: nothing is that old".format(text)
        )
    return number


def run(options: "Any") -> int:
    """Run the subcommand; return the exit code."""
    try:
        found = survey.survey(all_users=True)
    except OSError as error:
        raise Failure(FAILED, "shared memory cannot be listed: {}".format(error)) from None
    outcomes, missing = [], []
    work = removal.Removal(found, bool(options.names), options.force, options.dry_run)
    for item in _chosen(found, options.names, missing):
        if any(item is outcome.item for outcome in outcomes):
            continue  # It went with another of its manager.
        if options.older_than is not None and item.age < options.older_than:
            if options.names:
                text = "it was made {} ago".format(output.duration(item.age))
                outcomes.append(removal.Outcome(item, removal.KEPT, text))
            continue
        outcomes += work.remove(item)
    codes = [outcome.code for outcome in outcomes] if options.names else [DONE]
    codes += [NOT_FOUND] * bool(missing)
    _report(options, found, outcomes, missing)
    return max(codes, default=DONE)


def _chosen(found, names, missing):
    """Return the items to remove; names of which there is nothing are added to `missing`."""
    if not names:
        return [
            item
            for item in found.items
            if item.uid == os.geteuid()
            and (item.state != survey.IN_USE or _outlived(item))
            and item.kind in (survey.ARENA, survey.MANAGER)
        ]
    chosen = []
    for name in names:
        full = survey.full_name(name)
        matches = [item for item in found.items if item.name == full]
        chosen += [item for item in matches if item not in chosen]
        if not matches:
            missing.append(name)
    return chosen


def _outlived(item):
    """Tell whether an arena is in use though its maker is dead: it is told why that one stays."""
    return item.kind == survey.ARENA and item.maker is not None and item.maker.alive is False


def _report(options, found, outcomes, missing):
    if not options.dry_run:
        output.go_on_unwritten()
    removed = [each for each in outcomes if each.action != removal.KEPT]
    came_back = sum(outcome.item.size for outcome in removed)
    if options.json:
        output.as_json(
            {
                "dry_run": options.dry_run,
                "items": [
                    {
                        "name": outcome.item.name,
                        "kind": outcome.item.kind,
                        "bytes": outcome.item.size,
                        "age": round(outcome.item.age, 3),
                        "action": outcome.action,
                        "reason": outcome.reason,
                    }
                    for outcome in outcomes
                ],
                "bytes": came_back,
                "missing": missing,
            }
        )
        return
    if outcomes:
        output.table(
            ["name", "kind", "size", ""],
            [
                [
                    outcome.item.name,
                    outcome.item.kind,
                    output.size(outcome.item.size),
                    outcome.action + (": " + outcome.reason if outcome.reason else ""),
                ]
                for outcome in outcomes
            ],
            right=["size"],
            styles=["yellow" if each.action == removal.KEPT else None for each in outcomes],
        )
    output.line(
        "{:,} {}, {} {}".format(
            len(removed),
            "would be removed" if options.dry_run else "removed",
            output.size(came_back),
            "would come back" if options.dry_run else "came back",
        )
    )
    for name in missing:
        output.complain("shared-numpy: there is nothing of the name {}".format(name))
    if not options.names:
        _tell_of_others(found)


def _tell_of_others(found):
    """Say that there are orphans of other users, and how these go."""
    others = sorted(
        {
            item.uid
            for item in found.items
            if item.uid != os.geteuid()
            and item.state == survey.ORPHANED
            and item.kind in (survey.ARENA, survey.MANAGER)
        }
    )
    if others:
        output.paragraph(
            "Users {} have orphans, too: they go when that user runs this command, or any program "
            "that makes arrays; root removes them by name.".format(", ".join(map(str, others)))
        )
