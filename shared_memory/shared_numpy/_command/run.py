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
    from typing import Any, List

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
    # (`subprocess` has them for `multiprocessing`, which starts interpreters like this one.)
    options = subprocess._args_from_interpreter_flags()  # type: ignore
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable] + options + words, environment)
