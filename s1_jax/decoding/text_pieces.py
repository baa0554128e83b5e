"""Tokens that are decoded one by one as pieces of text, in which no character is cut in two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from transformers import PreTrainedTokenizerBase

LONGEST_CHARACTER = 4  # bytes of a character in UTF-8: more tokens than these cannot wait for its end
CUT = "\N{REPLACEMENT CHARACTER}"


class TextPieces:
    """A text whose tokens come piece by piece; a character that is split over tokens comes when it is whole."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer.backend_tokenizer  # its own decode looks at every id's type first, which takes long
        self._pending: list[int] = []

    def add(self, tokens: Sequence[int]) -> str:
        """Return the text that these tokens complete."""
        self._pending += tokens
        for held in range(min(LONGEST_CHARACTER, len(self._pending))):
            count = len(self._pending) - held
            text = self._text(self._pending[:count])
            if not text.endswith(CUT):
                self._pending = self._pending[count:]
                return text
        return "" if len(self._pending) < LONGEST_CHARACTER else self.rest()

    def rest(self) -> str:
        """Return the text of the tokens that are left, whole or not."""
        text, self._pending = self._text(self._pending), []
        return text

    def _text(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=False) if tokens else ""


def text_pieces(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[tuple[int, bool]]) -> Iterator[tuple[str, bool]]:
    """Yield (text, forced) for (token, forced) pairs, where forced and other tokens never share a text."""
    pieces, before = TextPieces(tokenizer), False
    for token, forced in tokens:
        if forced != before and (text := pieces.rest()):
            yield text, before
        before = forced
        if text := pieces.add([token]):
            yield text, forced
    if text := pieces.rest():
        yield text, before
