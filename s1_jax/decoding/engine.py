"""The engine: a model and its tokenizer turn requests into records, each alone or from shared runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, BudgetConfig, FormatConfig, ModelConfig
from s1_jax.data.chat import check_control_token, check_opening, encode, opened_by_template
from s1_jax.decoding import records
from s1_jax.decoding.core.budget import IS_THOUGHT, Kind
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import PhaseSampling, make_sampling, row_key
from s1_jax.decoding.core.sweep import BranchPoint, Trunk, branch_point, ignored_ends, plan_trunks
from s1_jax.decoding.core.token_ids import (
    Limits,
    ignore_ids,
    longest_forced,
    make_budget,
    make_markers,
    marker_at_end,
    start_ids,
    stop_ids,
    stop_texts,
)
from s1_jax.decoding.device.programs import Programs
from s1_jax.decoding.host import stops
from s1_jax.decoding.host.rows import Row
from s1_jax.decoding.host.slots import Runs, Slots, Use
from s1_jax.decoding.host.waves import Waves
from s1_jax.errors import UserError
from s1_jax.model import qwen2
from s1_jax.sharding import Layout

STEPS_PER_CALL = 32  # between two looks at progress and Ctrl-C
LONGEST_DEFAULT_ANSWER = 1024
PROMPT_ENDS_KEPT = 2**12  # of prompts, that are known to end in the start marker or not


class Status(NamedTuple):
    """How far a run of the engine is."""

    done: int  # requests
    total: int
    decoded_tokens: int  # of thinking and answers, since the engine was made
    slot_use: float  # share of slot-steps that brought a token, since the engine was made
    tokens_per_step: float  # of those that did, more than 1 with drafts
    recorded_tokens: int = 0  # forced ones and those of requests under way included, since the engine was made


Progress = Callable[[Status], None]


class Piece(NamedTuple):
    """Consecutive tokens of one kind, in the stream of one request."""

    token_ids: tuple[int, ...]
    kind: Kind  # SUFFIX for every token of a marker, the start marker's too
    forced: bool  # appended by budget forcing, not sampled


class Engine:
    """A model that decodes `batch_size` rows at a time, each of at most `max_model_len` tokens.

    Parameters are those of `qwen2.unstack`, kernels kept in any way; products are made in `dtype`, the cache is kept in
    `cache_dtype` (none: the same), which may be int8. `format` is how the model marks its thinking; `stops` are tokens
    that the model declares as ends of its texts (`checkpoints.declared_stops`), besides those of its tokenizer.
    `layout` places activations and cache on a mesh; the parameters come placed. `draft_tokens` are looked up ahead for
    each pass of the model (speculate.py); the records are the same but for draws where two tokens are as good as equal.
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
        cache_dtype: Any = None,
        layout: Layout | None = None,
        format: FormatConfig = S1,
        draft_tokens: int = 0,
        stops: Sequence[int] = (),
    ) -> None:
        self.config, self.tokenizer, self.format = config, tokenizer, format
        self.max_model_len = context_length(config) if max_model_len is None else max_model_len
        self.batch_size = batch_size
        if not 1 <= self.max_model_len <= context_length(config):
            raise UserError(f"max_model_len {max_model_len} is not between 1 and the model's {context_length(config)}")
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size} is below 1")
        if draft_tokens < 0:
            raise UserError(f"draft_tokens {draft_tokens} is negative")
        self.start_ids = start_ids(tokenizer, format)
        self.decoded_tokens = 0  # of thinking and answers, since the engine was made
        self.use = Use()
        stops = stop_ids(tokenizer, stops, config.vocab_size)
        self.stop_tokens = stop_texts(tokenizer, stops)
        self.markers = make_markers(tokenizer, config.vocab_size, format, stops)
        self._longest_opening = max(len(self.start_ids), len(encode(tokenizer, opened_by_template(tokenizer))))
        self._end_of_prompt = lru_cache(PROMPT_ENDS_KEPT)(self._look_at_end)
        self._longest_forced = longest_forced(self.markers)
        self._is_newline = np.asarray(self.markers.is_newline)
        self._known_strings: set[str | tuple[str, ...]] = set()
        self.parts = 1 if layout is None else layout.size("batch")
        types = (dtype, dtype if cache_dtype is None else cache_dtype)
        self.functions = Programs(config, params, self.markers, self.max_model_len, *types, layout, draft_tokens)

    @property
    def programs(self) -> int:
        """How many programs have been compiled."""
        return self.functions.count()

    def run(self, requests: Sequence[Request], progress: Progress | None = None) -> Iterator[dict[str, Any]]:
        """Records of the requests, in order, each decoded by itself, as soon as all before it are done.

        Raises UserError naming the first request that cannot be decoded, before any is, and RunError naming the first
        one for which the model gives logits that are not finite.
        """
        for request in requests:
            self.check(request)
        return _in_order(self._decode(requests, [Trunk(i, ()) for i in range(len(requests))], progress))

    def run_shared(
        self, requests: Sequence[Request], progress: Progress | None = None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records of the requests with their places, decoded together where one begins as another does.

        The records are those of `run`, but for draws where two tokens are as good as equal. They come as they are done,
        in no order of their own. Raises as `run` does.
        """
        for request in requests:
            self.check(request)
        return self._decode(requests, plan_trunks(requests), progress)

    def stream(self, request: Request) -> Iterator[Piece | dict[str, Any]]:
        """Pieces of one request's tokens as they are decoded, then its record, as `run` gives it.

        The tokens of the pieces, joined, are those of the record's `text`. A token that may turn out to begin an end
        marker is held back until that is known, so no piece is ever taken back. The first piece is the start marker; it
        comes with the first decoded token. A stop string of the request may come before it is found: the record's
        answer lacks it, the pieces do not. Raises as `run` does.
        """
        self.check(request)
        slots, forcing, shown = self._slots([request]), request.budget.forcing, 0
        opening = tuple(self.opening(request))
        row: Row | None = None
        while row is None:
            row = slots.advance(1).get(0)
            self._stop([request], [Trunk(0, ())], slots)
            now = slots.recent(self.max_model_len)[0] if row is None else row
            if opening:
                yield Piece(opening, Kind.SUFFIX, forced=True)
                opening = ()
            count = len(now.tokens)
            if row is None and request.thinking and IS_THOUGHT[now.kinds].all():
                count = max(shown, count - int(self.markers.end_lengths.max()) + 1)
            new = zip(now.kinds[shown:count].tolist(), now.tokens[shown:count].tolist(), strict=True)
            for kind, tokens in itertools.groupby(new, key=lambda pair: pair[0]):
                yield Piece(tuple(token for _, token in tokens), Kind(kind), forced=forcing and kind in records.FORCED)
            shown = count
        self.decoded_tokens += row.num_decoded
        points = {0: (row.branch_point, row.ignores_used)}
        yield from (record for _, record in self._records([request], points, row, {}))

    def _decode(
        self, requests: Sequence[Request], trunks: Sequence[Trunk], progress: Progress | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        if not requests:
            return
        slots = self._slots([requests[trunk.longest] for trunk in trunks])
        waves = Waves(self.functions, self.markers, slots, self.parts, self.use)
        waiting: dict[int, tuple[Row, dict[int, tuple[BranchPoint, int]]]] = {}  # trunks whose answers are missing
        done = 0

        def show() -> None:
            if progress is not None:
                use = self.use
                counts = done, len(requests), self.decoded_tokens
                progress(Status(*counts, use.share, use.tokens_per_step, use.tokens))

        while not slots.idle:
            for run, row in slots.advance(STEPS_PER_CALL).items():
                points = self._points(requests, trunks[run], row)
                waiting[run] = row, points
                waves.add(run, row, {point for point, _ in points.values()})
            self._stop(requests, trunks, slots)
            show()
            for run, answers in waves.run(not slots.busy, show):
                row, points = waiting.pop(run)
                self.decoded_tokens += sum(answer.num_decoded for answer in answers.values())
                done += 1 + len(points)
                longest = trunks[run].longest
                points[longest] = row.branch_point, row.ignores_used
                yield from self._records(requests, points, row, answers)
            show()

    def check(self, request: Request) -> None:
        """Raises UserError naming the request where it cannot be decoded."""
        ids, name = request.prompt_token_ids, request.name
        if not ids:
            raise UserError(f"{name}: the prompt is empty")
        vocab_size = self.config.vocab_size
        if min(ids) < 0 or max(ids) >= vocab_size:
            wrong = next(i for i in ids if not 0 <= i < vocab_size)
            raise UserError(f"{name}: token id {wrong} lies outside the model's vocabulary of {vocab_size}")
        if request.thinking and (problem := self._prompt_end(request)[1]):
            raise UserError(f"{name}: {problem}")
        if not request.thinking and (limits := _given(request.budget)):
            raise UserError(f"{name}: without thinking there is no budget; leave out {' and '.join(limits)}")
        if not request.budget.forcing and (forced := _need_forcing(request.budget)):
            need, them = ("needs", "it") if len(forced) == 1 else ("need", "them")
            raise UserError(f"{name}: {' and '.join(forced)} {need} forcing; leave {them} out")
        if request.budget.ignore_string not in self._known_strings:
            ignore_ids(self.tokenizer, request.budget)
            self._known_strings.add(request.budget.ignore_string)
        answer = self.max_answer_tokens(request)
        if answer < 0:
            raise UserError(f"{name}: max_answer_tokens {answer} is negative")
        if len(ids) + (needed := self.needed(request)) > self.max_model_len:
            raise UserError(
                f"{name}: a prompt of {len(ids)} tokens and {needed} for markers and answer pass max_model_len "
                f"{self.max_model_len}; shorten the prompt or lower max_answer_tokens"
            )

    def needed(self, request: Request) -> int:
        """Tokens that must fit behind the prompt: markers and answer."""
        if not request.thinking:
            return 1
        answer, reserved = self.max_answer_tokens(request), request.reserved_answer_tokens
        kept = self._longest_forced + (answer if reserved is None else reserved) if request.budget.forcing else 1
        return len(self.start(request)) + kept

    def max_answer_tokens(self, request: Request) -> int:
        """The request's own, or a default that leaves most of the context to thinking."""
        if request.max_answer_tokens is not None:
            return request.max_answer_tokens
        return min(LONGEST_DEFAULT_ANSWER, self.max_model_len // 4)

    def identity(self, request: Request) -> dict[str, Any]:
        """The fields of the request's record that are known before decoding."""
        known = records.identity(
            problem_id=request.problem_id,
            sample=request.sample,
            seed=request.seed,
            prompt_token_ids=request.prompt_token_ids,
            budget=request.budget,
            sampling=request.sampling,
            max_answer_tokens=self.max_answer_tokens(request),
            max_model_len=self.max_model_len,
            format=self.format,
            stop_tokens=self.stop_tokens,
        )
        return known | request.unusual

    def runs(self, requests: Sequence[Request]) -> Runs:
        """What the requests ask for, as arrays."""
        prompts = [(*request.prompt_token_ids, *self.start(request)) for request in requests]
        limits = [
            Limits(
                r.budget,
                len(prompt),
                self.max_answer_tokens(r),
                r.reserved_answer_tokens,
                r.thinking,
                r.free_tokens,
                start_token=prompt[-1],
            )
            for r, prompt in zip(requests, prompts, strict=True)
        ]
        keys = [row_key(r.seed, r.problem_id, r.prompt_token_ids, r.sample) for r in requests]
        return Runs(
            prompts=prompts,
            budget=make_budget(self.tokenizer, limits, self.max_model_len, self.markers),
            settings=PhaseSampling(
                thinking=make_sampling([r.thinking_sampling or r.sampling for r in requests], keys),
                answer=make_sampling([r.sampling for r in requests], keys),
            ),
            names=[r.name for r in requests],
        )

    def start(self, request: Request) -> Sequence[int]:
        """What is appended to the request's prompt: the start marker, unless the prompt ends in it."""
        return self.start_ids if request.thinking and not self._prompt_end(request)[0] else ()

    def opening(self, request: Request) -> Sequence[int]:
        """The tokens that open the request's thinking, appended or the prompt's own: where the record's text begins."""
        if not request.thinking:
            return ()
        own = self._prompt_end(request)[0]
        return request.prompt_token_ids[-own:] if own else self.start_ids

    def _prompt_end(self, request: Request) -> tuple[int, str | None]:
        return self._end_of_prompt(tuple(request.prompt_token_ids[-self._longest_opening - 2 :]))

    def _look_at_end(self, ids: tuple[int, ...]) -> tuple[int, str | None]:
        """How many of a prompt's last ids are the start marker, 0: none; and what speaks against thinking after it."""
        problem = None
        try:
            check_control_token(self.tokenizer, self.format)
            text = self.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
            check_opening(self.tokenizer, text, self.format)
        except UserError as error:
            problem = str(error)
        return marker_at_end(self.tokenizer, ids, self.format.think_start), problem

    def _slots(self, requests: Sequence[Request]) -> Slots:
        runs = self.runs(requests)
        return Slots(self.functions, runs, self.batch_size, self.parts, self.max_model_len, self.use)

    def _stop(self, requests: Sequence[Request], trunks: Sequence[Trunk], slots: Slots) -> None:
        """Ends answers that have a stop string in them; called whenever slots have advanced."""
        strings = {run: requests[trunks[run].longest].stop_strings for run in slots.active}
        if not any(strings.values()):
            return
        count = STEPS_PER_CALL * (1 + self.functions.draft_tokens) + max(map(stops.width, strings.values()))
        recent = slots.recent(count)
        ended = [run for run in recent if stops.holds(self.tokenizer, recent[run].answer, strings[run])]
        if ended:
            slots.end(ended)

    def _points(self, requests: Sequence[Request], trunk: Trunk, row: Row) -> dict[int, tuple[BranchPoint, int]]:
        """Where each branch of a trunk leaves it, and the ends it has ignored, by its place."""
        length, end = row.branch_point
        ends, is_newline = ignored_ends(row.kinds[:length]), self._is_newline[row.tokens[:length]]
        return {place: branch_point(requests[place].budget, ends, is_newline, end) for place in trunk.branches}

    def _records(
        self,
        requests: Sequence[Request],
        points: Mapping[int, tuple[BranchPoint, int]],
        trunk: Row,
        answers: Mapping[BranchPoint, Row],
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Records of the requests that one trunk holds, by their places; text is made once for each branch point."""
        outcomes: dict[BranchPoint, dict[str, Any]] = {}
        last = trunk.branch_point
        for place, (point, ignores_used) in sorted(points.items()):
            if point not in outcomes:
                row = trunk if point == last else _cut(trunk, point, answers[point])
                row = stops.trimmed(self.tokenizer, row, requests[place].stop_strings)
                opening = self.opening(requests[place])
                outcomes[point] = records.outcome(self.tokenizer, opening, **row._asdict())
            yield place, self.identity(requests[place]) | outcomes[point] | {"ignores_used": ignores_used}


def _cut(trunk: Row, point: BranchPoint, answer: Row) -> Row:
    """The run that leaves the trunk at this point."""
    thinking = slice(point.position)
    return Row(
        np.concatenate([trunk.tokens[thinking], answer.tokens]),
        np.concatenate([trunk.kinds[thinking], answer.kinds]),
        int(point.end),
        answer.answer_end,
        answer.ignores_used,
    )


def context_length(config: ModelConfig) -> int:
    """Positions the model is made for, YaRN's stretch included."""
    return config.context_length


def _given(budget: BudgetConfig) -> list[str]:
    """Options of the budget that are not at their defaults."""
    usual, given = dataclasses.asdict(BudgetConfig()), dataclasses.asdict(budget)
    return [name for name, value in given.items() if value != usual[name]]


def _need_forcing(budget: BudgetConfig) -> list[str]:
    """Options of the budget that are given and say nothing without forcing."""
    given = {
        "min_thinking_tokens": budget.min_thinking_tokens > 1,  # a run begins with a token of thinking, forced or not
        "num_ignore": budget.num_ignore,
        "newline_grace": budget.grace_tokens,
        "end_bias": budget.end_bias,
    }
    return [name for name, value in given.items() if value]


def _in_order(records: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Records by their places, each held back until all before it are there."""
    held: dict[int, dict[str, Any]] = {}
    following = 0
    for place, record in records:
        held[place] = record
        while following in held:
            yield held.pop(following)
            following += 1
