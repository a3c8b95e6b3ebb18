"""Run a program with the backport in it and in all its children: what CPython 3.8's standard library
has for shared memory can be imported on 3.6 and 3.7, too.

Everything is as with "python SCRIPT": __main__, sys.argv, sys.path, tracebacks, the exit code. On 3.8
and later the program has the standard library's own modules.
"""

# The interpreter is executed anew, with a folder on PYTHONPATH whose `sitecustomize` installs the
# backport. So a program is run by what runs every program, and not by an imitation of it; and the
# interpreters that it starts inherit the environment.

import os
import subprocess
import sys

from .exit_codes import UNUSABLE, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, List, Optional

_USAGE = """\
shared-numpy run SCRIPT [ARGUMENT ...]
       shared-numpy run -m MODULE [ARGUMENT ...]
       shared-numpy run -c CODE [ARGUMENT ...]"""
_STARTUP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "startup")


def parse(parser: "Any", words: "List[str]") -> "List[str]":
    """Return the words for the interpreter: the program and its arguments."""
    parser.usage = _USAGE
    if words[:1] in (["-h"], ["--help"]):
        parser.print_help()
        parser.exit()
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        parser.error("a script, -m MODULE or -c CODE is missing")
    first = words[0]
    if first in ("-m", "-c"):
        if len(words) < 2:
            parser.error("{} needs {}".format(first, "a module" if first == "-m" else "code"))
    elif first.startswith("-") and first != "-" and first[:2] not in ("-m", "-c"):
        parser.error(
            "unrecognized option {}: options of the interpreter go before it, as in "
            "python -O -m shared_numpy run ...".format(first)
        )
    return words


def run(words: "List[str]") -> int:
    """Execute the interpreter with a program, in place of this process."""
    if not sys.executable:
        raise Failure(UNUSABLE, "the interpreter does not know its own path (sys.executable)")
    environment = dict(os.environ)
    if sys.version_info < (3, 8):
        if sys.flags.ignore_environment or sys.flags.no_site:
            raise Failure(
                UNUSABLE,
                "under the options -E, -I and -S of the interpreter nothing can be run at its start: "
                "leave them out, or call backport.install() in the program",
            )
        # (What is not there is not an empty entry, which stands for the current folder.)
        others = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([_STARTUP] + ([others] if others else []))
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable] + _options() + words, environment)


def _options():
    """Return the options that this interpreter was given: all words of its command line before the
    program."""
    line = getattr(sys, "orig_argv", None)  # (From 3.10 on.)
    if line is None:
        try:
            with open("/proc/self/cmdline", "rb") as file:
                line = [os.fsdecode(word) for word in file.read().split(b"\0")[:-1]]
        except OSError:
            line = []
    options = options_of(line[1:])
    if options is None:
        # (`subprocess` has them for `multiprocessing`, which starts interpreters like this one. Those
        # that nothing in a program tells of are missing.)
        options = subprocess._args_from_interpreter_flags()  # type: ignore
    return options


def options_of(line: "List[str]") -> "Optional[List[str]]":
    """Return the options of the interpreter in its command line, without the program.

    Parameters
    ----------
    line : list of str
        The command line without its first word.

    Returns
    -------
    list of str or None
        None if the line has no program: then it is not that of an interpreter.
    """
    options = []  # type: List[str]
    words = iter(line)
    for word in words:
        if not word.startswith("-") or word in ("-", "--"):
            return options
        options.append(word)
        if word.startswith("--"):
            # Of the long options one has a value, in a word of its own.
            if word == "--check-hash-based-pycs":
                options += [value for value in [next(words, None)] if value is not None]
            continue
        for at, letter in enumerate(word[1:], 1):
            if letter in "mc":
                # The program's; letters before it in the same word are options.
                options[-1:] = [word[:at]] if at > 1 else []
                return options
            if letter in "WX":
                # The rest of the word is its value, or else the next word.
                if at == len(word) - 1:
                    options += [value for value in [next(words, None)] if value is not None]
                break
    return None
