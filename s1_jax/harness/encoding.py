"""Texts of the harness as token ids, the way its own model of Hugging Face's (`HFLM`) makes them."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from s1_jax.decoding.core.token_ids import single_id


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a text. Raises UserError where the tokenizer has none, nor `<|endoftext|>`."""
    return single_id(tokenizer, "<|endoftext|>") if tokenizer.eos_token_id is None else tokenizer.eos_token_id


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that stands before a text without a context: the one that begins texts, else the one that ends them."""
    return end_id(tokenizer) if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, add_special_tokens: bool | None = None) -> list[int]:
    """Ids of a text, markers recognized. `add_special_tokens` says whether the tokenizer adds what it usually does.

    Unless told, it does, but where the text begins with `prefix_id` already, as one out of a chat template may.
    """
    if add_special_tokens is None:
        add_special_tokens = not text.startswith(tokenizer.decode([prefix_id(tokenizer)]))
    return tokenizer.encode(text, add_special_tokens=add_special_tokens)
