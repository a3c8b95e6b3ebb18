"""CPython's tests as an importable module, so that spawned children find them.

Which file they come from and what they test is told by two variables of the
environment, which children inherit.
"""

import os

import loader

CASES = loader.load(
    os.environ["CPYTHON_TESTS_SOURCE"], os.environ["CPYTHON_TESTS_TARGET"], globals()
)
