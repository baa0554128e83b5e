"""From texts to token ids: start markers, end markers, stop tokens and ignore strings, and budgets as arrays.

Letters: V vocabulary, A strings of a rotation, W tokens of an ignore string, M notices, N tokens of a notice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, BudgetConfig, FormatConfig
from s1_jax.data.chat import STOP_TOKENS, TURN_START, added_ids, encode, ends_in, turn_of
from s1_jax.decoding.core.budget import NO_LIMIT, Budget
from s1_jax.decoding.core.end_markers import MARKER_BITS, Markers
from s1_jax.errors import UserError

S1_CONTROL = (TURN_START, *STOP_TOKENS)
IGNORE_STRINGS = 8  # A: strings that a rotation can hold
IGNORE_WIDTH = 16  # W: tokens that an ignore string can hold
NOTICES = 8  # M: notices that a budget can have
NOTICE_WIDTH = 64  # N: tokens that a notice can hold


def single_id(tokenizer: PreTrainedTokenizerBase, text: str) -> int:
    """Look up the id of a marker. Raises UserError where the marker is not one token of this tokenizer."""
    ids = encode(tokenizer, text)
    if len(ids) != 1:
        raise UserError(
            f"{text!r} must be one token; the tokenizer {tokenizer.name_or_path} makes {len(ids)} of it: {ids}"
        )
    return ids[0]


def start_ids(tokenizer: PreTrainedTokenizerBase, format: FormatConfig = S1) -> list[int]:
    """Encode the start marker, which s1 appends to the prompt's ids as `<|im_start|>think`, without a newline."""
    return encode(tokenizer, format.think_start)


def marker_at_end(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], marker: str) -> int:
    """Count how many of the last ids are the marker, with or without white space after it; 0: none."""
    for count in range(1, min(len(ids), len(encode(tokenizer, marker)) + 2) + 1):
        if ends_in(tokenizer.backend_tokenizer.decode(list(ids[-count:]), skip_special_tokens=False), marker):
            return count
    return 0


def stop_ids(
    tokenizer: PreTrainedTokenizerBase, declared: Sequence[int] = (), vocab_size: int | None = None
) -> list[int]:
    """List the ids of the tokens that end an answer, and thinking too, in ascending order.

    They are the ones that the model has `declared`, the tokenizer's eos token, the token with which its chat template
    ends the assistant's turn, and those of STOP_TOKENS that the tokenizer has. Ids outside a vocabulary of `vocab_size`
    are left out: they cannot be sampled, and transformers gives some tokenizers a token of its own.
    """
    ids = {*declared, *(found[0] for text in STOP_TOKENS if len(found := encode(tokenizer, text)) == 1)}
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    try:
        end = turn_of(tokenizer).end
    except UserError:  # no chat template, or one that fails: prompts may come as token ids
        end = ""
    added = added_ids(tokenizer)
    ids |= set([i for i in encode(tokenizer, end) if i in added][:1])
    return sorted(i for i in ids if vocab_size is None or i < vocab_size)


def stop_texts(tokenizer: PreTrainedTokenizerBase, stops: Sequence[int]) -> tuple[str, ...]:
    """Give the texts of stop tokens, as records name them, in ascending order."""
    return tuple(sorted({tokenizer.backend_tokenizer.decode([i], skip_special_tokens=False) for i in stops} - {""}))


def make_markers(
    tokenizer: PreTrainedTokenizerBase, vocab_size: int, format: FormatConfig = S1, stops: Sequence[int] | None = None
) -> Markers:
    """Encode the format's markers, for a model of `vocab_size` V.

    `stops` are the tokens that end an answer, and thinking too, as `format.end_markers` do; the default are those of
    `stop_ids`. Raises UserError where a marker or a stop token lies outside the model's vocabulary.
    """
    if format.is_auto:
        raise ValueError("the format is still to be read from the tokenizer (data.formats.resolve_format)")
    stops = stop_ids(tokenizer, vocab_size=vocab_size) if stops is None else stops
    ends = [encode(tokenizer, text) for text in format.end_markers]
    # a control token of s1's ends nothing where the tokenizer has to spell it out
    ends = [ids for text, ids in zip(format.end_markers, ends, strict=True) if len(ids) == 1 or text not in S1_CONTROL]
    answer = encode(tokenizer, format.answer_start)
    forced = encode(tokenizer, format.early_stopping_text + format.answer_start + format.final_answer)
    start, newline = start_ids(tokenizer, format), encode(tokenizer, "\n")
    # in the order of `budget.Suffix`; an early stopping text brings its own white space
    suffixes = [answer, forced, forced if format.early_stopping_text else [*newline, *forced]]
    if (largest := max([*start, *chain(*ends), *stops, *suffixes[2]])) >= vocab_size:
        raise UserError(
            f"id {largest} of a marker lies outside the model's vocabulary of {vocab_size}: "
            f"the tokenizer {tokenizer.name_or_path} does not belong to this model"
        )
    known = sorted(i for i in set(tokenizer.get_vocab().values()) if i < vocab_size)
    texts = tokenizer.batch_decode([[i] for i in known], skip_special_tokens=False)
    written = dict(zip(known, tokenizer.convert_ids_to_tokens(known), strict=True))
    spellings = [_spellings(ids, written) for ids in ends]
    if others := sorted(set(stops) - {ids[0] for ids in ends if len(ids) == 1}):
        # end markers of one token can share a bit
        if single := [of_marker for of_marker in spellings if len(of_marker) == 1]:
            single[0][0].extend(others)
        else:
            spellings.append([others])
    spellings.append(_spellings(answer, written))
    if sum(map(len, spellings)) > MARKER_BITS:
        raise UserError(f"format: the end markers and the answer's have more than {MARKER_BITS} tokens together")
    return Markers(
        bits=_bits(list(chain(*spellings)), vocab_size),
        end_lengths=jnp.asarray([len(of_marker) for of_marker in spellings], jnp.int32),
        is_stop=_mask(vocab_size, stops),
        is_known=_mask(vocab_size, known),
        banned=jnp.zeros(vocab_size, jnp.uint32),
        is_newline=_mask(vocab_size, [i for i, text in zip(known, texts, strict=True) if text.endswith("\n")]),
        suffixes=_padded(suffixes, len(suffixes[2])),
        suffix_lengths=jnp.asarray([len(ids) for ids in suffixes], jnp.int32),
    )


class Limits(NamedTuple):
    """The limits of one row, as `make_budget` takes them."""

    budget: BudgetConfig
    prompt: int  # tokens, start marker included and given thinking not
    answer: int  # the most tokens
    reserved: int | None = None  # answer tokens that thinking leaves room for; None: all of them
    thinking: bool = True
    free: int | None = None  # the most tokens of thinking and answer together, without forcing; None: any
    start_token: int = 0  # the last token before thinking
    given: Sequence[int] = ()  # thinking tokens that follow the prompt and are there already
    completion: int | None = None  # the most tokens after prompt and given thinking; None: as many as fit
    banned: int = 0  # bits of the lists of words that are banned while thinking


class MarkerFacts(NamedTuple):
    """What budgets depend on of the markers, on the host."""

    longest_forced: int  # see `longest_forced`
    is_newline: np.ndarray  # bool [V], see `Markers`


def facts_of(markers: Markers) -> MarkerFacts:
    """Read the facts of markers from the device, which takes a while: once for many budgets."""
    return MarkerFacts(longest_forced(markers), np.asarray(markers.is_newline))


def make_budget(
    tokenizer: PreTrainedTokenizerBase,
    limits: Sequence[Limits],
    max_model_len: int,
    markers: MarkerFacts,
) -> Budget:
    """Put the limits of rows into arrays on the host.

    The end of the context is fixed for each row, for the longest suffix (the forced one after a newline), so that it
    does not depend on what the model thinks. Raises UserError on an ignore string or a rotation that is too long.
    """
    rows = [row.budget for row in limits]
    maxima = [NO_LIMIT if config.max_thinking_tokens is None else config.max_thinking_tokens for config in rows]
    reserved = [markers.longest_forced + (row.answer if row.reserved is None else row.reserved) for row in limits]
    room = [max_model_len - row.prompt for row in limits]
    most = [NO_LIMIT if row.completion is None else len(row.given) + row.completion for row in limits]
    room = list(map(min, room, most))
    rotations: dict[str | tuple[str, ...], list[list[int]]] = {}
    ids = np.zeros((len(rows), IGNORE_STRINGS, IGNORE_WIDTH), np.int32)
    lengths = np.zeros((len(rows), IGNORE_STRINGS), np.int32)
    for row, config in enumerate(rows):
        if config.ignore_string not in rotations:
            rotations[config.ignore_string] = ignore_ids(tokenizer, config)
        for i, string in enumerate(rotations[config.ignore_string]):
            ids[row, i, : len(string)], lengths[row, i] = string, len(string)

    written = {texts: notice_ids(tokenizer, texts) for texts in {config.notices for config in rows}}
    notices = [written[config.notices] for config in rows]
    notice_tokens = np.zeros((len(rows), NOTICES, NOTICE_WIDTH), np.int32)
    for row, texts in enumerate(notices):
        for i, text in enumerate(texts):
            notice_tokens[row, i, : len(text)] = text

    columns: dict[str, Any] = dict(
        min_thinking_tokens=_column([config.min_thinking_tokens for config in rows]),
        max_thinking_tokens=_column(maxima),
        grace_tokens=_column([config.grace_tokens for config in rows]),
        num_ignore=_column([config.num_ignore for config in rows]),
        ignore_ids=ids,
        ignore_lengths=lengths,
        ignore_count=_column([len(rotations[config.ignore_string]) for config in rows]),
        notice_at=_padded_to([config.notice_positions for config in rows], NOTICES, NO_LIMIT),
        notice_ids=notice_tokens,
        notice_lengths=_padded_to([list(map(len, ids)) for ids in notices], NOTICES, 0),
        banned=np.asarray([row.banned for row in limits], np.uint32),
        max_repetitions=_column([config.max_repetitions for config in rows]),
        context_limit=_column([left - kept for left, kept in zip(room, reserved, strict=True)]),
        max_answer_tokens=_column([row.answer for row in limits]),
        max_new_tokens=_column(room),
        max_free_tokens=_column([NO_LIMIT if row.free is None else row.free for row in limits]),
        end_bias=np.asarray([config.end_bias for config in rows], np.float32),
        forcing=np.asarray([config.forcing for config in rows], bool),
        thinking=np.asarray([row.thinking for row in limits], bool),
        start_token=_column([row.start_token for row in limits]),
        given_tokens=_column([len(row.given) for row in limits]),
        given_newline=np.asarray([bool(row.given) and bool(markers.is_newline[row.given[-1]]) for row in limits], bool),
    )
    return Budget(**columns)


def longest_forced(markers: Markers) -> int:
    """Count the tokens that must fit after the end of thinking, apart from the answer.

    They are the longest suffix, and the tokens that may be sampled of an end marker before it is known to be none.
    """
    return int(markers.suffix_lengths.max()) + max(int(markers.end_lengths[:-1].max(initial=1)) - 1, 0)


def ignore_ids(tokenizer: PreTrainedTokenizerBase, config: BudgetConfig) -> list[list[int]]:
    """Encode each string of the rotation. Raises UserError where there are too many, or where one is too long."""
    strings = (config.ignore_string,) if isinstance(config.ignore_string, str) else config.ignore_string
    if not 1 <= len(strings) <= IGNORE_STRINGS:
        raise UserError(f"ignore_string has {len(strings)} strings; between 1 and {IGNORE_STRINGS} can take turns")
    ids = [encode(tokenizer, text) if text else [] for text in strings]
    for text, found in zip(strings, ids, strict=True):
        if len(found) > IGNORE_WIDTH:
            raise UserError(
                f"ignore_string {text!r} is {len(found)} tokens long; the longest allowed is {IGNORE_WIDTH}"
            )
    return ids


def notice_ids(tokenizer: PreTrainedTokenizerBase, notices: Sequence[str]) -> list[list[int]]:
    """Encode the text of each notice. Raises UserError where there are too many, or where one is too long."""
    if len(notices) > NOTICES:
        raise UserError(f"notices has {len(notices)} texts; a budget can have {NOTICES}")
    ids = [encode(tokenizer, text) for text in notices]
    for text, found in zip(notices, ids, strict=True):
        if not 1 <= len(found) <= NOTICE_WIDTH:
            raise UserError(f"the notice {text!r} is {len(found)} tokens long; the longest allowed is {NOTICE_WIDTH}")
    return ids


def _spellings(ids: Sequence[int], texts: dict[int, str]) -> list[list[int]]:
    """List the tokens that can stand for each token of a marker, depending on the text around the marker.

    The text before a marker of several tokens may be merged into its first token, and the text after it into its last:
    Qwen2.5's tokenizer writes `</think>` and two newlines as `</`, `think`, `>` with the newlines in one. `texts` are
    tokens as the vocabulary writes them: decoded, all bytes that are no whole character would look the same.
    """
    spellings = [[own] for own in ids]
    if len(ids) > 1:
        spellings[0] = [token for token, text in texts.items() if text.endswith(texts[ids[0]])]
        spellings[-1] = [token for token, text in texts.items() if text.startswith(texts[ids[-1]])]
    return spellings


def _bits(spellings: Sequence[Sequence[int]], vocab_size: int) -> Array:
    """Make `Markers.bits` from the tokens that can stand for each token of all markers."""
    bits = np.zeros(vocab_size, np.uint32)
    for bit, tokens in enumerate(spellings):
        bits[list(tokens)] |= np.uint32(1 << bit)
    return jnp.asarray(bits)


def _column(values: Sequence[int]) -> np.ndarray:
    return np.asarray([min(value, NO_LIMIT) for value in values], np.int32)


def _padded_to(rows: Sequence[Sequence[int]], width: int, filler: int) -> np.ndarray:
    return np.asarray([[*values, *[filler] * (width - len(values))] for values in rows], np.int32)


def _mask(size: int, ids: Sequence[int]) -> Array:
    return jnp.asarray(np.isin(np.arange(size), ids))


def _padded(rows: Sequence[Sequence[int]], width: int) -> Array:
    return jnp.asarray([[*ids, *[0] * (width - len(ids))] for ids in rows], jnp.int32)
