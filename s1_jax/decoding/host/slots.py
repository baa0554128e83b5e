"""Continuous batching: the rows of the batch are slots, and a run that has ended makes room for one that waits.

Nothing is compiled anew for that. The slot that a run gets changes neither its tokens nor those of its neighbors.

Letters: B slots, P prompts of a block, T tokens of the longest prompt (bucketed).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from s1_jax.decoding.core.budget import Budget
from s1_jax.decoding.core.loop import DecodeState
from s1_jax.decoding.core.sampling import PhaseSampling
from s1_jax.decoding.core.traces import Trace
from s1_jax.decoding.device.programs import Programs, bucket
from s1_jax.decoding.host.results import check_logits, traces_of
from s1_jax.runtime.compilation import power_of_two
from s1_jax.sharding import to_host

BLOCK_TOKENS = 16384  # the most that P x T of a block may be, unless it is one prompt
CHUNK = 1024  # tokens of each prompt that are read between two calls of the decoding loop
SPARE_SLOTS = 16  # one slot in this many may stand empty before the loop returns for new runs
SHRINK = 2  # the batch is divided by powers of this when few slots are needed
SHRINK_CACHE = 4  # a cache that is this many times too long is cut


def rows_at_a_time(batch_size: int, runs: int, parts: int = 1) -> int:
    """Choose the number of rows: `batch_size`, or for fewer runs the next power of two, so that few sizes are compiled.

    It is a multiple of the `parts` that a mesh cuts the batch into.
    """
    rows = min(batch_size, power_of_two(max(runs, 1)))
    return -(-rows // parts) * parts


class Runs(NamedTuple):
    """The runs that are to be decoded, as arrays."""

    prompts: Sequence[tuple[int, ...]]  # token ids, start marker included
    budget: Budget  # one row for each run, on the host
    settings: PhaseSampling  # one row for each run, on the host
    names: Sequence[str]  # the name by which errors call each run


@dataclasses.dataclass
class Use:
    """Counts that tell how well the rows of a batch were used."""

    slot_steps: int = 0  # rows x steps
    tokens: int = 0  # recorded in these steps, forced ones included
    accepted: int = 0  # recorded beside another in the same step, because a draft was right

    @property
    def fraction(self) -> float:
        """The fraction of slot-steps that brought a token."""
        return (self.tokens - self.accepted) / max(self.slot_steps, 1)

    @property
    def tokens_per_step(self) -> float:
        """The mean number of tokens of the slot-steps that brought any: 1 without drafts."""
        return self.tokens / max(self.tokens - self.accepted, 1)


class Slots:
    """A batch of `size` slots that decodes `runs` in their order; a mesh cuts it into `parts` pieces."""

    def __init__(self, programs: Programs, runs: Runs, size: int, parts: int, max_model_len: int, use: Use) -> None:
        self._programs, self._parts, self._max_model_len, self._use = programs, parts, max_model_len, use
        self.runs = runs
        self._next = 0  # the first run whose prompt is not read yet
        self._block: Block | None = None
        self._held = np.full(size, -1)  # the run of each slot; negative: none
        self._active = np.zeros(size, bool)  # slots whose run has not ended
        self._position = np.zeros(size, np.int64)
        self._counted = np.zeros(size, np.int64)  # tokens recorded of each slot's run
        self._accepted = np.zeros(size, np.int64)  # tokens of each slot's run that a draft had right
        self._step = self._idle_calls = 0
        self.state: DecodeState = programs.empty_slots(size, bucket(1, max_model_len))

    @property
    def idle(self) -> bool:
        """Whether `advance` has nothing left to decode."""
        return self._next == len(self.runs.prompts) and self._block is None and not self._active.any()

    @property
    def busy(self) -> bool:
        """Whether any run is being decoded."""
        return bool(self._active.any())

    @property
    def active(self) -> list[int]:
        """The runs that are being decoded."""
        return self._held[self._active].tolist()

    @property
    def size(self) -> int:
        """The number of slots, B."""
        return len(self._held)

    def slot_of(self, run: int) -> int:
        """Find the slot that holds a run."""
        return int(np.flatnonzero(self._held == run)[0])

    def advance(self, steps: int) -> dict[int, Trace]:
        """Fill free slots, decode up to `steps` steps, and give the runs that have ended, which keep their slots.

        It returns earlier when enough runs have ended and others wait. Raises RunError as `check_logits` does.
        """
        self._fill(steps)
        if not self._active.any():
            return {}
        self._make_room(steps)
        stop_done = self.size
        if not self._nothing_waits:
            stop_done = min(stop_done, self.size - int(self._active.sum()) + self._spare)
        self.state = self._programs.decode(
            self.state,
            *self._of_slots(),
            np.int32(self._step + steps),
            np.int32(stop_done),
        )
        state = self.state
        done, position, counted, accepted, lost_at, step = to_host(
            (
                state.controller_state.done,
                state.position,
                state.num_tokens,
                state.num_accepted,
                state.lost_at,
                state.step,
            )
        )
        check_logits(lost_at, np.where(self._active, self._held, -1), self.runs.names)
        self._use.slot_steps += (int(step) - self._step) * self.size
        self._step = int(step)
        self._use.tokens += int((counted - self._counted)[self._active].sum())
        self._use.accepted += int((accepted - self._accepted)[self._active].sum())
        for known, now in ((self._position, position), (self._counted, counted), (self._accepted, accepted)):
            known[self._active] = now[self._active]
        ended = np.flatnonzero(self._active & done)
        self._active &= ~done
        if not len(ended):
            return {}
        traces = traces_of(self.state)
        return {int(self._held[slot]): traces[slot] for slot in ended}

    def end(self, runs: Sequence[int]) -> None:
        """End the answers of runs that are being decoded; `advance` gives them next."""
        self.state = self._programs.end(self.state, np.isin(self._held, runs))

    def recent(self, count: int) -> dict[int, Trace]:
        """Give the last `count` tokens of each run that is being decoded, by the run."""
        traces = traces_of(self.state)
        return {int(self._held[slot]): traces[slot].last(count) for slot in np.flatnonzero(self._active)}

    def free(self, runs: Sequence[int]) -> None:
        """Free the slots of runs that have ended."""
        self._held[np.isin(self._held, runs)] = -1

    @property
    def _spare(self) -> int:
        """The number of slots that may stand empty before the loop returns for new runs."""
        return max(1, self.size // SPARE_SLOTS)

    @property
    def _nothing_waits(self) -> bool:
        return self._next == len(self.runs.prompts) and self._block is None

    def _of_slots(self) -> tuple[Budget, PhaseSampling]:
        """Give the budget and settings of each slot's run; a free slot has those of run 0."""
        return jax.tree.map(lambda x: x[np.maximum(self._held, 0)], (self.runs.budget, self.runs.settings))

    def _fill(self, steps: int) -> None:
        """Put waiting runs into free slots; while others are decoded, at most one chunk of prompts is read."""
        while (free := np.flatnonzero(self._held < 0)).size:
            if self._block is None:
                if self._next == len(self.runs.prompts):
                    break
                self._block = Block(self._programs, self.runs, self._next, self.size, self._max_model_len)
                self._next += len(self._block.sources)
            self._block.read_chunk()
            if self._block.whole:
                self._take_from(self._block, free, steps)
            elif self._active.any():
                return
        self._shrink()

    def _take_from(self, block: Block, free: np.ndarray, steps: int) -> None:
        runs, sources = block.next_runs(len(free))
        slots = free[: len(runs)]
        self._held[slots], self._active[slots], self._counted[slots], self._accepted[slots] = runs, True, 0, 0
        self._position[slots] = block.lengths[sources]
        self._make_room(steps, at_least=block.capacity)
        budget, count = self._of_slots()[0], self._spare
        for first in range(0, len(slots), count):  # always the same number, so that one size is compiled
            some = slice(first, first + count)
            new = np.zeros(self.size, bool)
            new[slots[some]] = True
            self.state = self._programs.fill(
                self.state,
                block.content,
                block.token_ids,
                block.lengths,
                budget,
                new,
                _padded(slots[some], count, self.size),  # out of range: dropped
                _padded(sources[some], count, 0),
            )
        if block.exhausted:
            self._block = None

    def _make_room(self, steps: int, at_least: int = 1) -> None:
        """Give the cache room for this many steps: attention reads all of it, so it grows with its rows."""
        most = steps * (1 + self._programs.draft_tokens)
        after = np.where(self._active, self._position + most, self._position + 1)[self._held >= 0]
        needed = bucket(max(int(after.max(initial=1)), at_least), self._max_model_len)
        capacity = self.state.cache[0].capacity
        if needed > capacity or needed * SHRINK_CACHE <= capacity:
            self.state = self._programs.resize(self.state, needed)

    def _shrink(self) -> None:
        """Continue with fewer slots where few are held, no run waits, and one whole call has passed like that."""
        held, smaller = np.flatnonzero(self._held >= 0), self.size
        while (next_smaller := -(-smaller // (SHRINK * self._parts)) * self._parts) < smaller:
            if next_smaller < len(held):
                break
            smaller = next_smaller
        if not self._nothing_waits or smaller == self.size or not len(held):
            self._idle_calls = 0
            return
        self._idle_calls += 1
        if self._idle_calls < 2:
            return
        self._idle_calls = 0
        free = np.flatnonzero(self._held < 0)
        slots = np.concatenate([held, free[: smaller - len(held)]])
        self.state = self._programs.take(self.state, slots)
        for name in ("_held", "_active", "_position", "_counted", "_accepted"):
            setattr(self, name, getattr(self, name)[slots])


class Block:
    """The next prompts, read into a cache of their own, and the runs that start from them."""

    def __init__(self, programs: Programs, runs: Runs, first: int, slots: int, max_model_len: int) -> None:
        self._programs, self._first, self._taken, self._read = programs, first, 0, 0
        most, longest = power_of_two(slots), 0
        rows: dict[tuple[int, ...], int] = {}
        self.sources: list[int] = []  # the row that each run starts from, from run `first` on
        for prompt in itertools.islice(runs.prompts, first, None):
            if prompt not in rows:
                width = bucket(max(longest, len(prompt)), max_model_len)
                if rows and (len(rows) == most or (len(rows) + 1) * width > BLOCK_TOKENS):
                    break
                rows[prompt], longest = len(rows), max(longest, len(prompt))
            self.sources.append(rows[prompt])
        P, self.capacity = power_of_two(len(rows)), bucket(longest, max_model_len)
        self.lengths = np.zeros(P, np.int32)
        self.token_ids = np.zeros((P, self.capacity), np.int32)
        for row, prompt in enumerate(rows):
            self.token_ids[row, : len(prompt)], self.lengths[row] = prompt, len(prompt)
        self._longest = longest
        self.content = programs.empty_block(P, self.capacity)

    @property
    def whole(self) -> bool:
        """Whether all prompts have been read."""
        return self._read >= self._longest

    @property
    def exhausted(self) -> bool:
        """Whether every run has been started."""
        return self._taken == len(self.sources)

    def read_chunk(self) -> None:
        """Read the next chunk, if any is left."""
        if self.whole:
            return
        start = min(self._read, max(self.capacity - CHUNK, 0))  # the last chunk may begin within the one before
        chunk = self.token_ids[:, start : start + CHUNK]
        self.content = self._programs.prefill(self.content, chunk, np.int32(start), self.lengths)
        self._read = start + chunk.shape[1]

    def next_runs(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Take up to `most` runs, and give them and the row that each starts from."""
        sources = np.asarray(self.sources[self._taken : self._taken + most])
        runs = self._first + self._taken + np.arange(len(sources))
        self._taken += len(sources)
        return runs, sources


def _padded(values: np.ndarray, size: int, filler: int) -> np.ndarray:
    return np.concatenate([values, np.full(size - len(values), filler)]).astype(np.int32)
