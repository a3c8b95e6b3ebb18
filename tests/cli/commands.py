"""Runs the command as its users do: in a process of its own."""

import json
import sys

from conftest import run_command

COMMAND = [sys.executable, "-m", "shared_numpy"]


def shared_numpy(*words, **options):
    """Run ``python -m shared_numpy``; return the completed process with its output as text.

    Parameters
    ----------
    *words : str
        The command's arguments.
    wrapper : list of str, optional
        What goes before the command: a program that executes the words behind it.
    **options
        For `subprocess.Popen`.
    """
    wrapper = options.pop("wrapper", [])
    return run_command(list(wrapper) + COMMAND + list(words), **options)


def asked(*words, **options):
    """Run a subcommand with ``--json``; return (exit code, what it printed)."""
    process = shared_numpy(*(words + ("--json",)), **options)
    assert process.stderr == "", process.stderr
    return process.returncode, json.loads(process.stdout)
