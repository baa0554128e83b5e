"""The instructions are the reference's to the character, and anything else is one clear error."""

import pytest

from s1_jax.config.instructions import instructed, parse_instruction
from s1_jax.errors import UserError

LONG = (
    "\n\nAnswer after a long amount of thinking. If you feel like you are finished early, spend the extra time trying "
    "to double-check your work until you are absolutely sure that you have the correct answer."
)
SHORT = "\n\nAnswer after a short amount of thinking. Do not spend excessive time double-checking your work."


@pytest.mark.parametrize(
    ("words", "text", "tokens"),
    [
        ("token 2048", "\n\nThink for up to 2048 tokens.", 2048),
        ("step 32", "\n\nThink for up to 32 steps.", 3200),
        ("short", SHORT, None),
        ("long", LONG, None),
    ],
)
def test_texts_and_what_they_allow(words, text, tokens):
    assert instructed("What is 6 x 7?", words) == "What is 6 x 7?" + text
    assert parse_instruction(words).thinking_tokens == tokens


def test_a_question_without_instruction_is_as_it_was():
    assert instructed("What is 6 x 7?", None) == "What is 6 x 7?"


@pytest.mark.parametrize("words", ["", "token", "token 0", "token -5", "tokens 5", "step 1.5", "short 3", "long ", "²"])
def test_anything_else_is_an_error(words):
    with pytest.raises(UserError, match="instruction .* is none of"):
        parse_instruction(words)
