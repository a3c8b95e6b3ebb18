"""Exit codes of the command, and the exception that ends it with one of them.

`docs/command-line.md` has the same list for users.
"""

DONE = 0
# `doctor` found something that is wrong.
WRONG = 1
# The arguments cannot be (argparse exits with the same number).
USAGE = 2
# There is nothing of a name that was asked for.
NOT_FOUND = 3
# A folder or setting cannot be used: no /dev/shm, or a SHARED_NUMPY_DIR that is not on a tmpfs.
UNUSABLE = 4
# What was asked for may do harm, and was not done: `--force` does it.
REFUSED = 5
# The system did not let it be done: another user's file, no room.
FAILED = 6
# Ctrl-C: 128 and the signal's number, as shells have it.
INTERRUPTED = 130


class Failure(Exception):
    """Ends the command with a message and an exit code.

    Parameters
    ----------
    code : int
        The exit code.
    text : str
        What happened, with which values, and what to do.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
