"""A picture of an arena's memory, to scale, as SVG text.

Each segment is cut into rows of the same number of bytes, as a page of text is into lines. A row is
drawn in columns of half a pixel; each has the colour of what takes most of its bytes. So the picture
has the same size whether the arena has ten blocks or a million, and small things that are many show,
while one that is alone and less than half a column does not.

The colours are legible on white and on black; the background and the text follow the reader's choice
of light or dark.
"""

from html import escape

from . import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

_WIDTH = 960
_MARGIN = 24
_ROW, _GAP = 14, 3
_COLUMNS = _WIDTH * 2
# The most rows of all segments together, about.
_MOST_ROWS = 48
# A piece as wide as this tells what it is when the pointer rests on it, in pixels.
_TOLD = 3

# Holders in the order of their bytes; the others share the last colour.
_HOLDERS = ("#0072b2", "#e69f00", "#cc79a7", "#56b4e9", "#9a7a3c", "#6a5acd")
_FILLS = {
    "others": "#8a94a6",
    "several": "#009e73",
    "in flight": "#f0e442",
    "orphaned": "#d62728",
    "warm": "#b9bec7",
    "returned": "url(#returned)",
    "tables": "#6b7280",
}
_TITLES = (
    ("others", "held by another process"),
    ("several", "held by several processes"),
    ("in flight", "in flight: no process holds it, a handle does"),
    ("orphaned", "orphaned: only the dead held it"),
    ("warm", "free, with memory"),
    ("returned", "free, without memory"),
    ("tables", "the arena's own tables"),
)


class Piece:
    """A part of a segment: where it begins and ends in it, in bytes, what it is, and its title."""

    __slots__ = ("start", "end", "what", "title")

    def __init__(self, start: int, end: int, what: str, title: str) -> None:
        self.start, self.end, self.what, self.title = start, end, what, title


def pieces(look: "Dict[str, Any]", alive: "Dict[int, str]") -> "Dict[int, List[Piece]]":
    """Return the pieces of each segment, in order.

    Parameters
    ----------
    look : dict
        What `_core.look_at_arena` tells, with its tables.
    alive : dict of int to str
        The processes that live, by their places in the arena.
    """
    in_flight = {handle["block"] for handle in look["handle_list"]}
    rank = {slot: "holder %d" % n for n, slot in enumerate(_by_bytes(look, alive))}
    found = {}  # type: Dict[int, List[Piece]]
    for number, size in look["segments"]:
        first = look["data"] if number == 0 else 64
        found[number] = [Piece(0, min(first, size), "tables", "tables")]
    for block in sorted(look["block_list"], key=lambda block: block["offset"]):
        segment = found.get(block["segment"])
        if segment is None:
            continue
        start, end = block["offset"], block["offset"] + block["bytes"]
        size = output.size(block["bytes"])
        if block["state"] == "table":
            segment.append(Piece(start, end, "tables", "tables, " + size))
        elif block["state"] == "free":
            # (How much of it has memory is known, where is not.)
            warm = start + min(block["warm"], block["bytes"])
            if warm > start:
                segment.append(Piece(start, warm, "warm", "free, " + size))
            if end > warm:
                segment.append(Piece(warm, end, "returned", "free, " + size))
        else:
            what, who = _holder_of(block, rank, alive, in_flight)
            title = "block {}, {}, {}".format(block["id"], size, who)
            segment.append(Piece(start, end, what, title))
    return found


def _by_bytes(look, alive):
    """Return the places of living processes, those that hold most bytes first."""
    held = dict.fromkeys(alive, 0)
    for block in look["block_list"]:
        if block["state"] == "live" and len(block["holders"]) == 1:
            slot = block["holders"][0]
            if slot in held:
                held[slot] += block["bytes"]
    return sorted((slot for slot in held if held[slot]), key=lambda slot: (-held[slot], slot))


def _holder_of(block, rank, alive, in_flight):
    living = [slot for slot in block["holders"] if slot in alive]
    if len(living) > 1:
        names = ", ".join(alive[slot] for slot in living[:8])
        return "several", "held by {} processes: {}".format(len(living), names)
    if living:
        what = rank.get(living[0], "others")
        if what.startswith("holder") and int(what.split()[1]) >= len(_HOLDERS):
            what = "others"
        return what, "held by " + alive[living[0]]
    if block["id"] in in_flight:
        return "in flight", "in flight"
    if block["pinned"]:
        return "others", "held by forked children"
    return "orphaned", "orphaned"


def totals(found: "Dict[int, List[Piece]]") -> "Dict[str, int]":
    """Return the bytes of each sort of piece."""
    sums = {}  # type: Dict[str, int]
    for segment in found.values():
        for piece in segment:
            sums[piece.what] = sums.get(piece.what, 0) + piece.end - piece.start
    return sums


def draw(name: str, look: "Dict[str, Any]", alive: "Dict[int, str]", subtitle: str = "") -> str:
    """Return the picture.

    Parameters
    ----------
    name : str
        The arena's name.
    look : dict
        What `_core.look_at_arena` tells, with its tables.
    alive : dict of int to str
        The processes that live, by their places in the arena.
    subtitle : str, optional
        A line below the name.
    """
    found = pieces(look, alive)
    sizes = dict(look["segments"])
    per_row = _bytes_per_row(sum(sizes.values()))
    body = []  # type: List[str]
    y = _MARGIN + 62
    for number in sorted(found):
        body.append(_text(_MARGIN, y + 12, "segment {}: {}".format(number, output.size(sizes[number]))))
        y += 20
        y = _draw_segment(body, y, found[number], sizes[number], per_row) + 14
    names = [alive[slot] for slot in _by_bytes(look, alive)]
    body_legend, y = _legend(y, totals(found), names)
    head = [
        _text(_MARGIN, _MARGIN + 14, name, "title"),
        _text(_MARGIN, _MARGIN + 34, subtitle),
        _text(_MARGIN, _MARGIN + 52, "One row is {}.".format(output.size(per_row))),
    ]
    return _wrap("\n".join(head + body + body_legend), _WIDTH + 2 * _MARGIN, y + _MARGIN)


def _bytes_per_row(total):
    """Return a power of two."""
    per_row = 4096
    while total > per_row * _MOST_ROWS:
        per_row *= 2
    return per_row


def _draw_segment(body, y, segment, size, per_row):
    for start in range(0, max(size, 1), per_row):
        end = min(start + per_row, size)
        width = (end - start) * _WIDTH / per_row
        body.append(
            '<rect class="free" x="{}" y="{}" width="{:.1f}" height="{}"/>'.format(
                _MARGIN, y, width, _ROW
            )
        )
        narrow = {}  # type: Dict[str, List[str]]
        for left, right, what, title in _runs(segment, start, end, per_row):
            if right - left < _TOLD:
                place = "M{:g} {}h{:g}v{}h-{:g}z".format(
                    _MARGIN + left, y, right - left, _ROW, right - left
                )
                narrow.setdefault(what, []).append(place)
                continue
            body.append(
                '<rect class="{}" x="{:g}" y="{}" width="{:g}" height="{}"><title>{}</title></rect>'.format(
                    _class(what), _MARGIN + left, y, right - left, _ROW, escape(title)
                )
            )
        # (Those that are too narrow for a title may be many.)
        for what in sorted(narrow):
            body.append('<path class="{}" d="{}"/>'.format(_class(what), "".join(narrow[what])))
        y += _ROW + _GAP
    return y


def _class(what):
    return what.replace(" ", "-")


def _runs(segment, start, end, per_row):
    """Yield the neighbouring columns of a row that are alike: (left, right, what, title)."""
    columns = _columns_of(segment, start, end, per_row)
    at = 0
    while at < len(columns):
        first = at
        while at < len(columns) and columns[at] == columns[first]:
            at += 1
        if columns[first] is not None:
            what, title = columns[first]
            yield first / 2, at / 2, what, title


def _columns_of(segment, start, end, per_row):
    """Return for each column of a row what takes most of its bytes, and the title of its last
    piece."""
    unit = per_row / _COLUMNS
    count = -(-(end - start) * _COLUMNS // per_row)
    shares = [None] * count  # type: List[Any]
    for piece in _between(segment, start, end):
        left, right = max(piece.start, start) - start, min(piece.end, end) - start
        first, last = int(left / unit), min(int((right - 1) / unit), count - 1)
        for column in range(first, last + 1):
            covered = min(right, (column + 1) * unit) - max(left, column * unit)
            if shares[column] is None:
                shares[column] = {}
            share = shares[column].setdefault(piece.what, [0, piece.title])
            share[0] += covered
    return [None if share is None else _most(share) for share in shares]


def _most(share):
    what = max(share, key=lambda each: share[each][0])
    return what, share[what][1]


def _between(segment, start, end):
    """Return the pieces that reach into a row."""
    low, high = 0, len(segment)
    while low < high:
        middle = (low + high) // 2
        if segment[middle].end <= start:
            low = middle + 1
        else:
            high = middle
    found = []
    for piece in segment[low:]:
        if piece.start >= end:
            break
        found.append(piece)
    return found


def _legend(y, sums, names):
    told = []  # type: List[Tuple[str, str, int]]
    for n, name in enumerate(names[: len(_HOLDERS)]):
        what = "holder %d" % n
        told.append((what, "held by " + name, sums.get(what, 0)))
    told += [(what, title, sums[what]) for what, title in _TITLES if sums.get(what)]
    body = []
    for n, (what, title, size) in enumerate(told):
        x = _MARGIN + n % 2 * (_WIDTH // 2)
        top = y + n // 2 * 22
        body.append(
            '<rect class="{}" x="{}" y="{}" width="14" height="14"/>'.format(_class(what), x, top)
        )
        body.append(_text(x + 22, top + 11, "{}: {}".format(title, output.size(size))))
    return body, y + (len(told) + 1) // 2 * 22


def _text(x, y, text, kind="text"):
    return '<text class="{}" x="{}" y="{}">{}</text>'.format(kind, x, y, escape(text))


def _wrap(body, width, height):
    fills = dict(_FILLS, **{"holder %d" % n: fill for n, fill in enumerate(_HOLDERS)})
    rules = "\n".join(".{} {{ fill: {}; }}".format(_class(w), fills[w]) for w in sorted(fills))
    return _DOCUMENT.format(width=width, height=height, rules=rules, body=body)


_DOCUMENT = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" \
viewBox="0 0 {width} {height}">
<style>
.page {{ fill: #ffffff; }}
.text, .title {{ fill: #24292f; font: 12px sans-serif; }}
.title {{ font: bold 15px sans-serif; }}
.free {{ fill: none; stroke: #8a94a6; stroke-width: 0.5; }}
.paper {{ fill: #ffffff; }}
{rules}
@media (prefers-color-scheme: dark) {{
.page, .paper {{ fill: #14171c; }}
.text, .title {{ fill: #e6e9ee; }}
}}
</style>
<defs><pattern id="returned" width="6" height="6" patternUnits="userSpaceOnUse">
<rect class="paper" width="6" height="6"/>
<path d="M0 6 L6 0" stroke="#8a94a6" stroke-width="1"/></pattern></defs>
<rect class="page" width="{width}" height="{height}"/>
{body}
</svg>
"""
