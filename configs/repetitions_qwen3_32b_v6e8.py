"""Force Qwen3-32B to think long on AIME24, and cut thinking that goes round in circles.

    python -m s1_jax.evaluate configs/repetitions_qwen3_32b_v6e8.py

Hardware: v6e-8 (8 chips). Cost, planned as for configs/sweep_qwen3_32b_v6e8.py (docs/performance.md), not measured:
two runs of each problem, of at most 6 minutes.
With many ignored ends a model may repeat the same lines until its context is full. Here thinking is cut where its last
tokens have occurred 8 times in a row. Expected: the same answers for fewer tokens where runs loop, and no difference
where they do not.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import BudgetConfig, EvaluateConfig, SettingConfig, SweepConfig

REPETITIONS = 8


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_qwen3_32b_v6e8.py")))["get_config"]()
    settings = [
        SettingConfig(BudgetConfig(num_ignore=16, max_repetitions=repetitions)) for repetitions in (0, REPETITIONS)
    ]
    return dataclasses.replace(sweep, run_dir="runs/repetitions_qwen3_32b", sweep=SweepConfig(extra=tuple(settings)))
