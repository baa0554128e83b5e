"""Tell Qwen3-32B how much of its budget is left while it thinks, on AIME24, with and without such notices.

    python -m s1_jax.evaluate configs/notices_qwen3_32b_v6e8.py

Hardware: v6e-8 (8 chips). Cost, planned as for configs/sweep_qwen3_32b_v6e8.py (docs/performance.md), not measured:
two runs of each problem for each maximum, of at most 3 minutes.
Source: BudgetThinker (arXiv 2508.17196), which trains a model on control tokens at fractions of the budget. Qwen3 was
not trained on them, so the notices are sentences. The paper has no result for that.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import BudgetConfig, EvaluateConfig, SettingConfig, SweepConfig

MAXIMA = (2000, 4000, 8000, 16000)
EIGHTHS = tuple(i / 8 for i in range(1, 8))
NOTICES = tuple(f"\n\n({i}/8 of the thinking budget is used.)\n\n" for i in range(1, 8))


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_qwen3_32b_v6e8.py")))["get_config"]()
    noticed = [
        SettingConfig(BudgetConfig(max_thinking_tokens=maximum, notice_fractions=EIGHTHS, notices=NOTICES))
        for maximum in MAXIMA
    ]
    settings = SweepConfig(max_thinking_tokens=MAXIMA, extra=tuple(noticed))
    return dataclasses.replace(sweep, run_dir="runs/notices_qwen3_32b", sweep=settings)
