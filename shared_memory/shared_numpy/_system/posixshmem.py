"""POSIX shared memory objects; the twin of CPython's ``_posixshmem``.

Differences from 3.8's: a name with an embedded NUL raises `ValueError` (as in
CPython since 3.11.9) instead of being cut there.
"""

from .._core import shm_open, shm_unlink

__all__ = ["shm_open", "shm_unlink"]
