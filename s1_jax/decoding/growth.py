"""The children of a tree that are being decoded: a row of the batch each, as long as their step takes.

While it grows, a child has its past in one piece in its row, where attention reads it: see paged.py. What its step has
added is then put into pages, behind those that it shares with its parent.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from s1_jax.decoding.core.budget import Budget, BudgetState
from s1_jax.decoding.core.loop import DecodeState
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import PhaseSampling
from s1_jax.decoding.device.paged import NOWHERE, Origin
from s1_jax.decoding.device.programs import bucket
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host import stops
from s1_jax.decoding.host.pages import Pool
from s1_jax.decoding.host.rows import Row, check_logits, rows_of
from s1_jax.decoding.host.slots import Runs
from s1_jax.sharding import to_host

SMALLER = 4  # few children are decoded in a batch so many times smaller
SHRINK_CACHE = 4  # a cache so many times too long is cut
STEPS_PER_CALL = 32  # at most, between two looks at what has ended
AT_A_TIME = 4  # one in so many rows is filled by one call
SPARE_ROWS = 4  # one row in so many may stand empty before the decoder comes back for others
UNSIGNED = ("marker_bits", "newlines")  # of the budget's state: bits


@dataclasses.dataclass
class Node:
    """What a run was at the end of a step."""

    request: int
    row: Row  # of its step alone
    state: np.ndarray  # int64 [fields], the budget's
    ended: bool  # nothing can follow
    num_tokens: int  # recorded up to here
    position: int  # behind its last token
    last_token: int
    pages: list[int] | None  # of the cache up to here; none: it can grow no more
    end: int  # where the logits are kept that follow


class _Child(NamedTuple):
    name: int
    origin: Node  # where it begins; the pages and the end in it are held for this child
    key: np.ndarray  # its random key


class _End(NamedTuple):
    """What is kept on the devices where a step has ended, as in a node."""

    position: int
    pages: list[int] | None
    end: int


class Growth:
    """Children that wait for a row, and those that have one; at most as many rows as the engine has."""

    def __init__(self, engine: Engine, requests: Sequence[Request], runs: Runs, ends: Any, pool: Pool) -> None:
        self._engine, self._requests, self._runs, self._ends, self._pool = engine, requests, runs, ends, pool
        self._functions, self._most = engine.functions, engine.max_model_len
        self._waiting: collections.deque[_Child] = collections.deque()
        self._held: list[_Child | None] = []  # the child in each row
        self._position = np.zeros(0, np.int64)
        self._counted = np.zeros(0, np.int64)  # tokens recorded in each row
        self._step = 0
        self._state: DecodeState | None = None  # none: nothing grows
        self._running = False  # whether the device decodes, and nobody has looked yet

    @property
    def hungry(self) -> bool:
        """Whether none waits, and rows stand empty that others could have."""
        return not self._waiting and (self.idle or sum(child is None for child in self._held) >= self._spare)

    @property
    def idle(self) -> bool:
        """Whether nothing grows and nothing waits."""
        return not self._waiting and self._state is None

    def plant(self, name: int, origin: Node, key: np.ndarray) -> None:
        """Has a child grow from `origin`, under this random key; of what that holds, it holds all from now on."""
        assert origin.pages is not None
        held = dataclasses.replace(
            origin, pages=self._pool.pages.share(origin.pages), end=self._pool.ends.share([origin.end])[0]
        )
        self._waiting.append(_Child(name, held, key))

    def advance(self) -> dict[int, Node]:
        """Fills empty rows, decodes on, and gives the children whose step has ended; their rows are empty.

        Where enough wait, the device decodes on already while the caller looks at these. Raises RunError as
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
        rows, states = rows_of(dataclasses.replace(seen, controller_state=budget)), integers(budget)
        return {child.name: self._grown(child, rows[i], states[i], end) for i, child, end in ended}

    @property
    def _active(self) -> np.ndarray:
        """Rows with a child, bool [B]."""
        return np.asarray([child is not None for child in self._held], bool)

    @property
    def _spare(self) -> int:
        return max(1, len(self._held) // SPARE_ROWS)

    def _start(self) -> None:
        """Has the device decode on, filled up as far as there are children."""
        self._fit()
        self._fill()
        self._make_room(int(self._position[self._active].max()) + STEPS_PER_CALL, may_shrink=True)
        self._state = self._functions.decode_rows(
            self._ends,
            self._state,
            *self._of_rows(),
            np.int32(self._step + STEPS_PER_CALL),
            np.int32(min(len(self._held), int((~self._active).sum()) + self._spare)),
        )
        self._running = True

    def _fit(self) -> None:
        """As many rows as there are children for, in one of few sizes."""
        active = np.flatnonzero(self._active)
        size, parts = self._engine.batch_size, self._engine.parts
        while len(active) + len(self._waiting) <= (smaller := -(-size // (SMALLER * parts)) * parts) < size:
            size = smaller
        now = len(self._held)
        if size == now:
            return
        if self._state is None:
            capacity = bucket(max(child.origin.position for child in self._waiting) + STEPS_PER_CALL, self._most)
            self._state, self._step = self._functions.empty_rows(size, capacity, self._most), 0
            rows = np.full(size, -1)
        else:
            rows = np.concatenate([active, np.full(size - len(active), -1)])
            self._state = self._functions.take(self._state, np.where(rows < 0, 0, rows))
            self._state = self._functions.end_rows(self._state, rows < 0)
        self._held = [None if row < 0 else self._held[row] for row in rows]
        old = (self._position, self._counted)
        self._position, self._counted = (np.asarray([0 if row < 0 else x[row] for row in rows], np.int64) for x in old)

    def _fill(self) -> None:
        """Puts waiting children into empty rows."""
        empty = np.flatnonzero(~self._active)[: len(self._waiting)]
        F = max(1, len(self._held) // AT_A_TIME)  # always so many, so that little is compiled
        for first in range(0, len(empty), F):
            self._fill_some(empty[first : first + F], F)

    def _fill_some(self, rows: np.ndarray, F: int) -> None:
        assert self._state is not None
        pool = self._pool
        children = [self._waiting.popleft() for _ in rows]
        self._make_room(max(child.origin.position for child in children))
        table = np.full((F, pool.pages_of(self._state.cache[0].capacity)), NOWHERE, np.int32)
        for place, (row, child) in enumerate(zip(rows, children, strict=True)):
            assert child.origin.pages is not None
            table[place, : len(child.origin.pages)] = child.origin.pages
            self._held[row], self._position[row] = child, child.origin.position
            self._counted[row] = child.origin.num_tokens
        origins = [child.origin for child in children]
        origins += [origins[0]] * (F - len(rows))  # these are put nowhere

        def column(name: str) -> Any:
            return np.asarray([getattr(origin, name) for origin in origins], np.int32)

        ends_of_rows = Origin(
            budget=budget_state(np.stack([origin.state for origin in origins])),
            num_tokens=column("num_tokens"),
            last_token=column("last_token"),
            position=column("position"),
            end=column("end"),
        )
        places = np.append(rows, np.full(F - len(rows), NOWHERE)).astype(np.int32)
        self._state = self._functions.fill_rows(self._state, pool.cache, pool.logits, ends_of_rows, places, table)
        pool.ends.let_go([child.origin.end for child in children])

    def _make_room(self, needed: int, may_shrink: bool = False) -> None:
        """Gives the rows' cache room: attention reads all of it, so it grows as they do."""
        assert self._state is not None
        wanted, capacity = bucket(needed, self._most), self._state.cache[0].capacity
        if wanted > capacity or (may_shrink and wanted * SHRINK_CACHE <= capacity):
            self._state = self._functions.resize(self._state, wanted)

    def _of_rows(self) -> tuple[Budget, PhaseSampling]:
        """Budget and settings of what each row holds; an empty one has those of another."""
        some = next(child for child in self._held if child is not None)
        children = [child or some for child in self._held]
        places = np.asarray([child.origin.request for child in children])
        budget, settings = jax.tree.map(lambda x: x[places], (self._runs.budget, self._runs.settings))
        keys = np.stack([child.key for child in children])
        thinking, answer = (dataclasses.replace(x, key=keys) for x in (settings.thinking, settings.answer))
        return budget, PhaseSampling(thinking, answer)

    def _stopped(self, state: DecodeState) -> DecodeState:
        """The state with answers ended that have a stop string in them."""
        strings = {
            row: self._requests[child.origin.request].stop_strings for row, child in enumerate(self._held) if child
        }
        if not any(strings.values()):
            return state
        count = STEPS_PER_CALL + max(map(stops.width, strings.values()))
        rows = rows_of(dataclasses.replace(state, controller_state=state.controller_state.budget))
        found = [
            row for row in strings if stops.holds(self._engine.tokenizer, rows[row].last(count).answer, strings[row])
        ]
        return self._functions.end_rows(state, np.isin(np.arange(len(self._held)), found)) if found else state

    def _kept(self, state: DecodeState, seen: DecodeState, ended: np.ndarray) -> list[tuple[int, _Child, _End]]:
        """Rows whose step has ended, their children, and what is kept of them; `seen` is the state on the host."""
        kept: list[tuple[int, _Child, _End]] = []
        pieces: list[tuple[int, int, int]] = []
        for i in map(int, ended):
            child, pool = self._held[i], self._pool
            assert child is not None and child.origin.pages is not None
            origin, position, done = child.origin, int(seen.position[i]), bool(seen.controller_state.budget.done[i])
            shared = 0 if done else origin.position // pool.page  # pages that are full
            pool.pages.let_go(child.origin.pages[shared:])
            if done:
                end = _End(position, None, NOWHERE)
            else:
                own = pool.pages.take(pool.pages_of(position) - shared)
                pieces += [(i, place, page) for place, page in enumerate(own, shared)]
                end = _End(position, child.origin.pages[:shared] + own, pool.ends.take(1)[0])
            kept.append((i, child, end))
            self._held[i] = None
        self._pool.put_pages(state.cache, pieces, len(self._held))
        self._pool.put_logits(state.logits, [(i, end.end) for i, _, end in kept if end.pages], len(self._held))
        return kept

    def _grown(self, child: _Child, row: Row, state: np.ndarray, end: _End) -> Node:
        """The child whose step has ended; `row` has its whole run, whose part before the step was left open."""
        origin, num_tokens = child.origin, len(row.tokens)
        last_token = int(row.tokens[-1]) if num_tokens else origin.last_token
        row = row._replace(tokens=row.tokens[origin.num_tokens :].copy(), kinds=row.kinds[origin.num_tokens :].copy())
        self._engine.decoded_tokens += row.num_decoded
        ended = end.pages is None
        return Node(origin.request, row, state, ended, num_tokens, end.position, last_token, end.pages, end.end)


def integers(states: BudgetState) -> np.ndarray:
    """A row of integers for each of the states, on the host: int64 [B, fields]."""
    return np.stack(jax.tree.leaves(states), axis=1).astype(np.int64)


def budget_state(integers: np.ndarray) -> BudgetState:
    """The states [...] that `integers` made rows [..., fields] of."""
    names = [field.name for field in dataclasses.fields(BudgetState)]
    columns = zip(names, np.moveaxis(integers, -1, 0), strict=True)
    return BudgetState(**{name: x.astype(np.uint32 if name in UNSIGNED else np.int32) for name, x in columns})
