"""A test that hangs or crashes fails alone, and the run goes on and ends.

What holds, in runs of pytest over tests that are made to hang: exactly these fail, each
within its limit and the supervisor's patience; all others are reported once; no process
of theirs stays; and the exit status is pytest's.
"""

import os
import signal
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from conftest import ROOT, eventually, run_command

CONFTEST = """
import sys
sys.path.insert(0, {!r})
import supervisor
supervisor.POLL, supervisor.PATIENCE, supervisor.END_LIMIT = 0.1, 0.5, 2

def pytest_addoption(pluginmanager):
    supervisor.register(pluginmanager)
""".format(os.path.join(ROOT, "tests"))

BEGIN = """
import atexit, ctypes, os, signal, subprocess, sys, threading, time
import pytest
# Children that close nothing, and tell which they are by the mark in their arguments.
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)", {mark!r}]
NESTED = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"

def test_before():
    pass
"""

END = """
def test_after():
    pass

def test_fails():
    assert 1 == 2

@pytest.mark.parametrize("n", range(3))
def test_others(n):
    pass
"""
OTHERS = {"test_before", "test_after", "test_others[0]", "test_others[1]", "test_others[2]"}


def run_pytest(folder, tests, *arguments, before=(), **options):
    """Run tests, in the middle of `OTHERS`; return name -> outcome, and the exit status."""
    (folder / "conftest.py").write_text(CONFTEST)
    mark = str(folder)
    (folder / "test_them.py").write_text(BEGIN.format(mark=mark) + tests + END)
    report = folder / "report.xml"
    process = subprocess.Popen(
        list(before)
        + [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider"]
        + ["--junitxml", str(report)] + list(arguments) + ["test_them.py"],
        cwd=str(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        start_new_session=True,
        **options
    )  # fmt: skip
    try:
        output = process.communicate(timeout=120)[0]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    eventually(lambda: not processes_with(mark))
    outcomes = {}
    for case in xml.etree.ElementTree.parse(str(report)).iter("testcase"):
        assert case.get("name") not in outcomes
        outcomes[case.get("name")] = "failed" if len(case) else "passed"
    return outcomes, process.returncode, output


def processes_with(mark):
    """List the processes that have this among their arguments."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/{}/cmdline".format(pid), "rb") as file:
                if mark.encode() in file.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            pass
    return found


def test_hangs_in_python_fail_alone(tmp_path):
    tests = """
@pytest.mark.limit(0.5)
def test_calls_that_are_repeated():
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    os.waitpid(pid, 0)

@pytest.mark.limit(0.5)
def test_a_pipe_that_a_grandchild_keeps():
    process = subprocess.Popen(
        [sys.executable, "-c", NESTED] + SLEEP, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.communicate()

@pytest.mark.limit(0.5)
def test_a_lock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

@pytest.mark.limit(0.5)
def test_a_thread():
    # The interpreter would wait for it at its end.
    thread = threading.Thread(target=time.sleep, args=(600,))
    thread.start()
    thread.join()

@pytest.mark.limit(0.5)
def test_again_in_the_end():
    process = subprocess.Popen(SLEEP)
    try:
        process.wait()
    finally:
        process.wait()

@pytest.fixture
def slowly():
    yield
    time.sleep(600)

@pytest.mark.limit(0.5)
def test_in_a_fixture(slowly):
    pass
"""
    outcomes, status, output = run_pytest(tmp_path, tests)
    hung = {
        "test_calls_that_are_repeated", "test_a_pipe_that_a_grandchild_keeps", "test_a_lock",
        "test_a_thread", "test_again_in_the_end", "test_in_a_fixture",
    }  # fmt: skip
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert (failed, status) == (hung | {"test_fails"}, 1), output
    assert set(outcomes) == failed | OTHERS
    assert "no end after 0.5 s" in output and "Current thread" in output


def test_what_does_not_come_back_and_what_crashes_fails_alone(tmp_path):
    tests = """
@pytest.mark.limit(0.5)
def test_in_c():
    mutex = ctypes.create_string_buffer(64)
    subprocess.Popen(SLEEP, start_new_session=True)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
    ctypes.CDLL(None).pthread_mutex_lock(mutex)

def test_crashes():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    outcomes, status, output = run_pytest(tmp_path, tests)
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert (failed, status) == ({"test_in_c", "test_crashes", "test_fails"}, 1), output
    assert set(outcomes) == failed | OTHERS
    assert "nor when it was interrupted" in output and "the interpreter ended with -9" in output


def test_a_test_that_goes_on_after_its_limit_has_failed(tmp_path):
    tests = """
@pytest.mark.limit(0.5)
def test_goes_on():
    try:
        time.sleep(600)
    except BaseException:
        pass
"""
    outcomes, status, output = run_pytest(tmp_path, tests)
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert (failed, status) == ({"test_goes_on", "test_fails"}, 1), output
    assert set(outcomes) == failed | OTHERS
    assert "no end after 0.5 s: it went on" in output


def test_of_a_test_that_takes_long_it_is_told_what_it_waits_for(tmp_path):
    tests = """
def wait_for_it(process):
    process.wait()

@pytest.mark.limit(6)
def test_takes_long():
    process = subprocess.Popen(["sleep", "4"])
    thread = threading.Thread(target=wait_for_it, args=(process,))
    thread.start()
    thread.join()
"""
    outcomes, status, output = run_pytest(tmp_path, tests)
    assert (outcomes.pop("test_fails"), status) == ("failed", 1), output
    assert set(outcomes) == OTHERS | {"test_takes_long"}
    told = output[output.index("test_takes_long takes long") :]
    assert "in wait_for_it" in told and "in test_takes_long" in told, output
    assert "sleep 4" in told and output.count("takes long.") == 1, output


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path):
    code = (
        "import subprocess, sys, time\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(600)', sys.argv[1]]\n"
        "subprocess.Popen(command, start_new_session=True)\n"
        "print('said', flush=True)\n"
        "time.sleep(600)"
    )
    with pytest.raises(AssertionError, match="no end after 2 s.*said"):
        run_command([sys.executable, "-c", code, str(tmp_path)], timeout=2)
    eventually(lambda: not processes_with(str(tmp_path)))


def test_statuses_and_choices_are_pytest_s(tmp_path):
    assert run_pytest(tmp_path, "", "-k", "nothing")[:2] == ({}, 5)
    tests = """
def test_dies():
    os._exit(0)

def test_interrupts():
    os.kill(os.getpid(), signal.SIGINT)

def test_leaves_a_thread():
    threading.Thread(target=time.sleep, args=(600,)).start()

def test_crashes_later():
    atexit.register(os.abort)
"""
    outcomes, status, output = run_pytest(tmp_path, tests, "-k", "before or dies", "-x")
    assert (outcomes, status) == ({"test_before": "passed", "test_dies": "failed"}, 1), output
    assert run_pytest(tmp_path, tests, "-k", "interrupts or fails")[1] == 2
    outcomes, status, output = run_pytest(tmp_path, tests, "-k", "leaves")
    assert (outcomes, status) == ({"test_leaves_a_thread": "passed"}, 1)
    assert "did not end after the tests" in output
    assert run_pytest(tmp_path, tests, "-k", "later")[1] == 256 - signal.SIGABRT


def test_signals_that_are_ignored_work_in_tests(tmp_path):
    tests = """
def test_signals():
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        process = subprocess.Popen(SLEEP)
        process.send_signal(number)
        assert process.wait() == -number or number == signal.SIGINT
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(600)
"""
    code = (
        "import os, signal, sys;"
        "ignored = signal.SIGINT, signal.SIGQUIT, signal.SIGHUP;"
        "[signal.signal(each, signal.SIG_IGN) for each in ignored];"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    outcomes, status, output = run_pytest(tmp_path, tests, before=[sys.executable, "-c", code])
    assert outcomes.pop("test_fails") == "failed"
    assert (set(outcomes.values()), status) == ({"passed"}, 1), output
