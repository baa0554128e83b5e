r"""GPQA diamond has 198 questions of physics, chemistry and biology with four choices each.

problem    Which planet is closest to the Sun?

           A) Venus
           B) Mercury
           C) Mars
           D) Earth
response   <|im_start|>think ... <|im_start|>answer
           Answer: b<|im_end|>
extracted  B
verdict    right, by letter. "Mercury" would be wrong, unparsed: only a judge can tell which letter it means.

The data set is gated, and its authors ask that its questions are not published in plain text. It is therefore read
from the hub with the user's own access, or from the user's file.
"""

from __future__ import annotations

import hashlib

from s1_jax.config import TaskConfig
from s1_jax.data.chat import ANSWER_START
from s1_jax.data.sources import DataRow
from s1_jax.errors import UserError
from s1_jax.tasks.answers import answer_part, extract_answer
from s1_jax.tasks.equivalence import Verdict
from s1_jax.tasks.letters import AROUND_A_LETTER, LETTERS, letter_in
from s1_jax.tasks.task import Benchmark, Problem, Rules, id_of, problems_of, rows_of, value_of

CHOICES = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
ID_FIELDS = ("Record ID", "id")


def problems(config: TaskConfig, subset: str = "gpqa_diamond") -> tuple[Problem, ...]:
    """Load a subset's questions, with their choices shuffled by `seed`.

    Raises UserError if the data set is not accessible.
    """
    try:
        rows = rows_of(config, "Idavidrein/gpqa", "train", subset)
        return problems_of(config, rows, lambda row: problem(row, config.seed))
    except UserError as error:
        if config.path is not None:
            raise
        advice = "accept its terms on the hub and log in (hf auth login), or set --task.path"
        raise UserError(f"{error}; the data set is gated: {advice}") from None


def problem(row: DataRow, seed: int) -> Problem:
    """Build the question with its choices as A) to D), in an order that depends on the seed and the question alone.

    Raises UserError that names a missing field.
    """
    question = value_of(row, ("Question",), str).strip()
    choices = [value_of(row, (name,), str).strip() for name in CHOICES]
    shuffled = sorted(choices, key=lambda choice: hashlib.sha256(f"{seed}\n{question}\n{choice}".encode()).digest())
    listed = "\n".join(f"{letter}) {choice}" for letter, choice in zip(LETTERS, shuffled, strict=True))
    return Problem(id_of(row, ID_FIELDS), f"{question}\n\n{listed}", LETTERS[shuffled.index(choices[0])])


def rules(config: TaskConfig) -> Rules:
    """Return the rules for letters; with `no_letter_is_a`, as in s1's code, an answer without a letter counts as A."""

    def extract(text: str, answer_start: str = ANSWER_START) -> str | None:
        found = extract_answer(text, answer_start)
        labelled = found != answer_part(text, answer_start).strip()
        letter = letter_in(found or "", labelled)
        return letter or ("A" if config.no_letter_is_a else found)

    return Rules(extract, grade)


def grade(answer: str | None, gold: str) -> Verdict:
    """Compare the letters of two choices; an answer that is no letter is wrong and "unparsed"."""
    if answer is None:
        return Verdict(False, "none")
    letter = letter_in(answer)
    return Verdict(letter == gold, "letter") if letter else Verdict(False, "unparsed")


GPQA_DIAMOND = Benchmark(problems, rules)

__all__ = ["AROUND_A_LETTER", "GPQA_DIAMOND", "LETTERS", "letter_in"]
