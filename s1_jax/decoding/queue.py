"""The engine as a queue: requests come and go while others are decoded, and their tokens are told as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from s1_jax.decoding.core.budget import AnswerEnd, Kind
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.scores import KEPT, NOTHING
from s1_jax.decoding.host import stops
from s1_jax.decoding.host.blocks import Runs
from s1_jax.decoding.host.slots import Read, Slots
from s1_jax.sharding import to_host


class Scored(NamedTuple):
    """Log-probabilities of n tokens in the model's raw distribution; see core/scores.py."""

    own: np.ndarray  # float32 [n], of the tokens themselves
    top_ids: np.ndarray  # int32 [n, K], the likeliest tokens
    top: np.ndarray  # float32 [n, K], of these


class Ended(NamedTuple):
    """How a run has ended."""

    end: int  # End
    answer_end: int  # AnswerEnd
    ignores_used: int


class News(NamedTuple):
    """Tokens of one run that have come since the last look and will not be taken back."""

    number: int
    tokens: np.ndarray  # int32 [n]
    kinds: np.ndarray  # int32 [n], Kind
    scored: Scored | None  # where the run's scores are wanted
    ended: Ended | None  # None: more tokens follow
    read: Read  # how the prompt was read


@dataclasses.dataclass
class _Followed:
    """What is known of a run that has a slot or waits for one."""

    request: Request
    scored: int
    tokens: list[int]  # prompt, start marker and given thinking, then the tokens that have been told
    told: int  # tokens after prompt and start marker that have been told
    answer: list[int] = dataclasses.field(default_factory=list)  # with stop strings only


class Queue:
    """A queue of requests around `slots`, whose runs it alone adds and frees.

    Requests must have passed `Engine.check`. `runs` makes arrays of them, as `Engine.runs` does.
    """

    def __init__(self, slots: Slots, tokenizer: PreTrainedTokenizerBase) -> None:
        self._slots, self._tokenizer = slots, tokenizer
        self._followed: dict[int, _Followed] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is left to decode."""
        return self._slots.idle

    @property
    def size(self) -> int:
        """The number of slots at present."""
        return self._slots.size

    @property
    def step_seconds(self) -> float:
        """The seconds that a step of the last look took; 0 before the first."""
        return self._slots.step_seconds

    @property
    def num_waiting(self) -> int:
        """The number of runs that wait for a slot."""
        return self._slots.num_waiting

    @property
    def num_running(self) -> int:
        """The number of runs that are being decoded."""
        return len(self._slots.active)

    def submit(self, requests: Sequence[Request], runs: Runs) -> list[int]:
        """Let requests wait for slots, and give the number of each; `runs` are their arrays."""
        numbers = self._slots.add(runs)
        scored = [NOTHING] * len(numbers) if runs.scored is None else runs.scored.tolist()
        for number, request, wanted, prompt in zip(numbers, requests, scored, runs.prompts, strict=True):
            self._followed[number] = _Followed(request, wanted, [*prompt], len(request.given_thinking))
        return numbers

    def cancel(self, numbers: Iterable[int]) -> None:
        """Forget these runs, whose slots are free at once; those that have ended or are unknown are passed over."""
        known = [number for number in numbers if self._followed.pop(number, None) is not None]
        self._slots.cancel(known)

    def look(self, steps: int, most_read: int | None = None) -> list[News]:
        """Decode up to `steps` steps and tell what is new, as `Slots.advance` does, which may raise RunError."""
        slots = self._slots
        ended = slots.advance(steps, most_read)
        runs = slots.active + ended
        if not runs:
            return []
        told = [self._followed[run].told for run in runs]
        new = slots.counts(runs) - told
        most = max(KEPT, int(new.max()))
        recent = slots.recent(runs, most)
        ways = self._ways(runs) if ended or any(self._followed[run].request.stop_strings for run in runs) else {}
        scores = self._scores(runs)
        found = []
        stopped = []
        for run, count in zip(runs, new.tolist(), strict=True):
            followed, last, over = self._followed[run], recent[run], run in ended
            held = 0 if over else last.undecided
            tokens = last.tokens[len(last.tokens) - count : len(last.tokens) - held]
            kinds = last.kinds[len(last.kinds) - count : len(last.kinds) - held]
            end = ways[run] if over else None
            if (kept := self._stops_at(followed, tokens, kinds)) is not None:
                tokens, kinds, end = tokens[:kept], kinds[:kept], ways[run]._replace(answer_end=int(AnswerEnd.STOP))
                stopped += [] if over else [run]
            scored = scores(run, len(tokens)) if followed.scored != NOTHING else None
            followed.told += len(tokens)
            followed.tokens += tokens.tolist()
            if len(tokens) or end is not None:
                found.append(News(run, tokens, kinds, scored, end, slots.read[run]))
        for run in (*ended, *stopped):
            slots.keep(run, self._followed[run].tokens)
        slots.free(ended)
        slots.cancel(stopped)
        for run in (*ended, *stopped):
            del self._followed[run]
        return found

    def _ways(self, runs: Sequence[int]) -> dict[int, Ended]:
        rows = self._slots.state.controller_state
        ways = to_host((rows.end, rows.answer_end, rows.ignores_used))
        slots = zip(runs, self._slots.slots_of(runs), strict=True)
        return {run: Ended(*(int(x[slot]) for x in ways)) for run, slot in slots}

    def _scores(self, runs: Sequence[int]) -> Callable[[int, int], Scored]:
        """Give a function of a run that wants scores: those of the next tokens to be told, as many as are asked for."""
        kept = self._slots.state.scores
        if kept is None or all(self._followed[run].scored == NOTHING for run in runs):
            return lambda run, count: Scored(*(np.zeros((count, 0)),) * 3)
        slots = dict(zip(runs, self._slots.slots_of(runs).tolist(), strict=True))
        arrays = to_host((kept.own, kept.top_ids, kept.top))

        def scored(run: int, count: int) -> Scored:
            at = (self._followed[run].told + np.arange(count)) % KEPT
            return Scored(*(x[slots[run], at] for x in arrays))

        return scored

    def _stops_at(self, followed: _Followed, tokens: np.ndarray, kinds: np.ndarray) -> int | None:
        """Find how many of the new tokens there are up to the one that completes a stop string; None: none does."""
        strings = followed.request.stop_strings
        if not strings:
            return None
        before, new = followed.answer, np.flatnonzero(kinds == int(Kind.ANSWER))
        if not before and followed.request.thinking:
            new = new[stops.leading_space(self._tokenizer, tokens[new]) :]
        followed.answer = [*before, *tokens[new].tolist()]
        first = max(len(before) - stops.width(strings), 0)
        count = stops.completed_at(self._tokenizer, followed.answer[first:], strings)
        return None if count is None else int(new[first + count - len(before) - 1]) + 1


def whole(queue: Queue, numbers: Sequence[int], steps: int) -> Iterator[News]:
    """Tell the news of these runs until all of them have ended."""
    left = set(numbers)
    while left:
        for news in queue.look(steps):
            yield news
            if news.ended is not None:
                left.discard(news.number)
