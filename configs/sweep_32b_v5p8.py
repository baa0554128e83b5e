"""s1's 11 settings on AIME24 with s1-32B: seven maxima, and the end of thinking ignored 1, 2, 4 and 6 times.

    python -m s1_jax.evaluate configs/sweep_32b_v5p8.py

Hardware and cost as planned with the TPU compiler (docs/performance.md), not yet run: v5p-8 (4 chips), 93.7 of
95.7 GiB a chip with 30 rows of 32,768 tokens. A step gives each row a token and takes 32.1 ms with full caches,
20.5 with half full ones, so a trace that fills its context takes 11 minutes, 0.7 chip-hours; loading the
checkpoint (131 GB), compiling and the answers come on top.
Expected: the paper has 50.0 without forcing and 56.7 as the best of its budgets, at 7,320 thinking tokens.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import EvaluateConfig, MeshConfig


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_32b_v6e8.py")))["get_config"]()
    return dataclasses.replace(sweep, batch_size=30, mesh=MeshConfig(fsdp=1, tensor=4))
