r"""OlympiadBench has 674 English text problems of mathematics competitions; some have several answers.

problem    Find all real numbers $x$ with $x^2 + 6 = 5x$.
           (its final_answer field: ["$2,3$"]; its is_multiple_answer field: true)
response   <|im_start|>think ... <|im_start|>answer
           The roots are $\boxed{x = 3 \text{ or } x = 2}$.<|im_end|>
extracted  x = 3 \text{ or } x = 2
verdict    gold is 2, 3: right, by math. "2" and "2, 3, 5" would be wrong: all answers are needed, in any order.

A unit in the field `unit` belongs to the gold answer. As elsewhere, a response may leave it out, and another unit of
the same quantity is converted. The field `error`, a tolerance, is not used.

Not checked against the data: the hub id `Hothan/OlympiadBench`, its configuration `OE_TO_maths_en_COMP` and its columns
are those that public harnesses read.
"""

from __future__ import annotations

import re

from s1_jax.config import TaskConfig
from s1_jax.data.sources import DataRow
from s1_jax.errors import UserError
from s1_jax.tasks.task import MATH, Benchmark, Problem, id_of, problems_of, rows_of, value_of
from s1_jax.tasks.units import with_unit

DOLLAR = re.compile(r"(?<!\\)\$")
COMMA = re.compile(r"(?<![{\\]),\s*")  # not "{,}" and "\,"


def problems(config: TaskConfig) -> tuple[Problem, ...]:
    """Load the problems, or rows of the same form from the config's path. Raises UserError on an invalid row."""
    return problems_of(config, rows_of(config, "Hothan/OlympiadBench", "train", "OE_TO_maths_en_COMP"), problem)


def problem(row: DataRow) -> Problem:
    """Read a row whose gold answer is a list of texts and its unit. Raises UserError that names the field at fault."""
    answers = value_of(row, ("final_answer",), list)
    if not all(isinstance(one, str) and DOLLAR.sub("", one).strip() for one in answers):
        raise UserError(
            f"{row.where}: field final_answer is {answers!r}; it must be a list of texts, none of them empty"
        )
    gold = ", ".join(DOLLAR.sub("", one).strip() for one in answers)
    if value_of(row, ("is_multiple_answer",), bool) or len(answers) > 1:
        gold = COMMA.sub(", ", gold)  # "100,200" would be one number
    if row.columns.get("unit") not in (None, ""):
        gold = with_unit(gold, value_of(row, ("unit",), str))
    return Problem(id_of(row), value_of(row, ("question",), str), gold)


OLYMPIADBENCH = Benchmark(problems, lambda config: MATH)
