"""The order of process exit: the table in `exit_order` tells the priorities that finalizers have."""

import glob
import os
import re

from conftest import ROOT

from shared_numpy._system import exit_order

ROWS = re.findall(r"^    ([A-Z]+) .*\n +\((-?\d+)\)", exit_order.__doc__, re.M)


def test_the_table_has_all_priorities_in_order():
    priorities = [int(priority) for _, priority in ROWS]
    assert priorities == sorted(priorities, reverse=True)
    assert {name: getattr(exit_order, name) for name, _ in ROWS} == {
        name: int(priority) for name, priority in ROWS
    }
    constants = [name for name, value in vars(exit_order).items() if name.isupper() and type(value) is int]
    assert sorted(constants) == sorted(name for name, _ in ROWS)


def test_finalizers_take_their_priorities_from_the_table():
    used = set()
    for path in glob.glob(os.path.join(ROOT, "shared_memory", "**", "*.py"), recursive=True):
        with open(path, encoding="utf-8") as file:
            found = re.findall(r"exitpriority=([^)\n]*)", file.read())
        used.update(each.replace("exit_order.", "") for each in found)
    assert used == {name for name, _ in ROWS}
