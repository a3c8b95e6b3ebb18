"""How arrays travel between processes.

An array that lies in shared memory goes *by reference*: what is pickled is a
handle of its block and where it lies in it. `ForkingPickler`, which the channels of
`multiprocessing` use and nothing else, learns it here for each class; it matches
exact classes, and `numpy.ndarray` itself it pickles by value unless
`integrations.multiprocessing.register` was called.

The channels of this package pickle with `dumps`. It also *moves* plain arrays
through shared memory, if they are large enough for that to be faster: they are
copied once, into a block that becomes the receiver's own.
"""

import collections
import copyreg
import io
import os
import pickle
import weakref
from functools import partial
from importlib import import_module
from multiprocessing import context, process, util
from multiprocessing.reduction import ForkingPickler
from types import ModuleType

import numpy as np

from . import _core, _reduce, _tree  # noqa: F401 (what an arena asks for, imported early)
from .errors import ArenaFullError, ForeignHandleError

# It looks for modules of numpy, now rather than at the first array: a fork that another
# thread makes waits for imports of this package, and would not wait for that.
_core.array_maker()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Tuple

__all__ = ["register_type"]

# Plain arrays from so many bytes on are moved through shared memory: below, to
# pickle them is as fast (benchmarks/channels.py --threshold).
THRESHOLD = 16384

# How plain arrays of a message go: those of `threshold` bytes are moved through shared
# memory, and stay there, or are `copied` out of it where they arrive. Instead of one that
# is `known`, by its id, its copy that is shared already goes, with the like of its views;
# of one that is `given` away, by its id, the block that it lies in. Huge ones go once to
# all receivers, if there is a `Crowd` of them.
Plain = collections.namedtuple("Plain", "threshold, copied, known, given, crowd")

NOTHING = {}  # type: Dict[int, Any]

MOVED = Plain(THRESHOLD, False, NOTHING, NOTHING, None)

# From so many bytes on the receivers of one array share what they do not change
# (benchmarks/executors.py): to map it costs them more than to have a copy in warm memory.
HUGE = 1 << 29

_PAGE = _core.PAGE_SIZE

# The last that every interpreter from 3.6 on can read.
PROTOCOL = 4


def block_of(array: "Any") -> "Optional[_core.Block]":
    """Return the block in which an array lies, or None."""
    memory = _base_of(array)
    return memory if type(memory) is _core.Block else None


def memory_of(array: "Any") -> "Any":
    """Return the shared memory in which an array lies: a block, or what
    `register_memory` was told of. None if it lies in none, or in a block that is this
    process's own."""
    memory = _base_of(array)
    return None if type(memory) is _core.Block and memory.private else memory


def _base_of(array):
    """Return the shared memory at the end of an array's bases, or None."""
    while array is not None and type(array) not in _kinds:
        # numpy's stride tricks put an object of their own in between, and
        # `memoryview` has another word for it.
        array = array.obj if type(array) is memoryview else getattr(array, "base", None)
    return array


def repeats(shape: "Tuple[int, ...]", dtype: "Any", strides: "Tuple[int, ...]") -> "List[bool]":
    """Tell along which dimensions all items are one (stride 0)."""
    holds = bool(dtype.itemsize) and 0 not in shape
    return [holds and stride == 0 and length > 1 for length, stride in zip(shape, strides)]


def allocate(
    shape: "Tuple[int, ...]",
    dtype: "Any",
    strides: "Tuple[int, ...]",
    cls: "Any",
    repeated: "Optional[List[bool]]" = None,
    pages: bool = False,
) -> "Any":
    """Return an array whose items lie in the order of `strides`, without gaps, and once
    along the dimensions that are `repeated`; in whole `pages` of their own."""
    repeated = repeated or [False] * len(shape)
    order = sorted(range(len(shape)), key=lambda axis: (-abs(strides[axis]), axis))
    packed, size = [0] * len(shape), dtype.itemsize
    for axis in reversed(order):
        if not repeated[axis]:
            packed[axis] = size
            size *= max(shape[axis], 1)
    size = 0 if 0 in shape else size
    block = block_of(_core.empty(size + (2 * _PAGE if pages else 0), "u1"))
    return block.array(shape, dtype, packed, -block.address % _PAGE if pages else 0, cls)


def copy_to_shared(array: "Any", cls: "Any") -> "Any":
    """Return a copy in a new block: items in the order in which they lie, no gaps, and
    what is repeated once."""
    made = _core.copy(array, cls)
    if made is not None:
        return made
    repeated = repeats(array.shape, array.dtype, array.strides)
    made = allocate(array.shape, array.dtype, array.strides, cls, repeated)
    _fill(made, array, repeated)
    return made


def _fill(made, array, repeated):
    once = tuple(slice(0, 1) if each else slice(None) for each in repeated)
    made[once] = array[once]


def _copy_to_move(array):
    """Return such a copy in whole pages; what repeats and can be written to expanded."""
    made = _core.copy(array, None, True)
    if made is None:
        repeated = repeats(array.shape, array.dtype, array.strides)
        if array.flags.writeable:
            repeated = [False] * len(repeated)
        made = allocate(
            array.shape, array.dtype, array.strides, np.ndarray, repeated, pages=True
        )
        _fill(made, array, repeated)
    if not array.flags.writeable:
        made.flags.writeable = False
    return made


# By reference.


def send(block: "_core.Block", handles: "Optional[List[bytes]]" = None) -> "_core.Sending":
    """Make a handle of a block for what is being pickled.

    Parameters
    ----------
    block : Block
        What is sent.
    handles : list of bytes, optional
        The handle is appended to it.

    Returns
    -------
    Sending
        One for a process that is being made ends with that, should it be killed before
        it has read what it was given.

    Raises
    ------
    ForeignHandleError
        The block is another user's, and is for a process that is being made.
    """
    child = context.get_spawning_popen()
    if child is not None and not block.is_of_this_user:
        raise ForeignHandleError(
            "the arena {} was made before this program changed its user to {}: the new "
            "process could not open it. Make anew what it is to get".format(
                block.arena.name, os.geteuid()
            )
        )
    sending = block.sending(handles)
    if child is not None:
        util.Finalize(child, _core.cancel, (sending.handle,))
    return sending


def _refer(array, block, cls, handles, private=False):
    """Reduce an array to its block's handle and where it lies in the block."""
    first = array.__array_interface__["data"][0]
    offset = first - block.address if array.size else 0
    dtype, shape, strides = array.dtype, array.shape, array.strides
    # Refuses, here and not where it arrives, a view that leads out of its block.
    block.array(shape, dtype, strides, offset)
    sending = send(block, handles)
    return _reduce.array, (
        cls, sending, shape, _plain(dtype), strides, offset, private, extras_of(array)
    )  # fmt: skip


def extras_of(array: "Any") -> "Tuple[Dict[str, Any], bool]":
    """Return what an array has beside its items, for `with_extras`: its attributes, but
    that it was closed here, and whether it can be written to."""
    attributes = {
        name: value
        for name, value in getattr(array, "__dict__", {}).items()
        if name != "_closed"
    }
    return attributes, array.flags.writeable


def with_extras(array: "Any", extras: "Tuple[Dict[str, Any], bool]") -> "Any":
    """Give a new array what another one had."""
    attributes, writeable = extras
    if attributes:
        array.__dict__.update(attributes)
    if not writeable:
        array.flags.writeable = False
    return array


def _plain(dtype):
    """Return what is quicker to pickle than a dtype and makes the same again."""
    return dtype.str if dtype.isbuiltin == 1 and dtype.metadata is None else dtype


def rebuild(cls, handle, shape, dtype, strides, offset, private, extras):
    """Make the array that `_refer` took apart."""
    # What is the receiver's own is so for one.
    block = _core.take(handle) if private else _core.receive(handle)
    copies = private and not _core.can_own_more()
    if private and not copies:
        block.private = True  # Also against children that are forked.
    array = block.array(shape, dtype, strides, offset, cls)
    return with_extras(array.copy("K") if copies else array, extras)


def rebuild_in_own_memory(*parts):
    """Make the array that `_refer` took apart, in this process's own memory."""
    shared = rebuild(*parts)
    array = shared.copy("K")
    array.flags.writeable = shared.flags.writeable
    return array


def rebuild_on_own_pages(cls, handle, shape, dtype, strides, offset, private, extras):
    """Make the array that `_refer` took apart, of memory that others have, too."""
    block = _core.take(handle)
    try:
        is_alone = block.detach()
    except OSError:
        is_alone = False  # This process has too many mappings.
    if not is_alone:
        # Or it has the block already, and may have written to it.
        size = block.nbytes - offset
        original, block = block, block.arena.alloc(size + _PAGE)
        offset, start = -block.address % _PAGE, offset
        original.copy_original(start, size, block, offset)
        block.private = True
    return with_extras(block.array(shape, dtype, strides, offset, cls), extras)


class Crowd:
    """Huge arrays that many receivers have at a time.

    They share the pages of one copy, until one of them writes to them. It lives while
    somebody keeps what `used` returned.
    """

    def __init__(self):
        self._copies = weakref.WeakValueDictionary()  # type: Any
        self._used = []  # type: List[Any]

    def copy_of(self, array):
        """Return a copy in shared memory; the one before, if that is still the same."""
        copy = self._copies.get(id(array))
        if copy is None or not copy.is_of(array):
            copy = self._copies[id(array)] = _Copy(array)
        self._used.append(copy)
        return copy.array

    def used(self):
        """Return the copies that were asked for since this was."""
        if not self._used:
            return ()
        used, self._used = self._used, []
        return used


class _Copy:
    def __init__(self, original):
        self.original = weakref.ref(original)
        self.array = _copy_to_move(original)

    def is_of(self, array):
        """Tell whether an array is what was copied, and has not been changed."""
        copy = self.array
        return (
            self.original() is array
            and (array.dtype, array.shape) == (copy.dtype, copy.shape)
            and (array.strides, array.flags.writeable) == (copy.strides, copy.flags.writeable)
            and _have_same_bytes(array, copy)
        )


def _have_same_bytes(one, other):
    """Tell whether two arrays without gaps, of one shape and order, are the same."""
    flat = [each.ravel("K").view("u1") for each in (one, other)]
    return all(
        np.array_equal(flat[0][start : start + _STRETCH], flat[1][start : start + _STRETCH])
        for start in range(0, one.nbytes, _STRETCH)
    )


# Bytes that are compared at a time.
_STRETCH = 1 << 20


# The kinds of shared memory: how an array that lies there is reduced, given the memory,
# the class that is to arrive and the list of handles or None.
_kinds = {_core.Block: _refer}  # type: Dict[type, Callable[[Any, Any, type, Any], Any]]


def register_memory(kind: type, refer: "Callable[[Any, Any, type, Any], Any]") -> None:
    """Have arrays whose last base is of the class `kind` reduced by `refer`."""
    _kinds[kind] = refer


def reduce_view(array: "Any", handles: "Optional[List[bytes]]" = None) -> "Any":
    """Reduce an array of a subclass of `numpy.ndarray`.

    It goes by reference if it lies in shared memory, else with what a plain view of
    it is reduced to; with its attributes.
    """
    memory = memory_of(array)
    if memory is not None:
        return _kinds[type(memory)](array, memory, type(array), handles)
    attributes = getattr(array, "__dict__", {})
    return _reduce.view, (type(array), np.asarray(array), attributes)


def rebuild_view(cls, array, attributes):
    view = np.ndarray.view(array, cls)
    if attributes:
        view.__dict__.update(attributes)
    return view


def reduce_copy(array: "Any", handles: "Optional[List[bytes]]" = None) -> "Any":
    """Reduce an `snp.ndarray`: by reference, or as a plain array if it is a copy in
    this process's own memory."""
    memory = memory_of(array)
    if memory is not None:
        return _kinds[type(memory)](array, memory, type(array), handles)
    return _reduce.same, (np.asarray(array),)


def same(thing):
    return thing


def _reduce_numpys(array, handles=None):
    """Reduce an array of a subclass that is numpy's: where neither it nor its mask is
    shared, and plain arrays go by value, as numpy does."""
    shared = memory_of(array) is not None or memory_of(getattr(array, "_mask", None)) is not None
    if handles is None and not shared and np.ndarray not in ForkingPickler._extra_reducers:
        return array.__reduce_ex__(2)
    reducer = _reduce_masked if isinstance(array, np.ma.MaskedArray) else reduce_view
    return reducer(array, handles)


def _reduce_masked(array, handles):
    """Reduce a masked array: its data and its mask go as what they are."""
    data = np.ndarray.view(array, array._baseclass)
    attributes = dict(array.__dict__)
    mask = attributes.pop("_mask", np.ma.nomask)
    return _reduce.masked_array, (
        type(array),
        data,
        None if mask is np.ma.nomask else mask,
        attributes,
    )


def rebuild_masked(cls, data, mask, attributes):
    array = np.ndarray.view(data, cls)
    array.__dict__.update(attributes)
    array._mask = np.ma.nomask if mask is None else mask
    return array


def _move(array, plain, handles=None):
    """Reduce a plain array: by reference if it is a view of a shared one, moved if it
    is large, else by value."""
    memory = memory_of(array)
    if memory is not None:
        return _kinds[type(memory)](array, memory, np.ndarray, handles)
    if plain.known:
        twin = _twin_of(array, plain.known)
        if twin is not None:
            memory = memory_of(twin)
            return _kinds[type(memory)](twin, memory, np.ndarray, handles)
    if array.nbytes < plain.threshold or array.dtype.hasobject:
        return _copy(array)
    if plain.crowd is not None and array.nbytes >= HUGE and array.flags.forc:
        copy = plain.crowd.copy_of(array)
        return _reduce.array_on_own_pages, _refer(copy, block_of(copy), np.ndarray, handles, True)[1]
    block = plain.given.get(id(array))
    if block is None:
        array = _copy_to_move(array)
        block = block_of(array)
    function, parts = _refer(array, block, np.ndarray, handles, private=True)
    return _reduce.array_in_own_memory if plain.copied else function, parts


def _twin_of(array, known):
    """Return what lies in the shared copy of a known array as `array` does in that, or
    None: it is no view of one, or that was not copied as it lies."""
    base = array
    while type(base) is np.ndarray and id(base) not in known:
        base = base.base
    found = known.get(id(base))
    if found is None:
        return None
    original, shared = found
    if array is original:
        return shared
    if original.strides != shared.strides:
        return None
    first = [each.__array_interface__["data"][0] for each in (array, original, shared)]
    block = block_of(shared)
    if block is None:
        return None
    offset = first[0] - first[1] + first[2] - block.address
    twin = block.array(array.shape, array.dtype, array.strides, offset)
    if not (shared.flags.writeable and array.flags.writeable):
        twin.flags.writeable = False
    return twin


def _copy(array):
    """Reduce a plain array to its bytes."""
    if array.dtype.hasobject:
        # Of the protocols that all picklers can write.
        return array.__reduce_ex__(2)
    order = "F" if array.flags.f_contiguous else "C"
    return _reduce.plain_array, (
        array.tobytes(order), _plain(array.dtype), array.shape, order, array.flags.writeable
    )  # fmt: skip


def rebuild_plain(data, dtype, shape, order, writeable):
    """Make a plain array of its bytes."""
    # To copy more numpy lets other threads run, which can take milliseconds; and an older one
    # finds no room for nothing, if it is of a huge shape.
    own = data if 0 < len(data) <= 4096 else bytearray(data)
    array = np.ndarray(shape, dtype, own, order=order)
    if own is data:
        array = array.copy(order)
    if not writeable:
        array.flags.writeable = False
    return array


# Classes.


# Those that take the list of handles of the message.
_own = {}  # type: Dict[type, Callable[..., Any]]


def register(cls: "type", reducer: "Callable[..., Any]") -> None:
    """Have arrays of exactly this class pickled by `reducer` in all channels.

    It is called with the array, and by `dumps` with the list of handles besides.
    """
    _own[cls] = reducer
    _tell(cls, reducer)


# The tables of picklers that reduce arrays as here, by class.
_tables = [ForkingPickler._extra_reducers]  # type: List[Dict[type, Any]]

# What is in them.
_registered = {}  # type: Dict[type, Callable[..., Any]]


def _tell(cls, reducer):
    _registered[cls] = reducer
    for table in _tables:
        table[cls] = reducer


def extend(table: "Dict[type, Any]") -> None:
    """Have another pickler reduce arrays as `ForkingPickler` does, by its table."""
    if not any(each is table for each in _tables):
        _tables.append(table)
        table.update(_registered)


def restore(table: "Dict[type, Any]") -> None:
    """Undo what `extend` has done to a table."""
    _tables[:] = [each for each in _tables if each is not table]
    for cls, reducer in _registered.items():
        if table.get(cls) is reducer:
            del table[cls]


for _cls in (np.recarray, np.matrix, np.ma.MaskedArray):
    register(_cls, _reduce_numpys)


def register_type(
    cls: "type",
    flatten: "Optional[Callable[[Any], Any]]" = None,
    unflatten: "Optional[Callable[[Any], Any]]" = None,
    *,
    attribute: "Optional[str]" = None
) -> None:
    """Have the arrays in objects of a class travel through shared memory.

    Parameters
    ----------
    cls : type
        The class; its subclasses are registered by themselves.
    flatten : callable
        Takes an object and returns what it consists of: arrays, and whatever else
        can be pickled, in tuples, lists and dicts. A subclass of ``numpy.ndarray``
        needs none: it is sent with its ``__dict__``.
    unflatten : callable
        Takes what `flatten` returned, as it arrives, and returns the object. It is
        pickled by its name, so it must be found in a module; a class is one, too.
    attribute : str, optional
        Instead of the two functions: the name of the attribute that holds the array, or a
        container of arrays, and can be set. Needed only for a class that says for itself how
        it is pickled; an object is then sent as its ``__dict__``, and made anew by its class's
        ``__new__``.

    Raises
    ------
    TypeError
        `cls` is no class, one of the two functions is missing or none, or `attribute` is no
        name of an attribute or given beside them.
    ValueError
        Objects of `cls` are never asked how to be pickled.

    Notes
    -----
    A process that sends such objects must have registered the class; one that
    receives them need not. Call it where the class is defined.

    Examples
    --------
    >>> import shared_numpy as snp
    >>> class Frame:
    ...     def __init__(self, pixels, exposure):
    ...         self.pixels, self.exposure = pixels, exposure
    >>> def flatten(frame):
    ...     return frame.pixels, frame.exposure
    >>> def unflatten(parts):
    ...     return Frame(*parts)
    >>> snp.register_type(Frame, flatten, unflatten)

    >>> class Image:
    ...     def __init__(self, pixels):
    ...         self.pixels = pixels
    ...     def __reduce__(self):
    ...         return Image, (self.pixels.tolist(),)
    >>> snp.register_type(Image, attribute="pixels")
    """
    if not isinstance(cls, type):
        raise TypeError("{!r} is no class".format(cls))
    if cls in _NEVER_ASKED or issubclass(cls, type):
        raise ValueError("objects of {!r} are always pickled as they are".format(cls))
    if attribute is not None:
        if not isinstance(attribute, str) or not attribute.isidentifier():
            raise TypeError("{!r} is no name of an attribute".format(attribute))
        if flatten is not None or unflatten is not None:
            raise TypeError(
                "{}: give flatten and unflatten, or attribute={!r}".format(cls.__name__, attribute)
            )
        flatten, unflatten = partial(_unwrap, attribute), _reduce.wrapper
    if flatten is None and unflatten is None and issubclass(cls, np.ndarray):
        register(cls, reduce_view)
        return
    if not callable(flatten) or not callable(unflatten):
        raise TypeError(
            "{}: flatten and unflatten must both be functions, not {!r} and {!r}".format(
                cls.__name__, flatten, unflatten
            )
        )
    _own.pop(cls, None)
    _core.know_class(cls, False)
    _tell(cls, _Flattening(flatten, unflatten))


def _unwrap(attrname, thing):
    state = dict(vars(thing))
    state.pop(attrname, None)
    return type(thing), state, attrname, getattr(thing, attrname)


def wrap(parts):
    cls, state, attrname, value = parts
    thing = cls.__new__(cls)
    thing.__dict__.update(state)
    setattr(thing, attrname, value)
    return thing


_NEVER_ASKED = {
    bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple,
    type(None), np.ndarray,
}  # fmt: skip


class _Flattening:
    """The reducer of a registered class."""

    def __init__(self, flatten, unflatten):
        self.flatten, self.unflatten = flatten, unflatten

    def __call__(self, thing):
        return self.unflatten, (self.flatten(thing),)


# Plain arrays in the channels of `multiprocessing`.

_KEY = "shared_numpy_sharing"


class _Sharing:
    """What `share_from` has set; unpickling it in a new process sets it there."""

    def __init__(self, threshold, replaced):
        self.plain = MOVED._replace(threshold=threshold)
        self.replaced = replaced

    def __call__(self, array):
        try:
            return _move(array, self.plain)
        except ArenaFullError:
            return _copy(array)  # As it would go otherwise.

    def __reduce__(self):
        return _reduce.sharing, (self.plain.threshold,)


def share_from(threshold: "Optional[int]") -> "Any":
    """Begin to move plain arrays of so many bytes in the channels of `multiprocessing`, or end it
    with None; what is in force then."""
    registry = ForkingPickler._extra_reducers
    known = registry.pop(np.ndarray, None)
    before = known.replaced if type(known) is _Sharing else known
    sharing = None if threshold is None else _Sharing(threshold, before)
    in_force = sharing or before
    if in_force is not None:
        ForkingPickler.register(np.ndarray, in_force)
    process.current_process()._config[_KEY] = sharing
    return sharing


# The channels of this package.


class _Reducers(dict):
    """How a message's objects are reduced, by class: as here, with the message's list of
    handles, else as `multiprocessing` does."""

    def __init__(self, handles, plain):
        self.handles, self.plain = handles, plain

    def __missing__(self, cls):
        own = _own.get(cls)
        if own is not None:
            reducer = partial(own, handles=self.handles)
        elif cls is np.ndarray:
            # (No method: what a message has shall go with it, not in a later collection.)
            reducer = partial(_reduce_plain, plain=self.plain, handles=self.handles)
        else:
            reducer = ForkingPickler._extra_reducers.get(cls)
            if reducer is None and issubclass(cls, ModuleType):
                reducer = _reduce_module
            if reducer is None:
                reducer = copyreg.dispatch_table[cls]
        self[cls] = reducer
        return reducer

    def get(self, cls, default=None):
        # What picklers written in Python ask.
        try:
            return self[cls]
        except KeyError:
            return default


def _reduce_plain(array, plain, handles):
    """Reduce a plain array, as quickly as can be."""
    stream = _terse(array, handles, plain, b"")
    if stream is None:
        return _move(array, plain, handles)
    return _core.loads, (stream,)


def _terse(thing, handles, plain, end):
    """Return the bytes of a simple thing, or None."""
    if plain.known:
        return None
    sent = None if plain.copied or plain.given else handles
    limit = None if plain.crowd is None else HUGE
    return _core.terse(thing, plain.threshold, end, sent, limit)


def _reduce_module(module):
    return import_module, (module.__name__,)


def reducers(handles: "List[bytes]", plain: Plain = MOVED) -> "Dict[type, Any]":
    """Return the dispatch table of a pickler for one message; see `dumps`."""
    return _Reducers(handles, plain)


def dumps(
    thing: "Any", handles: "List[bytes]", plain: Plain = MOVED, end: bytes = b""
) -> bytes:
    """Pickle anything, arrays through shared memory.

    Parameters
    ----------
    thing : object
        What can be pickled.
    handles : list of bytes
        Those in the pickle are appended to it, to be cancelled if nobody will load
        it, also should this fail half-way.
    plain : Plain
        How plain arrays go.
    end : bytes
        What is to follow the pickle.

    Returns
    -------
    bytes
        For `loads`, which stops at the end of the thing.
    """
    stream = _terse(thing, handles, plain, end)
    if stream is not None:
        return stream
    if type(thing) in _ATOMS:
        return pickle.dumps(thing, PROTOCOL) + end
    file = io.BytesIO()
    pickler = pickle.Pickler(file, PROTOCOL)
    pickler.dispatch_table = reducers(handles, plain)
    pickler.dump(thing)
    file.write(end)
    return file.getvalue()


# What nothing is to be looked for in.
_ATOMS = frozenset([bytes, int, str])

# Makes a thing again that `dumps`, or a pickler, has written down.
loads = _core.loads


# Ends handles that nobody will receive.
cancel = _core.cancel_all
