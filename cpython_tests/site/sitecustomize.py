"""Imported by the children of CPython's tests of executors, before all else."""

import os

if "CPYTHON_TESTS_EXECUTORS" in os.environ:
    import executors

    executors.install()
