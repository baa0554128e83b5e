"""Formats read from a tokenizer: how a model marks its thinking, as far as its chat template and vocabulary say."""

from __future__ import annotations

import re
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, FormatConfig
from s1_jax.config.budget import AUTO_MARKER
from s1_jax.data.chat import NAME_MARKERS, TURN_START, encode, opened_by_template
from s1_jax.errors import UserError

OPENING_TAG = re.compile(r"<(\w+)>")
THINK, THINK_END = "<think>", "</think>"
FINAL_ANSWER = "\n\nFinal Answer:"  # an empty line follows </think> in the texts of these models
SWITCH = "enable_thinking"  # variable of Qwen3's chat template


class Found(NamedTuple):
    """A format, and what it was read from."""

    format: FormatConfig
    reason: str


def resolve_format(format: FormatConfig, tokenizer: PreTrainedTokenizerBase) -> tuple[FormatConfig, str | None]:
    """Replace the markers of `format` that are "auto" by those that the tokenizer says, and give a line about it.

    Without such a marker the format is returned as it is, with None. Raises UserError as `read_format` does.
    """
    if not format.is_auto:
        return format, None
    found, reason = read_format(tokenizer)
    resolved = FormatConfig(
        think_start=found.think_start if format.think_start == AUTO_MARKER else format.think_start,
        answer_start=found.answer_start if format.answer_start == AUTO_MARKER else format.answer_start,
        final_answer=found.final_answer if format.final_answer == S1.final_answer else format.final_answer,
        end_markers=format.end_markers,
        early_stopping_text=format.early_stopping_text,
    )
    return resolved, f"format: {resolved.think_start} ... {resolved.answer_start}, because {reason}"


def read_format(tokenizer: PreTrainedTokenizerBase) -> Found:
    """Read the format of a model from its chat template and its vocabulary.

    Raises UserError where they do not say how the model marks its thinking.
    """
    named, template, added = tokenizer.name_or_path, _template(tokenizer), tokenizer.get_added_vocab()
    opened = opened_by_template(tokenizer).strip()
    if opened:
        tag = OPENING_TAG.fullmatch(opened)
        closing = f"</{tag[1]}>" if tag else ""
        if closing and (closing in template or closing in added):
            return Found(FormatConfig(opened, closing, FINAL_ANSWER), f"the chat template opens the thinking: {opened}")
        raise UserError(
            f"the chat template of {named} opens the thinking with {opened!r}, and does not say what ends it; "
            f"{NAME_MARKERS}"
        )
    if THINK in template or THINK_END in template:
        why = f"the chat template has {SWITCH}" if SWITCH in template else f"the chat template knows {THINK_END}"
        return Found(FormatConfig(THINK, THINK_END, FINAL_ANSWER), why)
    if SWITCH in template:
        raise UserError(f"the chat template of {named} has {SWITCH} and no {THINK}; {NAME_MARKERS}")
    silent = "has no chat template" if not template else "has a chat template that mentions no thinking"
    if THINK in added or THINK_END in added:
        raise UserError(f"{named} {silent}, but its vocabulary has {THINK}; {NAME_MARKERS}")
    if TURN_START in template and len(encode(tokenizer, TURN_START)) == 1:
        return Found(S1, f"the chat template writes {TURN_START} and knows no thinking tag, as s1's")
    raise UserError(f"the tokenizer of {named} {silent}, and does not say how the model marks it; {NAME_MARKERS}")


def _template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the default chat template, or "" where there is none."""
    if not tokenizer.chat_template:
        return ""
    try:
        return tokenizer.get_chat_template()
    except ValueError:  # several, and none of them is the default
        return ""
