"""Detection of questions and traces that contain the text of a special token, such as `<|im_end|>`.

The tokenizer encodes such text as the special token, as in transformers and in s1's code, so a question can end its own
turn. This is kept, so that prompts are the same as elsewhere, but it is reported.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase


class LookAlikes:
    """Counter of examples, problems or prompts that contain the text of a special token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.added_tokens_decoder.values()
        special = {token.content for token in added if token.special or re.fullmatch(r"<[^<>]+>", token.content)}
        # longest first, because the tokenizer prefers the longer one of two with the same prefix
        texts = sorted(special | set(tokenizer.all_special_tokens), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, texts)) or r"(?!)")
        self.count = 0
        self._first = ""

    def look(self, where: str, texts: Sequence[str]) -> None:
        """Count the example, problem or prompt called `where` if one of its texts contains that of a special token."""
        found = next(filter(None, map(self._pattern.search, texts)), None)
        if found:
            self.count += 1
            self._first = self._first or f"{where}: {found[0]}"

    def told(self, what: str) -> str | None:
        """Return a line about those that were counted, such as "examples" for `what`; None if there are none."""
        if not self.count:
            return None
        counted = f"1 {what.removesuffix('s')} contains" if self.count == 1 else f"{self.count:,} {what} contain"
        return f"{counted} the text of a special token, encoded as the token (first: {self._first})"
