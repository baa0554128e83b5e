r"""Problems of the user with fields `problem`, `answer` and optionally `id`. Answers are numbers, formulas or text.

problem    {"id": 1, "problem": "Which is the largest city of Brazil?", "answer": "Sao Paulo"}
response   <|im_start|>think ... <|im_start|>answer
           Answer: Sao Paulo<|im_end|>
extracted  Sao Paulo
verdict    right, by text.
"""

from __future__ import annotations

from s1_jax.config import TaskConfig
from s1_jax.data.sources import read_rows
from s1_jax.errors import UserError
from s1_jax.tasks.task import MATH, Benchmark, Problem, problem_of, problems_of


def problems(config: TaskConfig) -> tuple[Problem, ...]:
    """Load the problems at the config's path: a file, folder or hub id (split train). Raises UserError without one."""
    if config.path is None:
        raise UserError("the task 'jsonl' needs --task.path, a JSONL file with problem, answer and optionally id")
    return problems_of(config, read_rows(config.path, "train"), problem_of)


JSONL = Benchmark(problems, lambda config: MATH)
