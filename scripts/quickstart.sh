#!/usr/bin/env bash
# From nothing to a test-time scaling plot: fine-tunes the tiny base model that ships here on 1,000 examples, then sweeps thinking budgets.
# About 2 minutes on 2 cores after the installation. The same command resumes a run that was stopped. Arguments go to s1_jax.quickstart (--help lists them).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

ensure_venv base
exec .venv/bin/python -m s1_jax.quickstart "$@"
