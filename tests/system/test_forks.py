"""A fork never meets a half-done import of the package, and handlers run around forks.

What holds: a child that is forked while another thread imports something of the package
can import and use it, however that import was asked for and wherever it was; the fork
waits for the import, or, if that takes too long, the child does it anew.
"""

import os
import sys

import pytest
from conftest import run_python

# A thread imports something of the package, and stops in the middle, in a module that the
# import needs. The main thread forks then.
PROGRAM = """
import importlib.machinery, multiprocessing, os, signal, sys, threading, time, warnings
# Since 3.12 a fork beside threads is warned of, and done all the same.
warnings.simplefilter("ignore", DeprecationWarning)
import shared_numpy as snp
from shared_numpy._system import forks

parent, begun, found = os.getpid(), threading.Event(), threading.Event()

class Slow:
    # Makes a module's code wait before it runs: while a module is looked for, the
    # interpreter holds a lock of its own, and a fork waits for that in any case.

    def find_spec(self, name, path=None, target=None):
        if name == {slow!r} and os.getpid() == parent:
            spec = importlib.machinery.PathFinder.find_spec(name, path, target)
            run = spec.loader.exec_module

            def slowly(module):
                begun.set()
                time.sleep({seconds})
                found.set()
                run(module)

            spec.loader.exec_module = slowly
            return spec

def use():
    {use}

def child():
    signal.alarm(20)  # Ends a child that hangs.
    {use}
    array = snp.zeros(3)
    array += 1
    assert array.sum() == 3
    snp.Queue().put(array)

sys.meta_path.insert(0, Slow())
thread = threading.Thread(target=use)
thread.daemon = True
thread.start()
assert begun.wait(20)
forks.LONGEST = {longest}
if {way!r} == "Process":
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    waited = found.is_set()
    process.join()
    code = process.exitcode
else:
    pid = os.fork() if {way!r} == "fork" else os.forkpty()[0]
    if pid == 0:
        try:
            child()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        sys.exit(0)
    waited = found.is_set()
    code = os.waitpid(pid, 0)[1]
assert code == 0, code
print(waited)
"""


@pytest.mark.parametrize(
    "use, slow, way",
    [
        ("snp.zeros(3)", "numpy", "fork"),
        ("snp.Queue", "shared_numpy._channels", "Process"),
        ("from shared_numpy import executor", "shared_numpy._pool.worker_main", "forkpty"),
        ("import shared_numpy.queues", "numpy", "fork"),
        ("import shared_numpy._system.process_tree", "shared_numpy._system.process_tree", "Process"),
    ],
)
def test_a_fork_waits_for_an_import(use, slow, way):
    if way == "forkpty":
        try:
            for end in os.openpty():
                os.close(end)
        except OSError as error:
            pytest.skip("there are no pseudo-terminals here: {}".format(error))
    code = PROGRAM.format(use=use, slow=slow, way=way, seconds=0.3, longest=20)
    assert run_python(code) == "True\n"


@pytest.mark.parametrize("way", ["fork", "Process"])
@pytest.mark.parametrize(
    "use, slow",
    [("snp.Queue", "shared_numpy._channels"), ("import shared_numpy.arrays", "numpy")],
)
def test_a_child_does_an_import_anew_that_took_too_long(use, slow, way):
    code = PROGRAM.format(use=use, slow=slow, way=way, seconds=1000, longest=0.1)
    assert run_python(code) == "False\n"


def test_a_thread_may_fork_while_it_imports():
    """It does not wait for itself."""
    code = (
        "import os, sys, time\n"
        "import shared_numpy as snp\n"
        "me = os.getpid()\n"
        "class Forks:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'shared_numpy._channels' and os.getpid() == me:\n"
        "            start = time.monotonic()\n"
        "            pid = os.fork()\n"
        "            if pid == 0: os._exit(time.monotonic() - start > 3)\n"
        "            print(os.waitpid(pid, 0)[1])\n"
        "sys.meta_path.insert(0, Forks())\n"
        "snp.Queue().put(3)"
    )
    assert run_python(code) == "0\n"


HANDLERS = """
import os, sys
from shared_numpy._system.forks import register_at_fork
told, reported = [], []
def handler(word):
    return lambda: told.append(word)
def fails():
    raise ValueError("of a handler")
for number in "12":
    register_at_fork(
        before=handler("before" + number),
        after_in_parent=handler("parent" + number),
        after_in_child=handler("child" + number),
    )
# What a handler raises is reported, and the fork goes on. (3.7 itself writes it to stderr.)
if sys.version_info[:2] != (3, 7):
    register_at_fork(before=fails)
sys.excepthook = sys.unraisablehook = lambda *error: reported.append(error)
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    os.write(writer, repr(told).encode())
    os._exit(0)
os.waitpid(pid, 0)
assert len(reported) == (sys.version_info[:2] != (3, 7))
print(told)
print(os.read(reader, 1000).decode())
"""


def test_handlers_run_around_forks():
    """The same on 3.6 as by the interpreter's own later."""
    parent, child = run_python(HANDLERS).splitlines()
    assert eval(parent) == ["before2", "before1", "parent1", "parent2"]
    assert eval(child) == ["before2", "before1", "child1", "child2"]


@pytest.mark.skipif(sys.version_info >= (3, 7), reason="the interpreter has handlers of its own")
def test_a_fork_that_fails_on_36(monkeypatch):
    from shared_numpy._system import forks

    def fork():
        raise BlockingIOError("no more processes")

    told = []
    # (None of those that are there: some take a lock before a fork, and give it back after it.)
    for name in ("before", "after_in_parent", "after_in_child"):
        monkeypatch.setattr(forks, "_" + name, [lambda name=name: told.append(name)])
    with pytest.raises(BlockingIOError):
        forks._with_handlers(fork)()
    assert told == ["before", "after_in_parent"]
    assert os.fork.__name__ == "fork" and os.fork.__wrapped__ is not None
