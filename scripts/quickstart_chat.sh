#!/usr/bin/env bash
# Serves the quickstart's model: a chat page at http://127.0.0.1:8000/ and an API for any OpenAI client at http://127.0.0.1:8000/v1.
# Trains the model first, about a minute on 2 cores, if scripts/quickstart.sh has not. Arguments go to s1_jax.serve (--help lists them). Ctrl-C ends it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/_venv.sh
source scripts/_venv.sh

MODEL=runs/quickstart/sft/hf

ensure_venv base serve
if [ ! -f "$MODEL/model.safetensors" ]; then
    say "There is no model in $MODEL yet: training it first. ./scripts/quickstart.sh makes it too, and measures its scaling."
    .venv/bin/python -m s1_jax.quickstart --until train
fi
exec .venv/bin/python -m s1_jax.serve --model.path "$MODEL" --served-model-name quickstart \
    --example "Start: 16. Steps: a-8 b+9 c-4 d-3 e+4. Result mod 100?" "$@"
