"""CPython's own tests of executors pass on `shared_numpy.ProcessPoolExecutor`.

They are the tests of the interpreter that runs; where it is installed without, those of
another one.
"""

import json
import os
import subprocess
import sys
import time

import executors
import interpreters
import pytest
import supervisor

MINOR = sys.version_info[1]
SECONDS = 840
pytestmark = pytest.mark.limit(SECONDS + 60)
# How many processes have a share of the tests each, at once: most of what they do is to
# sleep. (With more, those that start many workers would be late for their own timeouts.)
SHARES = 2

# Each is left out, in all its classes, for the reason given.
_ITS_OWN = "a call or a result that cannot be unpickled fails alone, and the pool goes on"
_EAGER = "a call that cannot be pickled is known before another worker is started for it"
_PRIVATE = "looks at the private call queue of the standard library's class"
_MOCKED = "replaces private functions of the standard library's class"
_DROPPED = "the calls of an executor that was dropped are done here, also behind a worker's last one"
EXCLUDED = {
    "test_error_at_task_unpickle": _ITS_OWN,
    "test_exit_at_task_unpickle": _ITS_OWN,
    "test_error_during_result_unpickle_in_result_handler": _ITS_OWN,
    "test_exit_during_result_unpickle_in_result_handler": _ITS_OWN,
    # (In 3.8 these four are a part of one test.)
    "test_crash": _ITS_OWN,
    "test_saturation": _EAGER,
    "test_processes_terminate": _EAGER,
    "test_submit_keyword": "3.8's gives the function by its name, which 3.9 has done away with",
    "test_cancel_futures": "wants one call done; here all can be cancelled until a worker has one",
    "test_del_shutdown": _PRIVATE,
    "test_shutdown_no_wait": _PRIVATE,
    "test_python_finalization_error": "breaks the thread that feeds that queue",
}
# In CPython 3.14 and later.
EXCLUDED_LATER = {
    "test_failed_worker_replacement_breaks_pool": _MOCKED,
    "test_force_shutdown_during_max_tasks_worker_exit": _MOCKED,
    "test_force_shutdown_workers": _MOCKED,
    "test_force_shutdown_workers_invalid_op": _MOCKED,
    "test_kill_workers": _MOCKED,
    "test_terminate_workers": _MOCKED,
    "test_gc_during_max_tasks_worker_exit_gh152967": _DROPPED,
    "test_shutdown_no_wait_max_tasks_gh119592": _DROPPED,
}

# What has a deadline of its own, which the start of the workers alone exceeds on a machine that is
# busy: it is tried once more, with nothing else of these tests beside it.
DEADLINES = {"test_map_timeout"}

# Where an interpreter has no tests: whose are used instead.
STAND_IN = {11: 10, 12: 10}


def source():
    found = executors.source_of(sys.executable)
    if found is None and MINOR in STAND_IN:
        other = interpreters.find(STAND_IN[MINOR])
        found = other and executors.source_of(other)
    return found


@pytest.mark.skipif(MINOR < 8, reason="asked of 3.8 and later")
def test_executors(tmp_path):
    path = source()
    if path is None:
        pytest.skip("no tests of executors on this machine")
    without = set(EXCLUDED).union(EXCLUDED_LATER if MINOR >= 14 else ())
    if MINOR > 8:
        without.remove("test_submit_keyword")
    if executors.source_of(sys.executable) is None:
        # Its program imports the tests from the interpreter itself.
        without.add("test_interpreter_shutdown")
    command = [sys.executable, executors.__file__, path, "--without", ",".join(sorted(without))]
    # In full on some versions, and in a complete run on all.
    complete = os.environ.get("SHARED_NUMPY_TEST_FACTOR", "1") != "1"
    full = complete or MINOR in (8, interpreters.newest())
    if not full:
        command += ["--only", "Spawn"]
    processes = []
    for share in range(1, SHARES + 1):
        its = ["--share", "%d/%d" % (share, SHARES), "--json", str(tmp_path / ("%d.json" % share))]
        with open(str(tmp_path / ("%d.txt" % share)), "w") as output:
            processes.append(
                subprocess.Popen(
                    command + its, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
            )
    end = time.monotonic() + SECONDS
    for process in processes:
        try:
            process.wait(timeout=max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            supervisor.kill_tree(process.pid)
            process.wait()
    texts = [(tmp_path / ("%d.txt" % share)).read_text() for share in range(1, SHARES + 1)]
    text = "\n".join(texts)
    outcomes = {}
    for share in range(1, SHARES + 1):
        report = tmp_path / ("%d.json" % share)
        assert report.exists(), text
        its = json.loads(report.read_text())
        assert its and not set(its) & set(outcomes)
        outcomes.update(its)
    failed = {name: row for name, row in outcomes.items() if row[0] == "failed"}
    for name in [name for name in failed if name.split(".")[-1] in DEADLINES]:
        report = tmp_path / (name + ".json")
        again = subprocess.run(
            command + ["--only", name, "--json", str(report)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        text += again.stdout.decode()
        if json.loads(report.read_text())[name][0] == "passed":
            del failed[name]
    assert not failed, text
    least = 90 if full else 30
    assert sum(row[0] == "passed" for row in outcomes.values()) > least, text


def test_the_exclusions_are_of_tests_that_there_are():
    found = 0
    for minor, excluded in ((13, EXCLUDED), (14, EXCLUDED_LATER)):
        path = executors.source_of(interpreters.find(minor) or "")
        if path is None:
            continue
        found += 1
        text = ""
        for folder, _, files in os.walk(path):
            for file in files:
                if file.endswith(".py"):
                    with open(os.path.join(folder, file), encoding="utf-8") as stream:
                        text += stream.read()
        assert {name for name in excluded if "def {}(".format(name) not in text} <= {"test_crash"}
    if not found:
        pytest.skip("no tests of CPython 3.13 or 3.14 on this machine")
