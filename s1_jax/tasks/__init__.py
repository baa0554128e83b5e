"""Benchmarks with known answers, and the rules that extract and grade the answer in a model's response."""

from s1_jax.tasks.equivalence import Verdict
from s1_jax.tasks.registry import TASKS, load_rules, load_task
from s1_jax.tasks.task import Problem, Rules, Task

__all__ = ["TASKS", "Problem", "Rules", "Task", "Verdict", "load_rules", "load_task"]
