"""What `info` and `map` tell of one thing.

* The numbers of an arena are those that its own processes have.
* What each process holds is told, also of those that have died.
* The picture is well-formed, to scale, and has each sort of memory in its colour.
* A name that nobody has ends with 3.
"""

import os
import re
import struct
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from cli.commands import asked, shared_numpy
from cli.test_ls import place  # noqa: F401
from conftest import eventually, needs_arenas

from shared_numpy._command import picture

pytestmark = needs_arenas
SVG = "{http://www.w3.org/2000/svg}"

PROGRAM = """
import numpy as np
kept = [snp.zeros(100000, 'u1') for _ in range(4)]
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    mine = snp.zeros(300000, 'u1')
    os.write(ready[1], b'x')
    os.read(go[0], 1)
    os._exit(0)
os.read(ready[0], 1)
alone = snp.zeros(200000, 'u1')
handle = snp.send(np.ones(50000))
gone = snp.zeros(400000, 'u1')
del gone
"""


def arena_of(place):
    return os.path.basename(place.arena())


def test_an_arena(place):
    process = place.start(PROGRAM)
    told = asked("info", arena_of(place), env=place.env)[1]
    arena = told["arena"]
    assert told["kind"] == "arena" and told["state"] == "in use"
    members = {member["pid"]: member for member in arena["members"]}
    assert len(members) == 2 and all(member["alive"] for member in members.values())
    mine = members.pop(process.pid)
    (its,) = members.values()
    assert 200000 <= mine["bytes_alone"] < 290000 and 300000 <= its["bytes_alone"] < 400000
    # Both have what there was before the fork.
    assert its["bytes"] - its["bytes_alone"] >= 400000
    assert mine["bytes"] - mine["bytes_alone"] == its["bytes"] - its["bytes_alone"]
    assert mine["references"] >= 5 and its["references"] >= 5
    # (The handle is of one block, and what it says of the array is in another.)
    assert sum(group["count"] for group in arena["handles"]) == told["handles"] >= 1
    assert sum(group["bytes"] for group in arena["handles"]) >= 256
    sizes = ["live_bytes", "free_bytes", "table_bytes"]
    whole = sum(segment["bytes"] for segment in arena["segments"])
    headers = 64 * (len(arena["segments"]) - 1)
    assert 0 <= whole - headers - sum(arena[name] for name in sizes) < 64 * len(arena["segments"])
    assert arena["free_bytes"] == arena["warm_bytes"] + arena["returned_bytes"] > 0
    assert arena["live_bytes"] == sum(segment["live_bytes"] for segment in arena["segments"])
    assert arena["largest"][0]["bytes"] >= 400000
    text = shared_numpy("info", told["name"], env=place.env)
    assert (text.returncode, text.stderr) == (0, "")
    for word in ("Processes", "Segments", "Handles in flight", "Largest blocks", str(process.pid)):
        assert word in text.stdout
    place.kill(process)


def test_an_orphaned_arena_tells_what_the_dead_held(place):
    process = place.start(PROGRAM.replace("handle = snp.send", ""))
    place.kill(process)
    told = asked("info", arena_of(place), env=place.env)[1]
    assert told["state"] == "orphaned"
    members = {member["pid"]: member for member in told["arena"]["members"]}
    assert members[process.pid]["alive"] is False and members[process.pid]["bytes_alone"] >= 200000


def test_the_owner_of_the_lock_is_told(place):
    process = place.start(PROGRAM)
    assert asked("info", arena_of(place), env=place.env)[1]["arena"]["lock_owner"] is None
    place.kill(process)
    with open(place.arena(), "r+b") as file:
        # (Bit 30 is set while the lock is held, the lowest bits are the owner's place.)
        file.seek(128)
        file.write(struct.pack("=I", 1 << 30))
    told = asked("info", arena_of(place), env=place.env)[1]["arena"]
    assert told["lock_owner"] == {"slot": 0, "pid": process.pid}
    text = shared_numpy("info", arena_of(place), env=place.env).stdout
    assert "held by process {} in place 0".format(process.pid) in text


def test_rings(place):
    code = (
        "import threading\n"
        "q = snp.Queue(5)\n"
        "q.put(1); q.put([2] * 100)\n"
        "empty = snp.Queue()\n"
        "def wait():\n"
        "    ready.set()\n"
        "    empty.get()\n"
        "ready = threading.Event()\n"
        "threading.Thread(target=wait, daemon=True).start()\n"
        "ready.wait()\n"
        "ring = snp.RingBuffer((10, 10), 'f4')\n"
        "for n in range(3):\n"
        "    with ring.write() as frame: frame[:] = n\n"
        "reading = ring.read(); frame = reading.__enter__()"
    )
    process = place.start(code)
    command = ["info", arena_of(place)]

    def rings():
        return asked(*command, env=place.env)[1]["arena"]["rings"]

    # (The thread falls asleep a moment later.)
    eventually(lambda: any(ring["waiting_for"] for ring in rings()))
    by_count = {ring.get("messages"): ring for ring in rings()}
    assert by_count[2]["limit"] == 5 and by_count[2]["waiting_for"] == []
    assert by_count[0]["limit"] is None and by_count[0]["waiting_for"] == ["something to read"]
    frames = by_count[None]
    assert (frames["kind"], frames["written"], len(frames["slots"])) == ("frames", 3, 4)
    assert frames["maker"] == process.pid and frames["users"] == [process.pid]
    held = {slot["frame"]: slot["held_by"] for slot in frames["slots"] if slot["held_by"]}
    assert held == {0: [process.pid]}
    assert frames["readers"] == [{"pid": process.pid, "behind": 2}]
    text = shared_numpy(*command, env=place.env).stdout
    assert "2 messages of at most 5" in text and "(frame 0): held by %d" % process.pid in text


def test_a_ring_that_waits_for_readers(place):
    place.start("ring = snp.RingBuffer(10, readers=2)\nring.join()")
    command = ["info", arena_of(place)]
    (ring,) = asked(*command, env=place.env)[1]["arena"]["rings"]
    assert (ring["awaited_readers"], len(ring["readers"]), ring["written"]) == (2, 1, 0)
    text = shared_numpy(*command, env=place.env).stdout
    assert "writers wait for readers, 2 in all" in text


@pytest.mark.parametrize(
    "make, head, tail",
    [
        ("snp.create('weights', 1000, 'i4')[:] = range(1000)", "0 1 2 3 4 5", "994 995 996 997 998 999"),
        ("snp.create('weights', 4, 'u1')[:] = 7", "7 7 7 7", ""),
        ("snp.create('weights', 8, 'u1')[:] = range(8)", "0 1 2 3 4 5", "6 7"),
        ("snp.create('weights', (0, 3))", "", ""),
        ("snp.create('weights', (), 'f8')[()] = 2.5", "2.5", ""),
        ("snp.create('weights', 2, [('a', 'i2'), ('b', 'f4')])['a'] = 3", "{0}|{0}", ""),
    ],
)
def test_the_ends_of_a_named_array(make, head, tail, place):
    place.start(make)
    told = asked("info", "shm://weights", env=place.env)[1]
    separator = "|" if "|" in head else None
    # (Versions of numpy write records differently.)
    head = head.format(np.array([(3, 0)], "i2,f4")[0])
    assert told["items"]["head"] == head.split(separator)
    assert told["items"]["tail"] == tail.split()
    text = shared_numpy("info", place.path + "/weights", env=place.env)
    assert (text.returncode, text.stderr) == (0, "") and told["items"]["text"] in text.stdout


def test_names_that_nobody_has(place, new_name):
    for command in "info", "map":
        process = shared_numpy(command, new_name(), env=place.env)
        assert (process.returncode, process.stdout) == (3, "")
        assert "there is nothing of the name" in process.stderr and place.path in process.stderr


def test_control_characters_of_a_name_do_not_reach_the_terminal(place):
    name = "snp-it\x1b[2J\nuser     7\r-ff-00000000"
    place.make(name + ".snp-lock", age=100)
    for words in ["info", name], ["map", name], ["ls"], ["doctor"]:
        process = shared_numpy(*words, env=place.env)
        for text in process.stdout, process.stderr:
            assert not re.search(r"[\x00-\x09\x0b-\x1f]", text), (words, text)
            assert "\nuser     7" not in text, (words, text)
    told = shared_numpy("info", name, env=place.env).stdout
    assert "/snp-it\\x1b[2J\\nuser     7\\r-ff-00000000\n" in told


# ---- the picture ----------------------------------------------------------------------------


def drawn(path):
    """Return {class: the sum of the widths of its pieces} of a picture, without the legend."""
    root = ElementTree.parse(str(path)).getroot()
    widths = {}
    for rect in root.iter(SVG + "rect"):
        kind = rect.get("class")
        if kind and float(rect.get("height")) == picture._ROW and float(rect.get("width")) != 14:
            widths[kind] = widths.get(kind, 0) + float(rect.get("width"))
    for path in root.iter(SVG + "path"):
        for width in re.findall(r"h([0-9.]+)v", path.get("d")):
            widths[path.get("class")] = widths.get(path.get("class"), 0) + float(width)
    return root, widths


def test_a_picture_is_to_scale(place, tmp_path):
    process = place.start(PROGRAM)
    out = tmp_path / "it.svg"
    command = ["map", arena_of(place), "--out", str(out)]
    code, told = asked(*command, env=place.env)
    assert (code, told["file"]) == (0, str(out))
    root, widths = drawn(out)
    sizes = {name.replace(" ", "-"): size for name, size in told["bytes"].items()}
    assert {"holder-0", "holder-1", "several", "tables"} <= set(sizes) == set(widths) - {"free"}
    # One row of 960 is as many bytes in all segments.
    (line,) = [t.text for t in root.iter(SVG + "text") if t.text and t.text.startswith("One row")]
    number, unit = line.rstrip(".").split()[-2:]
    per_row = int(number) * {"KiB": 1024, "MiB": 1 << 20}[unit]
    for name, size in sizes.items():
        assert abs(widths[name] - size * 960 / per_row) <= 0.5 * 2 * 60, (name, size, widths)
    texts = [text.text for text in root.iter(SVG + "text")]
    assert any("held by {}".format(process.pid) in text for text in texts)
    plain = shared_numpy("map", arena_of(place), "--out", "-", env=place.env)
    assert plain.returncode == 0 and ElementTree.fromstring(plain.stdout).tag == SVG + "svg"
    place.kill(process)
    asked(*command, env=place.env)
    assert "orphaned" in drawn(out)[1] and "holder-0" not in drawn(out)[1]


def test_a_picture_tells_that_an_arena_is_damaged(place, tmp_path):
    process = place.start(PROGRAM)
    place.kill(process)
    out = str(tmp_path / "it.svg")
    command = ["map", arena_of(place), "--out"]
    assert asked(*(command + [out]), env=place.env)[1]["damaged"] is None
    with open(place.arena(), "r+b") as file:
        file.seek(192)
        file.write(struct.pack("=I", 1))
    assert "contradiction" in asked(*(command + [out]), env=place.env)[1]["damaged"]
    text = shared_numpy(*(command + [out]), env=place.env)
    assert text.returncode == 0 and "damaged: a process found" in " ".join(text.stdout.split())
    texts = [text.text or "" for text in drawn(out)[0].iter(SVG + "text")]
    assert any("damaged: a process found a contradiction" in text for text in texts)
    # The picture alone on standard output, the rest on standard error.
    piped = shared_numpy(*(command + ["-"]), env=place.env)
    assert ElementTree.fromstring(piped.stdout).tag == SVG + "svg"
    assert piped.returncode == 0 and "damaged: a process found" in piped.stderr


def test_what_cannot_be_drawn_is_told(place):
    place.start("a = snp.create('weights', 3)")
    process = shared_numpy("map", "weights", env=place.env)
    assert process.returncode == 2 and "no arena" in process.stderr
    place.make("snp-it-ff-00000000.snp-lock", age=100)
    process = shared_numpy("map", "snp-it-ff-00000000", env=place.env)
    assert process.returncode == 6 and "was killed" in process.stderr


def test_a_picture_of_a_million_blocks_is_as_small_as_any():
    """The columns of a row are few, whatever lies in them."""
    blocks = [
        {"id": n, "state": "live" if n % 3 else "free", "segment": 0, "offset": 4096 + 64 * n,
         "bytes": 64, "holders": [n % 2], "warm": 64 * (n % 2), "pinned": False}
        for n in range(100000)
    ]  # fmt: skip
    look = {
        "segments": [(0, 4096 + 6400000)], "data": 4096, "block_list": blocks, "handle_list": []
    }  # fmt: skip
    text = picture.draw("it", look, {0: "1 <a&b>", 1: "2 b"})
    assert len(text) < 3000000
    root = ElementTree.fromstring(text)
    assert any("1 <a&b>" in (each.text or "") for each in root.iter(SVG + "text"))
    sums = picture.totals(picture.pieces(look, {0: "1", 1: "2"}))
    assert sum(sums.values()) == 4096 + 6400000

