"""The engine: a model and its tokenizer turn requests into records, batch by batch, each alone or from shared runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import ModelConfig, UserError
from s1_jax.data.chat import THINK_START
from s1_jax.decoding import budget as control
from s1_jax.decoding import records
from s1_jax.decoding.branches import BranchPoints, decode_branches, start_branches
from s1_jax.decoding.decode import Controller, DecodeState, decode, start
from s1_jax.decoding.markers import END_TOKENS, ignore_ids, make_budget, make_markers, start_ids
from s1_jax.decoding.requests import Request
from s1_jax.decoding.sampling import Sampling, make_sampling, row_key, sample
from s1_jax.decoding.sweep import BranchPoint, Trunk, branch_point, plan_trunks
from s1_jax.model import cached, qwen2
from s1_jax.model.kv_cache import init_cache, resize
from s1_jax.sharding import Layout, constrain

STEPS_PER_CALL = 64  # between two looks at progress and Ctrl-C
SHORTEST_BUCKET = 64  # prompts and caches are padded to this times a power of two, so that little is compiled
LONGEST_DEFAULT_ANSWER = 1024
BRANCHES = (1, 2, 3, 4, 6, 8, 12, 16)  # of a row, decoded at a time: each number is a program
TAIL_MULTIPLE = 16  # tails hold a multiple of this, so that few programs are compiled
Progress = Callable[[int, int], None]  # (requests done, requests in all)


class _Inputs(NamedTuple):
    """A batch of requests as arrays, B rows; right-padded prompts end in the start marker."""

    token_ids: np.ndarray  # int32 [B, T]
    lengths: np.ndarray  # int32 [B]
    active: np.ndarray  # bool [B]
    budget: control.Budget
    settings: Sampling
    max_answer_tokens: int  # the largest of all


class _Row(NamedTuple):
    """What was decoded after the start marker, as `records.outcome` takes it."""

    tokens: Any  # int32 [n]
    kinds: Any  # int32 [n], budget.Kind
    end: int
    answer_end: int
    ignores_used: int

    @property
    def num_thinking(self) -> int:
        return int(control.IS_THOUGHT[self.kinds].sum())

    @property
    def branch_point(self) -> BranchPoint:
        return BranchPoint(self.num_thinking, control.End(self.end))


class Engine:
    """A model that decodes batches of `batch_size` rows of at most `max_model_len` tokens.

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
        self.decoded_tokens = 0  # of thinking and answers, since the engine was made
        self._markers = make_markers(tokenizer, config.vocab_size, end_tokens)
        self._is_newline = np.asarray(self._markers.is_newline)
        self._longest_suffix = int(self._markers.suffix_lengths.max())
        self._known_strings: set[str | tuple[str, ...]] = set()
        # Everything that differs from one batch to the next is an array argument: budgets and settings never recompile.
        self._prefill = jax.jit(_prefill(config, self.max_model_len, dtype))
        self._resize = jax.jit(resize, static_argnums=1)
        self._decode = jax.jit(_decode(config, dtype), donate_argnames="state")
        self._start_branches = jax.jit(partial(start_branches, config, dtype), static_argnums=0)
        self._decode_branches = jax.jit(partial(decode_branches, config, dtype), donate_argnames="state")

    def run(self, requests: Sequence[Request], progress: Progress | None = None) -> Iterator[dict[str, Any]]:
        """Records of the requests, in order, each decoded by itself, each batch as soon as it is done.

        Raises UserError naming the first request that cannot be decoded, before any is.
        """
        for request in requests:
            self.check(request)
        return self._run(list(requests), progress)

    def run_shared(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records of the requests with their places, decoded together where one begins as another does.

        The records are those of `run`, but for draws where two tokens are as good as equal. They come as batches of
        trunks are done, in no order of their own. Raises UserError as `run` does.
        """
        for request in requests:
            self.check(request)
        return self._run_shared(list(requests), progress)

    def _run(self, requests: list[Request], progress: Progress | None) -> Iterator[dict[str, Any]]:
        for first in range(0, len(requests), self.batch_size):
            batch = requests[first : first + self.batch_size]
            for state in self.steps(batch, STEPS_PER_CALL):
                self._show(progress, len(requests), first, len(batch), len(batch), state)
            rows = self._rows(state)
            del state  # else its cache would still be there while the next batch's is made
            for request, row in zip(batch, rows, strict=False):
                yield self._record(request, row)

    def _run_shared(self, requests: list[Request], progress: Progress | None) -> Iterator[tuple[int, dict[str, Any]]]:
        trunks, decoded = plan_trunks(requests), 0
        for first in range(0, len(trunks), self.batch_size):
            batch = trunks[first : first + self.batch_size]
            held = sum(1 + len(trunk.branches) for trunk in batch)
            show = partial(self._show, progress, len(requests), decoded, held, len(batch))
            inputs = self._inputs([requests[trunk.longest] for trunk in batch])
            for state in self._steps(inputs, STEPS_PER_CALL):
                show(state)
            rows = self._rows(state)
            points = [_points(requests, trunk, row) for trunk, row in zip(batch, rows, strict=False)]
            missing = [
                sorted({point for point, _ in of_row.values()} - {row.branch_point})
                for row, of_row in zip(rows, points, strict=False)
            ]
            answers = self._branches(inputs, state, rows, missing, show)
            del state
            for trunk, row, of_row, answer in zip(batch, rows, points, answers, strict=False):
                yield trunk.longest, self._record(requests[trunk.longest], row)
                for place, (point, ignores_used) in of_row.items():
                    yield place, self._record(requests[place], _cut(row, point, ignores_used, answer))
            decoded += held

    def steps(self, batch: Sequence[Request], steps_per_call: int) -> Iterator[DecodeState]:
        """States of one batch (of at most `batch_size` checked requests), every so many steps, until all rows are done.

        A state is gone once the next one is asked for.
        """
        yield from self._steps(self._inputs(batch), steps_per_call)

    def _steps(self, inputs: _Inputs, steps_per_call: int) -> Iterator[DecodeState]:
        with self._on_mesh():
            state = self._prefill(
                self.params, inputs.token_ids, inputs.lengths, inputs.budget, self._markers, inputs.active
            )
        for stop_step in itertools.count(steps_per_call, steps_per_call):
            with self._on_mesh():  # not across the yield: the caller's own arrays are none of this mesh's business
                state = self._with_room(state, steps_per_call)
                state = self._decode(
                    self.params, state, inputs.budget, self._markers, inputs.settings, np.int32(stop_step)
                )
            yield state
            if np.asarray(state.control.done).all():
                return

    def _with_room(self, state: DecodeState, steps: int) -> DecodeState:
        """The state with a cache that holds `steps` more tokens: attention reads all of it, so it grows as rows do."""
        positions, done = jax.device_get((state.position, state.control.done))
        needed = max(int(positions.max()) + 1, int(np.where(done, 0, positions + steps).max()))
        capacity = self._bucket(needed)
        if capacity <= state.cache[0].capacity:
            return state
        return dataclasses.replace(state, cache=self._resize(state.cache, capacity))

    def _bucket(self, length: int) -> int:
        """The size that holds `length` tokens: a power of two, at most `max_model_len`."""
        bucket = SHORTEST_BUCKET
        while bucket < length:
            bucket *= 2
        return min(bucket, self.max_model_len)

    @staticmethod
    def _show(progress: Progress | None, total: int, before: int, requests: int, rows: int, state: DecodeState) -> None:
        """Of the `requests` that the first `rows` of the batch hold, those of rows that have ended count as done."""
        if progress is not None:
            done = int(np.asarray(state.control.done)[:rows].sum())
            progress(before + requests * done // rows, total)

    def _branches(
        self,
        inputs: _Inputs,
        trunks: DecodeState,
        rows: Sequence[_Row],
        missing: Sequence[Sequence[BranchPoint]],
        show: Callable[[DecodeState], None],
    ) -> list[dict[BranchPoint, _Row]]:
        """What follows the thinking at each of the `missing` branch points of each row."""
        answers: list[dict[BranchPoint, _Row]] = [{} for _ in missing]
        longest = max(map(len, missing), default=0)
        capacity = -(-(self._longest_suffix + inputs.max_answer_tokens + 1) // TAIL_MULTIPLE) * TAIL_MULTIPLE
        for first in range(0, longest, BRANCHES[-1]):
            wave = [of_row[first : first + BRANCHES[-1]] for of_row in missing]
            R = next(size for size in BRANCHES if size >= max(map(len, wave)))
            at = self._branch_points(rows, wave, R)
            with self._on_mesh():
                state = self._start_branches(capacity, inputs.budget, self._markers, at)
            for stop_step in itertools.count(STEPS_PER_CALL, STEPS_PER_CALL):
                with self._on_mesh():
                    state = self._decode_branches(
                        self.params,
                        trunks.cache,
                        inputs.lengths,
                        state,
                        at,
                        inputs.budget,
                        self._markers,
                        inputs.settings,
                        np.int32(stop_step),
                    )
                show(trunks)
                if np.asarray(state.control.done).all():
                    break
            decoded = self._rows(state)
            for i, of_row in enumerate(wave):
                answers[i] |= {point: decoded[i * R + r] for r, point in enumerate(of_row)}
        return answers

    def _branch_points(self, rows: Sequence[_Row], wave: Sequence[Sequence[BranchPoint]], R: int) -> BranchPoints:
        position = np.zeros((self.batch_size, R), np.int32)
        end, after_newline, active = (np.zeros((self.batch_size, R), dtype) for dtype in (np.int32, bool, bool))
        for i, (row, of_row) in enumerate(zip(rows, wave, strict=False)):
            for r, point in enumerate(of_row):
                position[i, r], end[i, r], active[i, r] = point.position, point.end, True
                after_newline[i, r] = point.position > 0 and self._is_newline[row.tokens[point.position - 1]]
        return BranchPoints(position, end, after_newline, active)  # type: ignore[arg-type]

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
        if request.budget.ignore_string not in self._known_strings:
            ignore_ids(self.tokenizer, request.budget)
            self._known_strings.add(request.budget.ignore_string)
        answer = self.max_answer_tokens(request)
        if answer < 0:
            raise UserError(f"{name}: max_answer_tokens {answer} is negative")
        reserved = self._longest_suffix + answer if request.budget.forcing else 1
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

    def _inputs(self, batch: Sequence[Request]) -> _Inputs:
        rows = [*batch, *[Request((0,), max_answer_tokens=0)] * (self.batch_size - len(batch))]
        prompts = [[*row.prompt_token_ids, *self.start_ids] for row in rows]
        lengths = np.asarray([len(prompt) for prompt in prompts], np.int32)
        token_ids = np.zeros((len(rows), self._bucket(int(lengths.max()))), np.int32)
        for row, prompt in zip(token_ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        maxima = [self.max_answer_tokens(row) for row in rows]
        budget = make_budget(
            self.tokenizer,
            [(row.budget, len(row.prompt_token_ids), most) for row, most in zip(rows, maxima, strict=True)],
            self.max_model_len,
            self._markers,
        )
        keys = [row_key(row.seed, row.problem_id, row.prompt_token_ids, row.sample) for row in rows]
        return _Inputs(
            token_ids=token_ids,
            lengths=lengths,
            active=np.arange(self.batch_size) < len(batch),
            budget=budget,
            settings=make_sampling([row.sampling for row in rows], keys),
            max_answer_tokens=max(maxima),
        )

    def _rows(self, state: DecodeState) -> list[_Row]:
        tokens, kinds, lengths, status = jax.device_get((state.tokens, state.kinds, state.num_tokens, state.control))
        self.decoded_tokens += int(control.IS_THOUGHT[kinds].sum() + (kinds == int(control.Kind.ANSWER)).sum())
        ends = zip(lengths, status.end, status.answer_end, status.ignores_used, strict=True)
        return [_Row(tokens[i, :n], kinds[i, :n], *map(int, end)) for i, (n, *end) in enumerate(ends)]

    def _record(self, request: Request, row: _Row) -> dict[str, Any]:
        return self.identity(request) | records.outcome(self.tokenizer, self.start_ids, **row._asdict())


def _points(requests: Sequence[Request], trunk: Trunk, row: _Row) -> dict[int, tuple[BranchPoint, int]]:
    """Where each branch of a trunk leaves it, and the ends it has ignored, by its place."""
    kinds = row.kinds[: row.num_thinking]
    return {place: branch_point(requests[place].budget, kinds, control.End(row.end)) for place in trunk.branches}


def _cut(trunk: _Row, point: BranchPoint, ignores_used: int, answers: dict[BranchPoint, _Row]) -> _Row:
    """The run that leaves the trunk at this point."""
    if point == trunk.branch_point:
        return trunk._replace(ignores_used=ignores_used)
    thinking, answer = slice(point.position), answers[point]
    return _Row(
        np.concatenate([trunk.tokens[thinking], answer.tokens]),
        np.concatenate([trunk.kinds[thinking], answer.kinds]),
        int(point.end),
        answer.answer_end,
        ignores_used,
    )


def context_length(config: ModelConfig) -> int:
    """Positions the model is made for, YaRN's stretch included."""
    if (scaling := config.rope_scaling) is None:
        return config.max_position_embeddings
    return max(config.max_position_embeddings, int(scaling.factor * scaling.original_max_position_embeddings))


def _prefill(config: ModelConfig, capacity: int, dtype: Any) -> Callable[..., DecodeState]:
    """Prompts into a cache that just holds them; rows can grow to `capacity` tokens."""

    def prefill(
        params: qwen2.Params,
        token_ids: jax.Array,  # [B, T]
        lengths: jax.Array,  # [B]
        budget: control.Budget,
        markers: control.Markers,
        active: jax.Array,  # [B]
    ) -> DecodeState:
        cache = init_cache(config, token_ids.shape[0], token_ids.shape[1], dtype)
        positions = jnp.broadcast_to(jnp.arange(token_ids.shape[1]), token_ids.shape)
        hidden, cache = cached.hidden_states(config, params, token_ids, positions, cache, compute_dtype=dtype)
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
            hidden, cache = cached.hidden_states(config, params, token_ids, positions, cache, compute_dtype=dtype)
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
