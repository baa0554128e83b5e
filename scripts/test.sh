#!/usr/bin/env bash
# Runs the test suite in .venv (made if needed), without tests marked slow. Arguments are passed to pytest:
# ./scripts/test.sh tests/model -k rope
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

ensure_venv base test
if [ $# -eq 0 ]; then
    set -- -n 2 --dist loadfile # most of the time is compilation, which uses one core
fi
exec .venv/bin/python -m pytest "$@"
