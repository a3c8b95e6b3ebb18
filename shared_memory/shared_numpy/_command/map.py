"""Draw an arena's memory to scale, as an SVG file: what is live and who holds it, what is free with
memory and without, the arena's own tables, and what only the dead held.
"""

import os

from .. import _core
from . import output, picture, survey
from .exit_codes import DONE, FAILED, USAGE, Failure
from .info import find
from .ls import describe_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def add_arguments(parser: "Any") -> None:
    parser.add_argument("name", metavar="NAME", help="the arena, as `ls` tells it")
    parser.add_argument(
        "--out", metavar="FILE", default="map.svg",
        help='where to write the picture (default: map.svg; "-": standard output)',
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print the bytes of each part as JSON")


def run(options: "argparse.Namespace") -> int:
    item = find(options.name)[0]
    if item.kind != survey.ARENA:
        raise Failure(USAGE, "{!r} is no arena: its kind is {!r}".format(item.name, item.kind))
    if item.look is None or item.look["kind"] != "arena":
        raise Failure(FAILED, "{!r} cannot be drawn: {}".format(item.name, item.note))
    look = _core.look_at_arena(item.path, True)
    alive = {
        user.slot: describe_process(user)
        for user in item.users
        if user.alive is not False and user.slot is not None
    }
    subtitle = "{} in memory, {:,} blocks, {:,} handles in flight; {}".format(
        output.size(item.size), look["blocks"], look["handles"], item.state
    )
    # What the tables of a damaged arena say need not be so.
    damage = "damaged: " + item.note if item.damaged else ""
    if damage:
        subtitle += "; " + damage
    drawn = picture.draw(os.path.basename(item.path), look, alive, subtitle)
    if options.out == "-":
        output.write(drawn)
        if damage:
            output.complain("shared-numpy: {!r} is {}".format(item.name, damage))
        return DONE
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(drawn)
    parts = picture.totals(picture.pieces(look, alive))
    if options.json:
        output.as_json(
            {
                "file": os.path.abspath(options.out),
                "bytes": parts,
                "damaged": item.note if item.damaged else None,
            }
        )
    else:
        output.line("{} is drawn in {}".format(item.name, options.out))
        if damage:
            output.paragraph("It is {}. The picture shows what its tables say.".format(damage))
    return DONE
