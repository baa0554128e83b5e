"""Evaluate s1-32B on AIME24 with s1's 11 settings: seven maxima, and 1, 2, 4 and 6 ignored ends of thinking.

    python -m s1_jax.evaluate configs/sweep_32b_v6e16.py

Hardware: v6e-16 (16 chips). Cost, planned with the TPU compiler (docs/performance.md), not measured: 30.7 of
31.2 GiB per chip with 40 rows of 32,768 tokens. A step adds a token to each row and takes 17.0 ms with full caches
and 10.5 ms with half full ones. A trace that fills its context takes 6 minutes, 1.5 chip-hours. Loading the
checkpoint (131 GB), compiling and answering add to that.
The slice has several hosts, and one copy of the model is sharded over all chips: run the same command on each host,
with a run_dir that all of them share.
Expected, from the paper: 50.0 without budget forcing, and 56.7 with the best budget, at 7,320 thinking tokens.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import EvaluateConfig, MeshConfig


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_32b_v6e8.py")))["get_config"]()
    return dataclasses.replace(sweep, batch_size=40, mesh=MeshConfig(fsdp=2, tensor=8))
