"""Sweeps small enough for tests; what they start from are fixtures in conftest.py."""

from __future__ import annotations

import json
from pathlib import Path

from s1_jax import evaluate

CONFIG = """
from s1_jax.config import *

def get_config():
    return EvaluateConfig(task=TaskConfig(name="jsonl"), max_model_len=192, max_answer_tokens=6, batch_size=8)
"""
EXTRA = """
from s1_jax.config import *

def get_config():
    sampled = SettingConfig(sampling=SamplingConfig(temperature=1.0), samples=4)
    free = SettingConfig(BudgetConfig(forcing=False))
    least = SettingConfig(BudgetConfig(forcing=False, max_thinking_tokens=9))
    sweep = SweepConfig(max_thinking_tokens=(12,), extra=(sampled, free, least), scaling="within")
    task = TaskConfig(name="jsonl")
    return EvaluateConfig(task=task, sweep=sweep, max_model_len=192, max_answer_tokens=6, batch_size=8)
"""
PROBLEMS = 5
GRID = [
    "--sweep.max-thinking-tokens",
    "0",
    "4",
    "12",
    "--sweep.num-ignore",
    "0",
    "1",
    "--sweep.ignore-strings",
    "Wait",
    "Hmm",
]
SETTINGS = 3 * (1 + 2)  # without any ignored end both strings are one setting


def evaluated(folder: Path, run_dir: Path, *overrides: str, config: str = "config.py") -> list[dict]:
    """Calls main() and returns the records in `run_dir`."""
    common = ["--run-dir", str(run_dir), "--model.path", str(folder / "model")]
    evaluate.main([str(folder / config), *common, "--task.path", str(folder / "problems.jsonl"), *overrides])
    return records_in(run_dir)


def records_in(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "records.jsonl").read_text().splitlines()]
