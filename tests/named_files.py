"""Files of named arrays, taken apart and put together in ways in which no program makes them."""

import struct
import zlib

import numpy as np

FOOTER = struct.Struct("=8sIIQQQQIIccc5s16s4sI")
FIELDS = "magic version dimensions data bytes size itemsize descr details order kind byteorder"
FIELDS = (FIELDS + " zeros uuid more_zeros checksum").split()


def path_of(name):
    return "/dev/shm/" + name


def content_of(name):
    with open(path_of(name), "rb") as file:
        return file.read()


def put(name, content):
    with open(path_of(name), "wb") as file:
        file.write(content)


def parts_of(content):
    """Return the footer's fields, and the tail's parts before it."""
    footer = dict(zip(FIELDS, FOOTER.unpack(content[-FOOTER.size :])))
    at = -(-(footer["data"] + footer["bytes"]) // 64) * 64
    tail = content[at : -FOOTER.size]
    shape = struct.unpack_from("={}Q".format(footer["dimensions"]), tail)
    descr, details = tail[8 * len(shape) :].rstrip(b"\0").split(b"\0")
    assert (len(descr), len(details)) == (footer["descr"], footer["details"])
    return footer, content[:at], shape, descr, details


def header(descr, order, shape):
    """Return the beginning of a file as numpy writes it."""
    text = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format(descr, order == "F", shape)
    return b"\x93NUMPY\1\0" + struct.pack("<H", 4086) + text.encode().ljust(4085) + b"\n"


def forged(content, new_shape=None, new_descr=None, new_details=None, head=None, **changed):
    """Return a file with its head or parts of its tail changed, all lengths and checksums made to
    fit these, and then fields of its footer changed."""
    footer, before, shape, descr, details = parts_of(content)
    shape = shape if new_shape is None else new_shape
    descr = descr if new_descr is None else new_descr
    details = details if new_details is None else new_details
    before = before if head is None else head + before[4096:]
    tail = struct.pack("={}Q".format(len(shape)), *shape) + descr + b"\0" + details + b"\0"
    tail += bytes(-len(tail) % 8)
    footer.update(dimensions=len(shape), descr=len(descr), details=len(details))
    footer["size"] = len(before) + len(tail) + FOOTER.size
    footer.update(changed)
    tail += FOOTER.pack(*[footer[each] for each in FIELDS])[:-4]
    return before + tail + struct.pack("=I", changed.get("checksum", zlib.crc32(tail)))


def damaged(content):
    """Yield the content of a file in many lengths, and with single bits changed, but not those
    of its items."""
    before = parts_of(content)[1]
    lengths = [0, 1, 63, 64, 87, 88, 89, 4095, 4096] + list(range(4096, len(content), 5))
    for length in lengths + [len(content) - 1]:
        yield content[:length]
    for more in (b"\0", b"x", bytes(64), bytes(4096), content, content[-88:]):
        yield content + more
    rng = np.random.RandomState(5)
    places = list(range(0, 4096, 23)) + list(range(200)) + list(range(len(before), len(content)))
    for at in places:
        changed = bytearray(content)
        changed[at] ^= 1 << rng.randint(8)
        yield bytes(changed)


def lying(content):
    """Yield the file of an array of ``(2, 3)`` float64 with a tail that is not true, though its
    checksum is right."""
    footer = parts_of(content)[0]
    for field in ("version", "dimensions", "data", "bytes", "size", "itemsize", "descr", "details"):
        unsigned = 32 if field in ("version", "dimensions", "descr", "details") else 64
        right = footer[field]
        for wrong in (
            [0, 1, right - 1, right + 1, right + 64, right + 4096, right + 8192]
            + [1 << 31, (1 << unsigned) - 1, (1 << unsigned) - right, (1 << unsigned - 1)]
            + [(1 << unsigned) - 64, (1 << unsigned) - 4096, (1 << unsigned) - 4192]
        ):
            if wrong != right and 0 <= wrong < 1 << unsigned:
                yield forged(content, **{field: wrong})
    for field, wrong in [
        ("magic", b"snpNAMEd"), ("order", b"F"), ("order", b"K"), ("order", b"\xff"),
        ("kind", b"i"), ("byteorder", b">"), ("byteorder", b"|"), ("zeros", b"\0\0\0\0\1"),
        ("more_zeros", b"\1\0\0\0"), ("checksum", 1),
    ]:  # fmt: skip
        yield forged(content, **{field: wrong})
    for shape in [
        (3, 2), (6,), (2, 3, 1), (2, 3, 0), (), (2, 4), (1 << 63, 3), ((1 << 64) - 2, 3),
        (2, 3, 1 << 62), (1 << 32, 1 << 32), (0, 1 << 63), (1,) * 65 + (2, 3), (2, 3 + (1 << 61)),
    ]:  # fmt: skip
        yield forged(content, new_shape=shape)
    for descr in (b"", b"'<i8'", b"'>f8'", b"'<f8", b"'<f8' ", b"\"<f8\"", b"'<f8'\0"):
        yield forged(content, new_descr=descr)
    # Where the beginning tells the same lie.
    for descr in [
        "'<f4'", "'<f16'", "'<i8'", "'|f8'", "'f8'", "'<f8", "<f8", "'<f08 '", "'<f8[us]'", "'<O8'",
        "'<f'", "'<f99999999999999999999'", "'<U2305843009213693953'", "'<f8' ", "", " ", "7", "None",
        "[", "[]", "[('a', '<f4')]", "[('a', '<f8')]", "[('a', '<f8'), ]", "[('a', '<f8'),]",
        "['<f8']", "[('a')]", "[('a', '<f8']", "('<f8', (1,))", "[('a', '<f8', ())]", "[('a, '<f8')]",
        "[('a', '<f4', (3,))]", "[('a', '<f4', (2))]", "[('a', '<f4', (2, 1,))]", "[('a\\', '<f8')]",
        "[('a', '<f8', (4294967296, 4294967296))]", "[('a', '<f8'), ('b', '|V18446744073709551616')]",
        "[('a', " * 500 + "'<f8'" + ")]" * 500, "[" * 3000,
    ]:  # fmt: skip
        head = header(descr, "C", (2, 3))[:4096]
        for kind, byteorder in ((b"f", b"<"), (b"V", b"|")):
            lie = {"kind": kind, "byteorder": byteorder}
            if descr != "[('a', '<f8')]" or kind == b"f":
                yield forged(content, new_descr=descr.encode(), head=head, **lie)
    for shape, itemsize, items in [((2, 3), 4, 24), ((2, 6), 8, 48), ((2, 6), 4, 48), ((), 48, 48)]:
        head = header("'<f8'", "C", shape)
        yield forged(content, new_shape=shape, head=head, itemsize=itemsize, bytes=items)
    yield forged(content, head=header("'<f8'", "F", (2, 3)))
    yield forged(content, head=header("'<f8'", "C", (2, 3)).replace(b"}  ", b"} #"))
    yield forged(content, head=b"snpNAMED\2".ljust(4096, b"\0"))
    yield forged(content, new_descr=b"", head=b"snpNAMED\2".ljust(4096, b"\0"))


# Of as many bytes, and different.
ALIKE = [
    ((2, 3), "<f8", "C"), ((2, 3), "<f8", "F"), ((3, 2), "<f8", "C"), ((6,), "<f8", "C"),
    ((2, 3), ">f8", "C"), ((2, 3), "<i8", "C"), ((2, 3), "<M8[s]", "C"), ((2, 6), "<f4", "C"),
    ((2, 3), [("a", "<f8")], "C"), ((2, 3), [("b", "<f8")], "C"), ((2, 3), [("a", "<i8")], "C"),
    ((2, 3), {"names": ["a", "b"], "formats": ["<f4"] * 2, "offsets": [4, 0]}, "C"),
]  # fmt: skip


def crossed(files):
    """Yield the beginnings of files with the ends of others."""
    for i, one in enumerate(files):
        for j, other in enumerate(files):
            if i != j:
                yield one[:4096] + other[4096:]
