#!/usr/bin/env bash
# Builds the source distribution and, from it, the wheel; installs the wheel into an empty environment and runs a small quickstart there, without the clone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

ensure_venv base dev
clone=$PWD
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export PIP_CONSTRAINT=$clone/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1
unset PYTHONPATH

say "Building the source distribution and the wheel."
.venv/bin/python -m build --outdir "$folder/dist" . >"$folder/build.log" 2>&1 || {
    tail -n 30 "$folder/build.log" >&2
    die "the package cannot be built"
}

say "Installing the wheel into an empty environment."
.venv/bin/python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --quiet --no-input "$folder"/dist/s1_jax-*.whl
mkdir "$folder/empty"
cd "$folder/empty"
package=$("$folder/venv/bin/python" -c 'import s1_jax; print(*s1_jax.__path__)')
[[ $package == "$folder"/venv/* ]] || die "the package is imported from $package"
diff -r --exclude=__pycache__ "$clone/configs" "$package/configs" || die "the wheel has other configs than the clone"
[ -f "$package/py.typed" ] || die "the wheel has no py.typed"

say "Running a small quickstart there."
"$folder/venv/bin/s1-jax" --version
"$folder/venv/bin/s1-jax" quickstart --epochs 1 --problems 20
for name in scaling.png summary.json report.html records.jsonl; do
    [ -s "runs/quickstart/sweep/$name" ] || die "the quickstart has left no $name"
done
