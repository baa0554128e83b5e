"""The chat format: what a model reads, and which of its tokens are trained on.

A conversation is one user turn, rendered by the tokenizer's own chat template up to the assistant's turn, and one
assistant turn that holds thinking and answer. In s1's format:

    ...<|im_start|>user
    {question}<|im_end|>
    <|im_start|>assistant
    <|im_start|>think
    {thinking}
    <|im_start|>answer
    Answer: {answer}<|im_end|>

In training text both markers are followed by a newline; at inference they are appended without one and the model
writes it. Another model's format (`FormatConfig`) has markers of its own. The template may already write the start
marker at the end of the prompt, as those of QwQ and R1 do; it is then not written again:

    <｜User｜>{question}<｜Assistant｜><think>
    {thinking}
    </think>

    {answer}<｜end▁of▁sentence｜>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, FormatConfig
from s1_jax.config.budget import S1_STOP_TOKENS
from s1_jax.data.template import TemplateError, render
from s1_jax.errors import UserError
from s1_jax.runtime.storage import one_line

TURN_START = "<|im_start|>"
STOP_TOKENS = S1_STOP_TOKENS
THINK_START, ANSWER_START, FINAL_ANSWER = S1.think_start, S1.answer_start, S1.final_answer
TURN_END = "<|im_end|>\n"
ASSISTANT_START = "<|im_start|>assistant\n"
NAME_MARKERS = "say how the model marks its thinking (--format.think-start '<think>' --format.answer-start '</think>')"
CUT_HERE = "CONTINUE_FINAL_MESSAGE_TAG "  # behind a message that is to be continued: transformers' own
QUESTION, ANSWER = "(question)", "(answer)"  # stand-ins that show what a template writes around the two


class Example(NamedTuple):
    """One tokenised conversation; `loss_mask[t]` tells whether predicting token t is trained on."""

    token_ids: np.ndarray  # int32 [T]
    loss_mask: np.ndarray  # bool [T]


class Turn(NamedTuple):
    """What a chat template writes around the assistant's text: with Qwen2.5 ASSISTANT_START, nothing and TURN_END."""

    start: str
    opened: str  # what only the prompt for a new turn has after `start`: "<think>\n" with QwQ and R1
    end: str


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text`, markers recognised, nothing added at either end."""
    return tokenizer.encode(text, add_special_tokens=False)


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
) -> str:
    """Messages through the chat template, as `apply_chat_template` renders them, within limits (template.py).

    Raises UserError where there is no template, or it fails.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; use that of Qwen2.5-Instruct, "
            "or give prompts as token ids"
        )
    turns = [{name: value for name, value in message.items() if value is not None} for message in messages]
    names = tokenizer.special_tokens_map | {"tools": None, "documents": None}
    names |= {"messages": turns, "add_generation_prompt": add_generation_prompt}
    try:
        if continue_final_message:
            turns[-1] |= {"content": turns[-1]["content"] + CUT_HERE}
        text = render(tokenizer.get_chat_template(), names)
        return _up_to_cut(text) if continue_final_message else text
    # of several templates none is the default; or the last message is no text that could be continued
    except (TemplateError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"the chat template of {tokenizer.name_or_path} fails: {one_line(error)}") from None


def _up_to_cut(text: str) -> str:
    """The text before CUT_HERE, without trailing space where the template takes that off messages."""
    before, mark, behind = text.rpartition(CUT_HERE.strip())
    if not mark:
        raise ValueError("it leaves out the message that is to be continued")
    return before if behind.startswith(CUT_HERE[len(mark) :]) else before.rstrip()


def prompt_text(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """One user turn through the tokenizer's chat template, with its generation prompt.

    Raises UserError where the tokenizer has no chat template, or it fails.
    """
    return rendered(tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """Ids of `prompt_text`; the start marker of thinking is part of them only where the template writes it."""
    return encode(tokenizer, prompt_text(tokenizer, question))


def turn_of(tokenizer: PreTrainedTokenizerBase) -> Turn:
    """What the tokenizer's chat template writes around the assistant's text; see Turn.

    Where it writes no control token after that, the end is the tokenizer's eos token, or empty where it has none.
    Raises UserError as `prompt_text` does.
    """
    return _turn_of(tokenizer, str(tokenizer.chat_template))


def opened_by_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """`Turn.opened`; empty where there is no chat template, or it fails: prompts may come as token ids."""
    try:
        return turn_of(tokenizer).opened
    except UserError:
        return ""


def control_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Ids of the tokens that were added to the vocabulary: no text but their own becomes one of these."""
    return frozenset(tokenizer.get_added_vocab().values())


def check_control_token(tokenizer: PreTrainedTokenizerBase, format: FormatConfig) -> None:
    """Raises UserError where the format's markers are made of s1's control token, and this is not one token here."""
    if TURN_START in format.think_start + format.answer_start and len(encode(tokenizer, TURN_START)) != 1:
        raise UserError(f"{TURN_START} is not one token of the tokenizer {tokenizer.name_or_path}; {NAME_MARKERS}")


def check_opening(tokenizer: PreTrainedTokenizerBase, text: str, format: FormatConfig) -> None:
    """Raises UserError where a prompt that ends in `text` has been opened by the template in another format."""
    opened = opened_by_template(tokenizer)
    if opened.strip() and ends_in(text, opened) and not ends_in(text, format.think_start):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} opens the thinking with {opened.strip()!r}, "
            f"the format with {format.think_start!r}; {NAME_MARKERS}"
        )


def ends_in(text: str, marker: str) -> bool:
    """Whether the text ends in the marker, white space behind either aside."""
    return text.rstrip().endswith(marker.rstrip() or marker)


def response_text(
    thinking: str | Sequence[str], answer: str, format: FormatConfig = S1, turn_end: str = TURN_END
) -> str:
    """The assistant's turn, start marker included (reference: data/tokenization.py); `turn_end` is what ends it.

    Several thoughts are joined by newlines and stripped. In s1's format the answer gets the prefix "Answer: " unless
    "Answer:" occurs in it, and is stripped after that, so white space at its beginning stays behind a prefix.
    """
    return with_answer(f"{format.think_start}\n{joined(thinking)}", answer, format, turn_end)


def joined(thinking: str | Sequence[str]) -> str:
    """Several thoughts as one, white space at both ends taken off."""
    return (thinking if isinstance(thinking, str) else "\n".join(thinking)).strip()


def with_answer(opening: str, answer: str, format: FormatConfig = S1, turn_end: str = TURN_END) -> str:
    """A response from its `opening`, start marker and thinking, on.

    Between the answer's marker and the answer stands the white space that `format.final_answer` begins with.
    """
    if format.answer_start == ANSWER_START and "Answer:" not in answer:
        answer = "Answer: " + answer
    words = format.final_answer
    space = words[: len(words) - len(words.lstrip())]
    return f"{opening}\n{format.answer_start}{space}{answer.strip()}{turn_end}"


def encode_example(
    tokenizer: PreTrainedTokenizerBase, question: str, response: str, format: FormatConfig = S1
) -> Example:
    """Prompt and response as one example, with loss on the response: markers, end of turn and what follows it too.

    The ids are those of the whole text. Where the prompt ends in the start marker already, the response's is left out.
    Raises UserError where format, tokenizer and chat template do not fit together.
    """
    check_control_token(tokenizer, format)
    prompt = prompt_text(tokenizer, question)
    check_opening(tokenizer, prompt, format)
    if ends_in(prompt, format.think_start):
        response = response.removeprefix(format.think_start.rstrip())
        response = response if prompt == prompt.rstrip() else response.lstrip()
    token_ids, alone = encode(tokenizer, prompt + response), encode(tokenizer, prompt)
    # a token that reaches across the border belongs to the response
    return _example(token_ids, _shared(token_ids, alone))


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> Example:
    """A finished conversation, used as it is; loss on all that follows what first opens the assistant's turn.

    That is looked for as token ids. A start marker of thinking that the chat template writes into prompts belongs to
    it. Raises UserError where it does not occur, or nothing follows it.
    """
    turn = turn_of(tokenizer) if tokenizer.chat_template else Turn(ASSISTANT_START, "", TURN_END)
    if not turn.start:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} does not show where the assistant's turn begins"
        )
    token_ids = encode(tokenizer, text)
    marker, opened = encode(tokenizer, turn.start), encode(tokenizer, turn.start + turn.opened)
    for begin in range(len(token_ids) - len(marker)):
        if token_ids[begin : begin + len(marker)] == marker:
            with_opened = token_ids[begin : begin + len(opened)] == opened and begin + len(opened) < len(token_ids)
            return _example(token_ids, begin + len(opened if with_opened else marker))
    raise UserError(f"no tokens {marker} of {turn.start!r} with something to learn after them")


def _example(token_ids: list[int], response_start: int) -> Example:
    return Example(np.asarray(token_ids, np.int32), np.arange(len(token_ids)) >= response_start)


@lru_cache(maxsize=16)
def _turn_of(tokenizer: PreTrainedTokenizerBase, template: str) -> Turn:
    prompt = prompt_text(tokenizer, QUESTION)
    try:
        asked, answered = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
        turn, question = rendered(tokenizer, [asked, answered]), rendered(tokenizer, [asked])
    except UserError:  # it takes prompts alone
        turn, question = "", prompt
    before, _, end = turn.rpartition(ANSWER)
    opened = prompt[len(before) :] if before and prompt.startswith(before) else ""
    # what stands behind the question when an answer follows, less what stands there when none does
    after, alone = (text.rpartition(QUESTION)[2] for text in (prompt.removesuffix(opened), question))
    ids = encode(tokenizer, after)
    start = tokenizer.backend_tokenizer.decode(ids[_shared(ids, encode(tokenizer, alone)) :], skip_special_tokens=False)
    ends = set(encode(tokenizer, end)) & control_ids(tokenizer)
    return Turn(start if start.strip() else after.strip(), opened, end if ends else tokenizer.eos_token or "")


def _shared(ids: list[int], others: list[int]) -> int:
    """How many ids the two begin with alike."""
    pairs = zip(ids, others, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(others)))
