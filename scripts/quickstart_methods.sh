#!/usr/bin/env bash
# Every method beside budget forcing, on the quickstart's model: majority, best-of-N, beam search, DVTS, REBASE and MCTS with tiny reward models.
# About 4 minutes on 2 idle cores after the installation; fine-tunes the model first where scripts/quickstart.sh has not. Stopped, it goes on when started again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

ensure_venv base
.venv/bin/python -m s1_jax.quickstart --until train

say "Then every method on 100 held-out problems."
.venv/bin/python -m s1_jax.evaluate configs/quickstart_methods.py
