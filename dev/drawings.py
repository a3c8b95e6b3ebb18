"""Draws the diagrams of the manual and the README into ``docs/pictures``.

    python3 dev/drawings.py [FOLDER]

Each picture has a background of its own, and two sets of colours: a browser takes that for dark pages
where its user prefers these. So every picture is legible on any page.
"""

import os
import sys
from xml.sax.saxutils import escape, quoteattr

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs", "pictures")

# What a box stands for: its fill and its edge, on light and on dark pages.
COLOURS = {
    "process": ("#e8f0fe", "#3b6fd4", "#1c2f50", "#7aa7f7"),
    "memory": ("#e4f5ea", "#2b8a57", "#163a2a", "#62c38b"),
    "message": ("#fff3da", "#b97a0a", "#402f12", "#e6b455"),
    "dead": ("#fde7e4", "#c43a2c", "#45201c", "#f0837a"),
    "plain": ("#f1f3f5", "#868e99", "#2a2d33", "#8f96a3"),
}
# The page, the text, quieter text, lines.
LIGHT = ("#ffffff", "#1f2328", "#57606a", "#4b5563")
DARK = ("#16181c", "#e8eaed", "#a5adb8", "#b6bdc8")


def rules(page, turn):
    card, text, quiet, line = page
    found = [
        ".card{fill:%s}" % card,
        "text{fill:%s}" % text,
        ".quiet{fill:%s}" % quiet,
        ".line{stroke:%s;fill:none}" % line,
        ".tip{fill:%s}" % line,
    ]
    for name, colours in sorted(COLOURS.items()):
        fill, edge = colours[turn : turn + 2]
        found.append(".%s{fill:%s;stroke:%s}" % (name, fill, edge))
    return "".join(found)


STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif;font-size:14px}"
    ".code{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;font-size:13px}"
    ".strong{font-weight:600}.small{font-size:12px}rect,path{stroke-width:1.5}.card{stroke:none}"
    + rules(LIGHT, 0)
    + "@media(prefers-color-scheme:dark){" + rules(DARK, 2) + "}"
)  # fmt: skip


class Picture:
    """A drawing, from left to right and from top to bottom, in pixels.

    Parameters
    ----------
    width, height : int
        Its size.
    title : str
        What it shows, for those who cannot see it.
    """

    def __init__(self, width, height, title):
        self.title = title
        self.width, self.height = width, height
        self.parts = []

    def text(self, x, y, text, classes="", anchor="middle"):
        """Write one line; `y` is its middle."""
        self.parts.append(
            '<text x="{}" y="{}" text-anchor="{}" class="{}">{}</text>'.format(
                x, y + 5, anchor, classes, escape(text)
            )
        )

    def box(self, x, y, width, height, kind, *lines, **options):
        """Draw a box of a kind of `COLOURS`, with lines of text in its middle.

        A line that begins with a backtick is code; one that begins with a star is strong.
        """
        dash = ' stroke-dasharray="5 4"' if options.get("dashed") else ""
        self.parts.append(
            '<rect x="{}" y="{}" width="{}" height="{}" rx="7" class="{}"{}/>'.format(
                x, y, width, height, kind, dash
            )
        )
        top = y + height / 2.0 - 10 * (len(lines) - 1)
        for number, line in enumerate(lines):
            classes = {"`": "code", "*": "strong", "~": "quiet small"}.get(line[:1], "")
            self.text(x + width / 2.0, top + 20 * number, line[1:] if classes else line, classes)

    def arrow(self, *points, **options):
        """Draw a line through points (x, y), with a tip at its end."""
        (x0, y0), (x1, y1) = points[-2:]
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        path = " ".join("{} {:.1f} {:.1f}".format("L" if n else "M", x, y)
                        for n, (x, y) in enumerate(points[:-1]))  # fmt: skip
        path += " L {:.1f} {:.1f}".format(x1 - 7 * dx, y1 - 7 * dy)
        dash = ' stroke-dasharray="5 4"' if options.get("dashed") else ""
        self.parts.append('<path class="line" d="{}"{}/>'.format(path, dash))
        tip = [(x1, y1), (x1 - 9 * dx - 4.5 * dy, y1 - 9 * dy + 4.5 * dx),
               (x1 - 9 * dx + 4.5 * dy, y1 - 9 * dy - 4.5 * dx)]  # fmt: skip
        corners = " ".join("{:.1f},{:.1f}".format(x, y) for x, y in tip)
        self.parts.append('<polygon class="tip" points="{}"/>'.format(corners))

    def line(self, x0, y0, x1, y1):
        self.parts.append(
            '<path class="line" stroke-dasharray="2 5" d="M {} {} L {} {}"/>'.format(x0, y0, x1, y1)
        )

    def svg(self):
        head = (
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}"'
            ' role="img" aria-label={2}>'
        ).format(self.width, self.height, quoteattr(self.title))
        card = '<rect class="card" width="{}" height="{}" rx="10"/>'.format(self.width, self.height)
        style = "<style>{}</style>".format(STYLE)
        return "\n".join([head, style, card] + self.parts + ["</svg>", ""])


def one_array():
    """Three processes, one array."""
    made = Picture(720, 262, "Three processes use one array in shared memory; a handle is all that travels")
    made.box(225, 176, 270, 62, "memory", "*one array in shared memory", "~8 MB, stored once")
    for x, name, code in (
        (20, "parent", "`frame = snp.zeros(…)"),
        (265, "worker", "`frame[:] = 42"),
        (510, "another worker", "`frame.mean()"),
    ):
        made.box(x, 22, 190, 66, "process", "*" + name, code)
    made.arrow((115, 88), (115, 207), (225, 207))
    made.arrow((360, 88), (360, 176))
    made.arrow((605, 88), (605, 207), (495, 207))
    made.box(216, 112, 43, 34, "message", "~106 B")
    made.box(461, 112, 43, 34, "message", "~106 B")
    made.arrow((200, 88), (216, 129), dashed=True)
    made.arrow((259, 129), (275, 88), dashed=True)
    made.arrow((445, 88), (461, 129), dashed=True)
    made.arrow((504, 129), (520, 88), dashed=True)
    return made


def block_life():
    """Create, send, attach, kill, reap."""
    made = Picture(760, 400, "The life of a block: made, sent, received, its processes killed, freed")
    steps = [
        ("made", "`a = snp.zeros(…)", "A"),
        ("sent", "`queue.put(a)", "A + 1 handle"),
        ("received", "`b = queue.get()", "A, B"),
        ("dropped", "`del a", "B"),
        ("B is killed", "~kill -9", "B, which is dead"),
        ("reaped", "~within a second", "nobody: free"),
    ]
    made.text(16, 36, "process A", "strong", "start")
    made.text(16, 112, "process B", "strong", "start")
    made.text(16, 216, "the block", "strong", "start")
    made.text(16, 240, "who holds it", "quiet small", "start")
    made.line(110, 36, 744, 36)
    made.line(110, 112, 744, 112)
    for number, (name, code, held) in enumerate(steps):
        x = 112 + 107 * number
        made.text(x + 49, 300, name, "strong")
        if code.startswith("~"):
            made.text(x + 49, 322, code[1:], "quiet small")
        kind = "dead" if number == 4 else "plain" if number == 5 else "memory"
        words = held.split(", ")
        made.box(x, 196, 98, 62, kind, *(["~" + each for each in words]), dashed=number == 5)
    made.box(112, 16, 98, 40, "process", "`zeros")
    made.box(219, 16, 98, 40, "process", "`put(a)")
    made.box(326, 92, 98, 40, "process", "`get()")
    made.box(433, 16, 98, 40, "process", "`del a")
    made.box(540, 92, 98, 40, "dead", "kill -9")
    made.box(647, 16, 98, 40, "process", "any call")
    for x, y in ((161, 56), (268, 56), (375, 132), (482, 56), (589, 132), (696, 56)):
        made.arrow((x, y), (x, 196))
    made.text(380, 356, "A handle that nobody receives is one holder, too. If its sender dies it ends after 30 s.", "quiet small")
    made.text(380, 376, "If no process of the program is left, the next program that uses the package frees the block.", "quiet small")
    return made


def by_reference():
    """What goes by reference and what is copied."""
    made = Picture(760, 452, "Decision diagram: what goes by reference, what is moved, what is copied")
    made.box(250, 16, 260, 46, "process", "You send an array")
    made.box(250, 100, 260, 62, "plain", "Is it in shared memory,", "or a view of such an array?")
    made.arrow((380, 62), (380, 100))
    made.box(40, 216, 300, 82, "plain", "Through multiprocessing,", "concurrent.futures or this package?", "~(joblib, loky: after register())")
    made.box(420, 216, 300, 82, "plain", "Through snp.Queue, an executor", "or snp.send, and 16 KiB or more?", "~(multiprocessing: after register())")
    made.arrow((300, 162), (190, 216))
    made.text(208, 186, "yes", "strong")
    made.arrow((460, 162), (570, 216))
    made.text(546, 186, "no", "strong")
    made.box(16, 360, 172, 76, "memory", "*by reference", "both see every write", "~no copy, any size")
    made.box(296, 360, 168, 76, "dead", "*copied by pickle", "~the receiver has its own", "~all of it, through a pipe")
    made.box(572, 360, 172, 76, "message", "*moved", "~copied once; belongs", "~to the receiver alone")
    made.arrow((110, 298), (102, 360))
    made.text(84, 328, "yes", "strong")
    made.arrow((270, 298), (344, 360))
    made.text(326, 322, "no", "strong")
    made.arrow((490, 298), (416, 360))
    made.text(434, 322, "no", "strong")
    made.arrow((650, 298), (658, 360))
    made.text(676, 328, "yes", "strong")
    return made


def arena():
    """An arena: two files, tables, blocks, processes."""
    made = Picture(760, 372, "An arena: tables and blocks in one file of shared memory, a lock file, and its processes")
    for number, name in enumerate(("process A", "process B", "process C")):
        made.box(60 + 170 * number, 18, 150, 56, "process", "*" + name, "~arrays on blocks")
    made.box(24, 132, 532, 140, "plain")
    made.text(290, 258, "a file in /dev/shm, which every process maps", "quiet small")
    made.box(40, 146, 96, 98, "message", "*tables", "~slots, blocks", "~tickets", "~segments")
    for x, width, kind, text in (
        (148, 88, "memory", "block"),
        (244, 48, "memory", "block"),
        (300, 66, "plain", "~warm"),
        (374, 104, "memory", "block"),
        (486, 58, "plain", "~returned"),
    ):
        made.box(x, 146, width, 98, kind, text, dashed=kind == "plain")
    made.arrow((135, 74), (182, 146))
    made.arrow((305, 74), (210, 146))
    made.arrow((305, 74), (268, 146))
    made.arrow((475, 74), (428, 146))
    made.box(590, 132, 150, 140, "plain", "*the lock file", "~each process has", "~one byte locked;", "~the kernel frees it", "~when the process", "~ends, in any way")
    made.arrow((550, 46), (664, 46), (664, 132), dashed=True)
    made.text(380, 302, "A table of slots knows the processes; a bit in a block's row says that a process holds the block.", "quiet small")
    made.text(380, 322, "One store takes effect at a time, so that a process killed at any instruction leaves the tables right.", "quiet small")
    made.text(380, 342, "The arena grows by segments when it needs more; pages that are idle go back to the system.", "quiet small")
    return made


def ring():
    """A queue's ring."""
    made = Picture(760, 330, "A ring: producers put messages at one end, consumers take them at the other")
    made.box(20, 40, 130, 50, "process", "producer")
    made.box(20, 120, 130, 50, "process", "producer")
    made.box(616, 40, 130, 50, "process", "consumer")
    made.box(616, 120, 130, 50, "process", "consumer")
    made.box(180, 60, 406, 90, "plain")
    for number in range(6):
        kind = "message" if 1 <= number <= 3 else "plain"
        text = "~message" if kind == "message" else "~empty"
        made.box(190 + 66 * number, 76, 60, 58, kind, text, dashed=kind == "plain")
    made.arrow((150, 65), (180, 92))
    made.arrow((150, 145), (180, 118))
    made.arrow((586, 92), (616, 65))
    made.arrow((586, 118), (616, 145))
    made.text(418, 30, "take word", "code")
    made.text(220, 30, "put word", "code")
    made.arrow((220, 40), (220, 76))
    made.arrow((418, 40), (418, 76))
    made.box(217, 200, 270, 50, "memory", "the arrays in a message")
    made.arrow((352, 134), (352, 200))
    made.text(380, 276, "One store moves the put word: that is the put. One store moves the take word: that is the take.", "quiet small")
    made.text(380, 296, "A process that is killed before the store has done nothing; one killed after it has done all.", "quiet small")
    return made


def fork():
    """What happens at a fork."""
    made = Picture(760, 340, "At a fork the child becomes a holder of the arrays that its parent has")
    made.text(190, 26, "before", "strong")
    made.text(570, 26, "after", "strong")
    made.line(380, 16, 380, 250)
    made.box(40, 48, 130, 46, "process", "parent")
    made.box(40, 150, 130, 60, "memory", "shared array", "~held by: parent")
    made.box(210, 150, 130, 60, "message", "received copy", "~the parent's own")
    made.arrow((95, 94), (95, 150))
    made.arrow((130, 94), (250, 150))
    made.box(420, 48, 130, 46, "process", "parent")
    made.box(600, 48, 130, 46, "process", "child")
    made.box(408, 150, 142, 60, "memory", "shared array", "~held by: parent, child")
    made.arrow((470, 94), (470, 150))
    made.arrow((640, 94), (530, 150))
    made.box(562, 150, 86, 60, "message", "parent's", "~own")
    made.box(658, 150, 86, 60, "message", "child's", "~own")
    made.arrow((520, 94), (590, 150))
    made.arrow((690, 94), (700, 150))
    made.text(380, 276, "A shared array stays one array: each sees what the other writes.", "quiet small")
    made.text(380, 296, "What was moved to the parent belongs to the parent: the child has a copy-on-write copy, as of all memory.", "quiet small")
    made.text(380, 316, "The array is free when both have dropped it, or ended.", "quiet small")
    return made


def per_host():
    """Two hosts of a cluster, each with one copy."""
    made = Picture(760, 360, "Two hosts of a cluster: the array goes to each host once, and its workers use one copy")
    made.box(20, 24, 200, 66, "process", "*your program", "`data = share(client, a)")
    made.box(280, 24, 200, 66, "process", "*scheduler", "~knows who has which piece")
    made.arrow((220, 57), (280, 57), dashed=True)
    for number, x in enumerate((20, 400)):
        made.box(x, 130, 340, 172, "plain", dashed=True)
        made.text(x + 14, 150, "host %d" % (number + 1), "strong", "start")
        made.box(x + 20, 236, 300, 50, "memory", "*one copy", "~in this host's /dev/shm")
        for place in (0, 1):
            left = x + 40 + 140 * place
            made.box(left, 166, 120, 42, "process", "worker", "`data[…]")
            made.arrow((left + 60, 208), (left + 60, 236))
    made.arrow((120, 90), (120, 112), (30, 112), (30, 261), (40, 261))
    made.arrow((340, 261), (420, 261))
    made.box(354, 222, 52, 28, "message", "~8 MiB")
    made.box(40, 98, 52, 28, "message", "~8 MiB")
    made.arrow((420, 90), (420, 112), (480, 112), (480, 166), dashed=True)
    made.box(454, 98, 52, 28, "message", "~110 B")
    made.text(380, 324, "The array goes over the network to each host once, in pieces, from a host that has them already.", "quiet small")
    made.text(380, 344, "A task is sent 110 bytes for it. A worker that is killed loses no copy; a host that is new fetches one.", "quiet small")
    return made


PICTURES = {
    "per-host": per_host,
    "one-array": one_array,
    "block-life": block_life,
    "by-reference": by_reference,
    "arena": arena,
    "ring": ring,
    "fork": fork,
}


def main(folder=FOLDER):
    for name, draw in sorted(PICTURES.items()):
        with open(os.path.join(folder, name + ".svg"), "w", encoding="utf-8") as file:
            file.write(draw().svg())


if __name__ == "__main__":
    main(*sys.argv[1:])
