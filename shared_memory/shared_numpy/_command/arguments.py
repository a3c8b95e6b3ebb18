"""Options and names in any order, on every version.

``clean first --force second`` is two names and an option. argparse takes only the names before the
first option, unless asked by ``parse_intermixed_args``, which CPython 3.6 lacks.
"""

import argparse

from . import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List


class Parser(argparse.ArgumentParser):
    """A parser whose help may be read in part (``--help | head``), and keeps its lines."""

    def __init__(self, **settings: "Any") -> None:
        settings.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**settings)

    def print_help(self, file: "Any" = None) -> None:
        if file is None:
            output.write(self.format_help())
        else:
            super().print_help(file)


class _OptionsOnly(argparse.ArgumentParser):
    """A parser that leaves out the positional arguments that are added to it."""

    def add_argument(self, *flags: "Any", **settings: "Any") -> "Any":
        if flags and not flags[0].startswith("-"):
            return None
        return super().add_argument(*flags, **settings)


def parse(
    parser: Parser,
    add_arguments: "Callable[[Any], None]",
    words: "List[str]",
) -> argparse.Namespace:
    """Parse words in which options may stand between names.

    Parameters
    ----------
    parser : Parser
        One to which `add_arguments` has been applied.
    add_arguments : callable
        Adds the arguments to a parser: options, and at most one positional argument.
    words : list of str
        The words; behind "--" they are names, whatever they begin with.
    """
    end = words.index("--") if "--" in words else len(words)
    before, after = words[:end], words[end + 1 :]
    if "-h" in before or "--help" in before:
        parser.print_help()
        parser.exit()
    options = _OptionsOnly(prog=parser.prog, usage=parser.format_usage()[7:], add_help=False)
    add_arguments(options)
    found, others = options.parse_known_args(before)
    unknown = [word for word in others if word.startswith("-") and word != "-"]
    if unknown:
        parser.error("unrecognized arguments: " + " ".join(unknown))
    names = others + after
    # (What is set already is no default's any more.)
    return parser.parse_args(["--"] + names if names else [], found)
