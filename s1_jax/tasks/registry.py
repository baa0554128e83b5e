"""The table of tasks by name."""

from __future__ import annotations

from s1_jax.config import TaskConfig
from s1_jax.errors import UserError
from s1_jax.tasks import aime24, aime25, gpqa_diamond, gsm8k, jsonl, math500, synthetic
from s1_jax.tasks.task import Benchmark, Rules, Task

TASKS: dict[str, Benchmark] = {
    "synthetic": synthetic.SYNTHETIC,
    "aime24": aime24.AIME24,
    "aime24_figures": aime24.AIME24_FIGURES,
    "aime25": aime25.AIME25,
    "math500": math500.MATH500,
    "gpqa_diamond": gpqa_diamond.GPQA_DIAMOND,
    "gsm8k": gsm8k.GSM8K,
    "jsonl": jsonl.JSONL,
}


def load_task(config: TaskConfig) -> Task:
    """Load the task that a config names, with at most `limit` problems.

    Raises UserError on an unknown name, an unreadable path, and an invalid row, naming its file, line and field.
    """
    rules = load_rules(config)
    if config.limit is not None and config.limit < 1:
        raise UserError(f"task.limit {config.limit} is below 1")
    return Task(config.name, TASKS[config.name].problems(config), rules)


def load_rules(config: TaskConfig) -> Rules:
    """Return the rules of the task that a config names, without its problems. Raises UserError on an unknown name."""
    if config.name not in TASKS:
        raise UserError(f"unknown task {config.name!r}; known: {', '.join(TASKS)}")
    return TASKS[config.name].rules(config)
