"""What follows an ignored end of thinking, the paper's table 4 and a rotation: s1-32B, the end ignored twice.

    python -m s1_jax.evaluate configs/strings_32b_v6e8.py
    python -m s1_jax.evaluate configs/strings_32b_v6e8.py --task.name math500 --run-dir runs/strings_32b_math500

Hardware: v6e-8 (8 chips), rows and memory as configs/sweep_32b_v6e8.py plans them (docs/performance.md), not yet run.
Each string thinks for itself, from its first ignored end on: five runs of at most 6 minutes where one batch holds them
all. Expected on AIME24, no end ignored 50.0; twice: no string 50.0, "Alternatively" 50.0, "Hmm" 50.0, "Wait" 53.3. The
paper has no figure for strings that take turns.
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
