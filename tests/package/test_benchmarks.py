"""What `make bench` and `make bench-costs` run: it writes the figures of scenarios into a file.

* Each figure is of a round, and the file can be rendered.
* A peer that fails is left out, and the others are measured; one that hangs is interrupted.
* Nothing is left in /dev/shm by channels whose worker was killed.
"""

import json
import os
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, run_command

sys.path.insert(0, os.path.join(ROOT, "benchmarks"))

import measuring
import peers


@pytest.mark.slow
@pytest.mark.newest
def test_figures_are_written(tmp_path):
    path = str(tmp_path / "found.json")
    scenarios = ["echo shared", "memory"]
    command = [sys.executable, "benchmarks/compare.py", "--amount", "quick", "--out", path]
    command += ["--only", ",".join(scenarios), "--left-out", "somebody"]
    process = run_command(command, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    with open(path) as file:
        found = json.load(file)
    assert found["left out"] == ["somebody"] and found["machine"]["CPUs"] >= 1
    assert list(found["scenarios"]) == scenarios
    for name, peer, label in [
        ("echo shared", peers.BASE, "64 MiB"),
        ("memory", "shared_numpy, a shared array", "8"),
    ]:
        figures = found["scenarios"][name]["figures"][label][peer]
        assert figures["rounds"] and figures["min"] <= figures["median"] <= figures["max"]
    # Eight workers have the array, and together less than one copy of it.
    assert figures["median"] < 64 << 20


@pytest.mark.slow
@pytest.mark.newest
def test_figures_of_costs_are_written(tmp_path):
    """All but those of the arena, which cargo would compile first."""
    path = str(tmp_path / "found.json")
    backport = "backport on {}.{}".format(*sys.version_info)
    scenarios = [backport, "rings", "doors", "blocks"]
    command = [sys.executable, "benchmarks/costs.py", "--amount", "quick", "--out", path]
    process = run_command(command + ["--only", ",".join(scenarios)], timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
    with open(path) as file:
        found = json.load(file)
    assert found["versions"]["shared-numpy"] and found["machine"]["CPUs"] >= 1
    assert list(found["scenarios"]) == scenarios
    figures = {name: each["figures"] for name, each in found["scenarios"].items()}
    for name, label, peer in [
        (backport, "attach + close, 4096 bytes", "theirs"),
        ("rings", "messages of 64 B from 4 to 4", peers.BASE),
        ("doors", "an array of 1 KiB, made and dropped", "compat.jztools"),
        ("blocks", "ten at a time", "beside 100,000 blocks"),
    ]:
        row = figures[name][label][peer]
        assert row["rounds"] and 0 < row["min"] <= row["median"] <= row["max"]
    assert figures["blocks"]["descriptors"]["more"]["max"] == 0
    originals = {peer for rows in figures["doors"].values() for peer in rows}
    assert not originals & set(found["left out"])


def test_what_fails_or_hangs_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(measuring, "LIMIT", 1)
    turns = []

    def hangs():
        while True:
            time.sleep(0.01)

    results = measuring.by_turns(
        3, {"good": lambda: turns.append(1) or 7, "bad": lambda: 1 / 0, "late": hangs}
    )
    assert results == {"good": [7, 7, 7]} and len(turns) == 3
    told = capsys.readouterr().out
    assert "bad failed: ZeroDivisionError" in told and "late failed: TimeoutError" in told


def count(requests, answers):
    while True:
        answers.put(requests.get() + 1)


@pytest.mark.parametrize("make", [peers.Pipe, peers.Segments], ids=["pipe", "segments"])
def test_echoes_are_checked(make):
    message = np.ones(8) if make is peers.Segments else b"x" * 64
    with measuring.made(make, make) as (requests, answers):
        with measuring.workers((peers.echo, requests, answers)):
            middle, late = measuring.echoed(requests, answers, lambda _: message, 0, 2, 3)
    assert 0 < middle <= late


def test_an_echo_that_changes_more_is_noticed():
    with measuring.made(peers.Pipe, peers.Pipe) as (requests, answers):
        with measuring.workers((count, requests, answers)):
            with pytest.raises(AssertionError):
                measuring.echoed(requests, answers, lambda _: np.ones(8), 0, 2, 3)


def test_messages_of_killed_workers_are_removed():
    with measuring.made(peers.Segments) as [channel]:
        channel.put(np.ones(8))
        name = channel.sent[0]
        assert os.path.exists("/dev/shm/" + name)
    assert not os.path.exists("/dev/shm/" + name)
