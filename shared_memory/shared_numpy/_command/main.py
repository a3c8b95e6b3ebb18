"""The command ``shared-numpy``: finds the subcommand, and ends with the right exit code.

A subcommand's module is imported when it is called. So ``shared-numpy --version`` answers at once,
and one whose parts are missing on a system does not keep the others from working.
"""

import sys
from importlib import import_module

from . import arguments, output
from .exit_codes import DONE, FAILED, INTERRUPTED, UNUSABLE, USAGE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List, Optional

# Name, which is that of its module here, too, and its line in the help.
COMMANDS = [
    ("ls", "list what is in shared memory, whose it is, and whether anybody uses it"),
    ("info", "show one of these in full"),
    ("map", "draw an arena to scale, as an SVG file"),
    ("clean", "remove what killed programs left"),
    ("doctor", "look for what is wrong with this machine's settings, and say what to do"),
    ("bench", "compare ways between processes on this machine, in under a minute"),
    ("run", "run a program with the backport in it and in all its children"),
    ("demo", "show the main job: frames to another process and back"),
]
# Those that look at shared memory, for which the folder that the environment says has to be one.
LOOKING = frozenset(["ls", "info", "map", "clean", "bench"])

EPILOG = """\
exit codes: 0 done, 1 doctor found something wrong, 2 wrong usage, 3 no such name,
4 a folder or setting cannot be used, 5 refused without --force, 6 the system did
not let it be done, 130 interrupted
"""


def main(words: "Optional[List[str]]" = None) -> int:
    """Run the command; return its exit code.

    Parameters
    ----------
    words : list of str, optional
        Its arguments; by default those of this process.
    """
    words = sys.argv[1:] if words is None else words
    try:
        return _main(words)
    except Failure as failure:
        output.complain("shared-numpy: {}".format(failure))
        return failure.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        output.complain("shared-numpy: {}".format(error))
        return FAILED


def _main(words):
    if words and words[0] in dict(COMMANDS):
        return _run(words[0], words[1:])
    parser = arguments.Parser(
        prog="shared-numpy",
        description="Look at shared memory, clean it, and check this machine. Each command has --help.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, line in COMMANDS:
        commands.add_parser(name, help=line, add_help=False)
    if parser.parse_args(words).version:
        output.line(version())
        return DONE
    output.complain(parser.format_help().rstrip())
    return USAGE


def _run(name, words):
    """Run a subcommand with its arguments."""
    module = import_module("." + name, __package__)
    parser = arguments.Parser(prog="shared-numpy " + name, description=module.__doc__)
    if name == "run":
        # (What follows the program is the program's, whatever it looks like.)
        return module.run(module.parse(parser, words))
    module.add_arguments(parser)
    options = arguments.parse(parser, module.add_arguments, words)
    if name in LOOKING:
        check_folder()
    return module.run(options)


def version() -> str:
    """Return the name and the version, as ``--version`` prints them."""
    from .._core import __version__

    return "shared-numpy {}".format(__version__)


def check_folder() -> None:
    """Raise `Failure` if SHARED_NUMPY_DIR cannot be used, there is no folder, or there are no arenas here.

    Without this a command would look in the wrong place, and report that all is well.
    """
    from .. import _core

    if not hasattr(_core, "folder"):
        raise Failure(
            UNUSABLE, "arrays in shared memory need 64-bit Linux: there is nothing to look at here"
        )
    from . import survey

    try:
        places = survey.folders()
    except ValueError as error:
        raise Failure(UNUSABLE, str(error)) from None
    if not places:
        raise Failure(
            UNUSABLE,
            "there is no /dev/shm to look at: have it mounted (a tmpfs, mode 1777), or let "
            "SHARED_NUMPY_DIR say the folder",
        )


if __name__ == "__main__":
    sys.exit(main())
