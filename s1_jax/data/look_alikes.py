"""Counts questions and traces that hold the text of a control token, such as `<|im_end|>`.

The tokenizer makes the token itself of such text, as it does in transformers and in the reference: a question can then
end its own turn. That is left as it is, so that prompts are the same as elsewhere, but it is said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class LookAlikes:
    """What was found in the rows looked at so far; `rows` is their number."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.added_tokens_decoder.values()
        control = {token.content for token in added if token.special or re.fullmatch(r"<[^<>]+>", token.content)}
        # longest first: of two that begin alike, the tokenizer takes the longer one
        texts = sorted(control | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self.rows = 0
        self._first = ""

    def look(self, where: str, texts: Sequence[str]) -> None:
        """Counts the row called `where` if one of its texts holds a control token's."""
        found = next(filter(None, map(self._pattern.search, texts)), None)
        if found:
            self.rows += 1
            self._first = self._first or f"{where}: {found[0]}"

    def told(self, what: str) -> str | None:
        """One line about the rows, which are called `what`; None where there are none."""
        if not self.rows:
            return None
        return f"{self.rows:,} {what} hold the text of a control token, which becomes the token (first: {self._first})"
