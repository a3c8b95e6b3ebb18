"""The process that removes at its end what a process tree left behind.

From 3.8 on this is the standard library's own tracker.
"""

import sys

if sys.version_info >= (3, 8):
    from multiprocessing.resource_tracker import register, unregister
else:

    def register(name, rtype):
        """Do nothing: 3.6 and 3.7 have no tracker of shared memory."""

    def unregister(name, rtype):
        """Do nothing: 3.6 and 3.7 have no tracker of shared memory."""


__all__ = ["register", "unregister"]
