#!/usr/bin/env bash
# From nothing to a test-time scaling plot: fine-tunes the tiny base model that ships here on 1,000 examples, then sweeps thinking budgets.
# About 2 minutes on 2 cores after the installation. Stopped, it goes on from what is there when started again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

ensure_venv base
.venv/bin/python scripts/make_quickstart_data.py --output runs/quickstart/examples.jsonl

say "Step 1 of 3: fine-tuning the tiny model on 1,000 examples."
.venv/bin/python -m s1_jax.train configs/quickstart_sft.py

say "Step 2 of 3: cutting the thinking at growing maxima, on 500 held-out problems."
.venv/bin/python -m s1_jax.evaluate configs/quickstart_sweep.py

say "Step 3 of 3: beside it, ends of thinking ignored 0, 1 and 2 times, other strings, and majority voting."
.venv/bin/python -m s1_jax.evaluate configs/quickstart_compare.py
