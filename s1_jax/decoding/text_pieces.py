"""Tokens that are decoded one by one as pieces of text, in which no character is cut in two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerBase

LONGEST_CHARACTER = 4  # bytes of a character in UTF-8: more tokens than these cannot wait for its end


def text_pieces(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[tuple[int, bool]]) -> Iterator[tuple[str, bool]]:
    """Yield (text, forced) for (token, forced) pairs; a character that is split over tokens comes when it is whole."""
    pending: list[int] = []
    pending_forced = False
    for token, forced in tokens:
        if pending and forced != pending_forced:
            yield tokenizer.decode(pending, skip_special_tokens=False), pending_forced
            pending = []
        pending.append(token)
        pending_forced = forced
        text = tokenizer.decode(pending, skip_special_tokens=False)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") or len(pending) >= LONGEST_CHARACTER:
            yield text, forced
            pending = []
    if pending:
        yield tokenizer.decode(pending, skip_special_tokens=False), pending_forced
