"""Cut Qwen3-32B's thinking on AIME24 as its report does: a sentence about the limited time, then the end marker.

    python -m s1_jax.evaluate configs/early_stop_qwen3_32b_v6e8.py

Hardware: v6e-8 (8 chips). Cost, planned as for configs/sweep_qwen3_32b_v6e8.py (docs/performance.md), not measured:
one run of each problem for all seven maxima, of at most 6 minutes.
Source: Qwen3 Technical Report (arXiv 2505.09388), thinking budget. Expected: accuracy that grows with the maximum.
"""

import dataclasses
from pathlib import Path
from runpy import run_path

from s1_jax.config import EvaluateConfig, FormatConfig, SweepConfig

SENTENCE = "Considering the limited time by the user, I have to give the solution based on the thinking directly now."
MAXIMA = (500, 1000, 2000, 4000, 8000, 16000, None)


def get_config() -> EvaluateConfig:
    sweep = run_path(str(Path(__file__).with_name("sweep_qwen3_32b_v6e8.py")))["get_config"]()
    format = FormatConfig("<think>", "</think>", final_answer="\n\n", early_stopping_text=f"\n\n{SENTENCE}\n")
    return dataclasses.replace(
        sweep, run_dir="runs/early_stop_qwen3_32b", format=format, sweep=SweepConfig(max_thinking_tokens=MAXIMA)
    )
