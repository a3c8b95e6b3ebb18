#!/bin/sh
# Runs `make demo` and `make test` on bare Debian machines, as root and as another user.
#
#   dev/fresh_machine.sh [FOLDER]
#
# A machine is a folder that debootstrap fills, entered by chroot with a /proc, a /dev/shm
# and process numbers of its own. It has make and the checkout, with the changes that are
# not committed, and the host's settings for apt, pip and cargo. The machines lie in FOLDER
# (build/fresh) and are removed; the output of the commands stays there.
#
# MACHINES (trixie bookworm), PEOPLE (root user) and COMMANDS (demo test) in the environment
# narrow it.
set -u
checkout=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "${1:-$checkout/build/fresh}"
folder=$(cd "${1:-$checkout/build/fresh}" && pwd)
machine=$folder/machine
base=$folder/base
results=$folder/results.txt

if [ "$(id -u)" != 0 ]; then
    echo "fresh machines: skipped, they need root (chroot, mount)"
    exit
fi
sh "$checkout/dev/preflight.sh" python3 debootstrap >/dev/null || exit 1

clean() {
    # What is mounted in a machine is mounted for its own processes only.
    rm -rf --one-file-system "$machine" "$base"
}
trap clean EXIT
trap 'exit 130' INT TERM

# The names of the host's variables that say where packages come from.
registry_variables() {
    env | sed -n 's/^\([A-Za-z_]*\)=.*/\1/p' | grep -v TOKEN | grep -E -i \
        '^(PIP_(INDEX_URL|EXTRA_INDEX_URL|TRUSTED_HOST|DEFAULT_TIMEOUT)|CARGO_(HTTP|NET|REGISTR[A-Z]*|SOURCE)_.*|(HTTPS?|NO|ALL)_PROXY)$'
}

# Runs a command in the machine: inside PERSON COMMAND. All that it starts ends with it.
inside() {
    # What the script inside gets: the machine, the person, the command, the environment.
    set -- "$machine" "$1" "$2" "HOME=$(chroot "$machine" sh -c "echo ~$1")" TERM=dumb \
        LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        PIP_CERT=/etc/ssl/certs/ca-certificates.crt
    for name in $(registry_variables); do
        set -- "$@" "$name=$(printenv "$name")"
    done
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child sh -c '
        machine=$1 person=$2 command=$3
        shift 3
        mount -t proc proc "$machine/proc" &&
            mount -t devpts devpts "$machine/dev/pts" &&
            mount -t tmpfs -o mode=1777 tmpfs "$machine/dev/shm" || exit 99
        chroot --userspec="$person" "$machine" env -i "$@" sh -c "cd /checkout && $command"
        # Not the last command: this shell, process 1 here, must wait for orphans.
        exit $?
    ' sh "$@" </dev/null
}

# Makes the bare system of a release.
make_base() {
    mirror=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 2>/dev/null |
        sed -n 's/^Debian //p' | head -n 1)
    # debootstrap mounts things, too.
    # shellcheck disable=SC2086
    unshare --mount --pid --fork --kill-child \
        debootstrap --variant=minbase --include=make "$1" "$base" $mirror || return 1
    apt-config dump 2>/dev/null | grep -E '^Acquire::(https?|Retries|Check-)' \
        >"$base/etc/apt/apt.conf.d/90host"
    mkdir -p "$base/usr/local/share/ca-certificates"
    cp "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" \
        "$base/usr/local/share/ca-certificates/host.crt" 2>/dev/null
    for file in /etc/pip.conf "$HOME/.config/pip/pip.conf"; do
        if [ -e "$file" ]; then cp "$file" "$base/etc/pip.conf"; fi
    done
    cp /etc/resolv.conf /etc/hosts "$base/etc/"
    chroot "$base" useradd --create-home user || return 1
    # Cargo reads the settings of the folders above the checkout.
    settings=${CARGO_HOME:-$HOME/.cargo}/config.toml
    if [ -e "$settings" ]; then mkdir "$base/.cargo" && cp "$settings" "$base/.cargo/"; fi
}

# Lays down a machine with a checkout that belongs to a person.
make_machine() {
    rm -rf --one-file-system "$machine"
    cp -a --reflink=auto "$base" "$machine" && mkdir "$machine/checkout" || return 1
    changed=$(git -C "$checkout" stash create)
    git -C "$checkout" archive "${changed:-HEAD}" | tar -x -C "$machine/checkout" || return 1
    chroot "$machine" chown -R "$1:" /checkout
}

# Notes what became of a command: result EXPECTED-CODE CODE COMMAND
result() {
    outcome=FAILED
    if [ "$1" = "$2" ]; then outcome=passed; fi
    printf '%-9s %-5s %-25s %s\n' "$release" "$person" "$3" "$outcome" | tee -a "$results"
}

# Runs a command that must succeed: try PERSON COMMAND
try() {
    log=$folder/$release-$1-$(echo "$2" | tr ' ' -).txt
    echo "=== $release, $1: $2"
    start=$(date +%s)
    inside "$1" "$2" >"$log" 2>&1
    code=$?
    lines=5
    if [ "$code" != 0 ]; then lines=30; fi
    tail -n "$lines" "$log"
    echo "$(($(date +%s) - start)) s, all of the output: $log"
    result 0 "$code" "$2"
}

# Runs a command that must name what is missing: try_bare PERSON COMMAND
try_bare() {
    log=$folder/$release-$1-bare.txt
    echo "=== $release, $1, with nothing installed: $2"
    inside "$1" "$2" >"$log" 2>&1
    code=$?
    tail -n 5 "$log"
    named=$(sed -n '/^To install it:$/{n;s/^ *//p;}' "$log")
    if [ "$code" = 0 ] || [ -z "$named" ]; then code=named-nothing; else code=0; fi
    result 0 "$code" "$2, bare"
}

: >"$results"
for release in ${MACHINES:-trixie bookworm}; do
    clean
    echo "=== $release: a bare machine"
    if ! make_base "$release" >"$folder/$release.txt" 2>&1; then
        tail -n 30 "$folder/$release.txt"
        echo "$release   no machine: FAILED" | tee -a "$results"
        continue
    fi
    for person in ${PEOPLE:-root user}; do
        if ! make_machine "$person"; then
            echo "$release $person no machine: FAILED" | tee -a "$results"
            continue
        fi
        if [ "$person" = root ]; then
            try_bare root "make demo SETUP=no"
            # As in images of containers: apt-get knows no package yet.
            rm -rf "$machine"/var/lib/apt/lists/*
        else
            try_bare "$person" "make demo"
            echo "=== $release, root does what was named: $named"
            inside root "$named" >"$folder/$release-named.txt" 2>&1 ||
                tail -n 30 "$folder/$release-named.txt"
        fi
        for command in ${COMMANDS:-demo test}; do
            try "$person" "make $command"
        done
    done
done
echo "=== fresh machines"
cat "$results"
echo "alpine: left out, its packages come from none of the registries used here"
! grep -q FAILED "$results"
