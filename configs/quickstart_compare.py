"""Compare 0, 1 and 2 ignored ends of thinking, other strings than "Wait", and majority voting on the tiny task.

    python -m s1_jax.evaluate configs/quickstart_compare.py

The records are added to those of configs/quickstart_sweep.py, and to its table and plot; run that config first.
Hardware: 2 CPU cores, about a minute. Expected: the first and the second "Wait" each raise the accuracy by at least 20
points, and a majority of 8 traces stays below both.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import BudgetConfig, EvaluateConfig, SamplingConfig, SettingConfig, SweepConfig


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("quickstart_sweep.py")))["get_config"]()
    others = [BudgetConfig(num_ignore=k, ignore_string=string) for string in ("", "Hmm") for k in (1, 2)]
    voting = SettingConfig(BudgetConfig(), SamplingConfig(temperature=0.8), samples=8)
    waits = SweepConfig(num_ignore=(0, 1, 2), extra=(*map(SettingConfig, others), voting))
    return dataclasses.replace(sweep, sweep=waits)
