"""Thinking in steps that count down: the paper's step-conditional control (table 12), alone and with budget forcing.

    python -m s1_jax.evaluate configs/control_steps_32b_v6e8.py                       # ended at 0 steps
    python -m s1_jax.evaluate configs/control_steps_32b_v6e8.py --run-dir runs/control_steps_alone \\
        --format.end-markers "<|im_start|>answer" "<|im_end|>" "<|endoftext|>"        # no intervention

The model was trained to write "<|im_start|>16 steps left" before each step, and is asked for up to so many. Its
thinking ends where it opens the answer, and in the first run also where it would write "<|im_start|>0". Such a model is
made from any examples of question, thinking and answer by `--data.control step` of s1_jax.train.

Hardware: v6e-8 (8 chips), rows and memory as configs/sweep_32b_v6e8.py plans them (docs/performance.md), not yet run;
five runs of at most 6 minutes. Expected on AIME24: 23.3 at 1,517 thinking tokens with 16 steps, 36.7 at 5,409 with 128.
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
