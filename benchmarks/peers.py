"""Channels between two processes that the benchmarks measure, with `put` and `get`.

Those of other packages are there where these are installed. All pickle, but iceoryx2's, which
carries bytes and plain arrays of float64 from one process to one other, and asks again and again
instead of waiting; and those that copy each array into a segment and send the segment's name, which
is what one writes by hand around `SharedMemory` and SharedArray.
"""

import contextlib
import ctypes
import functools
import glob
import itertools
import multiprocessing
import os
import shutil
import tempfile
from multiprocessing import util

import numpy as np

import shared_numpy as snp
from shared_numpy.shared_memory import SharedMemory

BASE = "shared_numpy.Queue"
BOUND = 1000
MIB = 1 << 20


class Pipe:
    """One direction of a pipe, for one process at each end."""

    is_shared = False

    def __init__(self):
        self.reader, self.writer = multiprocessing.Pipe(duplex=False)

    def put(self, message):
        self.writer.send(message)

    def get(self):
        return self.reader.recv()


class Iceoryx:
    """A service of iceoryx2, whose two ends are opened when they are first used.

    Parameters
    ----------
    longest : int
        Bytes of the longest message.
    buffered : int
        How many messages wait for the receiver at most.
    as_arrays : bool, optional
        What comes is a read-only array on the message itself, until the next call of `get`.
    """

    is_shared = False
    has_files = True
    numbers = itertools.count()

    def __init__(self, longest=MIB, buffered=64, as_arrays=False):
        self.longest, self.buffered, self.as_arrays = longest, buffered, as_arrays
        self.prefix = "rings-{}-{}-".format(os.getpid(), next(self.numbers))
        self.publisher = self.subscriber = self.sample = None

    def service(self):
        import iceoryx2

        util.Finalize(self, self.remove, (self.prefix,), exitpriority=0)
        iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
        config = iceoryx2.config.global_config()
        config.global_cfg.prefix = iceoryx2.FileName.new(self.prefix)
        config.global_cfg.root_path = iceoryx2.Path.new(self.folder(self.prefix))
        node = iceoryx2.NodeBuilder.new().config(config).create(iceoryx2.ServiceType.Ipc)
        builder = node.service_builder(iceoryx2.ServiceName.new("rings"))
        builder = builder.publish_subscribe(iceoryx2.Slice[ctypes.c_uint8])
        builder = builder.enable_safe_overflow(False).subscriber_max_buffer_size(self.buffered)
        return builder.open_or_create()

    def put(self, message):
        if self.publisher is None:
            import iceoryx2

            builder = self.service().publisher_builder().initial_max_slice_len(self.longest)
            discard = iceoryx2.BackpressureStrategy.DiscardData
            self.publisher = builder.backpressure_strategy(discard).create()
        if isinstance(message, bytes):
            source, length = message, len(message)
        else:
            source, length = message.ctypes.data, message.nbytes
        received_by = 0
        while not received_by:
            sample = self.publisher.loan_slice_uninit(length)
            ctypes.memmove(sample.payload_ptr, source, length)
            received_by = sample.assume_init().send()

    def get(self):
        if self.subscriber is None:
            self.subscriber = self.service().subscriber_builder().create()
        self.sample = sample = None
        while sample is None:
            sample = self.subscriber.receive()
        part = sample.payload()
        if not self.as_arrays:
            return ctypes.string_at(part.as_ptr(), part.len())
        self.sample = sample
        place = (ctypes.c_uint8 * part.len()).from_address(part.as_ptr())
        array = np.frombuffer(place, "f8")
        array.flags.writeable = False
        return array

    def close(self):
        self.publisher = self.subscriber = self.sample = None
        self.remove(self.prefix)

    @staticmethod
    def folder(prefix):
        return os.path.join(tempfile.gettempdir(), prefix)

    @classmethod
    def remove(cls, prefix):
        """Remove what killed processes left, or this one is about to leave."""
        shutil.rmtree(cls.folder(prefix), ignore_errors=True)
        for path in glob.glob("/dev/shm/" + prefix + "*"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


# ---- an array in a segment of its own, whose name is sent -------------------------------------


def untracked(*args, **options):
    return SharedMemory(*args, track=False, **options)


def given(array, segment=untracked):
    """Copy an array to a new `SharedMemory`; return what tells of it."""
    shm = segment(create=True, size=array.nbytes)
    np.ndarray(array.shape, array.dtype, buffer=shm.buf)[...] = array
    name = shm.name
    shm.close()
    return name, array.shape, array.dtype.str


def taken(message, segment=untracked):
    """Return the array of a message, and its segment."""
    name, shape, dtype = message
    shm = segment(name)
    return np.ndarray(shape, dtype, buffer=shm.buf), shm


class Named:
    """A channel for the names of segments, one for each message.

    With ``keep=True`` the messages are names already, of arrays that stay; else the receiver
    removes a message's segment when it asks for the next message.
    """

    is_shared = False

    def __init__(self, keep=False):
        self.names = multiprocessing.SimpleQueue()
        self.keep = keep
        self.received = self.sent = None

    def put(self, message):
        if not self.keep:
            self.sent = message = self.given(message)
        self.names.put(message)

    def get(self):
        self.drop()
        array, self.received = self.taken(self.names.get())
        return array

    def drop(self):
        if self.received is not None and not self.keep:
            self.remove(self.received)
        self.received = None

    def close(self):
        """Remove the last messages: the one received, and the one sent, if the other side was
        killed before it could."""
        self.drop()
        if self.sent is not None:
            with contextlib.suppress(FileNotFoundError):
                array, received = self.taken(self.sent)
                del array
                self.remove(received)
            self.sent = None


class Segments(Named):
    """By `SharedMemory`; with another class, by that one."""

    def __init__(self, keep=False, segment=untracked):
        super().__init__(keep)
        self.segment = segment

    def given(self, array):
        return given(array, self.segment)

    def taken(self, message):
        return taken(message, self.segment)

    @staticmethod
    def remove(segment):
        with contextlib.suppress(BufferError):  # Whoever has the array still uses it.
            segment.close()
        segment.unlink()


class SharedArrays(Named):
    """By the package SharedArray."""

    numbers = itertools.count()

    @classmethod
    def given(cls, array):
        import SharedArray

        name = "shm://peers-{}-{}".format(os.getpid(), next(cls.numbers))
        SharedArray.create(name, array.shape, array.dtype)[...] = array
        return name

    @staticmethod
    def taken(name):
        import SharedArray

        return SharedArray.attach(name), name

    @staticmethod
    def remove(name):
        import SharedArray

        SharedArray.delete(name)


# ---- what is installed -----------------------------------------------------------------------


def is_installed(module, package):
    """Tell whether a module can be imported; print that it cannot."""
    try:
        __import__(module)
    except ImportError:
        print("({} is not installed)".format(package), flush=True)
        return False
    return True


def queues():
    """Return {name: factory} of the queues for objects that are there."""
    found = {
        "multiprocessing.Pipe": Pipe,
        "multiprocessing.SimpleQueue": multiprocessing.SimpleQueue,
        "multiprocessing.Queue": functools.partial(multiprocessing.Queue, BOUND),
        "shared_numpy.SimpleQueue": snp.SimpleQueue,
        BASE: functools.partial(snp.Queue, BOUND),
    }
    if is_installed("faster_fifo", "faster-fifo"):
        found["faster-fifo"] = functools.partial(faster_fifo_queue, 8 * MIB)
    if is_installed("iceoryx2", "iceoryx2"):
        found["iceoryx2"] = Iceoryx
    return found


def faster_fifo_queue(size):
    import faster_fifo

    return faster_fifo.Queue(size)


def for_arrays(longest):
    """Return {name: factory} of the channels for plain arrays of up to `longest` bytes."""
    found = queues()
    del found["multiprocessing.SimpleQueue"], found["shared_numpy.SimpleQueue"]
    if "faster-fifo" in found:
        found["faster-fifo"] = functools.partial(faster_fifo_queue, 2 * longest + MIB)
    if "iceoryx2" in found:
        found["iceoryx2"] = functools.partial(Iceoryx, longest, 2, True)
    found["a SharedMemory per message"] = Segments
    if is_installed("SharedArray", "SharedArray"):
        found["SharedArray, one per message"] = SharedArrays
    return found


def echo(requests, answers):
    """Send back what comes, an array with its last item changed."""
    while True:
        message = requests.get()
        if not isinstance(message, bytes) and message.flags.writeable:
            message[-1] += 1
        answers.put(message)
        del message


@contextlib.contextmanager
def for_shared(size):
    """Have {name: (factory, message)} of the channels for an array that is shared already; their
    messages are the array itself, or what tells of it."""
    with contextlib.ExitStack() as stack:
        shm = untracked(create=True, size=size)
        stack.callback(shm.unlink)
        stack.callback(shm.close)
        found = {
            BASE: (functools.partial(snp.Queue, BOUND), snp.zeros(size // 8)),
            "SharedMemory, attached each time": (
                functools.partial(Segments, True),
                (shm.name, (size // 8,), "<f8"),
            ),
        }
        if is_installed("SharedArray", "SharedArray"):
            name = SharedArrays.given(np.zeros(size // 8))
            stack.callback(SharedArrays.remove, name)
            found["SharedArray, attached each time"] = functools.partial(SharedArrays, True), name
        yield found


def echo_names(requests, answers, message):
    """Change the last item of what comes, and send the same message back."""
    while True:
        array = requests.get()
        array[-1] += 1
        del array
        answers.put(message)
