"""Scoring with a reward model that caches the texts it has read, so that shared prefixes run through it once.

A slot keeps the KV cache of one text and the score after each of its tokens. A prefix does not depend on what follows,
so other texts with the same prefix start from a copy of the slot. The least recently used slots are replaced. This is
the host's side. Letters: B texts in a batch, C tokens of each in one call.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import ModelConfig
from s1_jax.data.chat import encode
from s1_jax.decoding.device.programs import Program, bucket, each_layer, resize_layer, take_layer
from s1_jax.decoding.engine import context_length
from s1_jax.decoding.host.results import NOT_FINITE
from s1_jax.errors import RunError, UserError
from s1_jax.model import reward as reward_model
from s1_jax.model.kv_cache import KVCache, copy_rows, init_cache
from s1_jax.model.reward import Params, RewardConfig
from s1_jax.sharding import Layout, constrain

CHUNKS = (16, 64)  # values of C; the shorter one if it is enough
PADDING = -1  # not a token id
TOKENS_SHOWN = 3  # differing tokens in an error message


class _Slot(NamedTuple):
    """Tokens and scores of the text in one row of the cache."""

    tokens: np.ndarray  # int32 [n]
    scores: np.ndarray  # float32 [n], after each token
    used: int  # counter value of its last use


FREE = _Slot(np.zeros(0, np.int32), np.zeros(0, np.float32), 0)


class _Reading(NamedTuple):
    """Plan to read one text from the end of the prefix that a slot has."""

    text: int  # index of the text
    slot: int
    start: int  # length of the shared prefix


class RewardScorer:
    """Scorer that runs a reward model on `batch_size` texts at a time and caches `slots` of them.

    `params` are as loaded by `checkpoints.hf_reward.load_for_scoring`, already on their devices. Activations are in
    `dtype` and the cache is in `cache_dtype` (default: `dtype`); `layout` shards both over a mesh. Texts have at most
    `max_length` tokens (default: the model's context). Raises UserError if the sizes do not fit the model, if `slots`
    is below `batch_size`, or if the tokenizer does not have the separator.
    """

    def __init__(
        self,
        config: ModelConfig,
        reward: RewardConfig,
        params: Params,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        batch_size: int = 8,
        slots: int = 32,
        dtype: Any = jnp.float32,
        cache_dtype: Any = None,
        layout: Layout | None = None,
    ) -> None:
        context = context_length(config)
        self.config, self.reward = config, reward
        self.max_length = context if max_length is None else max_length
        if not 1 <= self.max_length <= context:
            raise UserError(f"max_length {max_length} is not between 1 and the reward model's context of {context}")
        if not 1 <= batch_size <= slots:
            raise UserError(f"batch_size {batch_size} is not between 1 and {slots}, the number of slots")
        self._separator = separator_ids(tokenizer, config, reward) if reward.kind == "process" else []
        self.tokens_run = 0  # tokens that went through the model so far
        self._batch_size, self._clock = batch_size, itertools.count(1)
        self._slots = [FREE] * slots
        caches = partial(init_cache, config, slots, dtype=dtype if cache_dtype is None else cache_dtype)
        self._empty = Program(caches, (), layout, static_argnums=0)
        self._resize = Program(resize_layer, (), layout, static_argnums=1)
        self._take = Program(take_layer, (), layout)
        self._run = Program(partial(run_chunk, config, jnp.dtype(dtype)), (params,), layout, donate_argnums=1)
        self._put = Program(copy_rows, (), layout, donate_argnums=2)
        self._cache: KVCache | None = None

    @property
    def num_compiled(self) -> int:
        """Number of programs that have been compiled."""
        return sum(p.num_compiled for p in (self._empty, self._resize, self._take, self._run, self._put))

    def score(
        self,
        texts: Sequence[Sequence[int]],
        scored: Sequence[Sequence[int]] | None = None,
        names: Sequence[str] | None = None,
    ) -> list[list[float]]:
        """Return scores of texts, given as token ids, after the tokens at the indices `scored` of each, ascending.

        Without `scored`, an outcome model scores each text after its last token, and a process model after every
        separator, including separators in a question or a chat template: texts with such a prompt need the indices of
        their steps' ends (`layout.RewardText.scored`).

        Prefixes shared with another text of this call, or with a text that a slot still holds, run through the model
        once. Raises UserError naming the first text that cannot be scored, before any is read, and RunError naming the
        first text with a score that is not finite; `names` are used in messages instead of indices.
        """
        given = [None] * len(texts) if scored is None else scored
        indices = [self._indices(i, text, at) for i, (text, at) in enumerate(zip(texts, given, strict=True))]
        needed = [np.asarray(text[: at[-1] + 1], np.int32) for text, at in zip(texts, indices, strict=True)]
        found = self._read(needed)
        for i, at in enumerate(indices):
            lost = np.flatnonzero(~np.isfinite(found[i][at]))
            if len(lost):
                name = names[i] if names else f"text {i}"
                raise RunError(f"{name}: the reward model's score is not finite at step {lost[0] + 1}; {NOT_FINITE}")
        return [found[i][at].tolist() for i, at in enumerate(indices)]

    def _indices(self, i: int, text: Sequence[int], scored: Sequence[int] | None) -> np.ndarray:
        """Return the indices of the tokens after which a text is scored."""
        ids = np.asarray(text, np.int64)
        if not len(ids):
            raise UserError(f"text {i} is empty; there is nothing to score")
        if wrong := ids[(ids < 0) | (ids >= self.config.vocab_size)].tolist():
            raise UserError(
                f"text {i}: token id {wrong[0]} lies outside the reward model's vocabulary of {self.config.vocab_size}"
            )
        indices = self._default_indices(ids) if scored is None else np.asarray(scored, np.int64)
        if not len(indices):
            raise UserError(f"text {i} has no {self.reward.separator!r}, after which this reward model scores a step")
        if indices[-1] >= self.max_length:
            raise UserError(
                f"text {i} has {indices[-1] + 1} tokens to score; the reward model takes at most {self.max_length}"
            )
        return indices

    def _default_indices(self, ids: np.ndarray) -> np.ndarray:
        """Return the index of the last token or, for a process model, of the last token of each separator."""
        if not self._separator:
            return np.array([len(ids) - 1])
        size = len(self._separator)
        if len(ids) < size:
            return np.zeros(0, np.int64)
        ends = np.lib.stride_tricks.sliding_window_view(ids, size) == self._separator
        return np.flatnonzero(ends.all(axis=1)) + size - 1

    def _read(self, texts: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
        """Return the scores after each token of each text, by the text's index."""
        found: dict[int, np.ndarray] = {}
        padded = np.full((len(texts), max(map(len, texts), default=0)), PADDING, np.int32)
        for row, text in zip(padded, texts, strict=True):
            row[: len(text)] = text
        shared = np.stack([_shared(padded, slot.tokens) for slot in self._slots], axis=1)  # [texts, slots]
        waiting = np.argsort([-len(text) for text in texts], kind="stable")
        while len(waiting):
            lengths = np.asarray([len(slot.tokens) for slot in self._slots])
            # the slot with the longest shared prefix; among equals the shortest text
            nearest = np.argmax(shared[waiting] * (1 + lengths.max()) - lengths, axis=1)
            starts = shared[waiting, nearest]
            self._touch(nearest[starts > 0])
            batch: list[_Reading] = []
            left = []
            with_batch = np.zeros(len(texts), np.int64)  # longest prefix that each text shares with one in the batch
            for i, slot, start in zip(waiting.tolist(), nearest.tolist(), starts.tolist(), strict=True):
                if start == len(texts[i]):
                    found[i] = self._slots[slot].scores[:start]
                elif len(batch) == self._batch_size or with_batch[i] > start:  # wait until the longer prefix is cached
                    left.append(i)
                else:
                    batch.append(_Reading(i, slot, start))
                    with_batch = np.maximum(with_batch, _shared(padded, texts[i]))
            if batch:
                read, changed = self._read_batch(texts, batch)
                found |= read
                for slot in changed:
                    shared[:, slot] = _shared(padded, self._slots[slot].tokens)
            waiting = np.asarray(left, np.int64)
        return found

    def _touch(self, slots: np.ndarray) -> None:
        """Mark these slots as just used."""
        for slot in dict.fromkeys(slots.tolist()):
            self._slots[slot] = self._slots[slot]._replace(used=next(self._clock))

    def _read_batch(
        self, texts: Sequence[np.ndarray], batch: Sequence[_Reading]
    ) -> tuple[dict[int, np.ndarray], list[int]]:
        """Read texts that share no longer prefix with each other than with their slots.

        Returns their scores by index, and the slots that hold them now.
        """
        B = self._batch_size
        starts, ends, sources, targets = (np.full(B, fill, np.int32) for fill in (0, 0, 0, len(self._slots)))
        for row, reading in enumerate(batch):
            starts[row], ends[row], sources[row] = reading.start, len(texts[reading.text]), reading.slot
        targets[: len(batch)] = self._targets(batch)
        cache, slots = self._cache, self._slots
        self._cache, self._slots = None, [FREE] * len(slots)  # after Ctrl-C no slot describes another text's cache
        cache = self._with_room(cache, int(ends.max()))
        block = each_layer(self._take, cache, sources, used_up=False)
        scored = []
        most = int((ends - starts).max())
        C = next((C for C in CHUNKS if most <= C), CHUNKS[-1])
        for first in range(0, most, C):
            token_ids = np.zeros((B, C), np.int32)
            for row, reading in enumerate(batch):
                piece = texts[reading.text][reading.start + first :][:C]
                token_ids[row, : len(piece)] = piece
            block, scores = self._run(block, token_ids, starts + first)
            scored.append(scores)
        cache = self._put(block, np.arange(B), cache, targets)
        fresh = np.concatenate(jax.device_get(scored), axis=1)
        found = {
            reading.text: np.concatenate([slots[reading.slot].scores[:start], fresh[row, : end - start]])
            for row, (reading, start, end) in enumerate(zip(batch, starts, ends, strict=False))
        }
        for reading, target in zip(batch, targets, strict=False):
            slots[target] = _Slot(texts[reading.text], found[reading.text], next(self._clock))
        self._cache, self._slots = cache, slots
        self.tokens_run += int((ends - starts).sum())
        return found, targets[: len(batch)].tolist()

    def _targets(self, batch: Sequence[_Reading]) -> list[int]:
        """Choose a slot for each text: its source if the text extends all of it, else the least recently used one.

        A slot may be both a source and a target, because all copies are made first.
        """
        targets: dict[int, int] = {}  # slot -> row
        for row, (_, slot, start) in enumerate(batch):
            if start == len(self._slots[slot].tokens):
                targets.setdefault(slot, row)
        oldest = iter(sorted(set(range(len(self._slots))) - targets.keys(), key=lambda slot: self._slots[slot].used))
        chosen = {row: slot for slot, row in targets.items()}
        return [chosen[row] if row in chosen else next(oldest) for row in range(len(batch))]

    def _with_room(self, cache: KVCache | None, length: int) -> KVCache:
        """Return the cache with room for `length` tokens. It is no larger, because attention reads all of it."""
        capacity = bucket(length, self.max_length)
        if cache is None:
            return self._empty(capacity)
        return cache if cache[0].capacity >= capacity else each_layer(self._resize, cache, capacity, used_up=True)


def run_chunk(
    config: ModelConfig,
    dtype: Any,
    params: Params,
    cache: KVCache,
    token_ids: jax.Array,
    starts: jax.Array,
) -> tuple[KVCache, jax.Array]:
    """Read tokens [B, C] at positions `starts` [B] and following; return the cache and the scores [B, C].

    Tokens after a text's end may be arbitrary: their cache entries are overwritten before another token reads them.
    """
    positions = starts[:, None] + jnp.arange(token_ids.shape[1])[None]
    scores, cache = reward_model.cached_scores(config, params, token_ids, positions, cache, compute_dtype=dtype)
    return cache, constrain(scores, "batch", None)


def separator_ids(tokenizer: PreTrainedTokenizerBase, config: ModelConfig, reward: RewardConfig) -> list[int]:
    """Return the tokens that end a step; the score is taken at the last of them.

    Raises UserError if there is no separator, if the model's vocabulary does not have it, or if a special token is
    plain text to this tokenizer.
    """
    if not reward.separator:
        raise UserError("a process reward model needs a separator; set step_separator in its config.json")
    ids = encode(tokenizer, reward.separator)
    if len(ids) != 1 and reward.separator.startswith("<") and reward.separator.endswith(">"):
        raise UserError(
            f"the separator {reward.separator!r} is {len(ids)} tokens of the reward model's tokenizer, not one; "
            "check that the tokenizer belongs to the model"
        )
    if max(ids) >= config.vocab_size:
        raise UserError(
            f"the separator {reward.separator!r} is token {max(ids)}; the reward model's vocabulary has only "
            f"{config.vocab_size} tokens"
        )
    return ids


def check_tokenizers(policy: PreTrainedTokenizerBase, reward: PreTrainedTokenizerBase) -> None:
    """Raise UserError naming tokens of the policy that differ or are missing in the reward model's tokenizer.

    An added token of the policy may have another name there: <|quad_end|> of Qwen2.5 is <extra_0> in Qwen2.5-Math-PRM.
    """
    theirs, added = reward.get_vocab(), set(reward.get_added_vocab().values())
    replaced = {token for token, i in policy.get_added_vocab().items() if i in added and token not in theirs}
    differing = [
        f"{token!r} ({i}, there {theirs.get(token, 'absent')})"
        for token, i in sorted(policy.get_vocab().items(), key=lambda item: item[1])
        if theirs.get(token) != i and token not in replaced
    ]
    if differing:
        raise UserError(
            f"the reward model has another tokenizer than the policy: {len(differing)} tokens differ, first "
            f"{', '.join(differing[:TOKENS_SHOWN])}; choose a reward model of the same family"
        )


def _shared(texts: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Return the length of the prefix that each of the padded texts [n, length] shares with `text`; int64 [n]."""
    same = texts[:, : len(text)] == text[: texts.shape[1]]
    different = np.pad(~same, [(0, 0), (0, 1)], constant_values=True)
    return different.argmax(axis=1)
