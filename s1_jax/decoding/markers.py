"""From words to token ids: what the budget controller has to know of a tokenizer, and budgets as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, BudgetConfig, FormatConfig, UserError
from s1_jax.data.chat import encode
from s1_jax.decoding.budget import NO_LIMIT, PLACES, Budget, Markers

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
IGNORE_STRINGS = 8  # A: strings a rotation can hold
IGNORE_WIDTH = 16  # W: tokens an ignore string can hold


def single_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """The id of a marker. Raises UserError where it is not one token of this tokenizer."""
    ids = encode(tokenizer, text)
    if len(ids) != 1:
        raise UserError(
            f"{text!r} must be one token; the tokenizer {tokenizer.name_or_path} makes {len(ids)} of it: {ids}"
        )
    return ids[0]


def start_ids(tokenizer: PreTrainedTokenizerBase, format: FormatConfig = S1) -> list[int]:
    """What opens the thinking: s1 appends `<|im_start|>think` to the prompt's ids, without a newline."""
    return encode(tokenizer, format.think_start)


def make_markers(tokenizer: PreTrainedTokenizerBase, vocab_size: int, format: FormatConfig = S1) -> Markers:
    """The format's markers as ids, for a model of `vocab_size` V.

    Raises UserError where a stop token is not one token, or a marker lies outside the model's vocabulary.
    """
    ends = [encode(tokenizer, text) for text in (*format.end_markers, format.answer_start)]
    stops = [single_id(tokenizer, text) for text in STOP_TOKENS]
    start, newline = start_ids(tokenizer, format), single_id(tokenizer, "\n")
    forced = encode(tokenizer, format.answer_start + format.final_answer)
    suffixes = [encode(tokenizer, format.answer_start), forced, [newline, *forced]]  # in the order of `budget.Suffix`
    if (largest := max([*start, *chain(*ends), *stops, *suffixes[2]])) >= vocab_size:
        raise UserError(
            f"id {largest} of a marker lies outside the model's vocabulary of {vocab_size}: "
            f"the tokenizer {tokenizer.name_or_path} does not belong to this model"
        )
    if sum(map(len, ends)) > PLACES:
        raise UserError(f"format: the end markers and the answer's have more than {PLACES} tokens together")
    known = sorted(i for i in set(tokenizer.get_vocab().values()) if i < vocab_size)
    texts = tokenizer.batch_decode([[i] for i in known], skip_special_tokens=False)
    return Markers(
        places=_places(ends, dict(zip(known, tokenizer.convert_ids_to_tokens(known), strict=True)), vocab_size),
        end_lengths=jnp.asarray([len(ids) for ids in ends], jnp.int32),
        start_token=jnp.int32(start[-1]),
        is_stop=_mask(vocab_size, stops),
        is_known=_mask(vocab_size, known),
        is_newline=_mask(vocab_size, [i for i, text in zip(known, texts, strict=True) if text.endswith("\n")]),
        suffixes=_padded(suffixes, len(suffixes[2])),
        suffix_lengths=jnp.asarray([len(ids) for ids in suffixes], jnp.int32),
    )


class Limits(NamedTuple):
    """What limits a row."""

    budget: BudgetConfig
    prompt: int  # tokens, start marker included
    answer: int  # tokens, at most
    reserved: int | None = None  # of these, that thinking leaves room for; none: all
    thinking: bool = True
    free: int | None = None  # tokens of thinking and answer together, without forcing; none: any


def make_budget(
    tokenizer: PreTrainedTokenizerBase,
    limits: Sequence[Limits],
    max_model_len: int,
    markers: Markers,
) -> Budget:
    """The limits of rows as arrays on the host.

    The end of context is fixed per row, for the longest suffix (the forced one after a newline), so that it does not
    depend on what is thought. Raises UserError on an ignore string or a rotation that is too long.
    """
    rows = [row.budget for row in limits]
    maxima = [NO_LIMIT if config.max_thinking_tokens is None else config.max_thinking_tokens for config in rows]
    longest = longest_forced(markers)
    reserved = [longest + (row.answer if row.reserved is None else row.reserved) for row in limits]
    room = [max_model_len - row.prompt for row in limits]
    rotations: dict[str | tuple[str, ...], list[list[int]]] = {}
    ids = np.zeros((len(rows), IGNORE_STRINGS, IGNORE_WIDTH), np.int32)
    lengths = np.zeros((len(rows), IGNORE_STRINGS), np.int32)
    for row, config in enumerate(rows):
        if config.ignore_string not in rotations:
            rotations[config.ignore_string] = ignore_ids(tokenizer, config)
        for i, string in enumerate(rotations[config.ignore_string]):
            ids[row, i, : len(string)], lengths[row, i] = string, len(string)

    columns: dict[str, Any] = dict(
        min_thinking_tokens=_column([config.min_thinking_tokens for config in rows]),
        max_thinking_tokens=_column(maxima),
        grace_tokens=_column([config.grace_tokens for config in rows]),
        num_ignore=_column([config.num_ignore for config in rows]),
        ignore_ids=ids,
        ignore_lengths=lengths,
        ignore_count=_column([len(rotations[config.ignore_string]) for config in rows]),
        context_limit=_column([left - kept for left, kept in zip(room, reserved, strict=True)]),
        max_answer_tokens=_column([row.answer for row in limits]),
        max_new_tokens=_column(room),
        max_free_tokens=_column([NO_LIMIT if row.free is None else row.free for row in limits]),
        end_bias=np.asarray([config.end_bias for config in rows], np.float32),
        forcing=np.asarray([config.forcing for config in rows], bool),
        thinking=np.asarray([row.thinking for row in limits], bool),
    )
    return Budget(**columns)


def longest_forced(markers: Markers) -> int:
    """Tokens behind the end of thinking that a row must have room for, its answer apart.

    The longest suffix, and what may be drawn of an end marker before it is known to be none.
    """
    return int(markers.suffix_lengths.max()) + max(int(markers.end_lengths[:-1].max(initial=1)) - 1, 0)


def ignore_ids(tokenizer: PreTrainedTokenizerBase, config: BudgetConfig) -> list[list[int]]:
    """Ids of each string of the rotation (one string: a rotation of one). Raises UserError on too many, or too long."""
    strings = (config.ignore_string,) if isinstance(config.ignore_string, str) else config.ignore_string
    if not 1 <= len(strings) <= IGNORE_STRINGS:
        raise UserError(f"ignore_string holds {len(strings)} strings; between 1 and {IGNORE_STRINGS} can take turns")
    ids = [encode(tokenizer, text) if text else [] for text in strings]
    for text, found in zip(strings, ids, strict=True):
        if len(found) > IGNORE_WIDTH:
            raise UserError(
                f"ignore_string {text!r} is {len(found)} tokens long; the longest allowed is {IGNORE_WIDTH}"
            )
    return ids


def _places(ends: Sequence[list[int]], texts: dict[int, str], vocab_size: int) -> Array:
    """`Markers.places`: a marker's own tokens, and tokens that only its neighbours make different ones.

    The text before a marker of several tokens may be part of its first, and the text behind it part of its last:
    Qwen2.5's tokenizer writes `</think>` and two newlines as `</`, `think`, `>` with the newlines in one. `texts` are
    tokens as the vocabulary writes them: decoded, all bytes that are no whole character would look the same.
    """
    places = np.zeros(vocab_size, np.uint32)
    bit = 1
    for ids in ends:
        for i, own in enumerate(ids):
            fits = [own]
            if len(ids) > 1 and i == 0:
                fits = [token for token, text in texts.items() if text.endswith(texts[own])]
            elif len(ids) > 1 and i == len(ids) - 1:
                fits = [token for token, text in texts.items() if text.startswith(texts[own])]
            places[fits] |= np.uint32(bit)
            bit *= 2
    return jnp.asarray(places)


def _column(values: Sequence[int]) -> np.ndarray:
    return np.asarray([min(value, NO_LIMIT) for value in values], np.int32)


def _mask(size: int, ids: Sequence[int]) -> Array:
    return jnp.asarray(np.isin(np.arange(size), ids))


def _padded(rows: Sequence[Sequence[int]], width: int) -> Array:
    return jnp.asarray([[*ids, *[0] * (width - len(ids))] for ids in rows], jnp.int32)
