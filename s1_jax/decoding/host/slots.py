"""Continuous batching: the rows of the batch are slots, and a run that has ended makes room for one that waits.

Runs may be added and cancelled at any time. Nothing is compiled anew for that. The slot that a run gets changes neither
its tokens nor those of its neighbors.

Letters: B slots.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s1_jax.decoding.core.budget import Phase
from s1_jax.decoding.core.loop import DecodeState
from s1_jax.decoding.core.traces import Trace
from s1_jax.decoding.device.programs import Programs
from s1_jax.decoding.host.blocks import CHUNK, Block, Reading, Runs, Waiting, put_rows
from s1_jax.decoding.host.results import check_logits, traces_of
from s1_jax.runtime.compilation import power_of_two
from s1_jax.sharding import to_host

SPARE_SLOTS = 16  # one slot in this many may stand empty before the loop returns for new runs
PATIENCE = 64  # steps for which few slots must be needed before the batch shrinks
SHRINK = 2  # the batch is divided by powers of this when few slots are needed
SHRINK_CACHE = 4  # a cache that is this many times too long is cut


def rows_at_a_time(batch_size: int, runs: int, parts: int = 1) -> int:
    """Choose the number of rows: `batch_size`, or for fewer runs the next power of two, so that few sizes are compiled.

    It is a multiple of the `parts` that a mesh cuts the batch into.
    """
    rows = min(batch_size, power_of_two(max(runs, 1)))
    return -(-rows // parts) * parts


def sizes_of(most: int, parts: int, factor: int | None = None) -> list[int]:
    """List the numbers of slots from `most` down, each divided by `factor`, SHRINK by default.

    All are multiples of `parts`.
    """
    factor, sizes = SHRINK if factor is None else factor, [most]
    while (smaller := -(-sizes[-1] // (factor * parts)) * parts) < sizes[-1]:
        sizes.append(smaller)
    return sizes


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


class Read(NamedTuple):
    """How the prompt of a run was read."""

    cached: int  # tokens that were found among the kept prefixes
    scores: Sequence[Any]  # see `Block.scores`


class Recent(NamedTuple):
    """The last tokens of a run."""

    tokens: np.ndarray  # int32 [n]
    kinds: np.ndarray  # int32 [n], Kind
    undecided: int  # how many of them, at the end, may turn out to begin an end marker


class Slots:
    """A batch of at most `sizes[0]` slots, which decodes the runs that are added in their order.

    It begins with `sizes[0]` slots. Where few are needed for `patience` steps it continues with one of the other
    `sizes`, which descend, and it grows again where more runs wait. `reading` says how
    prompts are read.
    """

    def __init__(
        self,
        programs: Programs,
        sizes: Sequence[int],
        max_model_len: int,
        use: Use,
        reading: Reading | None = None,
        patience: int = PATIENCE,
    ) -> None:
        self._programs, self._sizes, self._max_model_len, self._use = programs, sizes, max_model_len, use
        self._reading = Reading(power_of_two(sizes[0])) if reading is None else reading
        self._patience = patience
        self._numbers = itertools.count()
        self._waiting: collections.deque[Waiting] = collections.deque()
        self._block: Block | None = None
        self.names: dict[int, str] = {}  # of the runs that wait or have a slot
        self.read: dict[int, Read] = {}  # of the runs that have a slot
        self.longest_answer = 0  # tokens that an answer of any run can have
        size = sizes[0]
        self._held = np.full(size, -1)  # the run of each slot; negative: none
        self._active = np.zeros(size, bool)  # slots whose run has not ended
        self._lengths = np.zeros(size, np.int64)  # tokens of each slot's prompt, without given thinking
        self._position = np.zeros(size, np.int64)
        self._counted = np.zeros(size, np.int64)  # tokens recorded of each slot's run
        self._accepted = np.zeros(size, np.int64)  # tokens of each slot's run that a draft had right
        self._rows: Any = None  # budget, settings and wanted scores of each slot; a free one has those of another
        self._placed: Any = None  # the same on the devices, where they are up to date
        self._step = self._idle_steps = 0
        self.step_seconds = 0.0  # of each of the last steps, on average; 0: none was taken yet
        self.state: DecodeState = programs.empty_slots(size, self._reading.length(1, max_model_len))

    def add(self, runs: Runs) -> list[int]:
        """Let runs wait for slots, and give the number of each."""
        numbers = [next(self._numbers) for _ in runs.prompts]
        self._waiting += [Waiting(number, runs, row) for row, number in enumerate(numbers)]
        self.names |= zip(numbers, runs.names, strict=True)
        if numbers:
            budget = runs.budget
            self.longest_answer = max(
                self.longest_answer, int(np.minimum(budget.max_answer_tokens, budget.max_new_tokens).max())
            )
            if self._rows is None:
                rows = runs.budget, runs.settings, runs.scored
                self._rows = jax.tree.map(lambda x: np.repeat(x[:1], self.size, axis=0), rows)
        return numbers

    @property
    def idle(self) -> bool:
        """Whether `advance` has nothing left to decode."""
        return self.nothing_waits and not self._active.any()

    @property
    def busy(self) -> bool:
        """Whether any run is being decoded."""
        return bool(self._active.any())

    @property
    def nothing_waits(self) -> bool:
        """Whether every run has a slot or had one."""
        return not self._waiting and self._block is None

    @property
    def num_waiting(self) -> int:
        """The number of runs that wait for a slot."""
        return len(self._waiting) + (0 if self._block is None else len(self._block.runs))

    @property
    def active(self) -> list[int]:
        """The runs that are being decoded."""
        return self._held[self._active].tolist()

    @property
    def size(self) -> int:
        """The number of slots, B."""
        return len(self._held)

    def slots_of(self, runs: Sequence[int]) -> np.ndarray:
        """Find the slot that holds each of these runs."""
        slots = {run: slot for slot, run in enumerate(self._held.tolist())}
        return np.asarray([slots[run] for run in runs], np.int32)

    def rows(self, slots: np.ndarray) -> tuple[Any, Any, np.ndarray]:
        """Give the budgets, the settings and the lengths of the prompts of the runs in these `slots` [n]."""
        budget, settings, _ = jax.tree.map(lambda x: x[slots], self._rows)
        return budget, settings, self._lengths[slots].astype(np.int32)

    def advance(self, steps: int, most_read: int | None = None) -> list[int]:
        """Fill free slots, decode up to `steps` steps, and give the runs that have ended, which keep their slots.

        While runs are being decoded, prompts are read one chunk after another until `most_read` tokens have been read.
        None reads all prompts that need no more than CHUNK each, and CHUNK tokens of a longer one.
        It returns earlier when enough runs have ended and others wait. Raises RunError as `check_logits` does.
        """
        self._fill(steps, most_read)
        if not self._active.any():
            return []
        self._make_room(steps)
        stop_done = self.size
        if not self.nothing_waits:
            stop_done = min(stop_done, self.size - int(self._active.sum()) + self._spare)
        budget, settings, _ = self._on_devices()
        began = time.perf_counter()
        self.state = self._programs.decode(
            self.state, budget, settings, np.int32(self._step + steps), np.int32(stop_done)
        )
        state = self.state
        phase, position, counted, accepted, lost_at, step = to_host(
            (
                state.controller_state.phase,
                state.position,
                state.num_tokens,
                state.num_accepted,
                state.lost_at,
                state.step,
            )
        )
        check_logits(lost_at, np.where(self._active, self._held, -1), self.names)
        done = phase == int(Phase.DONE)  # compared here: on the device it would be a program of its own
        taken, self._step = int(step) - self._step, int(step)
        self._use.slot_steps += taken * self.size
        if taken:
            self.step_seconds = (time.perf_counter() - began) / taken
        self._use.tokens += int((counted - self._counted)[self._active].sum())
        self._use.accepted += int((accepted - self._accepted)[self._active].sum())
        for known, now in ((self._position, position), (self._counted, counted), (self._accepted, accepted)):
            known[self._active] = now[self._active]
        ended = np.flatnonzero(self._active & done)
        self._active &= ~done
        return self._held[ended].tolist()

    def traces(self, runs: Sequence[int]) -> dict[int, Trace]:
        """Read the whole traces of runs that have slots."""
        if not runs:
            return {}
        traces = traces_of(self.state)
        return {run: traces[slot] for run, slot in zip(runs, self.slots_of(runs), strict=True)}

    def recent(self, runs: Sequence[int], count: int) -> dict[int, Recent]:
        """Give up to `count` of the last tokens of runs that have slots."""
        if not runs:
            return {}
        state, count = self.state, power_of_two(count)
        tokens, kinds, undecided = to_host(
            self._programs.recent(
                count, state.tokens, state.kinds, state.num_tokens, state.controller_state, self._on_devices()[0]
            )
        )
        found = {}
        for run, slot in zip(runs, self.slots_of(runs), strict=True):
            first = count - min(count, int(self._counted[slot]))
            found[run] = Recent(tokens[slot, first:], kinds[slot, first:], int(undecided[slot]))
        return found

    def counts(self, runs: Sequence[int]) -> np.ndarray:
        """Give the number of tokens recorded of each of these runs."""
        return self._counted[self.slots_of(runs)]

    def keep(self, run: int, tokens: Sequence[int]) -> None:
        """Keep what the cache holds of a run for later prompts; `tokens` are its prompt and what follows, all of it."""
        if self._reading.prefixes is not None:
            (slot,) = self.slots_of([run]).tolist()
            self._reading.prefixes.keep(self.state.cache, slot, tokens[: int(self._position[slot])])

    def end(self, runs: Sequence[int]) -> None:
        """End the answers of runs that are being decoded; `advance` gives them next."""
        self.state = self._programs.end(self.state, np.isin(self._held, runs))

    def free(self, runs: Iterable[int]) -> None:
        """Free the slots of runs that have ended."""
        runs = list(runs)
        self._held[np.isin(self._held, runs)] = -1
        for run in runs:
            del self.names[run], self.read[run]

    def cancel(self, runs: Iterable[int]) -> None:
        """Forget runs, whether they wait or are being decoded; the slots of these are free at once."""
        gone = set(runs)
        self._waiting = collections.deque(one for one in self._waiting if one.number not in gone)
        if self._block is not None:
            self._block.cancel(gone)
            if self._block.exhausted:
                self._block = None
        running = [run for run in self._held.tolist() if run in gone]
        if running:
            self.end(running)
            stopped = np.isin(self._held, running)
            self._active[stopped], self._held[stopped] = False, -1
        for run in gone:
            self.names.pop(run, None)
            self.read.pop(run, None)

    @property
    def _spare(self) -> int:
        """The number of slots that may stand empty before the loop returns for new runs."""
        return max(1, self.size // SPARE_SLOTS)

    def _on_devices(self) -> Any:
        """Give the rows' budget, settings and wanted scores on the devices; they are copied where they have changed."""
        if self._placed is None:
            self._placed = self._programs.everywhere(jax.tree.map(np.copy, self._rows))
        return self._placed

    def _fill(self, steps: int, most_read: int | None) -> None:
        """Put waiting runs into free slots."""
        self._fit()
        read = 0
        while (free := np.flatnonzero(self._held < 0)).size:
            if self._block is None:
                if not self._waiting:
                    break
                self._block = Block(self._programs, self._waiting, self._reading, self._max_model_len)
                for _ in self._block.runs:
                    self._waiting.popleft()
            read += self._block.read_chunk()
            whole = self._block.whole
            if whole:
                self._take_from(self._block, free, steps)
            enough = not whole and read >= CHUNK if most_read is None else read >= most_read
            if self._active.any() and enough:
                return
        self._shrink(steps)

    def _take_from(self, block: Block, free: np.ndarray, steps: int) -> None:
        runs, sources = block.take(len(free))
        slots = free[: len(runs)]
        self._held[slots] = [run.number for run in runs]
        self._active[slots], self._accepted[slots] = True, 0
        pairs = zip(slots.tolist(), runs, strict=True)
        for _, same in itertools.groupby(pairs, key=lambda pair: id(pair[1].runs)):
            group = list(same)
            of, targets, rows = group[0][1].runs, [slot for slot, _ in group], [run.row for _, run in group]
            put_rows(self._rows, targets, (of.budget, of.settings, of.scored), rows)
            self.read |= {run.number: Read(block.cached, block.scores) for _, run in group}
            self._placed = None
            self._counted[targets] = np.asarray(of.budget.given_tokens)[rows]
        self._position[slots] = block.lengths[sources]
        self._lengths[slots] = block.lengths[sources] - self._counted[slots]
        self._make_room(steps, at_least=block.capacity)
        budget, _, scored = jax.tree.map(np.copy, self._rows)  # the device may read them after they have changed here
        count = self._spare
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
                scored,
            )
        if block.exhausted:
            self._block = None

    def _make_room(self, steps: int, at_least: int = 1) -> None:
        """Give the cache room for this many steps: attention reads all of it, so it grows with its rows."""
        most = steps * (1 + self._programs.draft_tokens)
        after = np.where(self._active, self._position + most, self._position + 1)[self._held >= 0]
        needed = self._reading.length(max(int(after.max(initial=1)), at_least), self._max_model_len)
        capacity = self.state.cache[0].capacity
        if needed > capacity or needed * SHRINK_CACHE <= capacity:
            self.state = self._programs.resize(self.state, needed)

    def _fit(self) -> None:
        """Continue with more slots where more runs wait than are free, or begin with few where there are few."""
        held = int((self._held >= 0).sum())
        needed = held + self.num_waiting
        larger = min((size for size in self._sizes if size >= max(needed, 1)), default=self._sizes[0])
        if not held and self.num_waiting and larger < self.size:  # a new beginning: there is nothing to wait for
            self._resize(np.arange(larger), larger)
        if larger <= self.size or not self.num_waiting:
            return
        more = np.zeros(larger - self.size, np.int64)
        self._resize(np.concatenate([np.arange(self.size), more]), self.size)

    def _shrink(self, steps: int) -> None:
        """Continue with fewer slots where few are held, no run waits, and `patience` steps have passed like that."""
        held = np.flatnonzero(self._held >= 0)
        smaller = min((size for size in self._sizes if size >= max(len(held), 1)), default=self.size)
        if not self.nothing_waits or smaller >= self.size or not len(held):
            self._idle_steps = 0
            return
        self._idle_steps += steps
        if self._idle_steps < self._patience:
            return
        self._idle_steps = 0
        free = np.flatnonzero(self._held < 0)
        self._resize(np.concatenate([held, free[: smaller - len(held)]]), smaller)

    def _resize(self, slots: np.ndarray, kept: int) -> None:
        """Continue with these `slots` [n] of the present ones, of which those after the first `kept` become free."""
        self.state = self._programs.take(self.state, slots)
        for name in ("_held", "_active", "_lengths", "_position", "_counted", "_accepted"):
            setattr(self, name, getattr(self, name)[slots])
        self._rows, self._placed = jax.tree.map(lambda x: x[slots], self._rows), None
        if kept < len(slots):
            new = np.arange(len(slots)) >= kept
            self._held[new], self._active[new] = -1, False
            self.state = self._programs.end(self.state, new)


def _padded(values: np.ndarray, size: int, filler: int) -> np.ndarray:
    return np.concatenate([values, np.full(size - len(values), filler)]).astype(np.int32)
