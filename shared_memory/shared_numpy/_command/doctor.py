"""Look for what is wrong with this machine's settings for shared memory, and say what to do: the
interpreter, the kernel, /dev/shm and its space, limits, logout, what killed programs left.

The exit code is 1 if there is an error (with --strict: or a warning), otherwise 0. In Python:
snp.diagnose().
"""

from . import findings, output
from .exit_codes import DONE, WRONG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_arguments(parser: "Any") -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--strict", action="store_true", help="warnings count as errors")
    parser.add_argument("--quiet", action="store_true", help="print errors and warnings only")


def run(options: "Any") -> int:
    """Run the subcommand; return the exit code."""
    found = findings.diagnose()
    bad = ("error", "warning") if options.strict else ("error",)
    wrong = any(finding.level in bad for finding in found)
    if options.quiet:
        found = [finding for finding in found if finding.level != "ok"]
    if options.json:
        output.as_json({"wrong": wrong, "findings": [dict(each._asdict()) for each in found]})
        return WRONG if wrong else DONE
    for finding in found:
        output.line("{:<8} {}".format(finding.level, finding.title))
        output.paragraph(finding.meaning, " " * 9)
        if finding.advice:
            output.paragraph("-> " + finding.advice, " " * 9)
    counts = [
        "{} {}{}".format(count, level, "" if count == 1 else "s")
        for level in ("error", "warning")
        for count in [sum(finding.level == level for finding in found)]
    ]
    output.line(", ".join(counts))
    return WRONG if wrong else DONE
