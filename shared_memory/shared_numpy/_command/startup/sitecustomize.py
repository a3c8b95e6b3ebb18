"""Installs the backport in each interpreter that starts with this folder on its path.

``shared-numpy run`` puts this folder on PYTHONPATH. Interpreters import the module of this name when
they start, before the program, and pass the environment on to those that they start: so all children
have the backport, also those that are executed, under spawn and forkserver.
"""

import os
import sys
from importlib import import_module

HERE = os.path.dirname(os.path.abspath(__file__))


def without_this_folder(paths):
    """Return the entries of a path that are not this folder."""
    return [path for path in paths if os.path.abspath(path or ".") != HERE]


def follow():
    """Import the module of this name that would have been found without this folder, if any.

    The program's path is then as without this folder, too.
    """
    sys.path[:] = without_this_folder(sys.path)
    own = sys.modules.pop(__name__, None)
    try:
        import_module(__name__)
    except ImportError as error:
        # (One that is there and lacks a module is told as usual.)
        if getattr(error, "name", None) != __name__:
            raise
        sys.modules[__name__] = own


def install():
    """Install the backport, if this interpreter has this package and needs it.

    A program may start interpreters of other environments, which have none.
    """
    if sys.version_info >= (3, 8):
        return
    try:
        backport = import_module("shared_numpy.backport")
    except ImportError:
        # The package may lie where only the first program of the tree looked for it.
        place = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
        sys.path.append(place)
        try:
            backport = import_module("shared_numpy.backport")
        except ImportError:
            sys.path.remove(place)
            return
    backport.install()


if __name__ == "sitecustomize":
    try:
        follow()
    finally:
        install()
