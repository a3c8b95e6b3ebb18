"""Show the main job: frames that go to another process and come back, functions that run there, and
an array that another program finds by its name. Each figure is explained.
"""

from .exit_codes import DONE, FAILED, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def add_arguments(parser: "Any") -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("--frames", type=int, default=10, help="how many (10)")
    parser.add_argument("--side", type=int, default=3000, help="rows and columns (3000)")


def run(options: "Any") -> int:
    """Run the subcommand; return the exit code."""
    if options.frames < 1 or options.side < 1:
        raise Failure(
            USAGE,
            "--frames and --side must be at least 1, and are {} and {}".format(
                options.frames, options.side
            ),
        )
    from .. import demo

    try:
        demo.run(options.frames, options.side)
    except AssertionError as error:
        raise Failure(FAILED, str(error)) from None
    return DONE
