"""Compare the strings appended after two ignored ends of thinking, as in the paper's table 4, and a rotation of three.

    python -m s1_jax.evaluate configs/strings_32b_v6e8.py
    python -m s1_jax.evaluate configs/strings_32b_v6e8.py --task.name math500 --run-dir runs/strings_32b_math500

Hardware: v6e-8 (8 chips). Cost, planned as for configs/sweep_32b_v6e8.py (docs/performance.md), not measured: from the
first ignored end on, each string has its own trace, which gives five runs of at most 6 minutes if one batch has room
for all. Expected on AIME24: 50.0 without ignored ends; with two, 50.0 for no string, "Alternatively" and "Hmm", and
53.3 for "Wait". The paper has no result for a rotation of strings.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import BudgetConfig, EvaluateConfig, SettingConfig, SweepConfig

STRINGS = ("", "Alternatively", "Hmm", "Wait", ("Wait", "Alternatively", "Hmm"))


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_32b_v6e8.py")))["get_config"]()
    ignored = [SettingConfig(BudgetConfig(num_ignore=2, ignore_string=string)) for string in STRINGS]
    return dataclasses.replace(sweep, run_dir="runs/strings_32b", sweep=SweepConfig(extra=tuple(ignored)))
