"""The table of tasks by name."""

from __future__ import annotations

from s1_jax.config import TaskConfig
from s1_jax.errors import UserError
from s1_jax.tasks import (
    aime24,
    aime25,
    aime26,
    amc23,
    brumo25,
    gpqa_diamond,
    gpqa_main,
    gsm8k,
    hmmt_feb25,
    hmmt_feb26,
    hmmt_nov25,
    jsonl,
    math500,
    minerva_math,
    olympiadbench,
    synthetic,
)
from s1_jax.tasks.task import Benchmark, Rules, Task

TASKS: dict[str, Benchmark] = {
    "synthetic": synthetic.SYNTHETIC,
    "aime24": aime24.AIME24,
    "aime24_figures": aime24.AIME24_FIGURES,
    "aime25": aime25.AIME25,
    "aime26": aime26.AIME26,
    "hmmt_feb25": hmmt_feb25.HMMT_FEB25,
    "hmmt_nov25": hmmt_nov25.HMMT_NOV25,
    "hmmt_feb26": hmmt_feb26.HMMT_FEB26,
    "brumo25": brumo25.BRUMO25,
    "amc23": amc23.AMC23,
    "olympiadbench": olympiadbench.OLYMPIADBENCH,
    "minerva_math": minerva_math.MINERVA_MATH,
    "math500": math500.MATH500,
    "gpqa_diamond": gpqa_diamond.GPQA_DIAMOND,
    "gpqa_main": gpqa_main.GPQA_MAIN,
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
