"""The layout of a `ShareableList` in its segment.

CPython has had two layouts. A list has the layout of the running interpreter's own
``multiprocessing.shared_memory``, so that each can open the lists of the other. All numbers are native
8-byte integers (``q``); N is the number of items; the room of each item is a multiple of 8 bytes:

=======================  ========================  ========================
field                    3.8 (also on 3.6, 3.7)    3.9 and later
=======================  ========================  ========================
number of items          ``q``                     ``q``
table                    N rooms                   N + 1 offsets from the
                                                   data's start, first 0
data                     sum of the rooms          last offset
formats                  N times 8 bytes           N times 8 bytes
codes                    N times 1 byte            N times 1 byte
=======================  ========================  ========================

A format is the item's `struct` format, padded with NUL; a code is the type that these bytes stand
for (see `CODE`). The fields follow each other without gaps.
"""

import struct
import sys
from itertools import accumulate
from operator import sub

WORD = 8
_COUNT = struct.Struct("q")

# The types that fill one word: how a value is packed, and its format, padded.
_WORDS = {int: "q", float: "d", bool: "xxxxxxx?", type(None): "xxxxxx?x"}
FIXED = {kind: struct.Struct(form) for kind, form in _WORDS.items()}
FORMAT = {kind: form.encode().ljust(WORD, b"\0") for kind, form in _WORDS.items()}

# What the bytes of an item stand for: the value itself, text, bytes, or None.
CODE = {int: 0, float: 0, bool: 0, str: 1, bytes: 2, type(None): 3}

# A string's format, "%ds", must fit the 8 bytes that the layout has for it.
_LARGEST_ROOM = 9999999 // WORD * WORD

CUMULATIVE = sys.version_info >= (3, 9)


# The kinds of numpy's dtypes whose scalars have a value of these types.
_NUMPY_KINDS = "biufSU"


def _python_value(value):
    """Return the Python value of a scalar of numpy; any other object as it is."""
    # (Without an import: only a program that has imported numpy has a scalar of it.)
    generic = getattr(sys.modules.get("numpy"), "generic", ())
    if not isinstance(value, generic):
        return value
    found = value.item() if value.dtype.kind in _NUMPY_KINDS else value
    if type(found) not in CODE:
        raise TypeError(
            "{!r} of type numpy.{} has no Python value that a ShareableList holds, which are "
            "int, float, bool, str, bytes and None: convert it".format(
                value, type(value).__name__
            )
        )
    return found


def pack_item(value, room=None):
    """Translate an item.

    Parameters
    ----------
    value : int, float, bool, str, bytes or None
        The item; a scalar of numpy stands for its Python value.
    room : int, optional
        The number of bytes for it. By default one word; for a string of n characters n + 1 bytes,
        rounded up to whole words, or more if its UTF-8 encoding is longer.

    Returns
    -------
    form : bytes
        Its format, padded.
    code : int
        Its code.
    packed : bytes
        Its value; a string fills its room.

    Raises
    ------
    KeyError
        It is of another type, which is the argument of the exception.
    TypeError
        It is a scalar of numpy without such a value.
    struct.error
        An int does not fit 64 bits.
    ValueError
        A string does not fit its room, or is too long for the layout.
    """
    if not isinstance(value, (str, bytes)):
        value = _python_value(value)
        kind = type(value)
        return FORMAT[kind], CODE[kind], FIXED[kind].pack(value)
    encoded = value.encode("utf-8") if isinstance(value, str) else value
    if room is None:
        # (CPython counts characters; that is kept where it is enough.)
        room = WORD * max(len(value) // WORD + 1, (len(encoded) + WORD - 1) // WORD)
        if room > _LARGEST_ROOM:
            raise ValueError(
                "a string of {:,} bytes is too long for a ShareableList, whose items "
                "have at most {:,}: put it into a SharedMemory".format(
                    len(encoded), _LARGEST_ROOM - 1
                )
            )
    elif len(encoded) > room:
        raise ValueError("bytes/str item exceeds available storage")
    code = CODE[str if isinstance(value, str) else bytes]
    form = (b"%ds" % room).ljust(WORD, b"\0")
    return form, code, encoded.ljust(room, b"\0")


def pack(items, cumulative=CUMULATIVE):
    """Lay out a list.

    Parameters
    ----------
    items : list
        Objects whose type is exactly int, float, bool, str, bytes or NoneType, and scalars of numpy.
    cumulative : bool
        Whether the table holds offsets (3.9's layout) or rooms (3.8's).

    Returns
    -------
    bytes
        The content of the list's segment.

    Raises
    ------
    KeyError
        An item is of another type, which is the exception's argument.
    TypeError
        An item is a scalar of numpy without such a value.
    struct.error
        An int does not fit 64 bits.
    ValueError
        A string is too long for the layout.
    """
    data, formats, codes = [], [], []
    for item in items:
        kind = type(item)
        if kind not in CODE:
            item = _python_value(item)
            kind = type(item)
        if kind in FIXED:
            data.append(FIXED[kind].pack(item))
            formats.append(FORMAT[kind])
            codes.append(CODE[kind])
        elif kind in CODE:
            form, code, packed = pack_item(item)
            data.append(packed)
            formats.append(form)
            codes.append(code)
        else:
            raise KeyError(kind)
    table = list(map(len, data))
    if cumulative:
        table = list(accumulate([0] + table))
    head = struct.pack("{}q".format(1 + len(table)), len(data), *table)
    return b"".join([head] + data + formats + [bytes(codes)])


def count(buffer):
    """Return the number of items of the list in `buffer`."""
    return _COUNT.unpack_from(buffer)[0]


def offsets(buffer, cumulative=CUMULATIVE):
    """Return the offsets of the items of a list.

    Parameters
    ----------
    buffer : memoryview
        The segment's bytes. It may be longer than the list.
    cumulative : bool
        As for `pack`.

    Returns
    -------
    list of int
        The offset of each item in `buffer`, then that of the formats.

    Raises
    ------
    ValueError
        The buffer is no list of this layout.
    """
    size = len(buffer)
    number = count(buffer) if size >= WORD else -1
    rows = number + 1 if cumulative else number
    start = WORD * (1 + rows)
    if number < 0 or start > size:
        raise ValueError("no ShareableList: it cannot hold a table of its items")
    table = struct.unpack_from("{}q".format(rows), buffer, WORD)
    if cumulative:
        ends = table
        rooms = tuple(map(sub, table[1:], table))
    else:
        ends = (0,) + tuple(accumulate(table))
        rooms = table
    # No table is valid in both layouts: one starts with 0, which is no room in the other.
    sound = ends[0] == 0
    if rooms:
        sound = sound and min(rooms) >= WORD and not any(map((WORD - 1).__and__, rooms))
    if not sound or start + ends[-1] + (WORD + 1) * number > size:
        raise ValueError(
            "no ShareableList of this version of Python (3.9 changed the layout): its "
            "items would lie outside of the segment or of each other"
        )
    return list(map(start.__add__, ends))
