# shellcheck shell=bash
# Sourced by the other scripts in the project's root: makes .venv and installs the project into it, once.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 2
}

# is_supported PYTHON: succeeds if it runs and is Python 3.11 to 3.13.
is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

# find_python: prints the Python for .venv: $PYTHON if set, else the first supported one.
find_python() {
    local candidate
    if [ -n "${PYTHON:-}" ]; then
        is_supported "$PYTHON" || die "PYTHON=$PYTHON is not a working Python 3.11, 3.12 or 3.13"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if is_supported "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "needs Python 3.11, 3.12 or 3.13; found $(python3 --version 2>&1 || true). Install one, or set its path: PYTHON=/path/to/python3.12 $0"
}

pip_install() {
    .venv/bin/python -m pip install --quiet --quiet --no-input --disable-pip-version-check -c constraints.txt "$@"
}

# install_torch: installs PyTorch for the tests, as a CPU build if pip finds one, else the default build.
install_torch() {
    local version
    .venv/bin/python -c 'import torch' 2>/dev/null && return
    version=$(sed -n 's/^torch==//p' constraints.txt)
    say "Installing PyTorch $version, with which the tests compare results (the CPU build is enough: 0.2 GB)."
    pip_install "torch==$version+cpu" 2>/dev/null && return
    say "pip finds no CPU build; installing the default build, which on Linux with x86-64 is a download of about 3 GB."
    say "To avoid that, press Ctrl-C, install a CPU build of PyTorch into .venv yourself, and start again."
    pip_install "torch==$version"
}

# ensure_venv base [EXTRA...]: installs the project and these extras into .venv; fast if nothing has changed.
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
                say "Installing JAX, transformers and the other dependencies into .venv: a download of about 0.4 GB, 1.3 GB on disk, a few minutes."
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
