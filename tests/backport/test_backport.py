"""`backport.install()`: code written for 3.8 runs unchanged on 3.6 and 3.7."""

import sys

import pytest
from conftest import run_python, run_script

OURS = sys.version_info < (3, 8)

# A module of somebody else, written for 3.8.
THIRD_PARTY = '''
import multiprocessing.shared_memory
from multiprocessing import resource_tracker, shared_memory
from multiprocessing.managers import SharedMemoryManager
from multiprocessing.shared_memory import ShareableList, SharedMemory

def double(name, number):
    """Double the first bytes of a block, in any process."""
    assert multiprocessing.shared_memory is shared_memory
    shm = shared_memory.SharedMemory(name=name)
    for position in range(number):
        shm.buf[position] *= 2
    shm.close()

def total(pair):
    """Work of a pool on a pickled list."""
    items, factor = pair
    result = sum(items) * factor
    items.shm.close()
    return result
'''

MAIN = """
import multiprocessing, sys
from shared_numpy import backport
backport.install()
import third_party

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with third_party.SharedMemoryManager() as manager:
        shm = manager.SharedMemory(4)
        shm.buf[:] = bytes([1, 2, 3, 4])
        child = multiprocessing.Process(target=third_party.double, args=(shm.name, 4))
        child.start()
        child.join()
        print(list(shm.buf), child.exitcode)
        items = third_party.ShareableList([1, 2, 3])
        with multiprocessing.Pool(2) as pool:
            print(pool.map(third_party.total, [(items, 1), (items, 2)]))
        items.shm.close()
        items.shm.unlink()
        shm.close()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_third_party_module(method, tmp_path):
    (tmp_path / "third_party.py").write_text(THIRD_PARTY)
    process = run_script(tmp_path, MAIN, method)
    assert process.stderr == ""
    assert process.stdout.split("\n")[:2] == ["[2, 4, 6, 8] 0", "[6, 12]"]


@pytest.mark.skipif(not OURS, reason="3.8 and later have the modules")
def test_install_and_uninstall():
    run_python(
        """
import multiprocessing, multiprocessing.managers as home, sys
def state():
    return (
        sorted(name for name in sys.modules if name.startswith("multiprocessing.")),
        sorted(vars(multiprocessing)), sorted(vars(home)), list(home.__all__),
    )
from shared_numpy import backport, managers, resource_tracker, shared_memory
before = state()
def missing():
    try:
        import multiprocessing.shared_memory
    except ImportError:
        return True
assert missing()
for _ in range(2):
    backport.install()
    backport.install()
    import multiprocessing.shared_memory, multiprocessing.resource_tracker
    from multiprocessing.managers import SharedMemoryManager
    assert multiprocessing.shared_memory is shared_memory
    assert multiprocessing.resource_tracker is resource_tracker
    assert SharedMemoryManager is managers.SharedMemoryManager
    scope = {}
    exec("from multiprocessing.managers import *", scope)
    assert scope["SharedMemoryManager"] is managers.SharedMemoryManager
    backport.uninstall()
    backport.uninstall()
    assert state() == before
    assert missing()
"""
    )


@pytest.mark.skipif(not OURS, reason="3.8 and later have the modules")
def test_what_somebody_else_put_there_stays():
    run_python(
        """
import multiprocessing, sys, types
theirs = types.ModuleType("multiprocessing.shared_memory")
sys.modules["multiprocessing.shared_memory"] = multiprocessing.shared_memory = theirs
from shared_numpy import backport
backport.install()
import multiprocessing.resource_tracker
assert sys.modules["multiprocessing.shared_memory"] is theirs
backport.uninstall()
assert multiprocessing.shared_memory is theirs
"""
    )


@pytest.mark.skipif(OURS, reason="there it installs them")
def test_nothing_is_installed_where_the_standard_library_has_them():
    run_python(
        """
import multiprocessing.shared_memory, multiprocessing.resource_tracker, multiprocessing.managers
before = dict(vars(multiprocessing)), dict(vars(multiprocessing.managers))
from shared_numpy import backport
backport.install()
backport.uninstall()
after = dict(vars(multiprocessing)), dict(vars(multiprocessing.managers))
assert before == after
assert multiprocessing.shared_memory.__name__ == "multiprocessing.shared_memory"
"""
    )


@pytest.mark.skipif(not OURS, reason="3.8 and later have the modules")
def test_importing_it_installs_nothing():
    run_python(
        """
import multiprocessing, sys
from shared_numpy import backport
assert ("multiprocessing.shared_memory" in sys.modules) is False
assert not hasattr(multiprocessing, "shared_memory")
"""
    )
