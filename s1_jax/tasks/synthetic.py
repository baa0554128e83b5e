r"""The tiny task has held-out problems, generated from the seed or read from a file; answers are whole numbers.

problem    Start with 3. Add 4. Double it.
response   <|im_start|>think ... <|im_start|>answer
           Answer: 14<|im_end|>
extracted  14
verdict    right, by number. A model that small writes digits or nonsense, so math-verify is not asked.
"""

from __future__ import annotations

from s1_jax.config import TaskConfig
from s1_jax.data.sources import read_rows
from s1_jax.data.synthetic import generate_problems
from s1_jax.tasks.task import PLAIN, Benchmark, Problem, problem_of, problems_of

DEFAULT_PROBLEMS = 500


def problems(config: TaskConfig) -> tuple[Problem, ...]:
    """Generate `limit` problems from the seed, or read the config's path. Raises UserError on an invalid row."""
    if config.path is not None:
        return problems_of(config, read_rows(config.path, "train"), problem_of)
    made = generate_problems(config.seed, config.limit or DEFAULT_PROBLEMS)
    return tuple(Problem(row["id"], row["problem"], row["answer"]) for row in made)


SYNTHETIC = Benchmark(problems, lambda config: PLAIN)
