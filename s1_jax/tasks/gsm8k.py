r"""GSM8K has 1,319 grade-school word problems whose answers are whole numbers.

problem    A pen costs $2 and a book four times as much. What do both cost?
           (its answer field: "The book costs $8.\nBoth cost 2 + 8 = $10.\n#### 10")
response   <|im_start|>think ... <|im_start|>answer
           Answer: \$10.00<|im_end|>
extracted  \$10.00
verdict    gold is the text after ####, 10: right, by number.
"""

from __future__ import annotations

from s1_jax.config import TaskConfig
from s1_jax.data.sources import DataRow
from s1_jax.errors import UserError
from s1_jax.tasks.task import MATH, Benchmark, Problem, problem_of, problems_of, rows_of

MARK = "####"


def problems(config: TaskConfig) -> tuple[Problem, ...]:
    """Load the test split, or rows of the same form from the config's path. Raises UserError on an invalid row."""
    return problems_of(config, rows_of(config, "openai/gsm8k", "test", "main"), problem)


def problem(row: DataRow) -> Problem:
    """Read a row whose `answer` is a solution that ends in #### and the result. Raises UserError if it does not."""
    found = problem_of(row)
    _, mark, gold = found.gold.rpartition(MARK)
    if not mark or not gold.strip():
        raise UserError(f"{row.where}: field answer has no result after {MARK}; it must end in {MARK} and the result")
    return Problem(found.id, found.question, gold.strip())


GSM8K = Benchmark(problems, lambda config: MATH)
