"""The package on kernels and machines unlike the one that it is tested on.

Libraries of ``tests/shims`` change what the system does: programs do there what they do here.
"""

import os
import sys

import pytest
from conftest import ROOT, exists, run_command, run_python, shimmed

from shared_numpy._core import LOCK_SUFFIX

PROGRAMS = os.path.join(ROOT, "tests", "array_programs.py")


@pytest.fixture(scope="module")
def large_pages(tmp_path_factory):
    return shimmed("large_pages", tmp_path_factory.mktemp("shim"))


def test_the_page_is_the_system_s(large_pages):
    code = "import mmap; from shared_numpy import _core; print(_core.PAGE_SIZE, mmap.PAGESIZE)"
    assert run_python(code, env=large_pages).split() == ["65536"] * 2
    own, python_s = map(int, run_python(code).split())
    assert own == python_s


@pytest.mark.parametrize(
    "channel, method", [("queue", "fork"), ("executor", "spawn"), ("pool", "forkserver")]
)
def test_channels_where_pages_are_large(channel, method, large_pages):
    command = [sys.executable, PROGRAMS, channel, method, "50", "7"]
    process = run_command(command, env=large_pages)
    assert (process.returncode, process.stderr) == (0, ""), process
    name = process.stdout.split()[-1]
    assert not exists(name) and not exists(name + LOCK_SUFFIX)


PRIVATE = """
import os
import numpy as np
import shared_numpy as snp
from shared_numpy.executor import ProcessPoolExecutor

def work(index):
    return np.full(index * 5000 + 20000, index, "u1")

if __name__ == "__main__":
    with ProcessPoolExecutor(2, zero_copy_results=True) as pool:
        received = list(pool.map(work, range(40)))
    shared = [snp.full(len(array), 100 + index, "u1") for index, array in enumerate(received)]
    pid = os.fork()
    if pid == 0:
        for array in received + shared:
            array += 1
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    print(all((array == index).all() for index, array in enumerate(received)))
    print(all((array == 101 + index).all() for index, array in enumerate(shared)))
"""


def test_private_copies_where_pages_are_large(large_pages, tmp_path):
    """A child's writes reach what is shared, and nothing of what is private."""
    script = tmp_path / "script.py"
    script.write_text(PRIVATE)
    process = run_command([sys.executable, str(script)], env=large_pages)
    assert (process.returncode, process.stdout, process.stderr) == (0, "True\nTrue\n", ""), process
