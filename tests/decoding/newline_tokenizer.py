"""A tokenizer whose newlines merge with each other and with what is around them."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.tokenizer import SPECIALS

MERGED = ("ĊĊ", ".ĊĊ", "Ċa", "ab", "aĊ")  # newlines that are tokens together, with what is before or behind them


@cache
def newline_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate([*alphabet, *MERGED])}
    merges = [("Ċ", "Ċ"), (".", "ĊĊ"), ("Ċ", "a"), ("a", "b"), ("a", "Ċ")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


TOKENIZER = newline_tokenizer()
FREQUENT = [TOKENIZER.convert_tokens_to_ids(piece) for piece in (*MERGED, "Ċ", "a", "b", ".")]
