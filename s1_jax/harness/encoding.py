"""Token ids of the harness's texts, encoded as its own model for Hugging Face (`HFLM`) encodes them."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from s1_jax.decoding.core.token_ids import single_id


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token that ends a text. Raises UserError if the tokenizer has neither one nor `<|endoftext|>`."""
    return single_id(tokenizer, "<|endoftext|>") if tokenizer.eos_token_id is None else tokenizer.eos_token_id


def prefix_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the token put before a text without a context: the tokenizer's bos token, or else its eos token."""
    return end_id(tokenizer) if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str, add_special_tokens: bool | None = None) -> list[int]:
    """Return the token ids of a text; markers in it become their tokens.

    `add_special_tokens` says whether the tokenizer adds its usual special tokens. With None it does, unless the text
    begins with `prefix_id` already, as a text from a chat template may.
    """
    if add_special_tokens is None:
        add_special_tokens = not text.startswith(tokenizer.decode([prefix_id(tokenizer)]))
    return tokenizer.encode(text, add_special_tokens=add_special_tokens)
