"""Evaluate s1-32B when the prompt asks for short or long thinking: the paper's conditional control (tables 11 to 13).

    python -m s1_jax.evaluate configs/control_32b_v6e8.py       # class-conditional, with s1-32B itself
    python -m s1_jax.evaluate configs/control_32b_v6e8.py --model.path simplescaling/token-conditional-control \\
        --run-dir runs/control_token --sweep.instructions "token 2048" "token 4096" "token 8192" "token 16384"

The second model was trained on such instructions. Adding a maximum of the same size gives "+ budget forcing":

    ... --sweep.instructions "token 2048" --sweep.max-thinking-tokens None 2048

Hardware: v6e-8 (8 chips). Cost, planned as for configs/sweep_32b_v6e8.py (docs/performance.md), not measured: three
runs of at most 6 minutes. Expected on AIME24: 30.0 at 8,033 thinking tokens for "short", 36.7 at 9,651 for "long", 50.0
at 6,109 without an instruction; Control 50%, Scaling 25.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import EvaluateConfig, SweepConfig


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_32b_v6e8.py")))["get_config"]()
    return dataclasses.replace(
        sweep, run_dir="runs/control_32b", sweep=SweepConfig(instructions=(None, "short", "long"))
    )
