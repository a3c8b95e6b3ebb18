"""The layout of a named array's file.

The file begins as the ``.npy`` files of numpy, so that ``np.load(path, mmap_mode="r")`` and programs
in other languages read it. This package's own description follows the items, where numpy does not
look::

    byte 0      header       numpy's format 1.0: 'descr', 'fortran_order' and 'shape', then
                             spaces; of 4,096 bytes, or of 8,192 where the dtype needs that
         data   items
                zeros        up to a multiple of 64
         tail   shape        u64 for each dimension
                descr        the header's 'descr' as text, and a zero byte
                details      JSON: dtype, owner; and a zero byte
                zeros        up to a multiple of 8
    and 88 bytes before the end of the file:
             0  magic        8 bytes   "snpNAMED"
             8  version      u32       2
            12  dimensions   u32
            16  data         u64       where the items start
            24  bytes        u64       of all items
            32  size         u64       of the file
            40  itemsize     u64
            48  descr        u32       its length
            52  details      u32       their length
            56  order        1 byte    "C" or "F"
            57  kind         1 byte    as numpy's dtype.kind; "V" for records
            58  byte order   1 byte    "<", ">" or "|"
            59  zeros        5 bytes
            64  uuid         16 bytes  differs from that of other arrays of the same name
            80  zeros        4 bytes
            84  checksum     u32       CRC-32 of all from the tail's beginning up to here

Numbers are in the machine's byte order. Each fact has one authoritative place; that of the dtype is
the details. All other bytes follow from these facts, and a reader refuses a file in which they are
not what this module would write. ``include/shared_numpy.h`` reads the same without JSON.

A dtype that numpy's format cannot express has an empty descr, and the file begins with "snpNAMED",
the version and zeros instead of a header, so that `np.load` refuses it. This is so for

* fields that overlap, or that are not in the order of their offsets,
* fields with an empty name, or with a title that is no text,
* headers of more than 8,192 bytes (numpy refuses more than 10,000).

numpy's format does not express ``align=True`` or `np.record` either. They do not change the places
of the items, so these dtypes have a header.

Files of version 1 begin with a header of this package, and end with the items::

    byte 0     magic     8 bytes   "snpNAMED"
         8     version   u32       1
        12     length    u32       of the description
        16     data      u64       where the items start, a multiple of 4096
        24     size      u64       of the file
        32     uuid      16 bytes
        48     checksum  u32       CRC-32 of the description
        64     description         JSON: dtype, shape, order
"""

import collections
import json
import os
import re
import struct
import zlib

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Tuple

__all__ = ["Layout", "lay_out", "read"]

_MAGIC = b"snpNAMED"
_VERSION = 2
_FOOTER = struct.Struct("=8sIIQQQQIIccc5x16s4xI")
_CHECKSUM = 4

# Items start at one of these offsets: multiples of the smallest page, in headers that numpy reads.
_STARTS = (4096, 8192)
_ALIGNMENT = 64
_NPY = b"\x93NUMPY\x01\x00"
_NPY_LENGTH = struct.Struct("<H")

# The longest tail that is read. (No real dtype needs more.)
_LONGEST_TAIL = 1 << 24
_MOST_DIMENSIONS = 64
# Arrays have fewer bytes, as in numpy.
_TOO_LARGE = 1 << 63

_SIMPLE = re.compile(r"[<>|][?a-zA-Z][0-9]*(\[[0-9]*[a-zA-Z]+\])?\Z")

Layout = collections.namedtuple("Layout", "uuid data size dtype shape order")
Layout.__doc__ = "The description of an array in its file: ``uuid``, and the arguments of `lay_out`."


def lay_out(
    dtype: "np.dtype[Any]", shape: "Tuple[int, ...]", order: str
) -> "Tuple[Layout, bytes, bytes]":
    """Return the layout of a new array, and the bytes before and behind its items.

    Parameters
    ----------
    dtype : numpy.dtype
        Without references to objects, and no sub-array.
    shape : tuple of int
        None of them negative.
    order : {"C", "F"}
        Whether the last or the first index varies fastest.

    Returns
    -------
    layout : Layout
        With the dtype that a reader gets: `dtype` without metadata.
    head : bytes
        The beginning of the file.
    tail : bytes
        Its end.

    Raises
    ------
    TypeError
        A reader would get another dtype.
    ValueError
        The array, or the description of its dtype, is too large.
    """
    details, restored = b"", None
    try:
        details = json.dumps({"owner": None, "dtype": _describe_dtype(dtype)}).encode()
        restored = _dtype_of(json.loads(details.decode())["dtype"])
    except (TypeError, ValueError):
        pass
    # (A dtype of an integer with fields for its parts equals that integer's dtype.)
    if restored != dtype or restored.kind != dtype.kind:
        raise TypeError(
            "{!r} means nothing to a program that knows numpy alone: make an array of unsigned "
            "integers or of 'V{}', and take a view of it".format(dtype, dtype.itemsize)
        )
    return _lay_out(restored, shape, order, os.urandom(16), details)


def read(pread: "Callable[[int, int], bytes]", size: int) -> Layout:
    """Return the description in a file, checked.

    Parameters
    ----------
    pread : callable
        Called with a number of bytes and an offset; returns fewer bytes only at the file's end.
    size : int
        The size of the file in bytes.

    Raises
    ------
    ValueError
        It is not the file of a named array, or a damaged one.
    """
    try:
        start = pread(_HEAD_1.size, 0)
        if start[:8] == _MAGIC and start[8:12] == struct.pack("=I", 1):
            return _read_1(pread, size)
        return _read_2(pread, size)
    except (KeyError, TypeError, OverflowError, RecursionError, struct.error) as error:
        raise ValueError("its description cannot be: {}".format(error)) from None


def _read_2(pread, size):
    footer = pread(_FOOTER.size, size - _FOOTER.size) if size >= _FOOTER.size else b""
    if footer[:8] != _MAGIC:
        raise ValueError("it does not end like one")
    fields = _FOOTER.unpack(footer)
    _, version, dimensions, data, items, said, _, descr, length, order, _, _, number, crc = fields
    if version != _VERSION:
        raise ValueError("it is of version {}, this package knows 1 and 2".format(version))
    if said != size:
        raise ValueError("it has {:,} bytes and should have {:,}".format(size, said))
    at = _round_up(data + items, _ALIGNMENT)
    if not _FOOTER.size <= size - at <= _LONGEST_TAIL:
        raise ValueError("its description has no room")
    tail = pread(size - at, at)
    if zlib.crc32(tail[:-_CHECKSUM]) != crc:
        raise ValueError("its description is damaged")
    if 8 * dimensions + descr + length + 2 > len(tail) - _FOOTER.size:
        raise ValueError("its description has no room")
    shape = struct.unpack_from("={}Q".format(dimensions), tail)
    details = tail[8 * dimensions + descr + 1 :][:length]
    described = json.loads(details.decode())
    owner = described["owner"]
    if owner is not None and not isinstance(owner, str):
        raise ValueError("its owner cannot be: {!r}".format(owner))
    dtype = _dtype_of(described["dtype"])
    layout, head, right = _lay_out(dtype, shape, order.decode(), number, details)
    if tail != right or layout.size != size:
        raise ValueError("its description contradicts itself")
    if pread(data, 0) != head:
        raise ValueError("its beginning and its end contradict each other")
    return layout


def _lay_out(dtype, shape, order, number, details):
    """Return the layout, head and tail of an array with these details."""
    if dtype.hasobject or dtype.subdtype is not None:
        raise ValueError("there are no arrays of {!r}".format(dtype))
    if order not in ("C", "F"):
        raise ValueError("there is no order {!r}".format(order))
    if len(shape) > _MOST_DIMENSIONS:
        raise ValueError("{} dimensions are too many".format(len(shape)))
    # (As numpy counts: lengths of 0 do not permit other lengths without limit.)
    if max(dtype.itemsize, 1) * _count(filter(None, shape)) >= _TOO_LARGE:
        raise ValueError(
            "an array of shape {} with items of {} bytes is too large".format(shape, dtype.itemsize)
        )
    descr, head = _head(dtype, shape, order)
    data = len(head)
    items = dtype.itemsize * _count(shape)
    tail = struct.pack("={}Q".format(len(shape)), *shape)
    tail += descr + b"\0" + details + b"\0"
    tail = tail.ljust(_round_up(len(tail), 8), b"\0")
    size = _round_up(data + items, _ALIGNMENT) + len(tail) + _FOOTER.size
    if size >= _TOO_LARGE or len(tail) + _FOOTER.size > _LONGEST_TAIL:
        raise ValueError("an array of shape {} and its description are too large".format(shape))
    kind, byteorder = dtype.str[1].encode(), dtype.str[0].encode()
    tail += _FOOTER.pack(
        _MAGIC, _VERSION, len(shape), data, items, size, dtype.itemsize,
        len(descr), len(details), order.encode(), kind, byteorder, number, 0,
    )[:-_CHECKSUM]  # fmt: skip
    tail += struct.pack("=I", zlib.crc32(tail))
    return Layout(number, data, size, dtype, shape, order), head, tail


def _head(dtype, shape, order):
    """Return the text of a dtype in numpy's header, and that header; b"" and this package's
    replacement if numpy's format cannot express the dtype."""
    descr = _descr_of(dtype)
    if descr is not None:
        text = ascii(descr)
        header = "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}".format(
            text, order == "F", shape
        ).encode()
        for start in _STARTS:
            length = start - len(_NPY) - _NPY_LENGTH.size
            if len(header) < length:
                padded = header.ljust(length - 1) + b"\n"
                return text.encode(), _NPY + _NPY_LENGTH.pack(length) + padded
    return b"", (_MAGIC + struct.pack("=I", _VERSION)).ljust(_STARTS[0], b"\0")


def _descr_of(dtype):
    """Return the 'descr' of a dtype for numpy's header; None if that cannot express it."""
    if dtype.subdtype is not None:
        base, lengths = dtype.subdtype
        descr = _descr_of(base)
        return None if descr is None else (descr, lengths)
    if dtype.names is None:
        return dtype.str
    fields, end = [], 0
    for name in dtype.names:
        field, offset = dtype.fields[name][:2]
        title = dtype.fields[name][2:]
        base, lengths = field.subdtype or (field, None)
        descr = _descr_of(base)
        is_strange = not name or (title and not isinstance(title[0], str))
        if descr is None or is_strange or offset < end:
            return None
        if offset > end:
            fields.append(("", "|V{}".format(offset - end)))
        fields.append(((title[0], name) if title else name, descr))
        if lengths is not None:
            fields[-1] += (lengths,)
        end = offset + field.itemsize
    if dtype.itemsize > end:
        fields.append(("", "|V{}".format(dtype.itemsize - end)))
    return fields


def _describe_dtype(dtype):
    """Return a description of a dtype for JSON; `_dtype_of` is the inverse."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return {"base": _describe_dtype(base), "shape": list(shape)}
    if dtype.names is None:
        return dtype.str
    fields = [dtype.fields[name] for name in dtype.names]
    return {
        "names": list(dtype.names),
        "formats": [_describe_dtype(field[0]) for field in fields],
        "offsets": [field[1] for field in fields],
        "titles": [field[2] if len(field) > 2 else None for field in fields],
        "itemsize": dtype.itemsize,
        "aligned": dtype.isalignedstruct,
        "record": issubclass(dtype.type, np.record),
    }


def _dtype_of(description):
    """Return the dtype of a description; a wrong description raises any of several exceptions."""
    if isinstance(description, str):
        if not _SIMPLE.match(description):
            raise ValueError("there is no dtype {!r}".format(description))
        return np.dtype(description)
    if "base" in description:
        base = _dtype_of(description["base"])
        return np.dtype((base, tuple(description["shape"])))
    fields = {key: description[key] for key in ("names", "offsets", "itemsize", "aligned")}
    fields["formats"] = [_dtype_of(each) for each in description["formats"]]
    if not fields["names"]:
        fields["aligned"] = False  # numpy before 1.20 divides by the largest alignment: none.
    if any(title is not None for title in description["titles"]):
        fields["titles"] = description["titles"]
    dtype = np.dtype(fields)
    return np.dtype((np.record, dtype)) if description["record"] else dtype


def _count(shape):
    count = 1
    for length in shape:
        count *= length
    return count


def _round_up(size, unit):
    return -(-size // unit) * unit


# Version 1.

_HEAD_1 = struct.Struct("=8sIIQQ16sI")
_DESCRIPTION_1 = 64


def _read_1(pread, size):
    start = pread(_DESCRIPTION_1, 0)
    if len(start) < _DESCRIPTION_1 or any(start[_HEAD_1.size :]):
        raise ValueError("it does not begin like one")
    _, _, length, data, said, number, checksum = _HEAD_1.unpack_from(start)
    description = pread(min(length, size), _DESCRIPTION_1)
    if len(description) != length or zlib.crc32(description) != checksum:
        raise ValueError("its description is damaged")
    described = json.loads(description.decode())
    dtype = _dtype_of(described["dtype"])
    shape = tuple(described["shape"])
    order = described["order"]
    right = (
        not dtype.hasobject
        and all(type(each) is int and each >= 0 for each in shape)
        and order in ("C", "F")
        and data == _round_up(_DESCRIPTION_1 + length, _STARTS[0])
        and said == data + dtype.itemsize * _count(shape)
    )
    if not right:
        raise ValueError("its description cannot be")
    if said != size:
        raise ValueError("it has {:,} bytes and should have {:,}".format(size, said))
    return Layout(number, data, size, dtype, shape, order)
