"""Beside the quickstart's sweep: ends ignored 0, 1 and 2 times, other strings than "Wait", and majority voting.

    python -m s1_jax.evaluate configs/quickstart_compare.py

Adds to the records, table and plot of configs/quickstart_sweep.py; run that one first.
Hardware: 2 CPU cores, about a minute. Expected: each of the first two "Wait"s adds 20 points or more over the natural
end, and a majority of 8 short traces does not reach them.
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
