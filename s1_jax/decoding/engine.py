"""The engine: a model and its tokenizer turn requests into records, each by a run of its own or from shared runs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, BudgetConfig, FormatConfig, ModelConfig
from s1_jax.data.chat import check_opening, check_start_token, encode, opened_by_template
from s1_jax.decoding import records
from s1_jax.decoding.core.banned_words import banned_tokens
from s1_jax.decoding.core.budget import Kind
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import PhaseSampling, make_sampling, row_key
from s1_jax.decoding.core.scores import NOTHING
from s1_jax.decoding.core.sweep import Plan, SharedTrace, plan_alone, plan_shared
from s1_jax.decoding.core.token_ids import (
    Limits,
    facts_of,
    ignore_ids,
    make_budget,
    make_markers,
    marker_at_end,
    notice_ids,
    start_ids,
    stop_ids,
    stop_texts,
)
from s1_jax.decoding.core.traces import BranchPoint, Trace
from s1_jax.decoding.device.programs import Programs
from s1_jax.decoding.host import stops
from s1_jax.decoding.host.blocks import Runs
from s1_jax.decoding.host.slots import Slots, Use, sizes_of
from s1_jax.decoding.host.waves import Waves
from s1_jax.decoding.queue import News, Queue, whole
from s1_jax.decoding.warm_up import queue_reading, queue_sizes, warm_up
from s1_jax.errors import UserError
from s1_jax.model import transformer
from s1_jax.records import Record
from s1_jax.sharding import Layout

STEPS_PER_CALL = 32  # steps between two looks at progress and Ctrl-C
LONGEST_DEFAULT_ANSWER = 1024
MOST_BANNED_LISTS = 32  # bits of `Markers.banned`
PROMPT_ENDS_KEPT = 2**12  # prompts that are remembered to end in the start marker or not


class Status(NamedTuple):
    """The progress of one call of the engine."""

    done: int  # requests
    total: int
    decoded_tokens: int  # thinking and answer tokens, since the engine was made
    slot_use: float  # fraction of slot-steps that brought a token, since the engine was made
    tokens_per_step: float  # mean over the slot-steps that brought any: more than 1 with drafts
    recorded_tokens: int = 0  # forced ones and those of unfinished requests included, since the engine was made


Progress = Callable[[Status], None]


class Piece(NamedTuple):
    """Consecutive tokens of one kind, in the stream of one request."""

    token_ids: tuple[int, ...]
    kind: Kind  # SUFFIX for every token of a marker, the start marker's too
    forced: bool  # appended by budget forcing, not sampled


def pieces(news: News, forcing: bool) -> Iterator[Piece]:
    """Give the tokens of news as pieces; `forcing` is that of the request's budget."""
    new = zip(news.kinds.tolist(), news.tokens.tolist(), strict=True)
    for kind, tokens in itertools.groupby(new, key=lambda pair: pair[0]):
        yield Piece(tuple(token for _, token in tokens), Kind(kind), forced=forcing and kind in records.FORCED)


class Engine:
    """A model that decodes `batch_size` rows at a time, each of at most `max_model_len` tokens.

    Parameters are those of `transformer.unstack`, with weights stored in any way. Products are computed in `dtype`, and
    the cache is stored in `cache_dtype` (None: the same), which may be int8. `format` tells how the model marks its
    thinking. `stops` are tokens that the model declares as ends of its texts (`checkpoints.declared_stops`), besides
    those of its tokenizer. `layout` shards activations and cache over a mesh; the parameters come sharded.
    `draft_tokens` are looked up ahead for each pass of the model (core/speculate.py). The records are the same with
    them, except where two tokens tie within rounding. With `scores`, log-probabilities of tokens can be asked for.
    Raises UserError where the lengths or the tokenizer do not fit
    the model.
    """

    def __init__(
        self,
        config: ModelConfig,
        params: transformer.Params,
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
        scores: bool = False,
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
        self.decoded_tokens = 0  # thinking and answer tokens, since the engine was made
        self.use, self._scores = Use(), scores
        stops = stop_ids(tokenizer, stops, config.vocab_size)
        self.stop_tokens = stop_texts(tokenizer, stops)
        self.markers = make_markers(tokenizer, config.vocab_size, format, stops)
        self._longest_opening = max(len(self.start_ids), len(encode(tokenizer, opened_by_template(tokenizer))))
        self._end_of_prompt = lru_cache(PROMPT_ENDS_KEPT)(self._look_at_end)
        self._facts = facts_of(self.markers)
        self._known_strings: set[str | tuple[str, ...]] = set()
        self._known_notices: set[tuple[str, ...]] = set()
        self._banned: dict[tuple[str, ...], int] = {(): 0}  # lists of words, each with its bit in `Markers.banned`
        self.parts = 1 if layout is None else layout.size("batch")
        types = (dtype, dtype if cache_dtype is None else cache_dtype)
        self._everywhere = (lambda tree: tree) if layout is None else layout.everywhere
        markers = self._everywhere(self.markers)
        self.programs = Programs(config, params, markers, self.max_model_len, *types, layout, draft_tokens, scores)

    @property
    def num_compiled(self) -> int:
        """Number of programs that have been compiled."""
        return self.programs.num_compiled

    def run(self, requests: Sequence[Request], progress: Progress | None = None) -> Iterator[Record]:
        """Decode each request by itself, and give the records in order, each as soon as all before it are done.

        Raises as `decode` does.
        """
        return _in_order(self.decode(plan_alone(requests), progress))

    def run_shared(self, requests: Sequence[Request], progress: Progress | None = None) -> Iterator[tuple[int, Record]]:
        """Decode requests together where one begins as another does, and give the records with the requests' indices.

        The records are those of `run`, except where two tokens tie within rounding. They come as they are done, in no
        order of their own. Raises as `decode` does.
        """
        return self.decode(plan_shared(requests), progress)

    def decode(self, plan: Plan, progress: Progress | None = None) -> Iterator[tuple[int, Record]]:
        """Decode the runs of a plan, and give the records with the indices of their requests, as they are done.

        Raises UserError naming the first request that cannot be decoded, before any is, and RunError naming the first
        one for which the model gives logits that are not finite.
        """
        for request in plan.requests:
            self.check(request)
        return self._decode(plan, progress)

    def stream(self, request: Request) -> Iterator[Piece | Record]:
        """Give the pieces of one request's tokens as they are decoded, then its record, as `run` gives it.

        The tokens of the pieces, joined, are those of the record's `text`. A token that may turn out to begin an end
        marker is held back until that is known, so no piece is ever taken back. The first piece is the start marker; it
        comes with the first decoded token. Raises as `run` does.
        """
        plan = plan_alone([request])
        self.check(request)
        queue = Queue(self.slots(), self.tokenizer)
        numbers = queue.submit([request], self.runs([request]))
        given = np.asarray(request.given_thinking, np.int32)
        tokens, kinds = [given], [np.full_like(given, int(Kind.THINKING))]
        opening = tuple(self.opening(request))
        for news in whole(queue, numbers, 1):
            if opening:
                yield Piece(opening, Kind.SUFFIX, forced=True)
                opening = ()
            tokens.append(news.tokens)
            kinds.append(news.kinds)
            yield from pieces(news, request.budget.forcing)
        assert news.ended is not None
        trace = Trace(np.concatenate(tokens), np.concatenate(kinds), *news.ended)
        self.decoded_tokens += trace.num_decoded
        yield from (record for _, record in self._records(plan, SharedTrace(plan, 0, trace, self._facts.is_newline)))

    def _decode(self, plan: Plan, progress: Progress | None) -> Iterator[tuple[int, Record]]:
        if not plan.requests:
            return
        slots = self.slots()
        slots.add(self.runs(plan.runs))
        waves = Waves(self.programs, int(self.markers.suffix_lengths.max()), slots, self.parts, self.use)
        done = 0

        def show() -> None:
            if progress is not None:
                use = self.use
                counts = done, len(plan.requests), self.decoded_tokens
                progress(Status(*counts, use.fraction, use.tokens_per_step, use.tokens))

        while not slots.idle:
            for run, trace in slots.traces(slots.advance(STEPS_PER_CALL)).items():
                waves.add(run, SharedTrace(plan, run, trace, self._facts.is_newline))
            self._stop(plan, slots)
            show()
            for trunk in waves.run(not slots.busy, show):
                self.decoded_tokens += trunk.num_decoded
                done += trunk.num_requests
                yield from self._records(plan, trunk)
            show()

    def check(self, request: Request) -> None:
        """Check that a request can be decoded. Raises UserError naming it where it cannot."""
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
        if max(len(self._known_strings), len(self._known_notices)) > PROMPT_ENDS_KEPT:  # of a server's many clients
            self._known_strings, self._known_notices = set(), set()
        if request.budget.ignore_string not in self._known_strings:
            ignore_ids(self.tokenizer, request.budget)
            self._known_strings.add(request.budget.ignore_string)
        if request.budget.notices not in self._known_notices:
            notice_ids(self.tokenizer, request.budget.notices)
            self._known_notices.add(request.budget.notices)
        if request.budget.banned_words not in self._banned:
            self._ban(request.budget.banned_words)
        answer = self.max_answer_tokens(request)
        if answer < 0:
            raise UserError(f"{name}: max_answer_tokens {answer} is negative")
        if len(ids) + (needed := self.needed(request)) > self.max_model_len:
            raise UserError(
                f"{name}: a prompt of {len(ids)} tokens and {needed} for markers and answer pass max_model_len "
                f"{self.max_model_len}; shorten the prompt or lower max_answer_tokens"
            )

    def _ban(self, words: tuple[str, ...]) -> None:
        """Give a list of banned words its bit in the markers. Raises UserError as `banned_tokens` does."""
        tokens = banned_tokens(self.tokenizer, words, self.config.vocab_size)
        if len(self._banned) > MOST_BANNED_LISTS:
            raise UserError(f"one engine takes {MOST_BANNED_LISTS} lists of banned_words; this is one more")
        bit = 1 << (len(self._banned) - 1)
        banned = np.array(self.markers.banned)
        banned[list(tokens.texts)] |= np.uint32(bit)
        self.markers = dataclasses.replace(self.markers, banned=jnp.asarray(banned))
        self.programs.rebind(self._everywhere(self.markers))
        self._banned[words] = bit

    def needed(self, request: Request) -> int:
        """Count the tokens that must fit after the prompt: markers and answer."""
        if not request.thinking:
            return 1
        answer, reserved = self.max_answer_tokens(request), request.reserved_answer_tokens
        kept = self._facts.longest_forced + (answer if reserved is None else reserved) if request.budget.forcing else 1
        return len(self.start(request)) + len(request.given_thinking) + kept

    def max_answer_tokens(self, request: Request) -> int:
        """Give the request's own limit, or a default that leaves most of the context to thinking."""
        if request.max_answer_tokens is not None:
            return request.max_answer_tokens
        return min(LONGEST_DEFAULT_ANSWER, self.max_model_len // 4)

    def identity(self, request: Request) -> Record:
        """Make the fields of the request's record that are known before decoding."""
        return request.asked(self.max_answer_tokens(request), self.max_model_len, self.format, self.stop_tokens)

    def runs(
        self,
        requests: Sequence[Request],
        scored: Sequence[int] | None = None,
        prompt_scores: Sequence[bool] | None = None,
    ) -> Runs:
        """Put what the requests ask for into arrays; `scored` is `Scores.wanted` of each, none by default."""
        scored = [NOTHING] * len(requests) if scored is None else scored
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
                banned=self._banned[r.budget.banned_words],
                given=r.given_thinking,
                completion=r.max_completion_tokens,
            )
            for r, prompt in zip(requests, prompts, strict=True)
        ]
        keys = [row_key(r.seed, r.problem_id, r.prompt_token_ids, r.sample) for r in requests]
        return Runs(
            prompts=[prompt + r.given_thinking for r, prompt in zip(requests, prompts, strict=True)],
            budget=make_budget(self.tokenizer, limits, self.max_model_len, self._facts),
            settings=PhaseSampling(
                thinking=make_sampling([r.thinking_sampling or r.sampling for r in requests], keys),
                answer=make_sampling([r.sampling for r in requests], keys),
            ),
            names=[r.name for r in requests],
            scored=np.asarray(scored, np.int32) if self._scores else None,
            prompt_scores=None if prompt_scores is None else np.asarray(prompt_scores, bool),
        )

    def start(self, request: Request) -> Sequence[int]:
        """Give the tokens that are appended to the prompt: the start marker, unless the prompt ends in it."""
        return self.start_ids if request.thinking and not self._prompt_end(request)[0] else ()

    def opening(self, request: Request) -> Sequence[int]:
        """Give the tokens that open the thinking, appended or the prompt's own; the record's text begins with them."""
        if not request.thinking:
            return ()
        own = self._prompt_end(request)[0]
        return request.prompt_token_ids[-own:] if own else self.start_ids

    def _prompt_end(self, request: Request) -> tuple[int, str | None]:
        return self._end_of_prompt(tuple(request.prompt_token_ids[-self._longest_opening - 2 :]))

    def _look_at_end(self, ids: tuple[int, ...]) -> tuple[int, str | None]:
        """Count how many of a prompt's last ids are the start marker, and say what is wrong with thinking after it."""
        problem = None
        try:
            check_start_token(self.tokenizer, self.format)
            text = self.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
            check_opening(self.tokenizer, text, self.format)
        except UserError as error:
            problem = str(error)
        return marker_at_end(self.tokenizer, ids, self.format.think_start), problem

    def queue(self, prefix_tokens: int, show: Callable[[int, int], None] = lambda done, total: None) -> Queue:
        """Make a queue for requests that come at any time, and compile all programs that it can need.

        It keeps up to `prefix_tokens` tokens of past prompts and replies. `show` is told how many of all programs are
        compiled.
        """
        reading = queue_reading(self.programs, self.max_model_len, prefix_tokens)
        sizes = queue_sizes(self.batch_size, self.parts)
        anything = Request((0,), max_answer_tokens=0, thinking=False)
        warm_up(self.programs, sizes, reading, self.runs([anything]), show)
        return Queue(Slots(self.programs, sizes, self.max_model_len, self.use, reading), self.tokenizer)

    def slots(self) -> Slots:
        """Make a batch of empty slots."""
        sizes = sizes_of(self.batch_size, self.parts)
        return Slots(self.programs, sizes, self.max_model_len, self.use)

    def _stop(self, plan: Plan, slots: Slots) -> None:
        """End answers that contain a stop string; this is called whenever slots have advanced."""
        strings = {run: plan.requests[plan.trunks[run].longest].stop_strings for run in slots.active}
        if not any(strings.values()):
            return
        count = STEPS_PER_CALL * (1 + self.programs.draft_tokens) + max(map(stops.width, strings.values()))
        recent = slots.recent([run for run in strings if strings[run]], count)
        ended = [
            run
            for run, (tokens, kinds, _) in recent.items()
            if stops.holds(self.tokenizer, tokens[stops.searched(self.tokenizer, tokens, kinds)], strings[run])
        ]
        if ended:
            slots.end(ended)

    def _records(self, plan: Plan, trunk: SharedTrace) -> Iterator[tuple[int, Record]]:
        """Make the records of the requests that share a trunk; text is made once for each branch point."""
        outcomes: dict[BranchPoint, Record] = {}
        for index, (point, ignores_used) in trunk.cuts:
            request = plan.requests[index]
            if point not in outcomes:
                trace = stops.trimmed(self.tokenizer, trunk.trace(point), request.stop_strings)
                outcomes[point] = records.outcome(self.tokenizer, self.opening(request), **trace._asdict())
            yield index, self.identity(request) | outcomes[point] | {"ignores_used": ignores_used}


def context_length(config: ModelConfig) -> int:
    """Give the number of positions that the model is made for, with YaRN's extension."""
    return config.context_length


def _given(budget: BudgetConfig) -> list[str]:
    """List the options of the budget that are not at their defaults."""
    usual, given = dataclasses.asdict(BudgetConfig()), dataclasses.asdict(budget)
    return [name for name, value in given.items() if value != usual[name]]


def _need_forcing(budget: BudgetConfig) -> list[str]:
    """List the options of the budget that are given and have no effect without forcing."""
    given = {
        "min_thinking_tokens": budget.min_thinking_tokens > 1,  # every run begins with a thinking token
        "num_ignore": budget.num_ignore,
        "newline_grace": budget.grace_tokens,
        "end_bias": budget.end_bias,
        "notices": budget.notices,
        "banned_words": budget.banned_words,
        "max_repetitions": budget.max_repetitions,
    }
    return [name for name, value in given.items() if value]


def _in_order(records: Iterator[tuple[int, Record]]) -> Iterator[Record]:
    """Put records in the order of their indices, each held back until all before it are there."""
    held: dict[int, Record] = {}
    following = 0
    for index, record in records:
        held[index] = record
        while following in held:
            yield held.pop(following)
            following += 1
