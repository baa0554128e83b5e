"""Tokens with their log-probabilities as clients see them: texts, bytes, and the likeliest alternatives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerBase

from s1_jax.serving.generation import TokenScore

LOWEST = -9999.0  # stands for a log-probability of minus infinity, which JSON cannot have
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TokenTexts:
    """The texts and bytes of a tokenizer's tokens, each looked up once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        is_byte_level = "ByteLevel" in str(tokenizer.backend_tokenizer.decoder)
        self._bytes = _byte_letters() if is_byte_level else {}
        self._added = frozenset(tokenizer.get_added_vocab().values())
        self._known: dict[int, tuple[str, list[int]]] = {}

    def __getitem__(self, token: int) -> tuple[str, list[int]]:
        """Return the text of a token and its bytes; text of a part of a character is the replacement character."""
        if token not in self._known:
            text = self._tokenizer.backend_tokenizer.decode([token], skip_special_tokens=False)
            self._known[token] = text, self._raw(token, text)
        return self._known[token]

    def named(self, token: int) -> str:
        r"""Return the text of a token, or for a part of a character its bytes as "bytes:\xe2\x80"."""
        text, raw = self[token]
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw) if REPLACEMENT in text else text

    def _raw(self, token: int, text: str) -> list[int]:
        written = self._tokenizer.convert_ids_to_tokens(token) if self._bytes else None
        if written is None or token in self._added or not self._bytes.keys() >= set(written):
            return list(text.encode())
        return [self._bytes[letter] for letter in written]


@lru_cache(maxsize=16)
def token_texts(tokenizer: PreTrainedTokenizerBase) -> TokenTexts:
    """Return the texts of a tokenizer's tokens; all replies share them."""
    return TokenTexts(tokenizer)


def chat_scores(texts: TokenTexts, scores: Iterable[TokenScore]) -> list[dict[str, Any]]:
    """Return tokens as chat completions list them."""
    return [
        _of_chat(texts, score.token_id, score.logprob)
        | {"top_logprobs": [_of_chat(texts, token, logprob) for token, logprob in score.top]}
        for score in scores
    ]


def text_scores(texts: TokenTexts, pieces: Sequence[tuple[str, Sequence[TokenScore]]], begin: int) -> dict[str, Any]:
    """Return tokens as completions list them; `pieces` are texts with their tokens, the first at offset `begin`."""
    found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for text, scores in pieces:
        offset = begin
        for score in scores:
            name = texts.named(score.token_id)
            found["tokens"].append(name)
            found["token_logprobs"].append(_finite(score.logprob))
            found["top_logprobs"].append(_of_text(texts, score))
            found["text_offset"].append(min(offset, begin + len(text)))
            offset += len(texts[score.token_id][0])
        begin += len(text)
    return found


def _of_chat(texts: TokenTexts, token: int, logprob: float | None) -> dict[str, Any]:
    text, raw = texts[token]
    return {"token": text, "logprob": _finite(logprob), "bytes": raw}


def _of_text(texts: TokenTexts, score: TokenScore) -> dict[str, float | None] | None:
    """Return the likeliest tokens and the token itself; of those with the same text the likeliest."""
    if score.logprob is None:
        return None
    found: dict[str, float | None] = {}
    for token, logprob in (*score.top, (score.token_id, score.logprob)):
        found.setdefault(texts.named(token), _finite(logprob))
    return found


def _finite(logprob: float | None) -> float | None:
    return None if logprob is None else max(logprob, LOWEST)


@lru_cache(maxsize=1)
def _byte_letters() -> dict[str, int]:
    """Map the letters in which byte-level vocabularies write to the bytes that they stand for.

    A byte that can be printed is its own letter in Latin-1, and the others have those from U+0100 on, in their order.
    """
    alphabet = sorted(ByteLevel.alphabet())
    own = {letter: ord(letter) for letter in alphabet if ord(letter) < 256}
    others = [byte for byte in range(256) if byte not in own.values()]
    return own | dict(zip(alphabet[len(own) :], others, strict=True))
