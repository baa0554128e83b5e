"""Tasks: problems with known answers, and the rule that finds and grades an answer in what a model wrote."""

from s1_jax.tasks.task import TASKS, Problem, Task, load_task

__all__ = ["TASKS", "Problem", "Task", "load_task"]
