"""List what is in shared memory, whose it is, and whether anybody uses it.

Kinds: arenas and named arrays of this package, its managers' blocks, segments of the standard
library (psm_...), semaphores (sem.*), what torch and loky or joblib make, and "unknown".

States: "in use": a process has it. "orphaned": no process has it, and none will. "unused": no process
has it now, and one may want it: a named array, or a segment whose maker closed it and may live.
"awaited": no process has the arena, and what was sent waits in it for a receiver, for so long.
"unknown": it cannot be seen from here.

Below the table stands what files take that were deleted and that processes still have.
"""

import threading
import time

from . import output, survey
from .exit_codes import DONE, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, List

_STYLES = {survey.ORPHANED: "red", survey.NOT_KNOWN: "dim", survey.UNUSED: "yellow"}
_STYLES[survey.AWAITED] = "yellow"
_TITLES = (
    "kind", "name", "size", "array", "maker", "users", "age", "blocks", "in flight", "state",
)  # fmt: skip
_RIGHT = ("size", "age", "blocks", "in flight")
# How many users a line names.
_MOST_USERS = 4
# From how many bytes on it is told that they are in no file that is seen.
_NOTABLE = 1 << 20


def add_arguments(parser: "Any") -> None:
    parser.add_argument(
        "--all-users", action="store_true", help="also what other users own (for root: everything)"
    )
    parser.add_argument(
        "--kind", action="append", choices=survey.KINDS, help="only this kind; may be repeated"
    )
    parser.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C")
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="with --watch (default: 2)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: "argparse.Namespace") -> int:
    # (The longest that the system waits; and no "nan".)
    if not 0 < options.interval <= threading.TIMEOUT_MAX:
        raise Failure(
            USAGE,
            "--interval takes seconds, more than 0 and at most {:.0f}: {} is not possible".format(
                threading.TIMEOUT_MAX, options.interval
            ),
        )
    while True:
        found = survey.survey(all_users=options.all_users)
        items = [item for item in found.items if not options.kind or item.kind in options.kind]
        goes_on = _print_json(found, items) if options.json else _print(found, items, options.watch)
        if not options.watch or not goes_on:
            return DONE
        time.sleep(options.interval)


def _print_json(found, items):
    return output.as_json(
        {
            "items": [item.as_dict() for item in items],
            "sees_all": found.sees_all,
            "unseen": found.unseen or None,
            "nameless": [file.as_dict() for file in found.nameless],
            "spaces": [dict(space._asdict()) for space in found.spaces],
        }
    )


def _print(found, items, again):
    if again:
        output.line(time.strftime("%H:%M:%S"))
    if items:
        output.table(
            _TITLES,
            [_row(item) for item in items],
            right=_RIGHT,
            styles=["bold red" if item.damaged else _STYLES.get(item.state) for item in items],
        )
        for item in items:
            if item.note:
                output.paragraph("{}: {}{}".format(
                    item.name, "damaged: " if item.damaged else "", item.note
                ))  # fmt: skip
            if item.awaited_for is not None:
                output.paragraph("{}: {}".format(item.name, describe_wait(item.awaited_for)))
    total = output.size(sum(item.size for item in items))
    counts = ["{} {}".format(count, state) for state, count in _count(items)]
    goes_on = output.line(
        "{} in {:,} {}{}".format(
            total,
            len(items),
            "thing" if len(items) == 1 else "things",
            ": " + ", ".join(counts) if counts else "",
        )
    )
    for sentence in describe_nameless(found):
        output.paragraph(sentence)
    if found.unseen and any(item.state == survey.NOT_KNOWN for item in items):
        output.paragraph(
            "A state is unknown where it cannot be seen: {}.".format(found.unseen)
        )
    if again:
        output.line()
    return goes_on


def describe_nameless(found: "survey.Survey") -> "List[str]":
    """Return, in words, what takes memory and is in no line: files that have no name any more."""
    sentences = []
    for space in found.spaces:
        files = [file for file in found.nameless if file.folder == space.folder]
        size = sum(file.size or 0 for file in files)
        if files:
            sentences.append(
                "In {} {:,} {} {}{} that {} no name any more; deleted, and still had by {}.".format(
                    space.folder,
                    len(files),
                    "file takes" if len(files) == 1 else "files take",
                    "at least " if any(file.size is None for file in files) else "",
                    output.size(size),
                    "has" if len(files) == 1 else "have",
                    _describe_holders(files),
                )
            )
        rest = space.used - space.named - size
        if rest >= max(_NOTABLE, space.used // 20):
            sentences.append(
                "{} of what is used in {} is in no file that is seen from here: in folders that may not "
                "be read, or in files without a name{}.".format(
                    output.size(rest),
                    space.folder,
                    " of processes that may not be looked into" if found.unseen else "",
                )
            )
    return sentences


def _describe_holders(files):
    """Return which processes have files, in words."""
    holders = {user.pid: user for file in files for user in file.users}
    shown = [describe_process(holders[pid]) for pid in sorted(holders)[:_MOST_USERS]]
    text = ", ".join(shown) + (", ..." if len(holders) > _MOST_USERS else "")
    return "process{} {}".format("" if len(holders) == 1 else "es", text)


def _count(items):
    states = [item.state for item in items]
    order = (survey.IN_USE, survey.UNUSED, survey.AWAITED, survey.ORPHANED, survey.NOT_KNOWN)
    return [(state, states.count(state)) for state in order if state in states]


def _row(item):
    return [
        item.kind,
        item.name,
        output.size(item.size),
        describe_array(item),
        "-" if item.maker is None else describe_process(item.maker),
        _describe_users(item.users),
        output.duration(item.age),
        "-" if item.blocks is None else str(item.blocks),
        "-" if item.handles is None else str(item.handles),
        item.describe_state(),
    ]


def describe_wait(seconds: float) -> str:
    """Return, in words, that an arena waits for a receiver for so many seconds more."""
    return (
        "what was sent waits for a receiver for {} more; then it is orphaned, and goes with the next "
        "program or `shared-numpy clean`".format(output.duration(seconds))
    )


def describe_array(item: "survey.Item") -> str:
    """Return the shape and dtype of an array, or "-"."""
    if item.shape is None:
        return "-"
    shape = "x".join(map(str, item.shape)) or "scalar"
    return "{} {}".format(shape, _cut(item.dtype, 24))


def describe_process(process: "survey.Process") -> str:
    """Return the number of a process, and the name of its program if it is seen."""
    text = process.describe()
    return text if process.command is None else "{} {}".format(text, program_of(process.command))


def program_of(command: str) -> str:
    """Return what is run by a command line, in one word: a script's name rather than Python's."""
    words = command.split()
    plain = [word.rpartition("/")[2] for word in words]
    if not plain:
        return "?"
    if plain[0].startswith("python"):
        for before, word, whole in zip(plain, plain[1:], words[1:]):
            if before == "-m":
                return word
            if before == "-c" or word == "-c":
                return plain[0] + " -c"
            if not whole.startswith("-"):
                return word
    return plain[0]


def _describe_users(users: "List[survey.Process]"):
    if not users:
        return "-"
    # Those that live come first.
    users = sorted(users, key=lambda user: (user.alive is False, user.pid or 0))
    told = [user.describe() for user in users[:_MOST_USERS]]
    names = {program_of(user.command) for user in users if user.command}
    text = ", ".join(told)
    if len(users) > _MOST_USERS:
        text += " and {:,} more".format(len(users) - _MOST_USERS)
    return text + " " + names.pop() if len(names) == 1 else text


def _cut(text, most):
    return text if len(text) <= most else text[: most - 3] + "..."
