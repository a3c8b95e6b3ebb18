"""``shared-numpy doctor`` and ``snp.diagnose()``: each fault is found, and nothing else.

The machine's own state is not known to the tests, so they compare topics: with a fault and without.
"""

import json
import os
import re
import subprocess
import sys

import pytest
from cli.commands import asked, shared_numpy
from conftest import needs_arenas, other_users, run_python
from small_shm import namespace

import shared_numpy as snp
from shared_numpy._command import check_installation, check_memory, check_system, findings

pytestmark = needs_arenas


def levels(topic, found=None):
    """Return {level: the findings of a topic}, as `asked` gives them."""
    found = asked("doctor")[1]["findings"] if found is None else found
    by_level = {}
    for finding in found:
        if finding["topic"] == topic:
            by_level.setdefault(finding["level"], []).append(finding)
    return by_level


def under(setting, *words):
    """Run ``doctor --json`` in a shell after a setting of it."""
    wrapper = ["sh", "-c", setting + ' && exec "$@"', "sh"]
    return asked("doctor", *words, wrapper=wrapper)


def mounted(setting, *words):
    """Run ``doctor --json`` in a mount namespace of its own, after a setting there."""
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    return asked("doctor", *words, wrapper=namespace() + ["sh", "-c", setting + ' && exec "$@"', "sh"])


def test_findings_are_objects():
    found = snp.diagnose()
    assert {finding.topic for finding in found} >= {
        "interpreter", "kernel", "folder", "space", "memory limit", "limits", "logout",
        "start method", "huge pages", "leftovers", "extras",
    }  # fmt: skip
    order = [findings.LEVELS.index(finding.level) for finding in found]
    assert order == sorted(order)
    for finding in found:
        assert finding.title and finding.meaning, finding
        # Whoever is told of a fault is told what to do.
        assert finding.advice or finding.level == "ok", finding
        assert tuple(finding) == (
            finding.level, finding.topic, finding.title, finding.meaning, finding.advice,
        )  # fmt: skip


def test_the_exit_code_says_whether_something_is_wrong():
    code, told = asked("doctor")
    wrong = any(finding["level"] == "error" for finding in told["findings"])
    assert (code, told["wrong"]) == (int(wrong), wrong)
    # With a fault it is 1, with a warning only where that is asked for.
    code, told = asked("doctor", env=dict(os.environ, SHARED_NUMPY_DIR="/proc"))
    assert code == 1 and "/proc" in levels("folder", told["findings"])["error"][0]["title"]
    code, told = under("ulimit -n 100", "--strict")
    assert code == 1 and "100 descr" in levels("limits", told["findings"])["warning"][0]["title"]


def test_people_can_read_it():
    process = shared_numpy("doctor", env=dict(os.environ, SHARED_NUMPY_DIR="/proc"))
    assert process.returncode == 1 and process.stderr == ""
    lines = process.stdout.splitlines()
    assert lines[0].startswith("error    the environment variable SHARED_NUMPY_DIR: ")
    assert any(line.startswith("         -> Set SHARED_NUMPY_DIR") for line in lines)
    assert re.match(r"[1-9]\d* errors?, \d+ warnings?$", lines[-1])
    quiet = shared_numpy("doctor", "--quiet", env=dict(os.environ, SHARED_NUMPY_DIR="/proc"))
    assert quiet.returncode == 1
    assert not re.search("^ok ", quiet.stdout, re.M)


def test_the_interpreter_is_told():
    (finding,) = levels("interpreter")["ok"]
    import numpy as np

    for word in (sys.version.split()[0], snp.__version__, np.__version__, "cp36-abi3"):
        assert word in finding["title"]
    assert check_installation.version_of("numpy") == np.__version__
    assert check_installation.version_of("there-is-none") is None


@pytest.mark.parametrize("numpy, level", [("1.16.6", "error"), (None, "error"), ("1.17", "ok")])
def test_an_old_numpy_is_an_error(monkeypatch, numpy, level):
    monkeypatch.setattr(check_installation, "version_of", lambda package: numpy)
    assert [finding.level for finding in check_installation.interpreter()] == [level]


@pytest.mark.parametrize(
    "name, level", [(None, "ok"), ("byte_locks", "error"), ("punch_hole", "warning")]
)
def test_what_the_kernel_lacks(monkeypatch, name, level):
    machine = dict.fromkeys((each[0] for each in check_system._FEATURES), True)
    machine.update(page_size=4096, huge_pages=None, getrandom=None)
    if name:
        machine[name] = False
    monkeypatch.setattr(check_system._core, "machine", lambda: machine)
    (finding,) = check_system.kernel()
    assert finding.level == level and (name is None or name in finding.title)


def test_a_folder_is_missing():
    code, told = mounted("mount -t tmpfs tmpfs /dev")
    assert code == 1
    found = levels("folder", told["findings"])
    assert set(found) == {"error"} and "/dev/shm" in found["error"][0]["title"]


AS_ANOTHER = """
import contextlib, io, json, os
from shared_numpy._command import main
def run(*words):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        return main.main(["doctor"] + list(words)), said.getvalue()
# (The interpreter may lie where that user cannot read: all is imported before.)
run()
os.setgid(12345)
os.setuid(12345)
answers = [run("--json"), run("--json", "--quiet"), run("--json", "--strict"), run("--quiet")]
print(json.dumps(answers))
"""


@other_users
@pytest.mark.parametrize("mode", ["0311", "1733"])
def test_a_folder_that_cannot_be_listed(mode):
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    mount = "mount -t tmpfs -o mode={} tmpfs /dev/shm && exec ".format(mode) + '"$@"'
    answers = run_python(AS_ANOTHER, wrapper=namespace() + ["sh", "-c", mount, "sh"])
    *answers, (code, text) = json.loads(answers)
    # Where arrays can be made nothing fails, and what is left there is not seen.
    level, what = {
        "0311": ("error", "/dev/shm cannot be written to by user 12345"),
        "1733": ("warning", "/dev/shm cannot be listed by user 12345"),
    }[mode]
    for strict, (answered, told) in enumerate(answers):
        told = json.loads(told)
        found = levels("folder", told["findings"])
        assert [(each, finding["title"]) for each in found for finding in found[each]] == [(level, what)]
        (finding,) = levels("leftovers", told["findings"])["warning"]
        assert "cannot be listed" in finding["title"] and "about the folder" in finding["advice"]
        # The folder's fault is not taken for the kernel's.
        assert not any("o_tmpfile" in each["title"] for each in told["findings"])
        assert answered == int(told["wrong"]) and (told["wrong"] or level == "warning" and strict < 2)
    wrong = any(finding["level"] == "error" for finding in told["findings"])
    text = " ".join(text.split())
    assert code == int(wrong) and "{} {}".format(level, what) in text


def test_a_folder_on_a_disk(tmp_path):
    if check_memory._is_tmpfs(str(tmp_path)):
        pytest.skip("the temporary folder is on a tmpfs")
    code, told = mounted("mount --bind {} /dev/shm".format(tmp_path))
    assert code == 1
    assert "not on a tmpfs" in levels("folder", told["findings"])["error"][0]["title"]


@pytest.mark.parametrize(
    "options, filled, level",
    [
        ("size=64m", 0, "warning"),
        ("size=128m", 0, "ok"),
        ("size=128m", 110, "warning"),
        ("size=128m", 126, "error"),
        ("size=128m,nr_inodes=101", 0, "ok"),
    ],
)
def test_the_space_of_a_folder(options, filled, level):
    setting = "mount -t tmpfs -o {} tmpfs /dev/shm".format(options)
    if filled:
        setting += " && head -c {}M /dev/zero > /dev/shm/filled".format(filled)
    code, told = mounted(setting)
    found = levels("space", told["findings"])
    assert set(found) == {level}
    assert "/dev/shm: {}".format(options[5:].split("m")[0]) in found[level][0]["title"]
    assert code == int(told["wrong"])
    if level != "ok":
        assert "--shm-size" in found[level][0]["advice"]


def test_no_inodes_are_left():
    setting = "mount -t tmpfs -o size=128m,nr_inodes=101 tmpfs /dev/shm && "
    setting += "touch $(seq -f /dev/shm/%g 100)"
    found = levels("space", mounted(setting)[1]["findings"])
    assert "0 of 101 inodes" in found["error"][0]["title"]


def status(**values):
    class Status:
        f_blocks = f_bavail = f_frsize = f_files = f_favail = 0

    vars_of = dict(f_frsize=4096, **values)
    for name, value in vars_of.items():
        setattr(Status, name, value)
    return Status


def test_a_folder_without_a_limit():
    (finding,) = check_memory._space_of("/dev/shm", status())
    assert finding.level == "ok" and "no limit" in finding.title


@pytest.mark.parametrize("left, level", [(None, "ok"), (1 << 20, "error"), (1 << 60, "ok")])
def test_the_memory_limit(monkeypatch, left, level):
    monkeypatch.setattr(check_system._core, "memory_left", lambda: left)
    assert [finding.level for finding in check_memory.memory_limit()] == [level]


def test_a_memory_limit_below_the_folder_s_space(monkeypatch):
    monkeypatch.setattr(check_system._core, "memory_left", lambda: 1 << 30)
    monkeypatch.setattr(os, "statvfs", lambda place: status(f_blocks=1 << 20, f_bavail=1 << 19))
    (finding,) = check_memory.memory_limit()
    assert finding.level == "warning" and "2 GiB" in finding.meaning


@pytest.mark.parametrize(
    "setting, text", [("ulimit -n 64", "64 descriptors"), ("ulimit -f 4096", "size of files: "),
                      ("ulimit -v 8000000", "address space: 7.6 GiB")]
)  # fmt: skip
def test_limits_are_told(setting, text):
    found = levels("limits", under(setting)[1]["findings"])
    assert any(text in finding["title"] for finding in found["warning"])


def test_the_limit_of_processes_of_a_group(tmp_path):
    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    def limit():
        return check_system._group_limit("pids.max", "pids.current", str(tmp_path))

    assert limit() is None
    write("proc/self/cgroup", "4:cpu:/x\n0::/a/b\n")
    assert limit() is None
    write("sys/fs/cgroup/a/b/pids.max", "max\n")
    write("sys/fs/cgroup/a/b/pids.current", "5\n")
    assert limit() is None
    write("sys/fs/cgroup/a/pids.max", "100\n")
    write("sys/fs/cgroup/a/pids.current", "50\n")
    assert limit() == (100, 50)
    write("sys/fs/cgroup/a/b/pids.max", "20\n")
    assert limit() == (20, 5)


# What logind's files say, by their paths -> whether a user's files go at logout.
LOGIND = [
    ({}, True),
    ({"etc/systemd/logind.conf": "[Login]\n#RemoveIPC=no\n"}, False),
    ({"etc/systemd/logind.conf": "[Login]\n#RemoveIPC=yes\nRemoveIPC = no\n"}, False),
    ({"etc/systemd/logind.conf": "RemoveIPC=no\nRemoveIPC=yes\n"}, True),
    ({"etc/systemd/logind.conf": "", "usr/lib/systemd/logind.conf": "RemoveIPC=no"}, True),
    ({"usr/lib/systemd/logind.conf": "RemoveIPC=no"}, False),
    ({"usr/lib/systemd/logind.conf.d/9.conf": "RemoveIPC=0",
      "etc/systemd/logind.conf.d/1.conf": "RemoveIPC=1"}, False),
    ({"usr/lib/systemd/logind.conf.d/9.conf": "RemoveIPC=0",
      "etc/systemd/logind.conf.d/9.conf": "[Login]"}, True),
    ({"etc/systemd/logind.conf": "RemoveIPC=no",
      "run/systemd/logind.conf.d/a.conf": "#RemoveIPC=yes"}, False),
]  # fmt: skip


@pytest.mark.parametrize("files, wanted", LOGIND)
def test_logind_s_files(tmp_path, files, wanted):
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert check_system.removes_ipc(str(tmp_path)) is wanted


def test_logout(tmp_path, monkeypatch):
    def level():
        (finding,) = check_system.logout(str(tmp_path))
        return finding.level

    user = [1234567]
    monkeypatch.setattr(os, "geteuid", lambda: user[0])
    assert level() == "ok"  # No systemd runs.
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert level() == "warning"
    (tmp_path / "var/lib/systemd/linger").mkdir(parents=True)
    (tmp_path / "var/lib/systemd/linger/1234567").write_text("")
    assert level() == "ok"
    (tmp_path / "var/lib/systemd/linger/1234567").unlink()
    user[0] = 0
    assert level() == "ok"  # A system user.
    user[0] = 600
    assert level() == "ok"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/login.defs").write_text("# x\nSYS_UID_MAX\t\t500\n")
    assert level() == "warning"


def test_nothing_is_chosen_or_made_by_looking():
    run_python(
        "import multiprocessing, os, shared_numpy as snp\n"
        "before = os.listdir('/proc/self/fd')\n"
        "snp.diagnose()\n"
        "assert multiprocessing.get_start_method(allow_none=True) is None\n"
        "assert os.listdir('/proc/self/fd') == before\n"
        "multiprocessing.set_start_method('spawn')\n"
        "titles = [finding.title for finding in snp.diagnose()]\n"
        "assert 'Start method spawn' in titles, titles"
    )


def test_huge_pages(monkeypatch):
    for chosen, advised in ((None, False), ("never", True), ("within_size", False)):
        monkeypatch.setattr(check_system._core, "machine", lambda: {"huge_pages": chosen})
        (finding,) = check_system.huge_pages()
        assert bool(finding.advice) is advised and str(chosen or "unknown") in finding.title


def test_optional_packages(monkeypatch):
    there = {"tqdm": "4.1"}
    monkeypatch.setattr(check_installation, "version_of", there.get)
    (finding,) = check_installation.extras()
    assert "tqdm 4.1" in finding.title and finding.advice.endswith("cloudpickle rich")
    there.update(cloudpickle="1", rich="2")
    (finding,) = check_installation.extras()
    assert finding.advice == ""


def test_it_starts_no_program():
    """So it answers at once, and works where no process can be made."""
    code = (
        "import subprocess, os, shared_numpy as snp\n"
        "subprocess.Popen = os.fork = None\n"
        "snp.diagnose()"
    )
    assert subprocess.call([sys.executable, "-c", code]) == 0


LEFT = """
import os, signal, subprocess, sys
code = "import os, signal, shared_numpy as snp; a = snp.ones(100000);"
code += "print(snp.Arena.default().name, flush=True); os.killpg(0, signal.SIGKILL)"
def left():
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                               start_new_session=True, universal_newlines=True)
    return process.communicate()[0].strip()
def told():
    import shared_numpy as snp
    return [finding for finding in snp.diagnose() if finding.topic == "leftovers"]
(finding,) = told()
assert finding.level == "ok", finding
name = left()
(finding,) = told()
assert finding.level == "warning" and finding.title.startswith("1 thing "), finding
assert name in finding.meaning and "shared-numpy clean" in finding.advice
with open("/dev/shm/" + name, "r+b") as file:
    file.seek(53248)
    file.write(bytes([0xee]) * 4096)
assert any("damaged: " + name in finding.title for finding in told()), told()
subprocess.check_call([sys.executable, "-m", "shared_numpy", "clean", "--force", name],
                      stdout=subprocess.DEVNULL)
(finding,) = told()
assert finding.level == "ok", finding
"""


def test_what_killed_programs_left():
    if namespace() is None:
        pytest.skip("this user may not mount, or not run the interpreter where that is allowed")
    mount = 'mount -t tmpfs tmpfs /dev/shm && exec "$@"'
    run_python(LEFT, wrapper=namespace() + ["sh", "-c", mount, "sh"])
