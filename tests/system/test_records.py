"""The log records of the logger "shared_numpy".

1. Each event is logged once, by the process that it happens in, with its values: growth, memory that
   goes back, a refusal, a reaped process, a recovery, cleaning, pipes in place of rings, a worker's
   death and its task.
2. A program that has not imported `logging` does not import it, and prints nothing; nor does one
   that has, and has not configured it.
3. A handler's exception is reported as `logging` does, and the call returns what it would have.
   An exception that is no `Exception`, such as Ctrl-C's, ends the call; nothing is lost, neither
   memory nor a message nor the records that wait.
4. A handler may use the package; a later call logs what is noted of that. No record is emitted by a call that does not wait, nor while a lock
   of the package is held.
5. A forked child emits nothing that happened in its parent.
"""

import gc
import logging
import os
import signal
import threading

import numpy as np
import pytest
from conftest import eventually, needs_arenas, run_program, run_python

import shared_numpy as snp
from shared_numpy import _core

if hasattr(_core, "Arena"):
    from shared_numpy._system import records

pytestmark = needs_arenas


class Collected(logging.Handler):
    """Collects records, and tells those of one event."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.then = None

    def emit(self, record):
        self.records.append(record)
        if self.then is not None:
            self.then(record)

    def texts(self, event):
        return [each.getMessage() for each in self.records if each.event == event]


@pytest.fixture
def collected():
    """A handler of all records from now on."""
    logger = logging.getLogger("shared_numpy")
    before, propagates = logger.level, logger.propagate
    _core.emit_records()
    handler = Collected()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield handler
    handler.then = None
    _core.emit_records()
    logger.removeHandler(handler)
    logger.setLevel(before)
    logger.propagate = propagates


@pytest.fixture
def arena():
    with snp.Arena.create() as made:
        yield made


def about(texts, arena):
    return [text for text in texts if arena.name in text]


def killed_child():
    """Fork a child that is killed as soon as it runs; return its pid."""
    runs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(runs[1], b"x")
        signal.pause()
    assert os.read(runs[0], 1) == b"x"
    for fd in runs:
        os.close(fd)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def test_growth_and_returns(collected, arena):
    big = arena.empty(1 << 20, "u1")
    grown = about(collected.texts("growth"), arena)
    # One record for each segment, with its bytes.
    assert len(grown) == arena.stats()["grows"] >= 1
    numbers = [int(word) for text in grown for word in text.replace(",", "").split() if word.isdigit()]
    assert sum(numbers[::2]) == arena.stats()["segment_bytes"] - first_bytes(arena)
    del big
    gc.collect()
    snp.trim()
    returned = about(collected.texts("return"), arena)
    assert returned and all("bytes back to the system" in text for text in returned)
    # Nothing more has happened.
    arena.check()
    assert about(collected.texts("growth"), arena) == grown
    assert about(collected.texts("return"), arena) == returned


def first_bytes(arena):
    """The bytes of an arena's first segment, from its header."""
    with open("/dev/shm/" + arena.name, "rb") as file:
        header = np.frombuffer(file.read(64), "<u8")
    return int(header[6])


def test_a_refusal(collected, arena):
    with pytest.raises(snp.ArenaFullError) as info:
        arena.alloc(1 << 50)
    (text,) = collected.texts("refusal")
    assert str(info.value.asked) in text and str(1 << 50) in text
    assert "%d left" % info.value.left in text
    assert collected.records[-1].levelno == logging.WARNING


def test_a_segment_that_does_not_fit_is_refused(collected):
    with pytest.raises(OSError):
        snp.SharedMemory(create=True, size=1 << 50, reserve=True)
    _core.emit_records()
    (text,) = collected.texts("refusal")
    assert str(1 << 50) in text


def test_a_reaped_process_is_told_once_by_its_pid(collected, arena):
    pid = killed_child()
    assert arena.reap() == 1
    assert arena.reap() == 0
    found = about(collected.texts("reap"), arena)
    assert found == [
        "process %d was killed, or ended by os._exit; released what it had in arena %s"
        % (pid, arena.name)
    ]


REAPERS = """
import logging
name = " no arena "
class Handler(logging.Handler):
    def emit(self, record):
        if record.event == "reap" and name in record.getMessage():
            os.write(1, (record.getMessage().split()[1] + "\\n").encode())
logging.getLogger("shared_numpy").addHandler(Handler())

if __name__ == "__main__":
    with Arena.create() as arena:
        name = arena.name
        # Three processes reap at once what some others leave.
        ready, go = os.pipe(), os.pipe()
        reapers = []
        for _ in range(3):
            reapers.append(os.fork())
            if reapers[-1] == 0:
                os.read(go[0], 1)
                for _ in range(200):
                    arena.reap()
                os._exit(0)
        dead = []
        for _ in range(5):
            dead.append(os.fork())
            if dead[-1] == 0:
                os.close(ready[0])
                block = arena.alloc(100)
                os.write(ready[1], b"x")
                signal.pause()
        left = 5
        while left:
            left -= len(os.read(ready[0], left))
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.write(go[1], b"xxx")
        for pid in reapers:
            assert os.waitpid(pid, 0)[1] == 0
        arena.reap()
        # The reapers have ended without leaving the arena, too.
        gone = dead + reapers
        assert arena.stats()["reaped_processes"] == len(gone)
        os.write(1, ("gone %s" % " ".join(map(str, gone))).encode())
"""


def test_processes_that_reap_at_once_tell_each_dead_process_once(tmp_path):
    *told, gone = run_program(tmp_path, REAPERS).splitlines()
    assert sorted(told) == sorted(gone.split()[1:])


def test_a_recovery_names_the_dead_owner(collected, arena):
    """The lock's word is that of a process that dies: what a kill under the lock leaves."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
    try:
        with open("/dev/shm/" + arena.name, "r+b", buffering=0) as file:

            def row():
                rows = np.frombuffer(os.pread(file.fileno(), 256 * 64, 53248), "<u8").reshape(256, 8)
                return [(n, rows[n, 0]) for n in np.nonzero((rows == pid).any(axis=1))[0]]

            eventually(row)
            ((slot, state),) = row()
            word = 1 << 30 | (int(state) >> 8 & 0xFFFFF) << 10 | int(slot)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.pwrite(file.fileno(), word.to_bytes(4, "little"), 128)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    arena.check()
    arena.check()
    (text,) = about(collected.texts("recovery"), arena)
    assert "the death of process %d," % pid in text
    assert arena.stats()["recoveries"] == 1


CLEANED = """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        print(record.event, record.levelname, record.getMessage())
logging.getLogger("shared_numpy").addHandler(Handler())
logging.getLogger("shared_numpy").setLevel("INFO")
if __name__ == "__main__":
    if sys.argv[1:]:
        # Without a tracker.
        folder = sys.argv[1]
        arena = Arena.create(directory=folder)
        os.write(1, arena.name.encode())
        os.kill(os.getpid(), signal.SIGKILL)
    import subprocess, tempfile
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        killed = subprocess.run([sys.executable, __file__, folder], stdout=subprocess.PIPE)
        # (Its first lines are records: of what else it has found, and removed.)
        name = killed.stdout.decode().split()[-1]
        removed = snp.clean(folder)
        assert [each for each in removed if each == name], (removed, name)
        print("cleaned", name)
        snp.clean(folder)
"""


def test_cleaning_names_what_it_has_removed(tmp_path):
    *told, last = run_program(tmp_path, CLEANED).splitlines()
    name = last.split()[1]
    assert [line.split()[:2] for line in told if name in line] == [["cleaning", "INFO"]]


def test_managers_that_were_killed_are_cleaned_and_told(collected, monkeypatch, tmp_path):
    from shared_numpy._system import leftovers

    monkeypatch.setattr(leftovers, "_FOLDER", str(tmp_path))
    (tmp_path / leftovers.file_of("12ab")).write_bytes(b"")
    (tmp_path / (leftovers.prefix_of("12ab") + "block")).write_bytes(b"x")
    assert leftovers.clean() == ["snpmgr-12ab-block"]
    leftovers.clean()
    _core.emit_records()
    (text,) = collected.texts("cleaning")
    assert ", 1 in number" in text and text.endswith(": snpmgr-12ab-block")


PIPES = """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        if record.event == "fallback":
            print(record.event, record.getMessage())
logging.getLogger("shared_numpy").addHandler(Handler())
if __name__ == "__main__":
    queues = [snp.Queue() for _ in range(3)]
    snp.zeros(3)
    snp.zeros(3)
"""


def test_pipes_in_place_of_rings_are_told_once(tmp_path):
    output = run_program(tmp_path, PIPES, env=dict(os.environ, SHARED_NUMPY_RING="0"))
    assert output == "fallback channels go through pipes, which are slower, since SHARED_NUMPY_RING=0 is set\n"
    assert run_program(tmp_path, PIPES) == ""


def kill_yourself():
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_s_death_and_its_task(collected):
    from concurrent.futures.process import BrokenProcessPool

    submitted, done = threading.Event(), []

    def look(record):
        if record.event == "worker":
            submitted.wait()
            done.append(future.done())

    collected.then = look
    with snp.ProcessPoolExecutor(1, mp_context="fork") as pool:
        pid = pool.submit(os.getpid).result()
        future = pool.submit(kill_yourself)
        submitted.set()
        with pytest.raises(BrokenProcessPool):
            future.result()
        # Who sees the future fail has seen the record.
        assert done == [False]
        (text,) = collected.texts("worker")
    assert "the worker with pid %d" % pid in text
    assert "SIGKILL" in text and "kill_yourself" in text
    assert len(collected.texts("worker")) == 1


SILENT = """
import sys
import shared_numpy as snp
{before}
arena = snp.Arena.create()
try:
    arena.alloc(1 << 50)
except snp.ArenaFullError:
    pass
snp.trim()
arena.check()
assert ("logging" in sys.modules) == {there}, "logging"
print("done")
"""


def test_nobody_who_did_not_ask_sees_anything():
    assert run_python(SILENT.format(before="", there=False)) == "done\n"
    assert run_python(SILENT.format(before="import logging", there=True)) == "done\n"


LATE = """
import sys
import shared_numpy as snp

def refuse(size):
    try:
        snp.SharedMemory(create=True, size=size, reserve=True)
    except OSError:
        snp.zeros(1)

refuse(1 << 50)
import logging
logging.basicConfig(stream=sys.stdout, format="%(message)s")
refuse(1 << 51)
"""


def test_what_came_before_logging_was_imported_is_not_told_later():
    (line,) = run_python(LATE).splitlines()
    assert str(1 << 51) in line


def test_a_program_that_has_configured_logging_sees_warnings():
    before = "import logging; logging.basicConfig(stream=sys.stdout, format='%(name)s %(levelname)s')"
    output = run_python(SILENT.format(before=before, there=True))
    assert output == "shared_numpy WARNING\ndone\n"


def test_a_handler_s_error_is_reported_and_the_call_returns(collected, arena, capsys):
    def fail(record):
        raise ZeroDivisionError("in a handler")

    collected.then = fail
    block = arena.alloc(1 << 20)
    assert block.nbytes == 1 << 20
    assert "ZeroDivisionError: in a handler" in capsys.readouterr().err
    assert collected.texts("growth")


def test_ctrl_c_in_a_handler_ends_the_call_and_loses_nothing(collected, arena):
    def interrupt(record):
        collected.then = None
        raise KeyboardInterrupt

    collected.then = interrupt
    before = arena.stats()["blocks"]
    with pytest.raises(KeyboardInterrupt):
        arena.alloc(1 << 20)
    gc.collect()
    assert arena.stats()["blocks"] == before
    assert arena.alloc(100).nbytes == 128


def test_ctrl_c_in_a_handler_loses_no_message(collected):
    queue = snp.Queue()
    queue.put("message")

    def interrupt(record):
        collected.then = None
        raise KeyboardInterrupt

    collected.then = interrupt
    records.note("test", records.INFO, "one of %d", 2)
    records.note("test", records.INFO, "two of %d", 2)
    with pytest.raises(KeyboardInterrupt):
        queue.get(timeout=20)
    assert collected.texts("test") == ["one of 2"]
    # The other record, and the message, are there still.
    assert queue.get(timeout=20) == "message"
    assert collected.texts("test") == ["one of 2", "two of 2"]


def test_the_real_ctrl_c_in_a_handler(tmp_path):
    run_program(tmp_path, CTRL_C)


CTRL_C = """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        if armed:
            armed.clear()
            os.kill(os.getpid(), signal.SIGINT)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                time.sleep(0.001)
armed = []
logging.getLogger("shared_numpy").addHandler(Handler())
logging.getLogger("shared_numpy").setLevel("DEBUG")
if __name__ == "__main__":
    arena = Arena.create()
    arena.check()
    armed.append(1)
    try:
        arena.alloc(1 << 20)
    except KeyboardInterrupt:
        assert not armed
    else:
        raise AssertionError("lost")
    assert arena.alloc(1 << 10).nbytes == 1 << 10
"""


def test_a_handler_may_use_the_package(collected, arena):
    made, inside = [], []

    def use(record):
        assert not inside, "a record came in the handler of another one"
        inside.append(record)
        made.append(arena.empty(1 << 22, "u1").nbytes)
        arena.check()
        inside.clear()

    collected.then = use
    arena.alloc(1 << 20)
    assert len(about(collected.texts("growth"), arena)) == 1
    # What the handler did is logged by the next call.
    _core.emit_records()
    grown = about(collected.texts("growth"), arena)
    assert len(grown) == arena.stats()["grows"] >= 2
    assert len(made) == len(collected.records) and not inside


def test_a_handler_that_is_refused_each_time_makes_no_endless_loop(collected, arena):
    def ask(record):
        assert len(collected.records) < 100
        with pytest.raises(snp.ArenaFullError):
            arena.alloc(1 << 50)

    def refused():
        return len(collected.texts("refusal"))

    collected.then = ask
    with pytest.raises(snp.ArenaFullError):
        arena.alloc(1 << 50)
    assert refused() == 1
    # A later call logs the handler's refusal, and that one alone; so it does without the core's queue.
    _core.emit_records()
    assert refused() == 2
    collected.then = lambda record: records.note("test", records.INFO, "of a handler")
    _core.emit_records()
    assert (refused(), len(collected.texts("test"))) == (3, 0)
    _core.emit_records()
    assert len(collected.texts("test")) == 1
    # Nothing that waits is lost on the way.
    collected.then = None
    _core.emit_records()
    assert len(collected.texts("test")) == 2


def test_calls_that_do_not_wait_emit_nothing(collected):
    queue = snp.Queue()
    records.note("test", records.INFO, "waits")
    queue.put_nowait(1)
    assert queue.get_nowait() == 1
    assert collected.texts("test") == []
    queue.put(1)
    assert collected.texts("test") == ["waits"]


def test_records_of_a_pool_are_emitted_without_its_lock(collected):
    held = []

    def look(record):
        held.extend(pool for pool in pools if pool.scheduler.lock._is_owned())

    collected.then = look
    pools = []
    with snp.ProcessPoolExecutor(1, mp_context="fork") as executor:
        executor.submit(abs, -1).result()
        pools += [each for each in gc.get_objects() if type(each).__name__ == "Pool"
                  and hasattr(each, "scheduler")]  # fmt: skip
        assert pools
        for size in (1 << 16, 1 << 20, 1 << 23):
            assert executor.submit(len, np.ones(size, "u1")).result() == size
    assert held == []
    assert collected.records


def test_an_executor_s_thread_emits_while_its_caller_only_waits(collected):
    threads = []
    collected.then = lambda record: threads.append(threading.current_thread().name)
    with snp.ProcessPoolExecutor(1, mp_context="fork") as executor:
        executor.submit(abs, -1).result()
        records.note("test", records.INFO, "while it works")
        executor.submit(abs, -1).result()
        eventually(lambda: collected.texts("test") == ["while it works"])
    assert threads[-1] == "ExecutorDispatcher"


def test_more_than_can_wait_is_counted(collected):
    for number in range(100):
        records.note("test", records.INFO, "number %d", number)
    _core.emit_records()
    assert len(collected.texts("test")) == 64
    assert collected.texts("lost") == [
        "36 more events were not recorded, since too many came at once"
    ]
    _core.emit_records()
    assert len(collected.records) == 65


def test_a_child_emits_nothing_of_its_parent_s(collected, arena):
    records.note("test", records.INFO, "of the parent")
    pid = os.fork()
    if pid == 0:
        collected.records.clear()
        _core.emit_records()
        records.note("test", records.INFO, "of the child")
        _core.emit_records()
        os._exit(7 if collected.texts("test") == ["of the child"] else 1)
    assert os.WEXITSTATUS(os.waitpid(pid, 0)[1]) == 7
    _core.emit_records()
    assert collected.texts("test") == ["of the parent"]


def test_threads_emit_each_record_once(collected):
    go = threading.Barrier(4)

    def work(number):
        go.wait()
        for step in range(15):
            records.note("test", records.INFO, "%d", number * 100 + step)
            _core.emit_records()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _core.emit_records()
    wanted = sorted(number * 100 + step for number in range(4) for step in range(15))
    assert sorted(map(int, collected.texts("test"))) == wanted


OTHERS = """
import logging, subprocess
class Handler(logging.Handler):
    def emit(self, record):
        print(record.event, record.getMessage())
if __name__ == "__main__":
    if sys.argv[1:]:
        # Without a tracker.
        arena = Arena.create(directory=sys.argv[1])
        os.setpgrp()
        for _ in range(3):
            read, write = os.pipe()
            if os.fork() == 0:
                block = arena.alloc(100)
                os.write(write, b"x")
                signal.pause()
            os.read(read, 1)
        os.killpg(0, signal.SIGKILL)
    import tempfile
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        subprocess.call([sys.executable, __file__, folder])
        logging.getLogger("shared_numpy").addHandler(Handler())
        logging.getLogger("shared_numpy").setLevel("INFO")
        # (All are killed, and some may still be dying.)
        removed, deadline = [], time.monotonic() + 60
        while not removed and time.monotonic() < deadline:
            removed = snp.clean(folder)
        snp.trim()
        print("removed", removed[0])
"""


def test_what_happens_in_an_arena_that_was_left_is_not_told(tmp_path):
    told = run_program(tmp_path, OTHERS).splitlines()
    name = told[-1].split()[1]
    # Its removal, by its name, and no death there.
    (line,) = [line for line in told[:-1] if name in line]
    assert line.startswith("cleaning ")
    assert not [line for line in told if line.startswith("reap ")], told
