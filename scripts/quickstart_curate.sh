#!/usr/bin/env bash
# A data set made in small: questions, a teacher's traces, 1,000 of them chosen as s1K was; then a model trained on it beside one on 1,000 random ones.
# About 6 minutes on 2 cores after the installation; fine-tunes the teacher first where scripts/quickstart.sh has not. Stopped, it goes on when started again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

ensure_venv base curate

say "Step 1 of 4: the teacher, which is the quickstart's model."
.venv/bin/python -m s1_jax.quickstart --until train

say "Step 2 of 4: questions, traces, and 1,000 of them chosen at random, then as s1K was."
for method in random s1k; do
    .venv/bin/python -m s1_jax.curate configs/curate_quickstart.py --select.method $method --write.name $method
done

say "Step 3 of 4: the tiny base model fine-tuned on each, and asked 500 held-out problems."
for method in random s1k; do
    run=runs/quickstart/curate/sft_$method
    .venv/bin/python -m s1_jax.train configs/quickstart_sft.py --run-dir $run --data.path runs/quickstart/curate/$method
    .venv/bin/python -m s1_jax.evaluate configs/quickstart_sweep.py --run-dir runs/quickstart/curate/sweep_$method --model.path $run/hf \
        --sweep.max-thinking-tokens 32 64 96 None --sweep.num-ignore 0 2
done

say "Step 4 of 4: the two side by side."
.venv/bin/python -m s1_jax.evaluate --compare runs/quickstart/curate/sweep_random runs/quickstart/curate/sweep_s1k
