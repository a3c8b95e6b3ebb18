#!/bin/sh
# Prints the interpreter to use, or names what is missing on this machine with
# the command that installs it.
#
#   dev/preflight.sh PYTHON TOOL...
#
# PYTHON is a command, a path, or python3.N where pyenv has that version. TOOL
# is one of rust, lint, cc, objdump, venv.
set -u
python=$1
shift
missing=0

need() {
    missing=1
    printf '%s is missing. Install it with:\n    %s\n' "$1" "$2" >&2
}

works() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1
}

if ! works "$python"; then
    case $python in
    python3.*)
        for other in "${PYENV_ROOT:-$HOME/.pyenv}/versions/${python#python}".*/bin/python; do
            if works "$other"; then python=$other; fi
        done
        ;;
    esac
fi
works "$python" || need "$python (CPython 3.6 or later)" \
    "apt-get install python3 python3-venv   (or name another: make PYTHON=/path/to/python3)"
for tool in "$@"; do
    case $tool in
    rust) cargo --version >/dev/null 2>&1 || need "Rust" "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" ;;
    lint) { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 || need "rustfmt or clippy" "rustup component add rustfmt clippy" ;;
    cc) command -v cc >/dev/null || need "a C compiler, by which Rust links," "apt-get install gcc libc6-dev" ;;
    objdump) command -v objdump >/dev/null || need "objdump" "apt-get install binutils" ;;
    venv) ! works "$python" || "$python" -c 'import venv, ensurepip' 2>/dev/null || need "the module venv of $python" "apt-get install python3-venv" ;;
    esac
done
[ "$missing" = 0 ] && echo "$python"
exit "$missing"
