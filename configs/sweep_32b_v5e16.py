"""s1's 11 settings on AIME24 with s1-32B: seven maxima, and the end of thinking ignored 1, 2, 4 and 6 times.

    python -m s1_jax.evaluate configs/sweep_32b_v5e16.py

Hardware and cost as planned with the TPU compiler (docs/performance.md), not yet run: v5litepod-16 (16 chips), 14.7 of
15.8 GiB a chip with 16 rows of 32,768 tokens. A step gives each row a token and takes 17.5 ms with full caches,
12.2 with half full ones, so a trace that fills its context takes 7 minutes, 1.8 chip-hours; loading the
checkpoint (131 GB), compiling and the answers come on top.
The slice has several hosts, and one model lies on the chips of all: the same command on each, and a run_dir that all
of them share.
Expected: the paper has 50.0 without forcing and 56.7 as the best of its budgets, at 7,320 thinking tokens.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import EvaluateConfig, MeshConfig


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_32b_v6e8.py")))["get_config"]()
    return dataclasses.replace(sweep, batch_size=16, mesh=MeshConfig(fsdp=2, tensor=8))
