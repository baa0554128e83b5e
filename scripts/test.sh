#!/usr/bin/env bash
# The test suite, in .venv (made if need be), without what is marked slow. Arguments go to pytest instead:
# ./scripts/test.sh tests/model -k rope
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

ensure_venv base test
if [ $# -eq 0 ]; then
    set -- -n 2 --dist loadfile # most of the time is compilation, which keeps one core busy
fi
exec .venv/bin/python -m pytest "$@"
