"""Select the 1,000 questions with the longest traces: an ablation of s1K (paper, table 2).

    python -m s1_jax.curate configs/curate_s1k_longest.py

The run_dir, and with it all answers and all stages before the selection, is that of configs/curate_s1k.py. The data set
is runs/curate_s1k/longest. Not yet run. Expected of a 32B model trained on it, from the paper: 33.3 on AIME24, 90.4
on MATH500 and 59.6 on GPQA Diamond, compared with 50.0, 93.0 and 57.6 for s1K.
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
