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
    parser.add_argument(
        "--side", type=int, help="rows and columns (3000, or as many as /dev/shm has room for)"
    )


def run(options: "Any") -> int:
    """Run the subcommand; return the exit code."""
    from .. import demo

    side = demo.side_that_fits() if options.side is None else options.side
    if options.frames < 1 or side < 1:
        raise Failure(
            USAGE,
            "--frames and --side must be at least 1, and are {} and {}".format(options.frames, side),
        )
    try:
        demo.run(options.frames, side)
    except AssertionError as error:
        raise Failure(FAILED, str(error)) from None
    except (EOFError, MemoryError, OSError) as error:
        text = "frames of {0} x {0} cannot be shown: {1}; if room is missing, give a smaller --side"
        raise Failure(FAILED, text.format(side, str(error) or type(error).__name__)) from None
    return DONE
