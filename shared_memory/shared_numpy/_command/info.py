"""Show one thing in shared memory in full.

Of an arena: its processes with what each of them holds, its segments, free memory with and without
pages, the owner of its lock, its rings, and the handles in flight by their age. Of a named array: its
first and last items.
"""

import os

from .. import _core
from .._system import named_layout
from . import output, survey
from .exit_codes import DONE, NOT_FOUND, Failure
from .ls import describe_process, describe_wait, program_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, Dict, List, Optional, Tuple

# How many blocks, and items at each end of an array, are told.
_MOST_BLOCKS = 10
# A ring's block has this many bytes at least; so many of a block tell all that its head says.
_LEAST_RING, _RING_HEAD = 384, 32768
_MOST_ITEMS = 6
# Handles in flight are counted by their ages, in seconds up to these.
_AGES = (1, 30, 600)


def add_arguments(parser: "Any") -> None:
    parser.add_argument("name", metavar="NAME", help="a name as `ls` tells it, or a path")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: "argparse.Namespace") -> int:
    item, unseen = find(options.name)
    told = item.as_dict()
    if item.look is not None and item.look["kind"] == "arena":
        told["arena"] = _describe_arena(item)
    elif item.shape is not None:
        told["items"] = _ends_of(item)
    if options.json:
        output.as_json(told)
        return DONE
    _print_item(item, unseen)
    if "arena" in told:
        _print_arena(told["arena"])
    if told.get("items"):
        output.line()
        output.line("items    {}".format(told["items"]["text"]))
    return DONE


def find(name: str) -> "Tuple[survey.Item, str]":
    """Return what has a name, and why not all its users may be seen, or "".

    Raises
    ------
    Failure
        There is nothing of that name.
    """
    found = survey.survey(names=[name])
    if not found.items:
        raise Failure(
            NOT_FOUND,
            "there is nothing of the name {!r} in {}; `shared-numpy ls --all-users` lists what there "
            "is".format(name, " and ".join(survey.folders())),
        )
    return found.items[0], found.unseen


# ---- arrays ---------------------------------------------------------------------------------


def _ends_of(item):
    """Return the first and the last items of an array, as they lie in memory."""
    import numpy as np

    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(item.path, flags)
    except OSError:
        return None
    try:
        # (The array may have been replaced since it was found. It is read, not mapped: a file that is
        # cut meanwhile is no signal.)
        size = os.fstat(fd).st_size
        layout = named_layout.read(lambda length, at: os.pread(fd, length, at), size)
        count = 1
        for length in layout.shape:
            count *= length
        width = layout.dtype.itemsize
        few = min(count, _MOST_ITEMS)
        first = os.pread(fd, few * width, layout.data)
        last = os.pread(fd, few * width, layout.data + (count - few) * width)
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)

    def texts(content):
        whole = len(content) // width * width if width else 0
        array = np.frombuffer(content[:whole], layout.dtype) if whole else []
        return [str(value) for value in array]

    head = texts(first)
    tail = texts(last)[-max(0, count - len(head)) :] if count > len(head) else []
    gap = ["..."] if count > len(head) + len(tail) else []
    return {"head": head, "tail": tail, "text": "  ".join(head + gap + tail)}


# ---- arenas ---------------------------------------------------------------------------------


def _describe_arena(item):
    look = _core.look_at_arena(item.path, True)
    users = {user.slot: user for user in item.users if user.slot is not None}
    live = [block for block in look["block_list"] if block["state"] == "live"]
    free = [block for block in look["block_list"] if block["state"] == "free"]
    warm = sum(block["warm"] for block in free)
    all_free = sum(block["bytes"] for block in free)
    owner = look["lock_owner"]
    return {
        "identifier": look["identifier"].hex() if look["identifier"] else None,
        "root": look["root"],
        "places": look["places"],
        "members": [_describe_member(member, users, live, look) for member in look["members"]],
        "segments": [_describe_segment(number, size, look) for number, size in look["segments"]],
        "live_bytes": sum(block["bytes"] for block in live),
        "free_bytes": all_free,
        "warm_bytes": warm,
        "returned_bytes": all_free - warm,
        "table_bytes": look["table_bytes"] + look["data"],
        "lock_owner": None if owner is None else {"slot": owner, "pid": _pid_of(owner, users)},
        "handles": _describe_handles(look, live),
        "rings": _describe_rings(item, live, users),
        "largest": [_describe_block(block, users, look) for block in _largest(live)],
        "pinned": look["pinned"],
    }


def _pid_of(slot, users):
    return users[slot].pid if slot in users else None


def _describe_member(member, users, live, look):
    slot = member["slot"]
    held = [block for block in live if slot in block["holders"]]
    alone = [block for block in held if len(block["holders"]) == 1]
    sent = [h for h in look["handle_list"] if h["owner"] == "sender" and h["number"] == slot]
    user = users.get(slot)
    told = {
        "slot": slot,
        "references": len(held),
        "bytes": sum(block["bytes"] for block in held),
        "bytes_alone": sum(block["bytes"] for block in alone),
        "handles": len(sent),
    }
    if user is None:
        process = {"pid": member["pid"] or None, "alive": member["locked"], "command": None}
        return dict(told, elsewhere=False, reserved=member["reserved"], **process)
    process = {"pid": user.pid, "alive": user.alive, "command": user.command}
    return dict(told, elsewhere=user.elsewhere, reserved=member["reserved"], **process)


def _describe_segment(number, size, look):
    mine = [block for block in look["block_list"] if block["segment"] == number]
    live = [block for block in mine if block["state"] == "live"]
    free = [block for block in mine if block["state"] == "free"]
    return {
        "number": number,
        "bytes": size,
        "blocks": len(live),
        "live_bytes": sum(block["bytes"] for block in live),
        "free_bytes": sum(block["bytes"] for block in free),
        "warm_bytes": sum(block["warm"] for block in free),
        "largest_free": max([block["bytes"] for block in free] or [0]),
    }


def _describe_handles(look, live):
    sizes = {block["id"]: block["bytes"] for block in live}
    groups = {}  # type: Dict[Tuple[str, str], List[int]]
    for handle in look["handle_list"]:
        group = groups.setdefault((handle["owner"], _age_group(handle["age"] / 1000)), [0, 0, 0])
        group[0] += 1
        group[1] += sizes.get(handle["block"], 0)
        group[2] = max(group[2], handle["age"])
    order = [_age_group(age - 0.5) for age in _AGES] + [_age_group(_AGES[-1] + 1)]
    return [
        {"age": age, "of": owner, "count": count, "bytes": size, "oldest": oldest / 1000}
        for (owner, age), (count, size, oldest) in sorted(
            groups.items(), key=lambda item: (order.index(item[0][1]), item[0][0])
        )
    ]


def _age_group(seconds):
    for age in _AGES:
        if seconds < age:
            return "less than " + output.duration(age)
    return output.duration(_AGES[-1]) + " or more"


def _largest(live):
    return sorted(live, key=lambda block: (-block["bytes"], block["id"]))[:_MOST_BLOCKS]


def _describe_block(block, users, look):
    return {
        "block": block["id"],
        "bytes": block["bytes"],
        "holders": [{"slot": slot, "pid": _pid_of(slot, users)} for slot in block["holders"]],
        "handles": sum(handle["block"] == block["id"] for handle in look["handle_list"]),
        "named": block["named"],
    }


def _describe_rings(item, live, users):
    """Tell of the rings that lie in the blocks of an arena."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        fd = os.open(item.path, flags)
    except OSError:
        return []
    try:
        return [
            ring
            for block in live
            if block["bytes"] >= _LEAST_RING
            for ring in [_describe_ring(fd, block, live, users)]
            if ring is not None
        ]
    finally:
        os.close(fd)


def _describe_ring(fd, block, live, users):
    """Tell of the ring in a block; return None if there is none."""
    # (Most blocks are none, and the first bytes tell that.)
    if not os.pread(fd, 8, block["place"]).startswith(b"snp"):
        return None
    ring = _core.look_at_ring(os.pread(fd, min(block["bytes"], _RING_HEAD), block["place"]))
    if ring is None:
        return None
    told = {
        "block": block["id"],
        "kind": ring["kind"],
        "maker": _pid_of(ring["maker"], users),
        "lock_owner": None if ring["lock_owner"] is None else _pid_of(ring["lock_owner"], users),
        "waiting_for": ring["waiters"],
        "users": [_pid_of(slot, users) for slot in block["holders"]],
    }
    if ring["kind"] == "messages":
        return dict(told, messages=ring["messages"], limit=ring["limit"])
    holders = {block["id"]: block["holders"] for block in live}
    return dict(
        told,
        written=ring["written"],
        overwrites=ring["overwrites"],
        awaited_readers=ring["awaited"],
        slots=[
            {
                "slot": index,
                "frame": number,
                "held_by": [_pid_of(slot, users) for slot in holders.get(block_id, [])],
            }
            for index, (number, block_id) in enumerate(ring["frames"])
        ],
        readers=[
            {"pid": _pid_of(slot, users), "behind": max(0, ring["written"] - position)}
            for slot, position in ring["readers"]
        ],
    )


# ---- text -----------------------------------------------------------------------------------


def _print_item(item, unseen):
    lines = [
        ("name", item.name),
        ("kind", item.kind),
        ("path", item.path),
        ("state", item.describe_state()),
        ("size", "{} in memory, {} long".format(output.size(item.size), output.size(item.apparent))),
        ("user", str(item.uid)),
        ("age", output.duration(item.age)),
    ]
    if item.shape is not None:
        order = {"C": "C (rows)", "F": "F (columns)"}.get(item.order, item.order)
        shape = "x".join(map(str, item.shape)) or "scalar"
        lines += [("shape", shape), ("dtype", item.dtype), ("order", order)]
    if item.maker is not None:
        lines.append(("maker", describe_process(item.maker)))
    for title, text in lines:
        output.line("{:8} {}".format(title, output.visible(text)))
    if item.note:
        output.paragraph("note     " + item.note)
    if item.awaited_for is not None:
        output.paragraph("awaited  " + describe_wait(item.awaited_for))
    others = [user for user in item.users if user.slot is None]
    for user in others:
        program = output.visible(describe_process(user))
        output.line("{:8} {} ({})".format("user", program, user.how))
    if not item.users:
        output.line("used by  nobody" + (" that can be seen: " + unseen if unseen else ""))


def _print_arena(arena):
    output.line(
        "memory   {} live, {} free with memory, {} free without, {} tables".format(
            *[output.size(arena[key + "_bytes"]) for key in ("live", "warm", "returned", "table")]
        )
    )
    if arena["identifier"]:
        output.line("found by {}".format(arena["identifier"]))
    if arena["root"] is not None:
        output.line("root     block {}".format(arena["root"]))
    owner = arena["lock_owner"]
    output.line("lock     {}".format(
        "free" if owner is None else "held by process {pid} in place {slot}".format(**owner)
    ))  # fmt: skip
    output.line()
    output.line("Processes (of at most {:,})".format(arena["places"]))
    output.table(
        ("place", "pid", "state", "references", "bytes", "bytes alone", "handles sent", "program"),
        [_member_row(member) for member in arena["members"]],
        right=("place", "references", "bytes", "bytes alone", "handles sent"),
    )
    output.line()
    output.line("Segments")
    output.table(
        ("segment", "size", "blocks", "live", "free", "with memory", "largest free"),
        [
            [str(segment["number"]), output.size(segment["bytes"]), str(segment["blocks"])]
            + [output.size(segment[key + "_bytes"]) for key in ("live", "free", "warm")]
            + [output.size(segment["largest_free"])]
            for segment in arena["segments"]
        ],
        right=("segment", "size", "blocks", "live", "free", "with memory", "largest free"),
    )
    if arena["handles"]:
        output.line()
        output.line("Handles in flight")
        output.table(
            ("age", "kept by", "handles", "bytes", "oldest"),
            [
                [group["age"], group["of"], str(group["count"]), output.size(group["bytes"])]
                + [output.duration(group["oldest"])]
                for group in arena["handles"]
            ],
            right=("handles", "bytes", "oldest"),
        )
    if arena["rings"]:
        output.line()
        output.line("Rings")
        output.table(
            ("block", "kind", "contents", "used by", "asleep, waiting for"),
            [_ring_row(ring) for ring in arena["rings"]],
            right=("block",),
        )
        for ring in arena["rings"]:
            _print_slots(ring)
    if arena["largest"]:
        output.line()
        output.line("Largest blocks")
        output.table(
            ("block", "bytes", "held by", "handles"),
            [_block_row(block) for block in arena["largest"]],
            right=("block", "bytes", "handles"),
        )


def _member_row(member):
    state = {True: "alive", False: "dead", None: "unknown"}[member["alive"]]
    if member["elsewhere"]:
        state = "alive, elsewhere"
    elif member["reserved"] and member["alive"]:
        state = "being forked"
    return [
        str(member["slot"]),
        str(member["pid"] or "?"),
        state,
        str(member["references"]),
        output.size(member["bytes"]),
        output.size(member["bytes_alone"]),
        str(member["handles"]),
        program_of(member["command"]) if member["command"] else "-",
    ]


def _ring_row(ring):
    if ring["kind"] == "messages":
        limit = "" if ring["limit"] is None else " of at most {:,}".format(ring["limit"])
        contents = "{:,} messages{}".format(ring["messages"], limit)
    else:
        contents = "{} slots, {:,} frames written".format(len(ring["slots"]), ring["written"])
    waiting = ", ".join(ring["waiting_for"]) or "-"
    return [str(ring["block"]), ring["kind"], contents, _pids(ring["users"]), waiting]


def _pids(pids):
    return ", ".join("?" if pid is None else str(pid) for pid in pids) or "-"


def _print_slots(ring):
    """Say who holds a slot of a ring of frames, and how far its readers are."""
    for slot in ring.get("slots", []):
        if slot["held_by"]:
            number = "being filled" if slot["frame"] is None else "frame {:,}".format(slot["frame"])
            output.line("  ring {}, slot {} ({}): held by {}".format(
                ring["block"], slot["slot"], number, _pids(slot["held_by"])
            ))  # fmt: skip
    if ring.get("awaited_readers"):
        output.line("  ring {}: writers wait for readers, {} in all".format(
            ring["block"], ring["awaited_readers"]
        ))  # fmt: skip
    for reader in ring.get("readers", []):
        output.line("  ring {}, reader {}: {:,} frames behind".format(
            ring["block"], _pids([reader["pid"]]), reader["behind"]
        ))  # fmt: skip


def _block_row(block):
    pids = [str(holder["pid"] or "place %d" % holder["slot"]) for holder in block["holders"]]
    told = ", ".join(pids[:6]) + (" ..." if len(pids) > 6 else "")
    return [str(block["block"]), output.size(block["bytes"]), told or "-", str(block["handles"])]
