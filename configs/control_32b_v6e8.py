"""Asking for shorter or longer thinking instead of forcing it: the paper's conditional control (tables 11 to 13).

    python -m s1_jax.evaluate configs/control_32b_v6e8.py       # class-conditional, with s1-32B itself
    python -m s1_jax.evaluate configs/control_32b_v6e8.py --model.path simplescaling/token-conditional-control \\
        --run-dir runs/control_token --sweep.instructions "token 2048" "token 4096" "token 8192" "token 16384"

The second model was trained to be asked so. A maximum of the same size beside each instruction is "+ budget forcing":

    ... --sweep.instructions "token 2048" --sweep.max-thinking-tokens None 2048

Hardware: v6e-8 (8 chips), rows and memory as configs/sweep_32b_v6e8.py plans them (docs/performance.md), not yet run;
three runs of at most 6 minutes. Expected on AIME24: short 30.0 at 8,033 thinking tokens, long 36.7 at 9,651, neither
50.0 at 6,109; Control 50%, Scaling 25.
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
