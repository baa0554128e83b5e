r"""Instructions on how long to think, put behind the question: conditional control (paper, appendix D.1).

    "token 2048"   What is 6 x 7?\n\nThink for up to 2048 tokens.
    "step 32"      What is 6 x 7?\n\nThink for up to 32 steps.
    "short"        What is 6 x 7?\n\nAnswer after a short amount of thinking. ...
    "long"         What is 6 x 7?\n\nAnswer after a long amount of thinking. ...

The texts are those the reference's models were trained and evaluated with, to the character.
"""

from __future__ import annotations

from typing import NamedTuple

from s1_jax.errors import UserError

TOKENS_A_STEP = 100  # that a step may take: what the paper holds a run with steps against
LIMITS = {"token": "Think for up to {} tokens.", "step": "Think for up to {} steps."}
CLASSES = {
    "short": "Answer after a short amount of thinking. Do not spend excessive time double-checking your work.",
    "long": (
        "Answer after a long amount of thinking. If you feel like you are finished early, spend the extra time trying "
        "to double-check your work until you are absolutely sure that you have the correct answer."
    ),
}
METHODS = {
    "token": "token-conditional control",
    "step": "step-conditional control",
    **dict.fromkeys(CLASSES, "class-conditional control"),
}
MOST_DIGITS = 9  # of a limit
SHOWN = 60  # characters of an unknown one in a message
FORMS = '"token N", "step N", "short" or "long"'


class Instruction(NamedTuple):
    """One of the four kinds; `limit` counts tokens or steps."""

    kind: str
    limit: int | None

    @property
    def text(self) -> str:
        """What stands behind the question, the empty line before it included."""
        words = CLASSES[self.kind] if self.limit is None else LIMITS[self.kind].format(self.limit)
        return f"\n\n{words}"

    @property
    def method(self) -> str:
        """What the paper calls asking so."""
        return METHODS[self.kind]

    @property
    def thinking_tokens(self) -> int | None:
        """The most that it allows; a class allows more or less than no instruction does, which depends on the model."""
        if self.limit is None:
            return None
        return self.limit * (TOKENS_A_STEP if self.kind == "step" else 1)


def parse_instruction(words: str) -> Instruction:
    """An instruction as options and records write it. Raises UserError on anything else."""
    if words in CLASSES:
        return Instruction(words, None)
    kind, _, limit = words.partition(" ")
    is_number = limit.isascii() and limit.isdigit() and len(limit) <= MOST_DIGITS
    if kind in LIMITS and is_number and int(limit) > 0:
        return Instruction(kind, int(limit))
    raise UserError(f"instruction {words[:SHOWN]!r} is none of {FORMS}, N a number above 0")


def instructed(question: str, words: str | None) -> str:
    """The question with the instruction behind it, or as it is. Raises UserError as `parse_instruction` does."""
    return question if words is None else question + parse_instruction(words).text
