"""Evaluate thinking in counted steps: the paper's step-conditional control (table 12), with and without budget forcing.

    python -m s1_jax.evaluate configs/control_steps_32b_v6e8.py                       # thinking ends at 0 steps
    python -m s1_jax.evaluate configs/control_steps_32b_v6e8.py --run-dir runs/control_steps_alone \\
        --format.end-markers "<|im_start|>answer" "<|im_end|>" "<|endoftext|>"        # no intervention

The model was trained to write the number of steps left before each step, such as "<|im_start|>16 steps left", and the
prompt states the limit. Thinking ends when the model opens the answer, and in the first run also when it would write
"<|im_start|>0". `--data.control step` of s1_jax.train trains such a model on any examples with thinking and answer.

Hardware: v6e-8 (8 chips). Cost, planned as for configs/sweep_32b_v6e8.py (docs/performance.md), not measured: five runs
of at most 6 minutes. Expected on AIME24: 23.3 at 1,517 thinking tokens with 16 steps, 36.7 at 5,409 with 128.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import EvaluateConfig, SweepConfig
from s1_jax.data.conditional import STEPS


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_32b_v6e8.py")))["get_config"]()
    return dataclasses.replace(
        sweep,
        run_dir="runs/control_steps_32b",
        model=dataclasses.replace(sweep.model, path="simplescaling/step-conditional-control"),
        format=STEPS,
        sweep=SweepConfig(instructions=tuple(f"step {count}" for count in (16, 32, 64, 128, 256))),
    )
