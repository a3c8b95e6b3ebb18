"""What ``--json`` prints has the keys that docs/command-line.md lists for each object, and no others."""

import os
import re
import struct
import tempfile

from cli.commands import asked
from cli.test_ls import place  # noqa: F401
from conftest import needs_arenas

PAGE = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "command-line.md")
# Objects whose keys are no fixed words: sorts of memory, and ways.
OPEN = ["map bytes", "bench comparisons[].seconds"]


def documented():
    """Return the keys of each object, by its command and its path in what that prints."""
    with open(PAGE, encoding="utf-8") as file:
        section = file.read().split("\n## JSON\n")[1]
    found = {}
    for row in re.findall(r"^\| (`.*) \| (.*) \|$", section, re.M):
        objects, keys = [re.findall("`([^`]*)`", cell) for cell in row]
        for each in objects:
            # (Of words in backticks some are explanations.)
            found.setdefault(each, set()).update(key for key in keys if re.match("[a-z_]+$", key))
    return found


def printed(path, value, found):
    """Add the keys of each object in a value to those that were found."""
    if isinstance(value, dict) and path not in OPEN:
        found.setdefault(path, set()).update(value)
        for key, inner in value.items():
            printed(path + (" " if " " not in path else ".") + key, inner, found)
    elif isinstance(value, list):
        for inner in value:
            printed(path + "[]", inner, found)


PROGRAM = """
queue = snp.Queue(5)
queue.put(1)
ring = snp.RingBuffer((10, 10), "f4")
with ring.write() as frame: frame[:] = 1
reading = ring.read()
seen = reading.__enter__()
handle = snp.send(snp.ones(1000))
weights = snp.create("weights", (3, 4))
"""


@needs_arenas
def test_json_has_the_documented_keys(place, tmp_path):  # noqa: F811
    found = {}

    def ask(*words):
        code, told = asked(*words, env=place.env)
        printed(words[0], told, found)
        return told

    process = place.start(PROGRAM)
    arena, array = place.arena(), os.path.join(place.path, "weights")
    with tempfile.TemporaryFile(dir=place.path) as file:
        file.write(bytes(5000))
        file.flush()
        ask("ls")
    ask("info", arena)
    ask("info", array)
    ask("map", arena, "--out", str(tmp_path / "map.svg"))
    ask("clean", "--dry-run", array)
    ask("doctor")
    ask("bench", "--quick")
    place.kill(process)
    with open(arena, "r+b") as file:
        # (Bit 30 is set while the lock is held, the lowest bits are the owner's place.)
        file.seek(128)
        file.write(struct.pack("=I", 1 << 30))
    assert ask("info", arena)["arena"]["lock_owner"] is not None
    wanted = documented()
    assert sorted(found) == sorted(wanted)
    for each in sorted(wanted):
        assert (each, sorted(found[each])) == (each, sorted(wanted[each]))
