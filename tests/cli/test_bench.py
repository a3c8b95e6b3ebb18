"""``shared-numpy bench``: every comparison is made, and what is printed is what was measured.

Which way is faster is never a test's matter: other programs run on the machine.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress

import pytest
from cli.commands import COMMAND, asked, shared_numpy
from conftest import needs_arenas, run_command
from small_shm import namespace

from shared_numpy._command import bench
from shared_numpy._command.exit_codes import Failure

pytestmark = needs_arenas

WAYS = [
    ["multiprocessing.Queue", "a SharedMemory for each message", "snp.Queue",
     "snp.Queue, an array of snp.ones"],
    ["concurrent.futures", "snp.ProcessPoolExecutor", "in this process"],
    ["multiprocessing.Queue", "multiprocessing.Pipe", "snp.Queue"],
    ["numpy on a new SharedMemory", "snp.empty", "numpy.empty"],
]  # fmt: skip



def test_all_is_compared():
    code, told = asked("bench", "--quick")
    assert code == 0
    assert [list(each["seconds"]) for each in told["comparisons"]] == WAYS
    for comparison in told["comparisons"]:
        assert all(seconds > 0 for seconds in comparison["seconds"].values())


def test_people_see_a_table_with_bars():
    process = shared_numpy("bench", "--quick", env=dict(os.environ, PYTHONIOENCODING="utf-8"))
    assert (process.returncode, process.stderr) == (0, "")
    blocks = process.stdout.split("\n\n")[1:]
    assert len(blocks) == len(WAYS)
    for block, ways in zip(blocks, WAYS):
        rows = block.splitlines()[-len(ways) :]
        assert [row.startswith(way + " ") for row, way in zip(rows, ways)] == [True] * len(ways)
        # The longest bar is the slowest one's, and the least ratio is 1.
        assert max(row.count("█") for row in rows) == 30
        assert any(" 1.0  " in row for row in rows)


def test_medians_of_turns():
    order = []

    def way(name, taken):
        def call():
            order.append(name)
            return taken.pop(0)

        return call

    # The first round does not count.
    found = bench.measure({"a": way("a", [9, 1, 2, 6]), "b": way("b", [9, 5, 5, 5])}, 0)
    assert found == {"a": 2, "b": 5} and order == ["a", "b"] * 4
    # A way that returns nothing is measured.
    found = bench.measure({"a": lambda: time.sleep(0.002)}, 0)
    assert found["a"] >= 0.002


def test_a_wrong_answer_is_told():
    with pytest.raises(Failure) as raised:
        bench._check(False)
    assert raised.value.code == 6


@pytest.mark.parametrize("line", range(3))
def test_ctrl_c_ends_it(line):
    """As at a terminal, where all processes of the group get the signal."""
    with subprocess.Popen(
        COMMAND + ["bench"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            # It is in its first comparison when it says what it runs on, and further on later.
            for _ in range(1 + 8 * line):
                assert process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
            errors = process.communicate(timeout=150)[1]
            assert (process.returncode, errors) == (130, b"")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_small_folder_makes_arrays_smaller():
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    for size, code in ((32, 0), (2, 6)):
        mount = 'mount -t tmpfs -o size={}m tmpfs /dev/shm && exec "$@"'.format(size)
        process = run_command(
            namespace() + ["sh", "-c", mount, "sh"] + COMMAND + ["bench", "--quick"], timeout=170
        )
        assert process.returncode == code, process.stderr
        if code:
            assert "doctor" in process.stderr and "Traceback" not in process.stderr
        else:
            assert "array of 2 MiB" in process.stdout


def test_a_folder_that_cannot_be_used():
    process = shared_numpy("bench", "--quick", env=dict(os.environ, SHARED_NUMPY_DIR="/proc"))
    assert (process.returncode, process.stdout) == (4, "")
    assert "SHARED_NUMPY_DIR" in process.stderr and "Traceback" not in process.stderr
