"""Let Qwen3-32B think without words of reflection such as "wait", on AIME24, compared with thinking freely.

    python -m s1_jax.evaluate configs/nowait_qwen3_32b_v6e8.py

Hardware: v6e-8 (8 chips). Cost, planned as for configs/sweep_qwen3_32b_v6e8.py (docs/performance.md), not measured:
two runs of each problem, of at most 6 minutes.
Source: NoWait (arXiv 2506.08343), whose keywords these are. It reports traces that are 27 to 51% shorter.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import BudgetConfig, EvaluateConfig, SettingConfig, SweepConfig

KEYWORDS = (
    "wait alternatively hmm but however alternative another check double-check oh maybe verify other again now ah any"
)


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_qwen3_32b_v6e8.py")))["get_config"]()
    banned = SettingConfig(BudgetConfig(banned_words=tuple(KEYWORDS.split())))
    return dataclasses.replace(sweep, run_dir="runs/nowait_qwen3_32b", sweep=SweepConfig(extra=(banned,)))
