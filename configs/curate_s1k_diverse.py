"""Select 1,000 questions from uniformly sampled domains, of any length: an ablation of s1K (paper, table 2).

    python -m s1_jax.curate configs/curate_s1k_diverse.py

The run_dir, and with it all answers and all stages before the selection, is that of configs/curate_s1k.py. The data set
is runs/curate_s1k/diverse. Not yet run. Expected of a 32B model trained on it, from the paper: 26.7 on AIME24, 91.2
on MATH500 and 54.6 on GPQA Diamond, compared with 50.0, 93.0 and 57.6 for s1K.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config.curate import CurateConfig


def get_config() -> CurateConfig:
    s1k = run_path(str(Path(__file__).with_name("curate_s1k.py")))["get_config"]()
    return dataclasses.replace(
        s1k,
        select=dataclasses.replace(s1k.select, method="diverse"),
        write=dataclasses.replace(s1k.write, name="diverse"),
    )
