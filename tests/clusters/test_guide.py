"""The programs of the guide `docs/dask.md` and of `examples` do what they say."""

import os
import re
import sys

import pytest
from conftest import ROOT, eventually, names_now, run_command, run_script

import shared_numpy as snp

pytest.importorskip("distributed", reason="Dask is not installed")

with open(os.path.join(ROOT, "docs", "dask.md"), encoding="utf-8") as page:
    PROGRAMS = re.findall(r"```python\n(.*?)```", page.read(), re.DOTALL)


def test_there_are_programs():
    assert len(PROGRAMS) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program(number, tmp_path):
    """A comment behind a ``print`` says what it prints."""
    before = names_now()
    process = run_script(tmp_path, PROGRAMS[number])
    # (On stderr Dask's workers may tell of connections that the end of the cluster has closed.)
    assert process.returncode == 0, process.stderr
    said = [
        line.partition("#")[2].strip()
        for line in PROGRAMS[number].split("\n")
        if line.lstrip().startswith("print(")
    ]
    assert process.stdout.splitlines() == said
    eventually(lambda: left_by("script.py", before) == [])


@pytest.mark.slow
def test_the_example():
    before = names_now()
    command = [sys.executable, "examples/dask_one_copy_per_host.py", "--megabytes", "8"]
    process = run_command(command, cwd=ROOT)
    # (On stderr Dask's workers may tell of connections that the end of the cluster has closed.)
    assert process.returncode == 0, process.stderr
    said = process.stdout.splitlines()
    assert said[:2] == ["sum as expected: True", "mean as expected: True"]
    # The program runs on the host of the workers: they find the copy there.
    assert len(said) == 3 and said[2].startswith("host 1: 4 workers, array fetched 0.0 times"), said
    eventually(lambda: left_by("dask_one_copy_per_host.py", before) == [])


def left_by(script, before):
    """Return the new names of a script in /dev/shm: they begin with its name."""
    stem = script.partition(".")[0]
    # A busy machine's nannies kill workers that take more than some seconds to end.
    snp.clean()
    return sorted(name for name in names_now() - before if name.startswith("snp-" + stem))
