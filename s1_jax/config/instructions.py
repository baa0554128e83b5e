r"""Instructions on how long to think, appended to the question for conditional control (paper, appendix D.1).

    "token 2048"   What is 6 x 7?\n\nThink for up to 2048 tokens.
    "step 32"      What is 6 x 7?\n\nThink for up to 32 steps.
    "short"        What is 6 x 7?\n\nAnswer after a short amount of thinking. ...
    "long"         What is 6 x 7?\n\nAnswer after a long amount of thinking. ...

The texts are exactly those with which s1's models were trained and evaluated.
"""

from __future__ import annotations

from typing import NamedTuple

from s1_jax.errors import UserError

TOKENS_A_STEP = 100  # tokens that a step may take; the paper compares runs with steps with this limit
LIMITS = {"token": "Think for up to {} tokens.", "step": "Think for up to {} steps."}
CLASSES = {
    "short": "Answer after a short amount of thinking. Do not spend excessive time double-checking your work.",
    "long": (
        "Answer after a long amount of thinking. If you feel like you are finished early, spend the extra time trying "
        "to double-check your work until you are absolutely sure that you have the correct answer."
    ),
}
FAMILIES = {
    "token": "token-conditional control",
    "step": "step-conditional control",
    **dict.fromkeys(CLASSES, "class-conditional control"),
}
MOST_DIGITS = 9  # digits of a limit
SHOWN = 60  # characters of an unknown instruction in a message
FORMS = '"token N", "step N", "short" or "long"'


class Instruction(NamedTuple):
    """One of the four kinds; `limit` counts tokens or steps."""

    kind: str
    limit: int | None

    @property
    def text(self) -> str:
        """Text that is appended to the question, including the empty line before it."""
        words = CLASSES[self.kind] if self.limit is None else LIMITS[self.kind].format(self.limit)
        return f"\n\n{words}"

    @property
    def family(self) -> str:
        """The paper's name for this way to control thinking."""
        return FAMILIES[self.kind]

    @property
    def thinking_tokens(self) -> int | None:
        """Largest number of thinking tokens that it allows; None for "short" and "long", which set no number."""
        if self.limit is None:
            return None
        return self.limit * (TOKENS_A_STEP if self.kind == "step" else 1)


def parse_instruction(words: str) -> Instruction:
    """Parse an instruction as written in options and records. Raises UserError on anything else."""
    if words in CLASSES:
        return Instruction(words, None)
    kind, _, limit = words.partition(" ")
    is_number = limit.isascii() and limit.isdigit() and len(limit) <= MOST_DIGITS
    if kind in LIMITS and is_number and int(limit) > 0:
        return Instruction(kind, int(limit))
    raise UserError(f"instruction {words[:SHOWN]!r} is none of {FORMS}, with a whole number N above 0")


def instructed(question: str, words: str | None) -> str:
    """Append the instruction, if there is one, to the question. Raises UserError as `parse_instruction` does."""
    return question if words is None else question + parse_instruction(words).text
