"""What the command prints: tables, numbers with units, bars, JSON.

Whoever reads standard output may stop at any time (``| head``). The command goes on, since cleaning
must not stop halfway and the exit code has to be right; only what it prints goes nowhere from then on.
At a terminal tables are drawn by `rich` if it is installed; everywhere else they are plain text, in
which no column is cut, so that names can be taken from it.
"""

import json
import os
import shutil
import sys
import textwrap
from contextlib import suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional, Sequence

_closed = False
# Whether an output that cannot be written ends the command.
_must_write = True


def go_on_unwritten() -> None:
    """Let the command go on if standard output cannot be written from now on: it is told once, to
    standard error. For a report of what was done: the exit code is that of the work."""
    global _must_write
    _must_write = False


def write(text: str) -> bool:
    """Write to standard output, at once; tell whether anybody can still read it.

    Characters that the output's encoding lacks are written as escapes.

    Raises
    ------
    OSError
        It cannot be written, such as on a full disk; not after `go_on_unwritten`.
    """
    global _closed
    if _closed or sys.stdout is None:
        return False
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _closed = True
        discard()
    except OSError as error:
        if _must_write:
            raise
        _closed = True
        discard()
        complain("shared-numpy: the report cannot be written: {}".format(error))
    return not _closed


def discard() -> None:
    """Lead standard output nowhere: else the interpreter writes what is left at its exit, and
    complains."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def line(text: str = "") -> bool:
    """Write one line; as `write`.

    Line feeds at its start are empty lines before it. Control characters in the rest are written as
    escapes: in the name of a file, which may be anybody's, they would move the cursor.
    """
    rest = text.lstrip("\n")
    return write("\n" * (len(text) - len(rest)) + visible(rest) + "\n")


def complain(text: str) -> None:
    """Write a line to standard error, which may be closed, too."""
    if sys.stderr is not None:
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):
            text = "\n".join(map(visible, text.split("\n"))) + "\n"
            sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding))
            sys.stderr.flush()


def as_json(value: "Any") -> bool:
    """Write a value as JSON; as `write`."""
    return write(json.dumps(value, indent=2, ensure_ascii=True) + "\n")


def paragraph(text: str, indent: str = "") -> bool:
    """Write a text in lines that fit the terminal; as `line`."""
    width = max(40, min(100, shutil.get_terminal_size((80, 24)).columns))
    lines = textwrap.wrap(
        visible(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return write("\n".join(lines) + "\n")


def table(
    titles: "Sequence[str]",
    rows: "Iterable[Sequence[str]]",
    right: "Sequence[str]" = (),
    styles: "Optional[Sequence[Optional[str]]]" = None,
) -> bool:
    """Write a table; as `write`.

    Parameters
    ----------
    titles : sequence of str
        Those of the columns.
    rows : iterable of sequences of str
        The cells of each row, as many as there are titles.
    right : sequence of str
        The titles of columns whose cells are aligned to the right.
    styles : sequence of str or None, optional
        For each row a style of `rich` ("red", "dim"), or None.
    """
    rows = [[visible(cell) for cell in row] for row in rows]
    if _is_terminal():
        drawn = _drawn_by_rich(titles, rows, right, styles or [None] * len(rows))
        if drawn is not None:
            return write(drawn)
    widths = [max(map(len, column)) for column in zip(titles, *rows)]
    text = ""
    for row in [titles] + rows:
        cells = [
            cell.rjust(width) if title in right else cell.ljust(width)
            for title, cell, width in zip(titles, row, widths)
        ]
        text += "  ".join(cells).rstrip() + "\n"
    return write(text)


def visible(text: str) -> str:
    """Return a text with escapes for what is not printable: it can neither move a terminal's cursor
    nor look like another line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_terminal():
    with suppress(AttributeError, ValueError):
        return sys.stdout.isatty()
    return False


def _drawn_by_rich(titles, rows, right, styles):
    """Return a table as `rich` draws it, or None if it is not installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return None
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        drawn.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row, style in zip(rows, styles):
        # (As `Text`: a name with brackets would be taken for markup.)
        drawn.add_row(*[Text(cell) for cell in row], style=style)
    console = Console()
    with console.capture() as capture:
        console.print(drawn)
    return capture.get()


_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(nbytes: int) -> str:
    """Return a number of bytes with its unit: "1.5 MiB", "64 MiB"."""
    number, unit = float(nbytes), 0
    while round(number, 1) >= 1024 and unit < len(_UNITS) - 1:
        number /= 1024
        unit += 1
    if unit == 0:
        return "{} B".format(nbytes)
    text = "{:.{}f}".format(number, 0 if number >= 99.95 else 1)
    return "{} {}".format(text[:-2] if text.endswith(".0") else text, _UNITS[unit])


def duration(seconds: float) -> str:
    """Return a duration with its unit: "7 s", "12 min", "3 h", "40 d"."""
    if seconds < 0:
        return "0 s"
    for unit, length, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds / length < most:
            return "{:.0f} {}".format(seconds // length, unit)
    return "{:.0f} d".format(seconds // 86400)


def time(seconds: float) -> str:
    """Return a short time with its unit: "9.1 µs", "35 ms"."""
    for unit, length in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= length:
            break
    else:
        unit, length = "ns", 1e-9
    number = seconds / length
    return "{:.{}f} {}".format(number, 0 if number >= 9.95 else 1, unit)


_EIGHTHS = " ▏▎▍▌▋▊▉"


def bar(fraction: float, width: int) -> str:
    """Return a bar of block characters, of "#" where the output's encoding lacks these.

    Parameters
    ----------
    fraction : float
        Which part of the width it fills, from 0 to 1.
    width : int
        The whole, in characters.
    """
    eighths = int(round(max(0.0, min(1.0, fraction)) * width * 8))
    if fraction > 0:
        eighths = max(eighths, 1)
    if not can_write("█▏"):
        return "#" * max(eighths // 8, 1 if fraction > 0 else 0)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def can_write(text: str) -> bool:
    """Tell whether standard output's encoding has these characters."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
