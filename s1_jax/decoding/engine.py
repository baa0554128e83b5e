"""The engine: a model and its tokenizer turn requests into records, batch by batch, in the caller's order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import BudgetConfig, ModelConfig, SamplingConfig, UserError
from s1_jax.data.chat import THINK_START
from s1_jax.decoding import budget as control
from s1_jax.decoding import records
from s1_jax.decoding.decode import Controller, DecodeState, decode, start
from s1_jax.decoding.markers import END_TOKENS, ignore_ids, make_budget, make_markers, start_ids
from s1_jax.decoding.sampling import Sampling, make_sampling, row_key, sample
from s1_jax.model import qwen2
from s1_jax.model.kv_cache import init_cache
from s1_jax.sharding import Layout, constrain

STEPS_PER_CALL = 64  # between two looks at progress and Ctrl-C
SHORTEST_BUCKET = 64  # prompts are padded to this times a power of two, so that prefill compiles rarely
LONGEST_DEFAULT_ANSWER = 1024
Progress = Callable[[int, int], None]  # (rows done, rows in all)


@dataclasses.dataclass(frozen=True)
class Request:
    """One row to decode. The prompt's ids stop before the start marker; `name` is how errors call the row."""

    prompt_token_ids: tuple[int, ...]
    budget: BudgetConfig = BudgetConfig()
    sampling: SamplingConfig = SamplingConfig()
    problem_id: str | int | None = None
    sample: int = 0
    seed: int = 0
    max_answer_tokens: int | None = None  # none: a quarter of max_model_len, at most 1024
    name: str = "prompt"


class Engine:
    """A model that decodes batches of `batch_size` rows over a cache of `max_model_len` tokens.

    `end_tokens` may end the thinking. `layout` places activations and cache on a mesh; the parameters come placed.
    Raises UserError where the lengths or the tokenizer do not fit the model.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: qwen2.Params,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_model_len: int | None = None,
        batch_size: int = 8,
        dtype: Any = jnp.float32,
        layout: Layout | None = None,
        end_tokens: Sequence[str] = END_TOKENS,
    ) -> None:
        self.config, self.params, self.tokenizer, self.layout = config, params, tokenizer, layout
        self.max_model_len = context_length(config) if max_model_len is None else max_model_len
        self.batch_size = batch_size
        if not 1 <= self.max_model_len <= context_length(config):
            raise UserError(f"max_model_len {max_model_len} is not between 1 and the model's {context_length(config)}")
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size} is below 1")
        self.start_ids = start_ids(tokenizer)
        self._markers = make_markers(tokenizer, config.vocab_size, end_tokens)
        # Everything that differs from one batch to the next is an array argument: budgets and settings never recompile.
        self._prefill = jax.jit(_prefill(config, self.max_model_len, dtype))
        self._decode = jax.jit(_decode(config, dtype), donate_argnames="state")

    def run(self, requests: Sequence[Request], progress: Progress | None = None) -> Iterator[dict[str, Any]]:
        """Records of the requests, in order, each batch as soon as it is done.

        Raises UserError naming the first request that cannot be decoded, before any is.
        """
        for request in requests:
            self.check(request)
        return self._run(list(requests), progress)

    def _run(self, requests: list[Request], progress: Progress | None) -> Iterator[dict[str, Any]]:
        for first in range(0, len(requests), self.batch_size):
            batch = requests[first : first + self.batch_size]
            for state in self.steps(batch, STEPS_PER_CALL):
                done = np.asarray(state.control.done)[: len(batch)]
                if progress is not None:
                    progress(first + int(done.sum()), len(requests))
            yield from self._records(batch, state)

    def steps(self, batch: Sequence[Request], steps_per_call: int) -> Iterator[DecodeState]:
        """States of one batch (of at most `batch_size` checked requests), every so many steps, until all rows are done.

        A state is gone once the next one is asked for.
        """
        rows = [*batch, *[Request((0,))] * (self.batch_size - len(batch))]
        budget = make_budget(
            self.tokenizer,
            [(row.budget, len(row.prompt_token_ids), self.max_answer_tokens(row)) for row in rows],
            self.max_model_len,
            self._markers,
        )
        keys = [row_key(row.seed, row.problem_id, row.prompt_token_ids, row.sample) for row in rows]
        settings = make_sampling([row.sampling for row in rows], keys)
        active = np.arange(self.batch_size) < len(batch)
        with self._on_mesh():
            state = self._prefill(self.params, *self._prompts(rows), budget, self._markers, active)
        for stop_step in itertools.count(steps_per_call, steps_per_call):
            with self._on_mesh():  # not across the yield: the caller's own arrays are none of this mesh's business
                state = self._decode(self.params, state, budget, self._markers, settings, np.int32(stop_step))
            yield state
            if np.asarray(state.control.done).all():
                return

    def check(self, request: Request) -> None:
        """Raises UserError naming the request where it cannot be decoded."""
        ids, name = request.prompt_token_ids, request.name
        if not ids:
            raise UserError(f"{name}: the prompt is empty")
        if wrong := [i for i in ids if not 0 <= i < self.config.vocab_size]:
            vocab_size = self.config.vocab_size
            raise UserError(f"{name}: token id {wrong[0]} lies outside the model's vocabulary of {vocab_size}")
        if list(ids[-len(self.start_ids) :]) == self.start_ids:
            raise UserError(f"{name}: the prompt ends in the start marker {THINK_START}; leave it out, it is appended")
        if not request.budget.forcing and (request.budget.max_thinking_tokens is not None or request.budget.num_ignore):
            raise UserError(f"{name}: max_thinking_tokens and num_ignore need forcing; leave them out")
        ignore_ids(self.tokenizer, request.budget)
        answer = self.max_answer_tokens(request)
        if answer < 0:
            raise UserError(f"{name}: max_answer_tokens {answer} is negative")
        reserved = int(self._markers.suffix_lengths.max()) + answer if request.budget.forcing else 1
        if len(ids) + (needed := len(self.start_ids) + reserved) > self.max_model_len:
            raise UserError(
                f"{name}: a prompt of {len(ids)} tokens and {needed} for markers and answer pass max_model_len "
                f"{self.max_model_len}; shorten the prompt or lower max_answer_tokens"
            )

    def max_answer_tokens(self, request: Request) -> int:
        """The request's own, or a default that leaves most of the context to thinking."""
        if request.max_answer_tokens is not None:
            return request.max_answer_tokens
        return min(LONGEST_DEFAULT_ANSWER, self.max_model_len // 4)

    def identity(self, request: Request) -> dict[str, Any]:
        """The fields of the request's record that are known before decoding."""
        return records.identity(
            problem_id=request.problem_id,
            sample=request.sample,
            seed=request.seed,
            prompt_token_ids=request.prompt_token_ids,
            budget=request.budget,
            sampling=request.sampling,
            max_answer_tokens=self.max_answer_tokens(request),
            max_model_len=self.max_model_len,
        )

    def _on_mesh(self) -> AbstractContextManager[Any]:
        return self.layout.use() if self.layout else nullcontext()

    def _prompts(self, rows: Sequence[Request]) -> tuple[np.ndarray, np.ndarray]:
        """Prompts with the start marker, right-padded: token ids int32 [B, T] and lengths int32 [B]."""
        prompts = [[*row.prompt_token_ids, *self.start_ids] for row in rows]
        lengths = np.asarray([len(prompt) for prompt in prompts], np.int32)
        bucket = SHORTEST_BUCKET
        while bucket < lengths.max():
            bucket *= 2
        token_ids = np.zeros((len(rows), min(bucket, self.max_model_len)), np.int32)
        for row, prompt in zip(token_ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        return token_ids, lengths

    def _records(self, batch: Sequence[Request], state: DecodeState) -> Iterator[dict[str, Any]]:
        tokens, kinds, lengths, status = jax.device_get((state.tokens, state.kinds, state.num_tokens, state.control))
        for i, request in enumerate(batch):
            end = (status.end[i], status.answer_end[i], status.ignores_used[i])
            row = (tokens[i, : lengths[i]], kinds[i, : lengths[i]])
            yield self.identity(request) | records.outcome(self.tokenizer, self.start_ids, *row, *end)


def context_length(config: ModelConfig) -> int:
    """Positions the model is made for, YaRN's stretch included."""
    if (scaling := config.rope_scaling) is None:
        return config.max_position_embeddings
    return max(config.max_position_embeddings, int(scaling.factor * scaling.original_max_position_embeddings))


def _prefill(config: ModelConfig, capacity: int, dtype: Any) -> Callable[..., DecodeState]:
    """Prompts into a fresh cache."""

    def prefill(
        params: qwen2.Params,
        token_ids: jax.Array,  # [B, T]
        lengths: jax.Array,  # [B]
        budget: control.Budget,
        markers: control.Markers,
        active: jax.Array,  # [B]
    ) -> DecodeState:
        cache = init_cache(config, token_ids.shape[0], capacity, dtype)
        positions = jnp.broadcast_to(jnp.arange(token_ids.shape[1]), token_ids.shape)
        hidden, cache = qwen2.decode_hidden(config, params, token_ids, positions, cache, compute_dtype=dtype)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)[:, 0]
        logits = constrain(qwen2.logits(config, params, last), "batch", None)
        return start(control.initial_state(budget, markers, active), cache, logits, lengths, capacity)

    return prefill


def _decode(config: ModelConfig, dtype: Any) -> Callable[..., DecodeState]:
    """The loop with this model, the budget controller and sampling put in."""

    def run(
        params: qwen2.Params,
        state: DecodeState,
        budget: control.Budget,
        markers: control.Markers,
        settings: Sampling,
        stop_step: jax.Array,
    ) -> DecodeState:
        def forward(token_ids: jax.Array, positions: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
            hidden, cache = qwen2.decode_hidden(config, params, token_ids, positions, cache, compute_dtype=dtype)
            # Whole rows on one device: sampling needs all of a row's logits.
            return constrain(qwen2.logits(config, params, hidden[:, 0]), "batch", None), cache

        def draw(logits: jax.Array, allowed: jax.Array, index: jax.Array) -> jax.Array:
            return sample(logits, allowed, index, settings)

        controller = Controller(
            propose=lambda state: control.propose(budget, markers, state),
            advance=lambda state, token: control.advance(budget, markers, state, token),
        )
        return decode(forward, draw, controller, state, stop_step)

    return run
