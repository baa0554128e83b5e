"""The children of a tree that are being decoded, each in a row of the batch for as long as its step takes.

While a child grows, its past lies in one piece in its row, where attention reads it: see device/paged.py. The tokens of
its step are then put into pages, after those that it shares with its parent.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s1_jax.decoding.core.budget import Budget, BudgetState, empty_state
from s1_jax.decoding.core.loop import DecodeState
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import PhaseSampling
from s1_jax.decoding.core.traces import Trace
from s1_jax.decoding.device.paged import NOWHERE, Origin
from s1_jax.decoding.device.programs import bucket
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host import stops
from s1_jax.decoding.host.blocks import Runs
from s1_jax.decoding.host.pages import Pool
from s1_jax.decoding.host.results import check_logits, traces_of
from s1_jax.sharding import to_host

SMALLER = 4  # few children are decoded in a batch this many times smaller
SHRINK_CACHE = 4  # a cache that is this many times too long is cut
STEPS_PER_CALL = 32  # the most steps between two looks at what has ended
AT_A_TIME = 4  # one call fills one row in this many
SPARE_ROWS = 4  # one row in this many may stand empty before the loop returns for other children


@dataclasses.dataclass
class Node:
    """A run at the end of one of its steps."""

    request: int
    trace: Trace  # the tokens of its step alone
    state: np.ndarray  # int64 [values], the state of the budget controller
    ended: bool  # nothing can follow
    num_tokens: int  # tokens recorded up to here
    position: int  # cache position after its last token
    last_token: int
    pages: list[int] | None  # pages of the cache up to here; None: it can grow no more
    end: int  # the pool's entry with the logits that follow


class _Child(NamedTuple):
    node: int  # the number of the node that it will be
    origin: Node  # where it begins; its pages and its end are held for this child
    key: np.ndarray  # the random key


class _End(NamedTuple):
    """The entries of the pool that are kept where a step has ended, as in a node."""

    position: int
    pages: list[int] | None
    end: int


class Growth:
    """The children that wait for a row, and those that have one of at most as many rows as the engine has."""

    def __init__(self, engine: Engine, requests: Sequence[Request], runs: Runs, ends: Any, pool: Pool) -> None:
        self._engine, self._requests, self._runs, self._ends, self._pool = engine, requests, runs, ends, pool
        self._programs, self._max_model_len = engine.programs, engine.max_model_len
        self._waiting: collections.deque[_Child] = collections.deque()
        self._held: list[_Child | None] = []  # the child in each row of the batch
        self._position = np.zeros(0, np.int64)
        self._counted = np.zeros(0, np.int64)  # tokens recorded in each row
        self._step = 0
        self._state: DecodeState | None = None  # None: nothing grows
        self._running = False  # whether the device decodes, and the result has not been read yet

    @property
    def hungry(self) -> bool:
        """Whether no child waits, while rows stand empty that others could have."""
        return not self._waiting and (self.idle or sum(child is None for child in self._held) >= self._spare)

    @property
    def idle(self) -> bool:
        """Whether no child grows or waits."""
        return not self._waiting and self._state is None

    def plant(self, node: int, origin: Node, key: np.ndarray) -> None:
        """Let a child with the number `node` grow from `origin`, under this random key.

        From now on it holds the pages and the end of the origin too.
        """
        assert origin.pages is not None
        held = dataclasses.replace(
            origin, pages=self._pool.pages.share(origin.pages), end=self._pool.ends.share([origin.end])[0]
        )
        self._waiting.append(_Child(node, held, key))

    def advance(self) -> dict[int, Node]:
        """Fill empty rows, decode, and give the children whose step has ended, by their number; their rows are empty.

        Where enough children wait, the device decodes on while the caller looks at these. Raises RunError as
        `check_logits` does.
        """
        if self.idle:
            return {}
        if not self._running:
            self._start()
        active, size = self._active, len(self._held)
        assert self._state is not None
        self._state = state = self._stopped(self._state)
        seen = to_host(dataclasses.replace(state, cache=None, logits=state.step))  # without what is large
        self._running = False
        owners = [-1 if child is None else child.origin.request for child in self._held]
        check_logits(seen.lost_at, owners, self._runs.names)
        use = self._engine.use
        use.slot_steps += (int(seen.step) - self._step) * size
        use.tokens += int((seen.num_tokens - self._counted)[active].sum())
        self._step = int(seen.step)
        self._position[active], self._counted[active] = seen.position[active], seen.num_tokens[active]
        ended = self._kept(state, seen, np.flatnonzero(active & seen.controller_state.done))
        if not self._active.any():
            self._state, self._held = None, []
        elif len(self._waiting) >= size - self._active.sum():
            self._start()
        budget = seen.controller_state.budget
        traces, states = traces_of(dataclasses.replace(seen, controller_state=budget)), integers(budget)
        return {child.node: self._grown(child, traces[i], states[i], end) for i, child, end in ended}

    @property
    def _active(self) -> np.ndarray:
        """Whether each row has a child, bool [B]."""
        return np.asarray([child is not None for child in self._held], bool)

    @property
    def _spare(self) -> int:
        return max(1, len(self._held) // SPARE_ROWS)

    def _start(self) -> None:
        """Fill the rows as far as there are children, and let the device decode."""
        self._fit()
        self._fill()
        self._make_room(int(self._position[self._active].max()) + STEPS_PER_CALL, may_shrink=True)
        self._state = self._programs.decode_rows(
            self._ends,
            self._state,
            *self._of_rows(),
            np.int32(self._step + STEPS_PER_CALL),
            np.int32(min(len(self._held), int((~self._active).sum()) + self._spare)),
        )
        self._running = True

    def _fit(self) -> None:
        """Choose the number of rows by that of the children, from a few sizes."""
        active = np.flatnonzero(self._active)
        size, parts = self._engine.batch_size, self._engine.parts
        while len(active) + len(self._waiting) <= (smaller := -(-size // (SMALLER * parts)) * parts) < size:
            size = smaller
        now = len(self._held)
        if size == now:
            return
        if self._state is None:
            longest = max(child.origin.position for child in self._waiting)
            capacity = bucket(longest + STEPS_PER_CALL, self._max_model_len)
            self._state, self._step = self._programs.empty_rows(size, capacity, self._max_model_len), 0
            rows = np.full(size, -1)
        else:
            rows = np.concatenate([active, np.full(size - len(active), -1)])
            self._state = self._programs.take(self._state, np.where(rows < 0, 0, rows))
            self._state = self._programs.end_rows(self._state, rows < 0)
        self._held = [None if row < 0 else self._held[row] for row in rows]
        old = (self._position, self._counted)
        self._position, self._counted = (np.asarray([0 if row < 0 else x[row] for row in rows], np.int64) for x in old)

    def _fill(self) -> None:
        """Put waiting children into empty rows."""
        empty = np.flatnonzero(~self._active)[: len(self._waiting)]
        count = max(1, len(self._held) // AT_A_TIME)  # always the same number, so that one size is compiled
        for first in range(0, len(empty), count):
            self._fill_some(empty[first : first + count], count)

    def _fill_some(self, rows: np.ndarray, count: int) -> None:
        """Put waiting children into these rows by a call that has room for `count` of them."""
        assert self._state is not None
        pool = self._pool
        children = [self._waiting.popleft() for _ in rows]
        self._make_room(max(child.origin.position for child in children))
        table = np.full((count, pool.pages_of(self._state.cache[0].capacity)), NOWHERE, np.int32)
        for i, (row, child) in enumerate(zip(rows, children, strict=True)):
            assert child.origin.pages is not None
            table[i, : len(child.origin.pages)] = child.origin.pages
            self._held[row], self._position[row] = child, child.origin.position
            self._counted[row] = child.origin.num_tokens
        origins = [child.origin for child in children]
        origins += [origins[0]] * (count - len(rows))  # these are put nowhere

        def column(name: str) -> Any:
            return np.asarray([getattr(origin, name) for origin in origins], np.int32)

        ends_of_rows = Origin(
            budget=budget_state(np.stack([origin.state for origin in origins])),
            num_tokens=column("num_tokens"),
            last_token=column("last_token"),
            position=column("position"),
            end=column("end"),
        )
        filled = np.append(rows, np.full(count - len(rows), NOWHERE)).astype(np.int32)
        self._state = self._programs.fill_rows(self._state, pool.cache, pool.logits, ends_of_rows, filled, table)
        pool.ends.release([child.origin.end for child in children])

    def _make_room(self, needed: int, may_shrink: bool = False) -> None:
        """Give the rows' cache room for `needed` tokens: attention reads all of it, so it grows with its rows."""
        assert self._state is not None
        wanted, capacity = bucket(needed, self._max_model_len), self._state.cache[0].capacity
        if wanted > capacity or (may_shrink and wanted * SHRINK_CACHE <= capacity):
            self._state = self._programs.resize(self._state, wanted)

    def _of_rows(self) -> tuple[Budget, PhaseSampling]:
        """Give the budget and settings of each row's child; an empty row has those of another."""
        some = next(child for child in self._held if child is not None)
        children = [child or some for child in self._held]
        requests = np.asarray([child.origin.request for child in children])
        budget, settings = jax.tree.map(lambda x: x[requests], (self._runs.budget, self._runs.settings))
        keys = np.stack([child.key for child in children])
        thinking, answer = (dataclasses.replace(x, key=keys) for x in (settings.thinking, settings.answer))
        return budget, PhaseSampling(thinking, answer)

    def _stopped(self, state: DecodeState) -> DecodeState:
        """End the answers that contain a stop string."""
        strings = {
            row: self._requests[child.origin.request].stop_strings for row, child in enumerate(self._held) if child
        }
        if not any(strings.values()):
            return state
        count = STEPS_PER_CALL + max(map(stops.width, strings.values()))
        traces = traces_of(dataclasses.replace(state, controller_state=state.controller_state.budget))
        tokenizer = self._engine.tokenizer
        last = {row: traces[row].last(count) for row in strings}
        found = [
            row
            for row, (tokens, kinds, *_) in last.items()
            if stops.holds(tokenizer, tokens[stops.searched(tokenizer, tokens, kinds)], strings[row])
        ]
        return self._programs.end_rows(state, np.isin(np.arange(len(self._held)), found)) if found else state

    def _kept(self, state: DecodeState, seen: DecodeState, ended: np.ndarray) -> list[tuple[int, _Child, _End]]:
        """Keep what the rows that have `ended` leave behind, and give each with its child; `seen` is on the host."""
        kept: list[tuple[int, _Child, _End]] = []
        pieces: list[tuple[int, int, int]] = []
        for i in map(int, ended):
            child, pool = self._held[i], self._pool
            assert child is not None and child.origin.pages is not None
            origin, position, done = child.origin, int(seen.position[i]), bool(seen.controller_state.budget.done[i])
            shared = 0 if done else origin.position // pool.page_size  # full pages
            pool.pages.release(child.origin.pages[shared:])
            if done:
                end = _End(position, None, NOWHERE)
            else:
                own = pool.pages.allocate(pool.pages_of(position) - shared)
                pieces += [(i, index, page) for index, page in enumerate(own, shared)]
                end = _End(position, child.origin.pages[:shared] + own, pool.ends.allocate(1)[0])
            kept.append((i, child, end))
            self._held[i] = None
        self._pool.put_pages(state.cache, pieces, len(self._held))
        self._pool.put_logits(state.logits, [(i, end.end) for i, _, end in kept if end.pages], len(self._held))
        return kept

    def _grown(self, child: _Child, trace: Trace, state: np.ndarray, end: _End) -> Node:
        """Make the node of a child whose step has ended; its `trace` was not filled in before that step."""
        origin, num_tokens = child.origin, len(trace.tokens)
        last_token = int(trace.tokens[-1]) if num_tokens else origin.last_token
        own = slice(origin.num_tokens, None)
        trace = trace._replace(tokens=trace.tokens[own].copy(), kinds=trace.kinds[own].copy())
        self._engine.decoded_tokens += trace.num_decoded
        ended = end.pages is None
        return Node(origin.request, trace, state, ended, num_tokens, end.position, last_token, end.pages, end.end)


def integers(states: BudgetState) -> np.ndarray:
    """Flatten the states of B rows into integers on the host: int64 [B, values], all fields beside each other."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(states)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1).astype(np.int64)


def budget_state(integers: np.ndarray) -> BudgetState:
    """Rebuild the states of B rows that `integers` flattened into [B, values]."""
    one_row = jax.eval_shape(lambda: empty_state(1))
    names = [field.name for field in dataclasses.fields(BudgetState)]
    leaves = [getattr(one_row, name) for name in names]
    columns = np.split(integers, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=-1)
    fields: Any = {
        name: x.reshape(len(integers), *leaf.shape[1:]).astype(leaf.dtype)
        for name, leaf, x in zip(names, leaves, columns, strict=True)
    }
    return BudgetState(**fields)
