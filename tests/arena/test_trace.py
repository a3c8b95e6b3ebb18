"""`snp.trace_blocks`: where the blocks were made that are alive.

1. Places have the user's file, line and function, the number of blocks and their bytes; what is
   freed is not there, and what other processes or messages keep alive is.
2. All ways to make blocks are traced, by any thread; received blocks are not.
3. A block that is reused from the cache belongs to the line that has made it last.
4. After the statement the places stay as they were at its end, and nothing is noted any more.
5. Traces do not nest; one cannot be used twice or before; a forked child has none, and may begin one.
6. An exception that comes as a trace begins or ends leaves no trace behind.
"""

import gc
import os
import queue
import sys
import threading

import numpy as np
import pytest
from conftest import needs_arenas, run_program

import shared_numpy as snp
from shared_numpy import _core

pytestmark = needs_arenas


def line_of(marker):
    """The line of this file that ends with a comment."""
    with open(__file__) as file:
        (number,) = [n for n, line in enumerate(file, 1) if line.endswith("# " + marker + "\n")]
    return number


def by_line(trace):
    """Return {line of the innermost frame: (count, bytes)}; all of them are of this file."""
    found = {}
    for place in trace.places():
        name, line, _ = place.stack[0]
        assert os.path.samefile(name, __file__)
        assert line not in found or len({each.stack for each in trace.places()}) > 1
        count, nbytes = found.get(line, (0, 0))
        found[line] = count + place.count, nbytes + place.nbytes
    return found


def make(count):
    return [snp.zeros(1000) for _ in range(count)]  # made here


def test_places_are_lines_with_counts_and_bytes():
    with snp.trace_blocks() as trace:
        assert trace.places() == []
        kept = make(3)
        other = snp.empty(5, "u1")  # made there
        dropped = make(2)
        del dropped
        # A block has a multiple of 64 bytes.
        assert by_line(trace) == {line_of("made here"): (3, 3 * 8000),
                                  line_of("made there"): (1, 64)}  # fmt: skip
        del other
        assert by_line(trace) == {line_of("made here"): (3, 3 * 8000)}
        (place,) = trace.places()
        # (A comprehension has a frame of its own before 3.12.)
        names = [name for _, _, name in place.stack if name != "<listcomp>"]
        assert names[:2] == ["make", "test_places_are_lines_with_counts_and_bytes"]
        assert "3 blocks of 24,000 bytes in all, made by\n" in str(trace)
        assert 'File "%s", line %d, in ' % (place.stack[0][0], place.stack[0][1]) in str(place)
        del kept
        assert trace.places() == []
        assert str(trace) == "no block is alive that was made in this trace"


def test_the_largest_place_is_first():
    with snp.trace_blocks() as trace:
        small = [snp.zeros(10) for _ in range(5)]
        large = snp.zeros(10000)
        medium = snp.zeros(1000)
        sizes = [place.nbytes for place in trace.places()]
        assert sizes == sorted(sizes, reverse=True) and len(sizes) == 3
    del small, large, medium


@pytest.mark.parametrize("frames", ["x", None, 1.5, np.ones(2, int)])
def test_frames_that_are_no_integer_are_refused_at_the_call(frames):
    with pytest.raises(TypeError, match="frames must be an integer, not"):
        snp.trace_blocks(frames)


@pytest.mark.parametrize("frames", [0, -(2**70), sys.maxsize + 1, 2**70])
def test_frames_out_of_range_are_refused_at_the_call(frames):
    with pytest.raises(ValueError, match=r"frames must be from 1 to \d+ .*, not %d$" % frames):
        snp.trace_blocks(frames)


def test_any_integer_is_a_number_of_frames():
    for frames in np.int64(3), True, sys.maxsize:
        with snp.trace_blocks(frames) as trace:
            kept = make(1)
        assert 1 <= len(trace.places()[0].stack) <= frames
        del kept


@pytest.mark.parametrize("frames", [1, 2, 50])
def test_a_stack_has_so_many_frames_at_most(frames):
    def deep(n):
        return deep(n - 1) if n else snp.zeros(3)

    with snp.trace_blocks(frames=frames) as trace:
        kept = deep(20)
        (place,) = trace.places()
        assert len(place.stack) == frames if frames < 20 else len(place.stack) > 21
        assert place.stack[0][2] == "deep"
    del kept


def test_all_ways_to_make_blocks_are_traced():
    arena = snp.Arena.default()
    source = np.arange(1000.0)
    ways = [
        lambda: snp.array(source),
        lambda: snp.share(source),
        lambda: snp.asarray([1.0, 2.0]),
        lambda: snp.full((3, 4), 7),
        lambda: arena.alloc(1000),
        lambda: arena.empty(100),
        lambda: snp.Queue(),
        lambda: snp.RingBuffer(slots=2, shape=(10,)),
        lambda: snp.send(b"x" * 100000),
        lambda: snp.send(source),
    ]
    for number, way in enumerate(ways):
        with snp.trace_blocks() as trace:
            kept = way()
            places = trace.places()
            assert places, number
            for place in places:
                assert os.path.samefile(place.stack[0][0], __file__), (number, place)
        if isinstance(kept, snp.Handle):
            kept.cancel()
        del kept


def test_a_message_that_nobody_takes_is_alive():
    channel = snp.Queue()
    with snp.trace_blocks() as trace:
        channel.put(np.ones(10000))  # put here
        gc.collect()
        assert line_of("put here") in by_line(trace)
        channel.get()
        gc.collect()
        assert line_of("put here") not in by_line(trace)


def test_received_blocks_are_not_traced():
    handle = snp.send(snp.ones(1000))
    with snp.trace_blocks() as trace:
        received = snp.receive(handle)
        assert trace.places() == []
    assert received.sum() == 1000


def test_a_reused_block_is_of_the_last_line():
    with snp.trace_blocks() as trace:
        first = snp.empty(100)  # first line
        address = first.__array_interface__["data"][0]
        del first
        again = snp.empty(100)  # second line
        assert again.__array_interface__["data"][0] == address
        assert by_line(trace) == {line_of("second line"): (1, 832)}
    del again


def test_threads_are_traced():
    kept = queue.Queue()

    def work():
        for _ in range(50):
            kept.put(snp.zeros(10))  # of a thread

    with snp.trace_blocks() as trace:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            trace.places()
            thread.join()
        assert by_line(trace) == {line_of("of a thread"): (200, 200 * 128)}


def test_after_the_statement_places_stay():
    with snp.trace_blocks() as trace:
        kept = make(2)
        before = trace.places()
        dropped = make(1)
        del dropped
    later = make(1)
    del kept
    gc.collect()
    assert trace.places() == before != []
    # Nothing of it remains in the core.
    with snp.trace_blocks() as trace:
        assert trace.places() == []
    del later


def test_what_is_traced_no_more_is_not_noted():
    made = {}
    assert _core.begin_trace(made, 1, "/nowhere/")
    assert not _core.begin_trace({}, 1, "/nowhere/")
    kept = [snp.zeros(3)]
    _core.end_trace({})
    kept.append(snp.zeros(3))
    assert len(made) == 2
    _core.end_trace(made)
    kept.append(snp.zeros(3))
    assert len(made) == 2


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="frames must be from 1 to .*, not 0"):
        snp.trace_blocks(0)
    trace = snp.trace_blocks()
    with pytest.raises(RuntimeError, match="nothing is traced yet"):
        trace.places()
    with trace:
        here = sys._getframe().f_lineno - 1
        with pytest.raises(RuntimeError, match="traces do not nest") as info:
            with snp.trace_blocks():
                raise AssertionError("nested")
        assert "%s:%d" % (__file__, here) in str(info.value)
        kept = make(1)
        assert len(trace.places()) == 1
    with pytest.raises(RuntimeError, match="one `with` statement"):
        trace.__enter__()
    # The one that was refused has not ended this one, nor this one's end the next one.
    with snp.trace_blocks() as other:
        trace.__exit__(None, None, None)
        kept += make(1)
        assert len(other.places()) == 1
    del kept


def test_a_trace_that_is_dropped_ends():
    trace = snp.trace_blocks()
    trace.__enter__()
    del trace
    gc.collect()
    with snp.trace_blocks() as trace:
        assert trace.places() == []


FORKED = """
if __name__ == "__main__":
    with snp.trace_blocks() as trace:
        kept = snp.zeros(3)
        pid = os.fork()
        if pid == 0:
            try:
                trace.places()
            except RuntimeError as error:
                assert "parent process" in str(error), error
            else:
                raise AssertionError("the parent's trace")
            more = snp.zeros(3)
            with snp.trace_blocks() as own:
                more = snp.zeros(30)
                assert [place.count for place in own.places()] == [1], own.places()
            trace.__exit__(None, None, None)
            os._exit(7)
        assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7
        assert [place.count for place in trace.places()] == [1]
    del kept
"""


def test_a_forked_child_may_trace_itself(tmp_path):
    run_program(tmp_path, FORKED)


def test_what_other_processes_keep_is_alive():
    reading, writing = os.pipe()
    with snp.trace_blocks() as trace:
        kept = make(1)
        pid = os.fork()
        if pid == 0:
            os.read(reading, 1)
            os._exit(0)
        del kept
        assert by_line(trace) == {line_of("made here"): (1, 8000)}
        os.write(writing, b"x")
        os.waitpid(pid, 0)
        snp.Arena.default().reap()
        assert trace.places() == []
    os.close(reading)
    os.close(writing)


def test_freed_blocks_do_not_pile_up():
    with snp.trace_blocks() as trace:
        # (More than the cache has.)
        for _ in range(25000):
            snp.empty(10000)
        kept = [snp.empty(1) for _ in range(100)]
        most = len(trace._made)
        assert most <= 10000
        assert sum(place.count for place in trace.places()) == 100
    del kept


def test_arenas_that_are_left_have_no_blocks():
    with snp.trace_blocks() as trace:
        with snp.Arena.create() as arena:
            block = arena.alloc(100)
            assert len(trace.places()) == 1
            del block
        del arena
        gc.collect()
        assert trace.places() == []
