"""Which of CPython's test files are run: the option ``--all-sources``."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "dev")]


def pytest_addoption(parser):
    parser.addoption(
        "--all-sources",
        action="store_true",
        help="run the tests of every CPython found, not of 3.8 and this one only",
    )
