"""A cluster of Dask on two hosts, which are namespaces of this machine (`hosts.py`), over TLS.

* Each host gets an array once, and all its workers use that copy: bytes over the wire, private memory
  and the share of shared memory say so. With plain Dask, beside it, each worker has a copy.
* A second use sends nothing.
* Random kills of workers, of all of a host, and of hosts with their memory: each result is right.
* Nothing is left in any /dev/shm: when the array is closed, and when the workers have ended.
"""

import json
import os
import sys

import pytest
from conftest import MORE, run_command

pytest.importorskip("distributed", reason="Dask is not installed")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import hosts  # noqa: E402

REASON = hosts.why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.whole,
    pytest.mark.skipif(bool(REASON), reason=REASON),
]

PROGRAM = os.path.join(hosts.FOLDER, "two_hosts.py")
# Of what an array takes; TLS, calls and heartbeats come to some per cent.
ONCE = 1.25
# 200 in a complete run.
KILLS = 20 * MORE
SECONDS_PER_KILL = 20


def run(*words, **options):
    """Run a program over two hosts; return what it has found."""
    process = run_command(hosts.command([sys.executable, PROGRAM] + list(words)), **options)
    assert process.returncode == 0, process.stderr[-20000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.limit(900)
def test_each_host_gets_it_once():
    found = run("memory", "128", timeout=600)
    size = found["bytes"]
    plain, ours = found["plain"], found["per host"]
    for host in range(2):
        assert size <= ours["received"][host] < ONCE * size, found
        assert ours["again"][host] < size / 50, found
        assert ours["private"][host] < size / 8, found
        # Two workers have it, each for itself.
        assert plain["private"][host] > 1.9 * size, found
        # Both use one copy, and together their shares are that copy.
        assert 0.9 * size < ours["shared"][host] < 1.1 * size, found
        assert 0.9 * size < found["used"][host] < 1.1 * size, found
    assert found["left"] == {"host-1": [], "host-2": []}


@pytest.mark.limit(600 + SECONDS_PER_KILL * KILLS / MORE)
def test_kills_of_workers_and_hosts():
    seed = os.environ.get("SNP_SEED", "1")
    found = run("kills", str(KILLS), seed, timeout=300 + SECONDS_PER_KILL * KILLS)
    assert sum(found["kills"].values()) == KILLS
    assert found["results"] >= KILLS
    assert found["left"] == {"host-1": [], "host-2": []}, found
