"""Evaluate s1-32B on AIME24 with s1's 11 settings: seven maxima, and 1, 2, 4 and 6 ignored ends of thinking.

    python -m s1_jax.evaluate configs/sweep_32b_v5p8.py

Hardware: v5p-8 (4 chips). Cost, planned with the TPU compiler (docs/performance.md), not measured: 93.7 of
95.7 GiB per chip with 30 rows of 32,768 tokens. A step adds a token to each row and takes 29.8 ms with full caches
and 18.1 ms with half full ones. A trace that fills its context takes 10 minutes, 0.7 chip-hours. Loading the
checkpoint (131 GB), compiling and answering add to that.
Expected, from the paper: 50.0 without budget forcing, and 56.7 with the best budget, at 7,320 thinking tokens.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import EvaluateConfig, MeshConfig


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_32b_v6e8.py")))["get_config"]()
    return dataclasses.replace(sweep, batch_size=30, mesh=MeshConfig(fsdp=1, tensor=4))
