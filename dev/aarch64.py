"""Tests on 64-bit Arm, emulated on an x86-64 machine: `make test-aarch64` and
`make test-aarch64-vm`.

The first runs programs of Debian's arm64 on this system's kernel (user-mode emulation): the
core's tests and the package's. The second starts an emulated machine with a kernel of
Debian's, whose pages are of 16 KiB or of 4, and runs the core's tests of processes there. The
emulators, the programs and the kernels are unpacked below build/aarch64; nothing is installed
in this system.

An emulation on x86-64 orders accesses to memory as that does. So no test here can tell whether
the code is right with the weaker order of Arm.
"""

import glob
import gzip
import os
import platform
import re
import shutil
import stat
import sys
import time

import builds
import debian
import suites
from environments import ROOT
from jobs import Failed, Job

TARGET = "aarch64-unknown-linux-gnu"
FOLDER = os.path.join(builds.BUILD, "aarch64")
TARGETS = os.path.join(builds.BUILD, "targets")
# This machine's programs: the emulators.
HOST = os.path.join(FOLDER, "host")
# The other machine's, and among them the core's tests.
MACHINE = os.path.join(FOLDER, "machine")
TESTS = os.path.join(MACHINE, "tests")
KERNELS = os.path.join(FOLDER, "kernels")

EMULATORS = ["qemu-user", "qemu-system-arm"]
PROGRAMS = ["bash", "busybox-static", "coreutils", "python3"]
PROGRAMS += ["python3-" + name for name in (
    "cloudpickle", "hypothesis", "joblib", "numpy", "pytest", "tqdm",
)]  # fmt: skip
# By the KiB of their pages.
KERNEL_OF = {"4": "linux-image-arm64", "16": "linux-image-arm64-16k"}

# The first Linux in which a user namespace has formats of programs of its own.
FORMATS_OF_OWN = (6, 7)

# How long each may take, in seconds.
CORE_SECONDS = 1500
SUITE_SECONDS = 3600
FILE_SECONDS = 1200
VM_SECONDS = 2 * 3600
# And one test with processes, which is 120 s where nothing is emulated.
TEST_SECONDS = 600

# What user-mode emulation cannot run of the core's tests of processes, and why. Processes that
# have lost their locks are told by /proc/PID/stat; free memory goes back by MADV_REMOVE.
_STAT = "the emulator makes up /proc/self/stat"
_REMOVE = "the emulator ignores MADV_REMOVE"
_TRACE = "the emulator has no ptrace"
NOT_EMULATED = {
    "a_process_that_closed_its_descriptors": _STAT,
    "each_system_call_fails": _STAT,
    "no_address_space_left": "the emulator ignores RLIMIT_AS",
    "on_an_old_kernel": _REMOVE,
    "returned_pages_come_back": _REMOVE,
    "ring_failed_take": _TRACE,
    "ring_lock_between_threads": _TRACE,
    "ring_recovery_that_fails": _TRACE,
    "ring_recovery_wakes_all": _TRACE,
    "the_arena_is_right_on_the_system": _REMOVE,
    "the_arena_is_right_where_calls_fail": _REMOVE,
    "step_every_frame_operation": _TRACE,
    "step_every_operation": _TRACE,
    "step_every_ring_operation": _TRACE,
    "two_namespaces_of_pids": "the kernel makes no user namespace in a chroot",
}
# The suites of the package that run, and the files that come first: those to which the
# processor, the size of its pages or the kernel matters most.
PACKAGE_SUITES = ["backport", "arrays", "pools"]
FIRST = ["tests/{}/test_{}.py".format(*name.split("/")) for name in (
    "system/kernels", "arena/arena", "arena/arena_processes", "arrays/arrays", "queues/queues",
    "queues/ring", "backport/shared_memory", "backport/posixshmem", "backport/shareable_list",
    "named/named", "pool/executor", "system/forks", "arena/memory", "queues/frames",
)]  # fmt: skip
# What of them cannot run, and why.
NOT_EMULATED_OF_PACKAGE = {
    "tests/arrays/test_arrays.py::test_first_copies[check(2000)]": "it counts page faults, and half "
    "of the pages that the kernel writes to have one under the emulator",
    "tests/arena/test_arena_processes.py::test_forks[('daemon',)]": _STAT,
    "tests/arena/test_arena_processes.py::test_forks[('ends',)]": "the emulator prints a line of "
    "its own when a program aborts",
    "tests/arena/test_memory.py::test_what_the_dead_held_is_back_at_the_last_reference": _REMOVE,
    "tests/arena/test_memory.py::test_what_the_dead_held_is_found_by_a_later_call": _REMOVE,
    "tests/arena/test_memory.py::test_trim": _REMOVE,
    "tests/arena/test_lifetime.py::test_a_program_that_changes_its_root": _REMOVE,
    "tests/arena/test_look.py::test_a_process_goes_on_without_its_first_thread": _STAT,
}
# And what of the core's tests of processes the emulated machine cannot.
NOT_ON_VM = {"arenas_on_a_disk_are_refused": "the machine has no disk"}
# And which operations of those that are stepped: this one is all the way to where the child sleeps,
# which takes longer than its helper waits for that.
NOT_STEPPED_ON_VM = ["ring: wait and be woken"]


def lacking():
    """Return why there can be no such test here; None if there can."""
    if os.getuid() != 0:
        return "it needs root (chroot, mount)"
    if platform.machine() != "x86_64":
        return "it needs an x86-64 (on 64-bit Arm `make test` tests that)"
    if debian.mirror() is None:
        return "it needs apt-get and Debian's packages"
    if TARGET not in builds.installed_targets():
        return "there is no target: rustup target add " + TARGET
    return None


def user_jobs(results):
    """Return the jobs of `test-aarch64`; a `suites.Result` of each file goes to `results`."""
    why = lacking()
    if not why and tuple(map(int, re.findall(r"\d+", platform.release())[:2])) < FORMATS_OF_OWN:
        why = "it needs Linux %d.%d (binfmt_misc in user namespaces)" % FORMATS_OF_OWN
    if why:
        return [Job("aarch64", lambda job: "skipped: " + why)]
    return [
        Job("machine of aarch64", unpack_machine),
        Job("core for aarch64", build_core, ["machine of aarch64"]),
        Job("wheel for aarch64", install_wheel, ["core for aarch64"]),
        Job("core on aarch64", check_core, ["core for aarch64"]),
        Job("core on aarch64, processes", check_processes, ["core on aarch64"]),
        Job(
            "package on aarch64",
            lambda job: check_package(job, results),
            ["wheel for aarch64", "core on aarch64, processes"],
        ),
    ]


def vm_jobs(kib):
    """Return the jobs of `test-aarch64-vm`: on kernels with pages of so many KiB."""
    unknown = sorted(set(kib) - set(KERNEL_OF))
    if unknown:
        sys.exit("pages of {} KiB: there are kernels with {}".format(
            ", ".join(unknown), " and ".join(sorted(KERNEL_OF))
        ))  # fmt: skip
    why = lacking()
    if why:
        return [Job("aarch64", lambda job: "skipped: " + why)]
    made = [
        Job("machine of aarch64", unpack_machine),
        Job("core for aarch64", build_core, ["machine of aarch64"]),
    ]
    for size in kib:
        name = "core on aarch64, pages of {} KiB".format(size)
        made.append(Job(name, lambda job, size=size: check_on_vm(job, size), [made[-1].name]))
    return made


# ---- what is unpacked and built -----------------------------------------------------------


def packages(architecture):
    return debian.Packages(os.path.join(FOLDER, "packages-" + architecture), architecture)


def unpack_machine(job):
    """Unpack the emulators, and the programs that they run."""
    packages("amd64").unpack(job, EMULATORS, HOST)
    packages("arm64").unpack(job, PROGRAMS, MACHINE)
    # What scripts of these packages do.
    for name in ("blas/libblas.so.3", "lapack/liblapack.so.3"):
        link = os.path.join(MACHINE, "usr", "lib", "aarch64-linux-gnu", os.path.basename(name))
        if not os.path.lexists(link):
            os.symlink(name, link)
    with open(os.path.join(MACHINE, "etc", "passwd"), "w") as file:
        file.write("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")


def compiler():
    """Return a command that compiles and links C for the other machine."""
    path = os.path.join(FOLDER, "cc")
    words = [builds.builder(builds.RELEASE_PACKAGES), "-m", "ziglang", "cc", "-target"]
    words.append("aarch64-linux-gnu.%d.%d" % builds.GLIBC)
    with open(path, "w") as file:
        file.write('#!/bin/sh\nexec {} "$@"\n'.format(" ".join(words)))
    os.chmod(path, 0o755)
    return path


def build_core(job):
    """Build the core's tests, and the libraries that they preload."""
    cc = compiler()
    variable = "CARGO_TARGET_{}_LINKER".format(TARGET.upper().replace("-", "_"))
    command = ["cargo", "test", "--locked", "--no-default-features", "--target", TARGET]
    command += ["--target-dir", TARGETS, "--lib", "--test", "core", "--test", "crash", "--no-run"]
    job.run(command, env=dict(os.environ, **{variable: cc}))
    shutil.rmtree(TESTS, ignore_errors=True)
    os.makedirs(TESTS)
    # "Executable tests/core/main.rs (build/targets/.../core-0123456789abcdef)"
    for path in re.findall(r"Executable .*\((\S+)\)", job.output()):
        name = os.path.basename(path).partition("-")[0]
        shutil.copy(os.path.join(ROOT, path), os.path.join(TESTS, name))
    for source in glob.glob(os.path.join(ROOT, "tests", "shims", "*.c")):
        library = os.path.join(TESTS, os.path.basename(source)[:-2] + ".so")
        job.run([cc, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"])
    copy_checkout()


def copy_checkout():
    """Copy what tests read to the same place in the other machine."""
    shutil.rmtree(MACHINE + ROOT, ignore_errors=True)
    # What is built, and what tools keep, stays here.
    left_out = shutil.ignore_patterns("build", "dist", "target", ".*", "__pycache__")
    shutil.copytree(ROOT, MACHINE + ROOT, ignore=left_out)
    # Cargo makes a folder that tests write to.
    os.makedirs(os.path.join(MACHINE + TARGETS, TARGET, "tmp"))


def version():
    """Return the version of the other machine's CPython, as "3.13"."""
    (folder,) = glob.glob(os.path.join(MACHINE, "usr", "lib", "python3.*"))
    return os.path.basename(folder)[len("python") :]


def install_wheel(job):
    """Build the wheel, and unpack it where the other machine's Python finds it."""
    wheel = builds.build_for(job, TARGET, "manylinux2014", "quick", FOLDER)
    folder = os.path.join(MACHINE, "usr", "local", "lib", "python" + version(), "dist-packages")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.unpack_archive(wheel, folder, "zip")


# ---- user-mode emulation ------------------------------------------------------------------

# Runs a command in the other machine's files, with process numbers and a /dev/shm of its own.
# To the kernel it says, for this command alone, that programs for Arm are the emulator's.
ENTER = r"""
machine=$1 emulator=$2
shift 2
mkdir -p "$machine/formats" && mount -t proc proc "$machine/proc" &&
    mount --rbind /dev "$machine/dev" &&
    mount -t tmpfs -o mode=1777 tmpfs "$machine/dev/shm" &&
    mount -t binfmt_misc binfmt_misc "$machine/formats" || exit 99
head='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf %s ":aarch64:M::$head:$mask:$emulator:PF" >"$machine/formats/register" || exit 99
chroot "$machine" env -i PATH=/usr/local/bin:/usr/bin:/bin HOME=/root LANG=C.UTF-8 "$@"
# Not the last command: this shell, process 1 here, must wait for orphans.
exit $?
"""


def emulated(job, command, seconds, fails=True):
    """Run a command of the other machine; return its exit code."""
    words = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]
    words += ["sh", "-c", ENTER, "sh", MACHINE, os.path.join(HOST, "usr", "bin", "qemu-aarch64")]
    return job.run(words + command, seconds, fails)


def check_core(job):
    """Run the core's tests that need no other process."""
    for name in ("shared_numpy", "core"):
        emulated(job, ["/tests/" + name], CORE_SECONDS)
    return suites.core_counts(job)


def without(left):
    """Return arguments for the tests of processes that leave some out, and a text that says so."""
    told = ["{}: {}".format(name, left[name]) for name in sorted(left)]
    return ["--skip=" + name for name in sorted(left)], "; skipped: " + "; ".join(told)


def check_processes(job):
    """Run the core's tests of processes."""
    skips, told = without(NOT_EMULATED)
    variables = ["SNP_SHIMS=/tests", "SNP_LIMIT=%d" % TEST_SECONDS]
    emulated(job, ["env"] + variables + ["/tests/crash"] + skips, CORE_SECONDS)
    return suites.core_counts(job) + told


def check_package(job, results):
    """Run the package's quick tests, file by file, for as long as there is time."""
    end = time.monotonic() + SUITE_SECONDS
    files = [name for suite in PACKAGE_SUITES for name in suites.files(suite)]
    files.sort(key=lambda name: name not in FIRST)
    deselected = ["--deselect=" + name for name in sorted(NOT_EMULATED_OF_PACKAGE)]
    report = "/report.xml"
    failed, left = [], []
    for name in files:
        if time.monotonic() > end:
            left.append(name)
            continue
        if os.path.exists(MACHINE + report):
            os.remove(MACHINE + report)
        words, _ = suites.command("python3", [name] + deselected, "quick", report)
        try:
            code = emulated(job, ["env", "--chdir=" + ROOT] + words, FILE_SECONDS, fails=False)
            suites.finish(code, MACHINE + report, "aarch64", version(), results)
        except Failed as error:
            failed.append("{}: {}".format(name, error))
    if failed:
        raise Failed("; ".join(failed))
    told = ["{}: {}".format(*item) for item in sorted(NOT_EMULATED_OF_PACKAGE.items())]
    if left:
        told.append("not run within {} s: {}".format(SUITE_SECONDS, " ".join(left)))
    return "; ".join(["{} files passed".format(len(files) - len(left))] + told)


# ---- the emulated machine -----------------------------------------------------------------

# Its first process.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin SNP_SHIMS=/tests SNP_LIMIT={limit} SNP_WITHOUT="{without}"
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
mkdir /dev/shm && mount -t tmpfs -o mode=1777 tmpfs /dev/shm
echo "Linux $(uname -r), $(grep -m 1 KernelPageSize /proc/1/smaps)"
/tests/crash {arguments}
echo "crash ended with $?"
poweroff -f
"""

# What the tests are linked to.
LIBRARIES = ["ld-linux-aarch64.so.1", "libc.so.6", "libdl.so.2", "libm.so.6"]
LIBRARIES += ["libpthread.so.0", "librt.so.1"]


def archive(path, files):
    """Write an archive of files, folders and devices, as the kernel unpacks them at its start:
    `cpio`'s format "newc". Each is a name, a mode, its bytes, and a device's two numbers."""
    with gzip.open(path, "wb", 1) as stream:
        for number, (name, mode, data, device) in enumerate(files + [("TRAILER!!!", 0, b"", (0, 0))]):
            name = name.encode() + b"\0"
            numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0) + device + (len(name), 0)
            head = b"070701" + b"".join(b"%08X" % each for each in numbers) + name
            for part in (head, data):
                stream.write(part + b"\0" * (-len(part) % 4))


def make_ramdisk(path, arguments):
    """Write the emulated machine's files, with a first process that runs the tests."""
    folders = ["bin", "dev", "lib", "proc", "sys", "tests", "tmp"]
    files = [(name, stat.S_IFDIR | 0o755, b"", (0, 0)) for name in folders]
    files.append(("dev/console", stat.S_IFCHR | 0o600, b"", (5, 1)))

    def add(name, data):
        files.append((name, stat.S_IFREG | 0o755, data, (0, 0)))

    without = ";".join(NOT_STEPPED_ON_VM)
    init = INIT.format(limit=TEST_SECONDS, without=without, arguments=" ".join(arguments))
    add("init", init.encode())
    libraries = os.path.join(MACHINE, "usr", "lib", "aarch64-linux-gnu")
    found = [("lib/" + name, os.path.join(libraries, name)) for name in LIBRARIES]
    found.append(("bin/busybox", os.path.join(MACHINE, "usr", "bin", "busybox")))
    names = [name for name in os.listdir(TESTS) if name == "crash" or name.endswith(".so")]
    found += [("tests/" + name, os.path.join(TESTS, name)) for name in names]
    for name, source in found:
        with open(source, "rb") as stream:
            add(name, stream.read())
    archive(path, files)


def run_vm(job, kib, arguments, seconds=VM_SECONDS):
    """Start a kernel with pages of `kib` KiB, and run the core's tests of processes there."""
    packages("arm64").unpack(job, sorted(KERNEL_OF.values()), KERNELS, only="linux-image-")
    flavour = KERNEL_OF[kib][len("linux-image") :]
    (kernel,) = glob.glob(os.path.join(KERNELS, "boot", "vmlinuz-*" + flavour))
    shutil.copy(kernel, os.path.join(HOST, "kernel"))
    make_ramdisk(os.path.join(HOST, "ramdisk"), arguments)
    machine = ["/usr/bin/qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on"]
    machine += ["-smp", "2", "-m", "2048", "-accel", "tcg,thread=multi", "-nographic", "-no-reboot"]
    machine += ["-nic", "none", "-kernel", "/kernel", "-initrd", "/ramdisk"]
    machine += ["-append", "console=ttyAMA0 quiet panic=-1 rdinit=/init"]
    job.run(["chroot", HOST] + machine, seconds)
    if "crash ended with 0" not in job.output():
        raise Failed("the tests have not passed; the whole output is in " + job.log)


def check_on_vm(job, kib):
    """Run the core's tests of processes on a kernel with pages of `kib` KiB."""
    skips, told = without(NOT_ON_VM)
    run_vm(job, kib, skips)
    return suites.core_counts(job) + told + "; not stepped: " + ", ".join(NOT_STEPPED_ON_VM)
