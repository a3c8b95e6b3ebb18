#!/bin/sh
# Runs the backport's tests on an interpreter of 32 bits.
#
#   dev/machine32.sh WHEEL FOLDER TEST...
#
# debootstrap fills FOLDER/machine32 with Debian's i386 packages of CPython, numpy and
# pytest; WHEEL, for i686, is unpacked there, and the TESTs (files of the checkout) run by
# chroot, with a /proc, a /dev/shm and process numbers of its own. RELEASE (bookworm) in the
# environment chooses another Debian.
set -u
checkout=$(cd "$(dirname "$0")/.." && pwd)
wheel=$1
mkdir -p "$2"
machine=$(cd "$2" && pwd)/machine32
shift 2

sh "$checkout/dev/preflight.sh" python3 debootstrap >/dev/null || exit 1
trap 'rm -rf --one-file-system "$machine"' EXIT
trap 'exit 130' INT TERM
rm -rf --one-file-system "$machine"

mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 2>/dev/null |
    sed -n 's/^Debian //p' | head -n 1)
# shellcheck disable=SC2086
unshare --mount --pid --fork --kill-child debootstrap --arch=i386 --variant=minbase \
    --include=python3,python3-numpy,python3-pytest,python3-hypothesis \
    "${RELEASE:-bookworm}" "$machine" $mirror || exit 1

mkdir "$machine/checkout"
(cd "$checkout" && tar -c conftest.py pyproject.toml tests dev benchmarks) |
    tar -x -C "$machine/checkout" || exit 1
cp "$wheel" "$machine/package.zip"
cat >"$machine/run.sh" <<'END'
mount -t proc proc /proc && mount -t tmpfs -o mode=1777 tmpfs /dev/shm || exit 99
folder=$(python3 -c 'import site; print(site.getsitepackages()[-1])')
python3 -m zipfile -e /package.zip "$folder" && cd /checkout || exit 99
python3 -c 'import struct, sys; sys.exit(struct.calcsize("P") != 4)' || exit 99
python3 -c 'import shared_numpy; shared_numpy.zeros(3)' 2>&1 | grep "need 64-bit Linux" || exit 98
python3 -m pytest -q -p no:cacheprovider "$@"
# Not the last command: this shell, process 1 here, must wait for orphans.
exit $?
END
unshare --mount --pid --fork --kill-child \
    chroot "$machine" env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    sh /run.sh "$@" </dev/null
