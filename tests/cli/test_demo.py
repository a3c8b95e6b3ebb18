"""``shared-numpy demo`` where shared memory is small.

1. It ends, and shows all, with frames for which there is room.
2. A frame for which there is no room is refused with what to do; no process is waited for in vain, and
   nothing is left behind.
"""

import pytest
from cli.commands import COMMAND
from conftest import needs_arenas, run_command
from small_shm import namespace

pytestmark = needs_arenas


def demo(size, *words):
    """Run ``demo`` where /dev/shm holds so many bytes, then list what is left there."""
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    mount = 'mount -t tmpfs -o size=%d tmpfs /dev/shm && "$@"; code=$?; ls -A /dev/shm; exit $code'
    command = namespace() + ["sh", "-c", mount % size, "sh"] + COMMAND + ["demo", "--frames", "2"]
    return run_command(command + list(words))


@pytest.mark.parametrize("mib", [8, 64])
def test_frames_fit_into_a_small_folder(mib):
    process = demo(mib << 20)
    assert (process.returncode, process.stderr) == (0, ""), process.stderr
    assert "nothing is left behind" in process.stdout


def test_a_frame_without_room_is_refused():
    # A segment has room for it, and the arrays of a queue have not.
    process = demo(64 << 20, "--side", "3000")
    assert process.returncode == 6, process
    assert "--side" in process.stderr and "3000 x 3000" in process.stderr
    assert "Traceback" not in process.stderr
    assert not [name for name in process.stdout.split() if name.startswith("psm_")]
