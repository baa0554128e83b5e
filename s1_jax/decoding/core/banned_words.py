"""Words that a model may not use while it thinks, as tokens (NoWait, arXiv 2506.08343)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from s1_jax.errors import UserError

TOKENS_SHOWN = 24


class BannedTokens(NamedTuple):
    """The tokens that a list of words bans."""

    texts: dict[int, str]  # by id, in ascending order
    without: list[str]  # words that no token is

    def __str__(self) -> str:
        shown = [repr(text) for text in self.texts.values()]
        more = f" and {len(shown) - TOKENS_SHOWN} more" if len(shown) > TOKENS_SHOWN else ""
        line = f"banned while thinking: {len(shown)} tokens: {', '.join(shown[:TOKENS_SHOWN])}{more}"
        return line + (f"; no single token is {', '.join(map(repr, self.without))}" if self.without else "")


def banned_tokens(tokenizer: PreTrainedTokenizerBase, words: Sequence[str], vocab_size: int) -> BannedTokens:
    """Find the tokens whose text, stripped and in lower case, is one of the `words`; those are compared so too.

    Raises UserError where no token is any of them, or where a word is the text of an added token, such as a marker.
    """
    wanted = {word.strip().lower(): word for word in words}
    known = sorted(i for i in set(tokenizer.get_vocab().values()) if i < vocab_size)
    texts = tokenizer.batch_decode([[i] for i in known], skip_special_tokens=False)
    found = {i: text for i, text in zip(known, texts, strict=True) if text.strip().lower() in wanted}
    added = set(tokenizer.get_added_vocab().values())
    if control := [text for i, text in found.items() if i in added]:
        raise UserError(f"banned_words: {control[0]!r} is a control token of the tokenizer, not a word")
    seen = {text.strip().lower() for text in found.values()}
    without = [word for stripped, word in wanted.items() if stripped not in seen]
    if not found:
        raise UserError(f"banned_words: no single token of the tokenizer is {' or '.join(map(repr, without))}")
    return BannedTokens(found, without)
