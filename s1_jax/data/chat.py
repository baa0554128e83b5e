"""Chat formats of conversations, and which of their tokens are trained on.

A conversation has one user turn, rendered by the tokenizer's own chat template up to the assistant's turn, and one
assistant turn with thinking and answer. In s1's format:

    ...<|im_start|>user
    {question}<|im_end|>
    <|im_start|>assistant
    <|im_start|>think
    {thinking}
    <|im_start|>answer
    Answer: {answer}<|im_end|>

In training text both markers are followed by a newline; at inference they are appended without one and the model
generates it. Formats of other models (`FormatConfig`) have their own markers. The template may already write the start
marker at the end of the prompt, as those of QwQ and R1 do; it is then not repeated:

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
NAME_MARKERS = "set the model's markers (such as --format.think-start '<think>' --format.answer-start '</think>')"
ASK = f"let the tokenizer say them (--format auto), or {NAME_MARKERS}"
CUT_HERE = "CONTINUE_FINAL_MESSAGE_TAG "  # after a message that is to be continued, as in transformers
QUESTION, ANSWER = "(question)", "(answer)"  # placeholders that show what a template writes around them


class Example(NamedTuple):
    """One tokenized conversation; `loss_mask[t]` says whether the prediction of token t is trained on."""

    token_ids: np.ndarray  # int32 [T]
    loss_mask: np.ndarray  # bool [T]


class Turn(NamedTuple):
    """Text that a chat template writes around the assistant's turn; for Qwen2.5 ASSISTANT_START, "" and TURN_END."""

    start: str
    opened: str  # follows `start` only in the prompt for a new turn: "<think>\n" for QwQ and R1
    end: str


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Tokenize `text`: special tokens in it are recognized, and none are added at its ends."""
    return tokenizer.encode(text, add_special_tokens=False)


def rendered(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    thinking: bool = True,
) -> str:
    """Render messages with the chat template as `apply_chat_template` does, within limits (template.py).

    `thinking` is `enable_thinking` of templates that have such a switch, as Qwen3's. Raises UserError if there is no
    template or it fails.
    """
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat template; use the tokenizer of Qwen2.5-Instruct, "
            "or give prompts as token ids"
        )
    turns = [{name: value for name, value in message.items() if value is not None} for message in messages]
    names = tokenizer.special_tokens_map | {"tools": None, "documents": None}
    names |= {"messages": turns, "add_generation_prompt": add_generation_prompt, "enable_thinking": thinking}
    try:
        if continue_final_message:
            turns[-1] |= {"content": turns[-1]["content"] + CUT_HERE}
        text = render(tokenizer.get_chat_template(), names)
        return _up_to_cut(text) if continue_final_message else text
    # several templates without a default; or the last message is not a text that could be continued
    except (TemplateError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"the chat template of {tokenizer.name_or_path} fails: {one_line(error)}") from None


def _up_to_cut(text: str) -> str:
    """Return the text before CUT_HERE, stripped at its end if the template strips messages."""
    before, mark, after = text.rpartition(CUT_HERE.strip())
    if not mark:
        raise ValueError("it omits the message that is to be continued")
    return before if after.startswith(CUT_HERE[len(mark) :]) else before.rstrip()


def prompt_text(tokenizer: PreTrainedTokenizerBase, question: str, thinking: bool = True) -> str:
    """Render one user turn with the tokenizer's chat template and its generation prompt, for an answer with `thinking`.

    Raises UserError if the tokenizer has no chat template or it fails.
    """
    asked = [{"role": "user", "content": question}]
    return rendered(tokenizer, asked, add_generation_prompt=True, thinking=thinking)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str, thinking: bool = True) -> list[int]:
    """Return the token ids of `prompt_text`, with the start marker of thinking only if the template writes it."""
    return encode(tokenizer, prompt_text(tokenizer, question, thinking))


def turn_of(tokenizer: PreTrainedTokenizerBase) -> Turn:
    """Return what the tokenizer's chat template writes around the assistant's text; see Turn.

    If the template writes no special token after it, `end` is the tokenizer's eos token, or empty if there is none.
    Raises UserError as `prompt_text` does.
    """
    return _turn_of(tokenizer, str(tokenizer.chat_template))


def opened_by_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return `Turn.opened`, or "" if the chat template is missing or fails, since prompts may be token ids."""
    try:
        return turn_of(tokenizer).opened
    except UserError:
        return ""


def added_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the tokens added to the vocabulary; only their exact text is encoded as one of them."""
    return frozenset(tokenizer.get_added_vocab().values())


def check_start_token(tokenizer: PreTrainedTokenizerBase, format: FormatConfig) -> None:
    """Raise UserError if the format uses s1's markers but their special token is not one token of this tokenizer."""
    if TURN_START in format.think_start + format.answer_start and len(encode(tokenizer, TURN_START)) != 1:
        raise UserError(f"{TURN_START} is not one token of the tokenizer {tokenizer.name_or_path}; {ASK}")


def check_opening(tokenizer: PreTrainedTokenizerBase, text: str, format: FormatConfig) -> None:
    """Raise UserError if the template opens the thinking at the end of the prompt `text` in another format."""
    opened = opened_by_template(tokenizer)
    if opened.strip() and ends_in(text, opened) and not ends_in(text, format.think_start):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} opens the thinking with {opened.strip()!r}, "
            f"the format with {format.think_start!r}; {ASK}"
        )


def ends_in(text: str, marker: str) -> bool:
    """Return whether the text ends in the marker, ignoring trailing white space of both."""
    return text.rstrip().endswith(marker.rstrip() or marker)


def response_text(
    thinking: str | Sequence[str], answer: str, format: FormatConfig = S1, turn_end: str = TURN_END
) -> str:
    """Build the assistant's turn from its start marker to `turn_end` (as in data/tokenization.py of s1).

    Several thoughts are joined by newlines and stripped. In s1's format the answer gets the prefix "Answer: " unless
    it contains "Answer:". It is stripped after that, so that white space after the prefix remains.
    """
    return with_answer(f"{format.think_start}\n{joined(thinking)}", answer, format, turn_end)


def joined(thinking: str | Sequence[str]) -> str:
    """Join several thoughts by newlines and strip the result."""
    return (thinking if isinstance(thinking, str) else "\n".join(thinking)).strip()


def with_answer(opening: str, answer: str, format: FormatConfig = S1, turn_end: str = TURN_END) -> str:
    """Append the answer to `opening`, which has the start marker and the thinking.

    The white space at the beginning of `format.final_answer` stands between the answer's marker and the answer.
    """
    if format.answer_start == ANSWER_START and "Answer:" not in answer:
        answer = "Answer: " + answer
    words = format.final_answer
    space = words[: len(words) - len(words.lstrip())]
    return f"{opening}\n{format.answer_start}{space}{answer.strip()}{turn_end}"


def encode_example(
    tokenizer: PreTrainedTokenizerBase, question: str, response: str, format: FormatConfig = S1
) -> Example:
    """Tokenize prompt and response as one example, with loss on the response including markers and end of turn.

    The whole text is tokenized at once. If the prompt already ends in the start marker, the response's own is removed.
    Raises UserError if format, tokenizer and chat template do not fit together.
    """
    check_start_token(tokenizer, format)
    prompt = prompt_text(tokenizer, question)
    check_opening(tokenizer, prompt, format)
    if ends_in(prompt, format.think_start):
        response = response.removeprefix(format.think_start.rstrip())
        response = response if prompt == prompt.rstrip() else response.lstrip()
    token_ids, alone = encode(tokenizer, prompt + response), encode(tokenizer, prompt)
    # a token that spans prompt and response belongs to the response
    return _example(token_ids, _shared(token_ids, alone))


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> Example:
    """Tokenize a finished conversation as it is, with loss on everything after the first start of an assistant's turn.

    The start is searched for as token ids; a start marker of thinking that the chat template writes into prompts is
    part of it. Raises UserError if it does not occur or nothing follows it.
    """
    turn = turn_of(tokenizer) if tokenizer.chat_template else Turn(ASSISTANT_START, "", TURN_END)
    if not turn.start:
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} writes nothing where the assistant's turn begins; "
            "use data with question, thinking and answer instead of finished text"
        )
    token_ids = encode(tokenizer, text)
    marker, opened = encode(tokenizer, turn.start), encode(tokenizer, turn.start + turn.opened)
    for begin in range(len(token_ids) - len(marker)):
        if token_ids[begin : begin + len(marker)] == marker:
            with_opened = token_ids[begin : begin + len(opened)] == opened and begin + len(opened) < len(token_ids)
            return _example(token_ids, begin + len(opened if with_opened else marker))
    raise UserError(
        f"the text has no assistant's turn to train on: the tokens {marker} of {turn.start!r} do not occur in it, "
        "or nothing follows them"
    )


def _example(token_ids: list[int], response_start: int) -> Example:
    return Example(np.asarray(token_ids, np.int32), np.arange(len(token_ids)) >= response_start)


@lru_cache(maxsize=16)
def _turn_of(tokenizer: PreTrainedTokenizerBase, template: str) -> Turn:
    prompt = prompt_text(tokenizer, QUESTION)
    try:
        asked, answered = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
        turn, question = rendered(tokenizer, [asked, answered]), rendered(tokenizer, [asked])
    except UserError:  # the template accepts only prompts
        turn, question = "", prompt
    before, _, end = turn.rpartition(ANSWER)
    opened = prompt[len(before) :] if before and prompt.startswith(before) else ""
    # what follows the question if an answer comes next, without what also follows it if none does
    after, alone = (text.rpartition(QUESTION)[2] for text in (prompt.removesuffix(opened), question))
    ids = encode(tokenizer, after)
    start = tokenizer.backend_tokenizer.decode(ids[_shared(ids, encode(tokenizer, alone)) :], skip_special_tokens=False)
    ends = set(encode(tokenizer, end)) & added_ids(tokenizer)
    return Turn(start if start.strip() else after.strip(), opened, end if ends else tokenizer.eos_token or "")


def _shared(ids: list[int], others: list[int]) -> int:
    """Return the length of the common prefix of two lists of ids."""
    pairs = zip(ids, others, strict=False)
    return next((i for i, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(others)))
