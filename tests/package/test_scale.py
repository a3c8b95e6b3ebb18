"""What `docs/scale.md` computes for many hosts.

* The page is what `dev/scale.py` writes from the benchmark's file.
* Its constants are those of the code.
* The time to fill is that of a simulation, which sends piece by piece down the tree.
"""

import os
import re

import pytest
import scale
from conftest import ROOT

MODEL = scale.load()


def source(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def test_the_page_is_up_to_date():
    text = scale.read(scale.PAGE)
    assert scale.MARK.findall(text) == ["measured", "beside", "scaled", "control"]
    assert scale.render(text, MODEL) == text, "run python dev/scale.py"


def test_constants_are_those_of_the_code():
    folder = ("shared_memory", "shared_numpy", "integrations", "_dask")
    piece = re.search(r"^PIECE = (\d+) << (\d+)$", source(*(folder + ("image.py",))), re.M)
    assert int(piece.group(1)) << int(piece.group(2)) == scale.PIECE
    children = re.search(r"^CHILDREN = (\d+)$", source(*(folder + ("scheduler.py",))), re.M)
    assert int(children.group(1)) == scale.CHILDREN
    slots = re.search(r"^PROCESSES = (\d+)$", source(*(folder + ("host_memory.py",))), re.M)
    assert int(slots.group(1)) == scale.SLOTS


def simulated(pieces, hosts, children, seconds):
    """Return when the last host has all pieces.

    A host may send as many streams at a time as it has children; each piece takes `seconds` on its
    way, one after the other, and leaves when it is there.
    """
    there = []
    for host in range(hosts):
        parent = there[(host - 1) // children] if host else [0.0] * pieces
        free, mine = 0.0, []
        for piece in range(pieces):
            free = max(free, parent[piece]) + seconds
            mine.append(free)
        there.append(mine)
    return max(times[-1] for times in there)


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 7, 8, 100])
@pytest.mark.parametrize("pieces", [1, 5, 120])
def test_time_to_fill(hosts, pieces):
    link = MODEL.rate / 10  # Less than what was measured: it decides.
    found = MODEL.costs(pieces * scale.PIECE, hosts, 1, link).fill
    one = scale.PIECE / (link / scale.CHILDREN)
    assert found == pytest.approx(simulated(pieces, hosts, scale.CHILDREN, one))


def test_what_grows_with_what():
    small = MODEL.costs(10**9, 10, 8, 1e9)
    assert MODEL.costs(10**9, 20, 8, 1e9).wire == pytest.approx(2 * small.wire)
    assert MODEL.costs(10**9, 20, 8, 1e9).memory == small.memory
    assert MODEL.costs(10**9, 20, 8, 1e9).fill < 1.1 * small.fill
    assert MODEL.costs(10**9, 10, 16, 1e9).memory - small.memory == pytest.approx(8 * MODEL.private)
