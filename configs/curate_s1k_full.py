"""Select all questions that have a trace: an ablation of s1K (paper, table 2).

    python -m s1_jax.curate configs/curate_s1k_full.py

The run_dir, and with it all answers and all stages before the filter, is that of configs/curate_s1k.py. The data set is
runs/curate_s1k/full. Not yet run. Expected of a 32B model trained on it, from the paper: 53.3 on AIME24, 92.8 on
MATH500 and 58.1 on GPQA Diamond, for 394 GPU hours instead of 7.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config.curate import CurateConfig, FilterConfig


def get_config() -> CurateConfig:
    s1k = run_path(str(Path(__file__).with_name("curate_s1k.py")))["get_config"]()
    return dataclasses.replace(
        s1k,
        filter=FilterConfig(rules=("no_trace",)),
        select=dataclasses.replace(s1k.select, method="full"),
        write=dataclasses.replace(s1k.write, name="full"),
    )
