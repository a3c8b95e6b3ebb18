#!/bin/sh
# Prints the interpreter to use, once everything is there that a build needs.
#
#   dev/preflight.sh PYTHON TOOL...
#
# PYTHON is a command, a path, or python3.N where pyenv has that version. TOOL is one of
# rust, lint, cc, objdump, venv, debootstrap, ip. For root, missing tools are installed from the
# system's packages; for other users, and with SETUP=no in the environment, one command that
# installs them is printed. Nothing that is installed is replaced: a Rust that is too old is
# named. rustfmt and clippy (lint) must be there only in CI, where the variable CI is set;
# elsewhere the checks that need them are skipped.
set -u
python=$1
shift
needed=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "$0")/../Cargo.toml")
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
manager=
for known in apk dnf apt-get; do
    if command -v "$known" >/dev/null; then manager=$known; fi
done

works() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1
}

find_python() {
    if works "$python"; then return; fi
    case $python in
    python3.*)
        for other in "${PYENV_ROOT:-$HOME/.pyenv}/versions/${python#python}".*/bin/python; do
            if works "$other"; then python=$other; fi
        done
        ;;
    esac
}

# Whether the version $1 (1.85.0) is $2 (1.85) or later.
at_least() {
    [ "$(printf '%s\n' "$2" "$1" | sort -t . -k 1,1n -k 2,2n | head -n 1)" = "$2" ]
}

# Whether programs can be linked. The C library's files are a package apart on some systems.
links() {
    program=$(mktemp) || return
    echo 'int main(void) { return 0; }' | cc -x c -o "$program" - 2>/dev/null
    set -- $?
    rm -f "$program"
    return "$1"
}

# The version of Rust that apt-get would install with a package; nothing if it has none.
candidate() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9][0-9.]*\).*/\1/p'
}

# Debian's packages with a Rust that is new enough. Oldstable has an old rustc, and a newer
# one to build browsers with. Where apt-get has no lists yet, rustc is worth a try.
debian_rust() {
    default=$(candidate rustc)
    browsers=$(candidate rustc-web)
    if at_least "${default:-$needed}" "$needed"; then
        echo rustc cargo
    elif [ -n "$browsers" ] && at_least "$browsers" "$needed"; then
        echo rustc-web cargo-web
    elif [ -n "$(candidate rustup)" ]; then
        echo rustup
    fi
}

# The packages of this system that bring a tool.
packages_of() {
    case $manager:$1 in
    :*) ;;
    apt-get:venv) echo python3-venv ;;
    *:python | *:venv) echo python3 ;;
    apt-get:cc) echo gcc libc6-dev ;;
    apk:cc) echo gcc musl-dev ;;
    *:cc) echo gcc ;;
    apt-get:rust) debian_rust ;;
    *:rust) echo rust cargo ;;
    dnf:lint) echo rustfmt clippy ;;
    *:lint) echo rustfmt rust-clippy ;;
    *:objdump) echo binutils ;;
    *:debootstrap) echo debootstrap ;;
    dnf:ip) echo iproute util-linux ;;
    *:ip) echo iproute2 util-linux ;;
    *:certificates) echo ca-certificates ;;
    esac
}

# Notes that something is missing: lacks NAME [PACKAGE...]
lacks() {
    missing="$missing${missing:+, }$1"
    shift
    packages="$packages${packages:+ }$*"
}

# Notes a command that no package replaces.
by_hand() {
    commands="$commands${commands:+ && }$1"
}

look_for_rust() {
    rust=$(cargo --version >/dev/null 2>&1 && rustc --version 2>/dev/null |
        sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    if [ -n "$rust" ] && at_least "$rust" "$needed"; then return; fi
    name="Rust $needed or later${rust:+ (here is $rust)}"
    # Of rustup and the system's packages there can be only one.
    if command -v rustup >/dev/null; then
        lacks "$name"
        by_hand "rustup update stable && rustup default stable"
        return
    fi
    found=$(packages_of rust)
    if [ -n "$rust" ]; then
        lacks "$name"
        replacing=$found
    else
        lacks "$name" $found
    fi
    case $found in
    '') by_hand "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y && . \"\$HOME/.cargo/env\"" ;;
    rustup) by_hand "rustup default stable" ;;
    esac
}

look_for_lints() {
    if [ -z "${CI:-}" ] || { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
        return
    fi
    if command -v rustup >/dev/null; then
        lacks "rustfmt or clippy"
        by_hand "rustup component add rustfmt clippy"
    else
        lacks "rustfmt or clippy" $(packages_of lint)
    fi
}

# Fills `missing`, the `packages` to install, those that are `replacing` others, and the
# `commands` for the rest.
look() {
    missing='' packages='' replacing='' commands=''
    find_python
    if ! works "$python"; then
        case $python in
        python3) lacks "Python 3.6 or later" $(packages_of python) $(packages_of venv) ;;
        *) lacks "$python, a CPython from 3.6 on (to take another: make PYTHON=/path/to/python3)" ;;
        esac
    fi
    for tool in "$@"; do
        case $tool in
        rust)
            look_for_rust
            if [ "$manager" = apt-get ] && ! [ -e "$certificates" ]; then
                lacks "certificates to download with" $(packages_of certificates)
            fi
            ;;
        lint) look_for_lints ;;
        cc) links || lacks "a C compiler" $(packages_of cc) ;;
        objdump | debootstrap | ip)
            command -v "$tool" >/dev/null || lacks "$tool" $(packages_of "$tool")
            ;;
        venv)
            if works "$python" && ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
                lacks "the module venv of $python" $(packages_of venv)
            fi
            ;;
        esac
    done
}

# The command that installs packages.
install_command() {
    case $manager in
    apt-get) echo "apt-get update && apt-get install -y $*" ;;
    dnf) echo "dnf install -y $*" ;;
    apk) echo "apk add $*" ;;
    esac
}

install() {
    log=$(mktemp) || return
    export DEBIAN_FRONTEND=noninteractive
    if ! sh -c "$(install_command $packages)" >"$log" 2>&1; then
        echo "$manager failed. The end of its output:" >&2
        tail -n 30 "$log" >&2
    fi
    rm -f "$log"
}

look "$@"
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && [ "${SETUP:-}" != no ]; then
    echo "installing what is missing (SETUP=no only names it): $missing" >&2
    # The lists of packages may be none or old: they tell which packages are right.
    if [ "$manager" = apt-get ]; then apt-get update >/dev/null 2>&1; fi
    look "$@"
    install
    look "$@"
fi
if [ -z "$missing" ]; then
    echo "$python"
    exit
fi
packages="$packages${replacing:+ }$replacing"
if [ -n "${packages# }" ]; then
    command=$(install_command $packages)
    if [ "$(id -u)" != 0 ]; then
        command="su -c '$command'"
        if command -v sudo >/dev/null; then command="sudo sh -c ${command#su -c }"; fi
    fi
    commands="$command${commands:+ && }$commands"
fi
echo "missing: $missing" >&2
if [ -n "$commands" ]; then printf 'To install it:\n    %s\n' "$commands" >&2; fi
exit 1
