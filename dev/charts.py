"""Draws the charts of a benchmark's file, as pictures that can be read in light and in dark.

A chart is SVG with a ground of its own. Where a browser prefers dark colours, a style sheet in the
picture changes ground, text and grid; the colours of the peers can be read on both. Each says of
which file it was drawn, by that file's SHA-256, so that a test sees a chart that is out of date.
"""

import io
import os
import re

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib import ticker  # noqa: E402

from results import OURS, PICTURES, number, size, time  # noqa: E402

INK, GROUND, GRID = "#1f2328", "#fffffe", "#d0d7de"
IN_THE_DARK = {INK: "#e6edf3", GROUND: "#161b22", GRID: "#3d444d"}
# Ours, then the others in the order in which they are drawn.
OUR_COLOUR = "#e8590c"
COLOURS = ["#3b82d6", "#2f9e5b", "#9b6dd0", "#c2528b", "#1a9ba1", "#b08415", "#8a8f98", "#d9534f"]
MARKS = "osD^vP*X"
WIDTH = 8.6
LIMIT_COLOUR = "#7d8590"
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "shared_numpy",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.facecolor": GROUND,
    "figure.facecolor": GROUND,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
}


def is_ours(peer):
    return peer.startswith(OURS) or peer.startswith("snp.") or peer == "here"


def colour_of(peer, others):
    return OUR_COLOUR if is_ours(peer) else COLOURS[others.index(peer) % len(COLOURS)]


# ---- kinds of charts -------------------------------------------------------------------------


def bars(title, values, unit, text, limit=None, from_limit=False):
    """Draw a bar for each peer.

    Parameters
    ----------
    title : str
    values : dict
        Name and number of each bar, from the top.
    unit : str
        What stands below the axis.
    text : callable
        Makes the label of a bar of its name.
    limit : tuple, optional
        Number and name of a line.
    from_limit : bool, optional
        Whether the bars begin at the limit, and the axis is logarithmic.
    """
    names, places = list(values), range(len(values))
    figure, axes = plt.subplots(figsize=(WIDTH, 1.3 + 0.4 * len(names)), layout="constrained")
    start = limit[0] if from_limit else 0
    lengths = [values[name] - start for name in names]
    colours = [OUR_COLOUR if is_ours(name) or from_limit else COLOURS[0] for name in names]
    axes.barh(places, lengths, left=start, color=colours, height=0.66)
    axes.set_yticks(list(places))
    axes.set_yticklabels(names)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", linewidth=0.6)
    least, most = min(values.values()), max(values.values())
    # Room for the labels behind the bars.
    if from_limit:
        axes.set_xscale("log")
        axes.set_xlim(min(least, 1) / 1.5, most * (most / min(least, 1)) ** 1.3)
    else:
        axes.set_xlim(0, most * 1.5)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: "{:,g}".format(value)))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    for place, name in zip(places, names):
        end = max(start, values[name])
        axes.annotate(text(name), (end, place), (5, 0), textcoords="offset points", va="center")
    if limit:
        axes.axvline(limit[0], color=LIMIT_COLOUR, linestyle="--", linewidth=1.4, zorder=3)
        unit += "   (dashed: {})".format(limit[1])
    axes.set_xlabel(unit)
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    return figure


def echo(results):
    """64 MiB, there and back."""
    medians = {
        peer: figures["median"] * 1e3 for peer, figures in results.rows("echo", "64 MiB").items()
    }
    limit = medians.pop("two copies")
    values = dict(sorted(medians.items(), key=lambda each: each[1]))
    base = values["shared_numpy.Queue"]

    def text(name):
        ratio = "" if is_ours(name) else ", {} times as long".format(number(values[name] / base))
        return "{}{}".format(time(values[name] / 1e3), ratio)

    title = "An array of 64 MiB sent to another process and back"
    return bars(title, values, "milliseconds", text, (limit, "two copies in memory"))


def round_time(seconds, _place=None):
    """Return a power of ten of seconds as text."""
    for unit, factor in (("ns", 1e9), ("µs", 1e6), ("ms", 1e3), ("s", 1)):
        if seconds * factor < 999.5:
            break
    return "{:g} {}".format(round(seconds * factor, 9), unit)


BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}


def echo_by_size(results):
    """Latency by size, one line for each channel."""
    labels = results.labels("echo")
    sizes = [int(label.split()[0]) * BYTES[label.split()[1]] for label in labels]
    peers = list(results.rows("echo", labels[0]))
    others = [peer for peer in peers if not is_ours(peer) and peer != "two copies"]
    figure, axes = plt.subplots(figsize=(WIDTH, 6), layout="constrained")

    def line(scenario, peer, name, **options):
        points = [
            (size, results.median(scenario, label, peer))
            for size, label in zip(sizes, labels)
            if results.median(scenario, label, peer) is not None
        ]
        axes.plot(*zip(*points), label=name, **options)

    for peer in others:
        mark, colour = MARKS[others.index(peer) % len(MARKS)], colour_of(peer, others)
        line("echo", peer, peer, color=colour, marker=mark, markersize=5, linewidth=1.4)
    ours = dict(color=OUR_COLOUR, linewidth=2.6, marker="o", markersize=6)
    line("echo", "shared_numpy.Queue", "shared_numpy.Queue", **ours)
    name = "shared_numpy.Queue, shared already"
    line("echo shared", "shared_numpy.Queue", name, **dict(ours, linestyle=":", marker="D"))
    limit = dict(color=LIMIT_COLOUR, linestyle="--", linewidth=1.4)
    line("echo", "two copies", "the limit: two copies in memory", **limit)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes)
    axes.set_xticklabels(labels)
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(round_time))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(linewidth=0.6)
    title = "An array sent to another process and back, by its size"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def limits(results):
    """Each scenario's time as a multiple of its limit's."""
    ratios = {}
    for name in results.labels("limits"):
        here, limit = results.rows("limits", name).values()
        ratios[name] = here["median"] / limit["median"]
    values = dict(sorted(ratios.items(), key=lambda each: each[1]))
    what = {name: list(results.rows("limits", name))[1] for name in values}
    return bars(
        "Times beside what the machine can do",
        values,
        "times as long as the limit",
        lambda name: "{} × {}".format(number(values[name]), what[name]),
        (1, "the limit"),
        from_limit=True,
    )


def call(results):
    medians = {
        peer: figures["median"] * 1e3 for peer, figures in results.rows("call").items()
    }
    limit = medians.pop("bare")
    values = dict(sorted(medians.items(), key=lambda each: each[1]))

    def text(name):
        ratio = number(values[name] / limit)
        return "{}, {} × the function".format(time(values[name] / 1e3), ratio)

    title = "add_one over an array of 160 MB, in another process"
    return bars(title, values, "milliseconds", text, (limit, "the bare function"))


def memory(results):
    counts = results.labels("memory")
    peers = list(results.rows("memory", counts[-1]))
    others = [peer for peer in peers if not is_ours(peer)]
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4), layout="constrained")
    for peer in peers:
        points = [
            (int(count), max(0, results.median("memory", count, peer)) / (1 << 20))
            for count in counts
            if results.median("memory", count, peer) is not None
        ]
        options = dict(color=colour_of(peer, others), marker=MARKS[peers.index(peer)], markersize=6)
        style = "--" if is_ours(peer) and "plain" in peer else "-"
        width = 2.6 if is_ours(peer) else 1.4
        axes.plot(*zip(*points), label=peer, linestyle=style, linewidth=width, **options)
    axes.set_xticks([int(count) for count in counts])
    axes.set_xlabel("workers that have the array")
    axes.set_ylabel("MiB beside the array itself (PSS)")
    axes.grid(linewidth=0.6)
    title = "Memory that an array of 64 MiB takes in workers"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    axes.legend(loc="upper left")
    return figure


def kills(results):
    values = {
        peer: figures["median"] / results.median("kills", "kills", peer) * 100
        for peer, figures in results.rows("kills", "survived").items()
    }
    labels = results.labels("kills")

    def text(name):
        kills, good, left, last = [int(results.median("kills", label, name)) for label in labels]
        most = max(left, last)
        return "{} of {}{}".format(good, kills, ", leaves " + size(most) if most else "")

    title = "Kills of a worker that programs survived, and what was left in /dev/shm"
    figure = bars(title, values, "per cent of the kills", text)
    figure.axes[0].set_xticks(range(0, 101, 25))
    return figure


CHARTS = {
    "echo": echo,
    "echo-by-size": echo_by_size,
    "limits": limits,
    "call": call,
    "memory": memory,
    "kills": kills,
}


# ---- files -----------------------------------------------------------------------------------


def in_the_dark():
    """Return the style sheet that changes colours where dark ones are preferred."""
    rules = "".join(
        '[style*="{what}: {old}"]{{{what}:{new}!important}}'.format(what=what, old=old, new=new)
        for old, new in IN_THE_DARK.items()
        for what in ("fill", "stroke")
    )
    return "<style>@media (prefers-color-scheme: dark){" + rules + "}</style>"


def finished(text, digest):
    """Return a chart's text with its style sheet and its origin, the same for the same figures."""
    origin = "<!-- of benchmarks/results/compare.json, SHA-256 {} -->\n".format(digest)
    text = re.sub(r"<\?xml.*?<svg", lambda _: origin + "<svg", text, count=1, flags=re.DOTALL)
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"(<svg [^>]*>)", lambda match: match.group(1) + in_the_dark(), text, count=1)
    # (Fonts of this machine: any sans-serif of the reader's will do.)
    text = re.sub(r"font: ([\w. ]*?px) [^;\"]*", r"font: \1 sans-serif", text)
    return "\n".join(line.rstrip() for line in text.split("\n"))


def draw(results):
    """Draw all charts; return their paths."""
    paths = []
    os.makedirs(PICTURES, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        for name, make in CHARTS.items():
            figure, stream = make(results), io.StringIO()
            figure.savefig(stream, format="svg")
            plt.close(figure)
            paths.append(os.path.join(PICTURES, name + ".svg"))
            with io.open(paths[-1], "w", encoding="utf-8") as file:
                file.write(finished(stream.getvalue(), results.digest))
    return paths
