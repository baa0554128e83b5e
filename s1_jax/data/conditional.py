"""Training examples for conditional control, in which the question states a limit on thinking (paper, appendix D).

    "token"   What is 6 x 7?\n\nThink for up to 16 tokens.    <|im_start|>think
                                                              6 x 7 is 42.
                                                              <|im_start|>answer
    "step"    What is 6 x 7?\n\nThink for up to 4 steps.      <|im_start|>4 steps left
                                                              6 x 7 is 42.
                                                              <|im_start|>3 steps left
                                                              7 x 6 is, too.
                                                              <|im_start|>answer

The limit is the smallest power of two that is not below the length of the example's thinking, so a model learns to stay
within it. A model trained on steps is decoded with the format `STEPS`: thinking ends at the answer's marker, or when no
steps are left.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, FormatConfig
from s1_jax.config.instructions import instructed
from s1_jax.data.chat import encode, joined
from s1_jax.errors import UserError

STEPS = FormatConfig(
    think_start="<|im_start|>", end_markers=("<|im_start|>0", S1.answer_start, "<|im_end|>", "<|endoftext|>")
)


def with_token_limit(
    tokenizer: PreTrainedTokenizerBase, question: str, thinking: str | Sequence[str], format: FormatConfig = S1
) -> tuple[str, str]:
    """Return the question with a token limit, and the thinking from its start marker on."""
    thoughts = joined(thinking)
    limit = _power_of_two(len(encode(tokenizer, thoughts)))
    return instructed(question, f"token {limit}"), f"{format.think_start}\n{thoughts}"


def with_step_limit(
    tokenizer: PreTrainedTokenizerBase, question: str, thinking: str | Sequence[str], format: FormatConfig = S1
) -> tuple[str, str]:
    """Return the question with a step limit, and the thinking with the number of steps left before each step.

    The markers of steps belong to s1's format. Raises UserError for another format.
    """
    if format not in (S1, STEPS):
        raise UserError("data.control step needs s1's own markers; remove --format.*, or set data.control token")
    steps = split_steps(joined(thinking))
    limit = _power_of_two(len(steps))
    counted = [f"{STEPS.think_start}{limit - i} steps left\n{step}" for i, step in enumerate(steps)]
    return instructed(question, f"step {limit}"), "\n".join(counted)


def split_steps(thinking: str) -> list[str]:
    """Split a trace into steps: its paragraphs or, if there is only one, its lines."""
    paragraphs = [step.strip() for step in thinking.split("\n\n") if step.strip()]
    return paragraphs if len(paragraphs) > 1 else [line for line in thinking.split("\n") if line.strip()] or [""]


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 0).bit_length()


WITH_LIMIT = {"token": with_token_limit, "step": with_step_limit}
