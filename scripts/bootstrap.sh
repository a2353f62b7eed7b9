#!/usr/bin/env bash
# Builds or completes the Python environment that the Makefile uses.
#
#   scripts/bootstrap.sh VENV
#
# VENV is created with Python 3.10-3.13 when it is missing ($PYTHON chooses the interpreter). Then torch,
# torchvision, Detectron2 and this package (editable, extra "dev") are installed. An importable Detectron2 is
# used and never replaced. Running it again is harmless.
set -euo pipefail

venv=${1:?usage: scripts/bootstrap.sh VENV}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
detectron2_requirement="sal-detectron2==0.7.2"  # upstream commit a59f0563 as a wheel; its compiled part is not needed

say() { printf '== %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Prints "3.11" for a Python that runs and is in range, nothing otherwise.
suitable() {
    "$1" -c 'import sys; v = sys.version_info; print(f"{v[0]}.{v[1]}") if (3, 10) <= v[:2] <= (3, 13) else None' \
        2>/dev/null || true
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        [ -n "$(suitable "$PYTHON")" ] || fail "PYTHON=$PYTHON is not a working Python 3.10 to 3.13."
        printf '%s\n' "$PYTHON"
        return
    fi
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if [ -n "$(suitable "$candidate")" ]; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    fail "no Python 3.10 to 3.13 found (python3 is: $(python3 --version 2>&1 || echo absent)).
Install one, or name it, for example: make test PYTHON=/path/to/python3.11"
}

if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python) || exit 1
    options=()
    # An interpreter that already has Detectron2 lends it, with the torch it was built for, to the new environment.
    if "$python" -c 'import detectron2' 2>/dev/null; then options=(--system-site-packages); fi
    say "creating $venv with $("$python" --version 2>&1)"
    "$python" -m venv ${options[@]+"${options[@]}"} "$venv" \
        || fail "$python cannot create virtual environments (on Debian and Ubuntu: apt install python3-venv)."
fi
python="$venv/bin/python"
[ -n "$(suitable "$python")" ] \
    || fail "$venv has $("$python" --version 2>&1); Python 3.10-3.13 is needed. Remove it, or choose another: VENV=..."
pip=("$python" -m pip --disable-pip-version-check)

say "installing torch, torchvision and the requirements of setup.cfg (some minutes and about 5 GB the first time)"
"${pip[@]}" install --quiet --editable "$root[dev]"

if "$python" -c 'import detectron2' 2>/dev/null; then
    say "Detectron2 is already importable and stays as it is"
else
    say "installing Detectron2 ($detectron2_requirement)"
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    # The wheel is tagged for CPython 3.10; only its Python files are used, hence the explicit tags.
    "${pip[@]}" install --quiet --no-deps --only-binary=:all: --python-version 3.10 --implementation cp --abi none \
        --platform any --target "$site" "$detectron2_requirement"
fi

"$python" -c 'import detectron2, torch, torchvision, denserc' \
    || fail "the environment $venv is incomplete; '$python -m denserc check-env' tells what is missing."
say "environment ready: $venv"
