"""Blocks of prompts: the next prompts of the queue are read together, into a cache of their own.

Letters: P prompts of a block, T tokens of the longest (bucketed).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s1_jax.decoding.core.budget import Budget
from s1_jax.decoding.core.sampling import PhaseSampling
from s1_jax.decoding.device.programs import Programs, bucket
from s1_jax.decoding.host.prefixes import Prefixes
from s1_jax.runtime.compilation import power_of_two
from s1_jax.sharding import to_host

BLOCK_TOKENS = 16384  # the most that P x T of a block may be, unless it is one prompt
CHUNK = 1024  # tokens of each prompt that are read between two calls of the decoding loop


class Runs(NamedTuple):
    """Runs that are to be decoded, as arrays."""

    prompts: Sequence[tuple[int, ...]]  # token ids, start marker included
    budget: Budget  # one row for each run, on the host
    settings: PhaseSampling  # one row for each run, on the host
    names: Sequence[str]  # the name by which errors call each run
    scored: np.ndarray | None = None  # int32 [runs], `Scores.wanted`, where scores are kept
    prompt_scores: np.ndarray | None = None  # bool [runs], score the prompt's tokens too


class Waiting(NamedTuple):
    """A run that waits for a slot."""

    number: int  # by which the slots know it
    runs: Runs
    row: int  # of the run in `runs`

    @property
    def prompt(self) -> tuple[int, ...]:
        """The token ids of its prompt."""
        return self.runs.prompts[self.row]


class Reading(NamedTuple):
    """How prompts are read, and the lengths for which programs are compiled."""

    prompts: int  # the most that are read together
    widths: Sequence[int] = ()  # tokens of a chunk, ascending; none: CHUNK
    prefixes: Prefixes | None = None  # with one prompt at a time: where its beginning may be found
    lengths: Sequence[int] = ()  # tokens of a block's rows and of the slots' cache, ascending; none: see `bucket`

    def length(self, tokens: int, most: int) -> int:
        """Choose the length of rows that have to hold so many `tokens`, of at most `most`."""
        return next((length for length in self.lengths if length >= tokens), None) or bucket(tokens, most)

    def width(self, left: int) -> int:
        """Choose the tokens of the next chunk, where `left` tokens are left to read."""
        widths = self.widths or (CHUNK,)
        whole = [width for width in widths if left <= width < left + widths[0]]
        return min(whole, default=max((width for width in widths if width <= left), default=widths[0]))


class Block:
    """The prompts of the first of the runs that wait, read into a cache of their own; later ones stay out.

    Runs that share a prompt share its row. `reading` says how many prompts are read together, and how.
    """

    def __init__(self, programs: Programs, waiting: Iterable[Waiting], reading: Reading, max_model_len: int) -> None:
        self._programs, self._reading, longest = programs, reading, 0
        rows: dict[tuple[int, ...], int] = {}
        self.runs: list[Waiting] = []  # those that have not been started
        self.sources: list[int] = []  # the row that each of these starts from
        for one in waiting:
            if (prompt := one.prompt) not in rows:
                width = reading.length(max(longest, len(prompt)), max_model_len)
                if rows and (len(rows) == reading.prompts or (len(rows) + 1) * width > BLOCK_TOKENS):
                    break
                rows[prompt], longest = len(rows), max(longest, len(prompt))
            self.runs.append(one)
            self.sources.append(rows[prompt])
        P, self.capacity = power_of_two(len(rows)), reading.length(longest, max_model_len)
        self.lengths = np.zeros(P, np.int32)
        self.token_ids = np.zeros((P, self.capacity), np.int32)
        for row, prompt in enumerate(rows):
            self.token_ids[row, : len(prompt)], self.lengths[row] = prompt, len(prompt)
        self._longest = longest
        self.cached = 0  # tokens of the prompt that need not be read
        self.scores: list[Any] = []  # of the tokens that follow those of each chunk, where they are wanted
        self._scored = any(_wants_scores(one) for one in self.runs)
        pages = [] if reading.prefixes is None or self._scored else reading.prefixes.find(self.runs[0].prompt)
        if pages and reading.prefixes is not None:
            self.content = reading.prefixes.block(pages, self.capacity)
            self.cached = len(pages) * reading.prefixes.page_size
        else:
            self.content = programs.empty_block(P, self.capacity)
        self._read = self.cached

    @property
    def whole(self) -> bool:
        """Whether all prompts have been read."""
        return self._read >= self._longest

    @property
    def exhausted(self) -> bool:
        """Whether every run has been started."""
        return not self.runs

    def read_chunk(self) -> int:
        """Read the next chunk, if any is left, and return its number of tokens."""
        if self.whole:
            return 0
        width = self._reading.width(self._longest - self._read)
        start = min(self._read, max(self.capacity - width, 0))  # the last chunk may begin within the one before
        chunk = self.token_ids[:, start : start + width]
        if self._scored:
            following = np.pad(self.token_ids, ((0, 0), (0, 1)))[:, start + 1 : start + 1 + chunk.shape[1]]
            self.content, scores = self._programs.score(self.content, chunk, np.int32(start), self.lengths, following)
            self.scores.append((start, to_host(scores)))
        else:
            self.content = self._programs.prefill(self.content, chunk, np.int32(start), self.lengths)
        self._read = start + chunk.shape[1]
        if self.whole and self._reading.prefixes is not None:
            self._reading.prefixes.keep(self.content.cache, 0, self.runs[0].prompt)
        return chunk.size

    def take(self, most: int) -> tuple[list[Waiting], np.ndarray]:
        """Take up to `most` runs to start, and give them with the row that each starts from."""
        runs, sources = self.runs[:most], np.asarray(self.sources[:most], np.int64)
        self.runs, self.sources = self.runs[most:], self.sources[most:]
        return runs, sources

    def cancel(self, numbers: set[int]) -> None:
        """Leave out the runs with these numbers."""
        kept = [pair for pair in zip(self.runs, self.sources, strict=True) if pair[0].number not in numbers]
        self.runs, self.sources = [run for run, _ in kept], [source for _, source in kept]


def _wants_scores(run: Waiting) -> bool:
    return run.runs.prompt_scores is not None and bool(run.runs.prompt_scores[run.row])


def put_rows(target: object, rows: Sequence[int], source: object, sources: Sequence[int]) -> None:
    """Copy rows `sources` of the arrays of `source` into `rows` of those of `target`, on the host."""

    def put(old: np.ndarray, new: np.ndarray) -> None:
        old[rows] = new[sources]

    jax.tree.map(put, target, source)
