"""`benchmarks/dask.py` measures a cluster, and `dev/scale.py` computes from what it writes."""

import json
import sys

import pytest
from conftest import ROOT, run_command

pytest.importorskip("distributed", reason="Dask is not installed")

import scale  # noqa: E402

SHARED, PLAIN = "shared_numpy on Dask", "Dask"


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.limit(600)
def test_figures_are_written(tmp_path):
    path = str(tmp_path / "dask.json")
    command = [sys.executable, "benchmarks/dask.py", "--rounds", "1", "--out", path]
    process = run_command(command, timeout=1500, cwd=ROOT)
    assert process.returncode == 0, process.stdout + process.stderr
    with open(path) as file:
        run = json.load(file)
    figures = {name: each["figures"] for name, each in run["scenarios"].items()}
    for table in figures.values():
        for label, rows in table.items():
            assert SHARED in rows and all(each["median"] > 0 for each in rows.values()), label
    memory = figures["dask memory"][""]
    # All workers together have one copy; of plain Dask each has its own.
    assert memory[SHARED]["max"] < 2 * 256e6 and memory[PLAIN]["max"] > 3.5 * 256e6
    if run["two hosts"] is None:  # (They need root.)
        assert "two hosts are left out" in process.stdout
        return
    model = scale.Model(run)
    for lines in scale.tables(model, hosts=7, workers=3).values():
        assert len(lines) > 3
    # Seven hosts get it once each.
    assert 7e9 <= model.costs(10**9, 7, 3, 1e9).wire < 7.5e9
