# shellcheck shell=bash
# Sourced by the scripts beside it, from the project's root: makes .venv and installs into it, once.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 2
}

# is_supported PYTHON: whether it runs and is Python 3.11 to 3.13.
is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# find_python: prints the Python to make .venv with: $PYTHON if set, else the first that fits.
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_supported "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13 that runs"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if is_supported "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "needs Python 3.11, 3.12 or 3.13; found $(python3 --version 2>&1 || true). Install one, or name it: PYTHON=/path/to/python3.12 $0"
}

pip_install() {
    .venv/bin/python -m pip install --quiet --quiet --no-input --disable-pip-version-check -c constraints.txt "$@"
}

# install_torch: the build that the tests compare with. A CPU build where pip can find one, else the plain one.
install_torch() {
    local version
    .venv/bin/python -c 'import torch' 2>/dev/null && return
    version=$(sed -n 's/^torch==//p' constraints.txt)
    say "Installing PyTorch $version: the independent reference that the tests compare with (its CPU build is enough: 0.2 GB)."
    pip_install "torch==$version+cpu" 2>/dev/null && return
    say "pip finds no CPU build where it looks; taking the default one, which on Linux with x86-64 is about 3 GB to download."
    say "To avoid that: stop here (Ctrl-C), install a CPU build of PyTorch into .venv by hand, and start again."
    pip_install "torch==$version"
}

# ensure_venv base [EXTRA...]: .venv holds the project and these extras. Quick where nothing changed since.
ensure_venv() {
    local python extra wanted stamp
    if ! is_supported .venv/bin/python; then
        python=$(find_python)
        say "Making .venv with $("$python" --version)."
        "$python" -m venv --clear .venv || die "cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
    fi
    wanted=$(cat pyproject.toml constraints.txt)
    for extra in "$@"; do
        stamp=.venv/.installed-$extra
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
            continue
        fi
        case $extra in
            base)
                say "Installing JAX, transformers and what else pyproject.toml lists into .venv: about 0.4 GB to download, 1.3 GB on disk; some minutes."
                pip_install -e .
                ;;
            *)
                if [ "$extra" = test ]; then install_torch; fi
                say "Installing the extra '$extra' of pyproject.toml."
                pip_install -e ".[$extra]"
                ;;
        esac
        printf '%s\n' "$wanted" >"$stamp"
    done
}
