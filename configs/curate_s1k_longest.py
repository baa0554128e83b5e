"""The 1,000 longest traces: an ablation of s1K (the paper, table 2).

    python -m s1_jax.curate configs/curate_s1k_longest.py

Shares run_dir, and with it every answer and every stage before the choice, with configs/curate_s1k.py; the data set is
runs/curate_s1k/longest. Not run. Expected of a 32B model trained on it, from the paper: 33.3 on AIME24, 90.4 on
MATH500 and 59.6 on GPQA Diamond, beside s1K's 50.0, 93.0 and 57.6.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config.curate import CurateConfig


def get_config() -> CurateConfig:
    s1k = run_path(str(Path(__file__).with_name("curate_s1k.py")))["get_config"]()
    return dataclasses.replace(
        s1k,
        select=dataclasses.replace(s1k.select, method="longest"),
        write=dataclasses.replace(s1k.write, name="longest"),
    )
