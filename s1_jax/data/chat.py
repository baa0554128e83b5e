"""s1's chat format: what a model reads, and which of its tokens are trained on.

A conversation is one user turn, put through the tokenizer's own chat template, and one assistant turn that holds
thinking and answer:

    ...<|im_start|>user
    {question}<|im_end|>
    <|im_start|>assistant
    <|im_start|>think
    {thinking}
    <|im_start|>answer
    Answer: {answer}<|im_end|>

In training text both markers are followed by a newline; at inference they are appended without one and the model
writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, UserError

TURN_START = "<|im_start|>"
ASSISTANT_START = "<|im_start|>assistant\n"
THINK_START, ANSWER_START, FINAL_ANSWER = S1.think_start, S1.answer_start, S1.final_answer
TURN_END = "<|im_end|>\n"


class Example(NamedTuple):
    """One tokenised conversation; `loss_mask[t]` tells whether predicting token t is trained on."""

    token_ids: np.ndarray  # int32 [T]
    loss_mask: np.ndarray  # bool [T]


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of `text`, markers recognised, nothing added at either end."""
    return tokenizer.encode(text, add_special_tokens=False)


def prompt_text(tokenizer: PreTrainedTokenizerBase, question: str) -> str:
    """One user turn through the chat template, up to and including `<|im_start|>assistant` and a newline.

    Raises UserError where the tokenizer has no chat template or one that opens the assistant's turn in another way.
    """
    if not tokenizer.chat_template:
        raise UserError(f"the tokenizer of {tokenizer.name_or_path} has no chat template; use that of Qwen2.5-Instruct")
    messages = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    if not text.endswith(ASSISTANT_START):
        raise UserError(
            f"the chat template of {tokenizer.name_or_path} does not open the assistant's turn with "
            f"{ASSISTANT_START!r}; use that of Qwen2.5-Instruct"
        )
    return text


def prompt_ids(tokenizer: PreTrainedTokenizerBase, question: str) -> list[int]:
    """Ids of `prompt_text`; the think marker is not part of it."""
    return encode(tokenizer, prompt_text(tokenizer, question))


def response_text(thinking: str | Sequence[str], answer: str) -> str:
    """The assistant's turn after `<|im_start|>assistant` and its newline (reference: data/tokenization.py).

    Several thoughts are joined by newlines and stripped. The answer gets the prefix "Answer: " unless "Answer:" occurs
    in it, and is stripped after that, so white space at its beginning stays behind a prefix.
    """
    return with_answer(f"{THINK_START}\n{joined(thinking)}", answer)


def joined(thinking: str | Sequence[str]) -> str:
    """Several thoughts as one, white space at both ends taken off."""
    return (thinking if isinstance(thinking, str) else "\n".join(thinking)).strip()


def with_answer(opening: str, answer: str) -> str:
    """A response from its `opening`, start marker and thinking, on."""
    prefixed = answer if "Answer:" in answer else "Answer: " + answer
    return f"{opening}\n{ANSWER_START}\n{prefixed.strip()}{TURN_END}"


def encode_example(tokenizer: PreTrainedTokenizerBase, question: str, response: str) -> Example:
    """Prompt and response as one example, with loss on the response: markers, `<|im_end|>` and last newline too.

    The two are encoded apart, which gives the ids of the whole text: the response opens with an added token, and a
    tokenizer cuts its text at added tokens before anything else, so no token reaches across. Raises UserError where
    `<|im_start|>` is not one token.
    """
    prompt = prompt_ids(tokenizer, question)
    response_ids = encode(tokenizer, response)
    if response_ids[:1] != encode(tokenizer, TURN_START):
        raise UserError(f"{TURN_START} is not one token of the tokenizer {tokenizer.name_or_path}; use that of Qwen2.5")
    return _example(prompt + response_ids, len(prompt))


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> Example:
    """A finished conversation, used as it is; loss on all that follows the first `<|im_start|>assistant` and newline.

    These are looked for as token ids. Raises UserError where they do not occur, or nothing follows them.
    """
    token_ids = encode(tokenizer, text)
    marker = encode(tokenizer, ASSISTANT_START)
    for end in range(len(marker), len(token_ids)):
        if token_ids[end - len(marker) : end] == marker:
            return _example(token_ids, end)
    raise UserError(f"no tokens {marker} of {ASSISTANT_START!r} with something to learn after them")


def _example(token_ids: list[int], response_start: int) -> Example:
    return Example(np.asarray(token_ids, np.int32), np.arange(len(token_ids)) >= response_start)
