"""Runs that grow by steps and share what they have in common: the engine of a search.

A node is what a run was at the end of a step: the budget's state and the tokens of that step, kept on the host, and the
pages of the cache that hold all before its last token. A child's node holds its parent's full pages too, by reference,
and pages of its own behind them; what both have of a page that is not full is stored twice. A node's last token enters
the cache with each of its children. While it grows, a child has a row of the batch, where attention reads its past in
one piece: see paged.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.config import StepConfig, UserError
from s1_jax.decoding import budget as control
from s1_jax.decoding import records, stops
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.paged import NO_PAGE, Origin
from s1_jax.decoding.pages import Pool
from s1_jax.decoding.programs import bucket
from s1_jax.decoding.requests import Request
from s1_jax.decoding.rows import Row, rows_of
from s1_jax.decoding.sampling import PhaseSampling, row_key
from s1_jax.decoding.slots import Block, Runs
from s1_jax.decoding.steps import make_ends
from s1_jax.sharding import to_host

STEP_APART = 2**20  # between the samples that a request's nodes draw as: more than anyone asks for of one problem
PAGE = {"tpu": 128}  # slots of a page, 32 elsewhere: more waste the last page of each node, fewer are slow to gather
SMALLER = 4  # few children are decoded in a batch so many times smaller
STEPS_PER_CALL = 32  # at most, between two looks at what has ended
AT_A_TIME = 4  # one in so many rows is filled by one call
UNSIGNED = ("written", "newlines")  # of the budget's state: bits
SPARE_ROWS = 8  # one row in so many may stand empty before the decoder comes back for others


@dataclasses.dataclass
class _Node:
    request: int
    parent: int | None
    row: Row  # of its step alone
    state: np.ndarray  # int64 [fields], the budget's at its end
    ended: bool
    num_tokens: int  # recorded up to its end
    position: int  # behind its last token
    last_token: int
    pages: list[int] | None  # of all before that token; none: it can grow no more


class Tree:
    """What grows from the requests, one root each: prompt and start marker.

    A node's tokens follow from its request and the ordinals on its path, not from what was decoded beside it. Raises
    UserError naming a request that cannot be decoded, and where the engine's mesh spans several processes.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request], steps: StepConfig) -> None:
        for request in requests:
            engine.check(request)
        if engine.functions.spans_processes:
            raise UserError("a search runs in one process: choose a mesh of this host's devices")
        self._engine, self._functions, self._requests = engine, engine.functions, list(requests)
        ends = make_ends(engine.tokenizer, engine.config.vocab_size, steps)
        self._ends = jax.tree.map(jnp.asarray, ends)
        self._runs = engine.runs(requests)
        page = PAGE.get(jax.default_backend(), 32)
        self._pool = Pool(self._functions, engine.batch_size * -(-engine.max_model_len // page), page)
        self._nodes: list[_Node] = []
        self._next_ordinal = [1] * len(requests)  # a root's is 0
        self.roots = [self._add(node) for node in self._read_prompts()]

    @property
    def pages_held(self) -> int:
        """Pages of the cache that the nodes hold, each counted once."""
        return self._pool.held

    def expand(self, parents: Sequence[int], show: Callable[[], None] | None = None) -> list[int]:
        """A new child of each of these nodes, which may come several times, decoded together; in their order.

        `show` is called between calls of the device. Raises ValueError on a node that has ended or was pruned, RunError
        where the nodes' cache no longer fits the device.
        """
        for node in parents:
            if self.ended(node) or self._nodes[node].pages is None:
                raise ValueError(f"node {node} {'has ended' if self.ended(node) else 'was pruned'}: it cannot grow")
        if not parents:
            return []
        origins = [self._nodes[node] for node in parents]
        keys = np.stack([self._key(origin.request) for origin in origins])
        expansion = _Expansion(self._engine, self._requests, self._runs, self._ends, self._pool, origins, keys)
        grown: dict[int, _Node] = {}
        while len(grown) < len(parents):
            grown |= expansion.advance()
            if show is not None:
                show()
        return [self._add(dataclasses.replace(grown[i], parent=node)) for i, node in enumerate(parents)]

    def parent(self, node: int) -> int | None:
        """The node it grew from; none: it is a root."""
        return self._nodes[node].parent

    def request(self, node: int) -> int:
        """The place of its request."""
        return self._nodes[node].request

    def ended(self, node: int) -> bool:
        """Whether its run has its answer, and nothing can follow."""
        return self._nodes[node].ended

    def token_ids(self, node: int) -> list[int]:
        """Prompt, start marker and all that was recorded up to the node's end."""
        request = self._requests[self.request(node)]
        return [*request.prompt_token_ids, *self._engine.start(request), *self._path(node).tokens.tolist()]

    def text(self, node: int) -> str:
        """From the start marker to the node's end, special tokens kept: as `text` in a record."""
        start = self._engine.start(self._requests[self.request(node)])
        ids = [*start, *self._path(node).tokens.tolist()]
        return self._engine.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)

    def num_tokens(self, node: int) -> int:
        """Tokens recorded in the node's own step."""
        return len(self._nodes[node].row.tokens)

    def record(self, node: int) -> dict[str, Any]:
        """What `Engine.run` gives for a run; of a node that has ended, else ValueError."""
        if not self.ended(node):
            raise ValueError(f"node {node} has not ended")
        request, row = self._requests[self.request(node)], self._path(node)
        outcome = records.outcome(self._engine.tokenizer, self._engine.start(request), **row._asdict())
        return self._engine.identity(request) | outcome

    def prune(self, nodes: Sequence[int]) -> None:
        """Lets these grow no more: what only they hold of the cache is free. Twice is as good as once."""
        for node in nodes:
            self._pool.let_go(self._nodes[node].pages or ())
            self._nodes[node].pages = None

    def _add(self, node: _Node) -> int:
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _key(self, place: int) -> np.ndarray:
        """The random key of the request's next node."""
        request, ordinal = self._requests[place], self._next_ordinal[place]
        self._next_ordinal[place] += 1
        sample = request.sample + ordinal * STEP_APART
        return row_key(request.seed, request.problem_id, request.prompt_token_ids, sample)

    def _path(self, node: int) -> Row:
        """All that was recorded up to the node's end, as far as a stop string lets it."""
        last = self._nodes[node]
        steps: list[Row] = []
        at: int | None = node
        while at is not None:
            steps.insert(0, self._nodes[at].row)
            at = self._nodes[at].parent
        tokens, kinds = (np.concatenate(parts) for parts in ([s.tokens for s in steps], [s.kinds for s in steps]))
        row = last.row._replace(tokens=tokens, kinds=kinds)
        return stops.trimmed(self._engine.tokenizer, row, self._requests[last.request].stop_strings)

    def _read_prompts(self) -> Iterator[_Node]:
        """Roots; requests with the same prompt share its pages."""
        if not self._requests:
            return
        runs, first = self._runs, 0
        states = _integers(to_host(self._functions.first_states(runs.budget)))
        while first < len(runs.prompts):
            block = Block(self._functions, runs, first, self._engine.batch_size, self._engine.max_model_len)
            while not block.whole:
                block.read_on()
            counts = [self._pool.pages_of(max(int(length) - 1, 0)) for length in block.lengths]
            held = [self._pool.take(count) for count in counts]
            stored = [(row, place, page) for row, pages in enumerate(held) for place, page in enumerate(pages)]
            self._pool.store(block.content.cache, stored, max(len(stored), 1))
            for i, source in enumerate(block.sources, first):
                yield self._root(i, states[i], self._pool.share(held[source]))
            for pages in held:
                self._pool.let_go(pages)
            first += len(block.sources)

    def _root(self, place: int, state: np.ndarray, pages: list[int]) -> _Node:
        prompt, nothing = self._runs.prompts[place], np.zeros(0, np.int32)
        of_state = _state_of(state)
        if ended := bool(of_state.done):
            self._pool.let_go(pages)
        row = Row(nothing, nothing, int(of_state.end), int(of_state.answer_end), 0)
        return _Node(place, None, row, state, ended, 0, len(prompt), prompt[-1], None if ended else pages)


class _Expansion:
    """Children being decoded, as many at a time as the engine has rows; each goes on from one of `origins`."""

    def __init__(
        self,
        engine: Engine,
        requests: Sequence[Request],
        runs: Runs,
        ends: Any,
        pool: Pool,
        origins: Sequence[_Node],
        keys: np.ndarray,
    ) -> None:
        self._engine, self._requests, self._runs, self._ends, self._pool = engine, requests, runs, ends, pool
        self._origins, self._keys = origins, keys
        self._place = np.asarray([origin.request for origin in origins])
        self._functions, self._most = engine.functions, engine.max_model_len
        size = self._smaller(engine.batch_size, len(origins))
        self._next = self._step = 0
        self._held = np.full(size, -1)  # the child in each row
        self._position = np.zeros(size, np.int64)
        self._counted = np.zeros(size, np.int64)  # tokens recorded in each row
        capacity = bucket(max(origin.position for origin in origins) + STEPS_PER_CALL, self._most)
        self._state = self._functions.empty_rows(size, capacity, self._most)

    def advance(self) -> dict[int, _Node]:
        """Fills empty rows, decodes on, and gives the children whose step has ended; their rows are empty."""
        self._fill()
        self._shrink()
        active = self._held >= 0
        self._make_room(int(self._position[active].max()) + STEPS_PER_CALL)
        size, waits = len(active), self._next < len(self._origins)
        self._state = self._functions.decode_rows(
            self._ends,
            self._state,
            *self._of_rows(),
            np.int32(self._step + STEPS_PER_CALL),
            np.int32(int((~active).sum()) + max(1, size // SPARE_ROWS) if waits else size),
        )
        self._stop(active)
        state = self._state
        done, position, counted, step = to_host((state.control.done, state.position, state.num_tokens, state.step))
        use = self._engine.use
        use.slot_steps += (int(step) - self._step) * size
        use.tokens += int((counted - self._counted)[active].sum())
        self._step = int(step)
        self._position[active], self._counted[active] = position[active], counted[active]
        return self._ended(np.flatnonzero(active & done))

    @property
    def _at_a_time(self) -> int:
        """F: rows that are filled by one call."""
        return max(1, len(self._held) // AT_A_TIME)

    def _smaller(self, size: int, needed: int) -> int:
        """The smallest batch for so many rows; there are few sizes."""
        parts = self._engine.parts
        while needed <= (smaller := -(-size // (SMALLER * parts)) * parts) < size:
            size = smaller
        return size

    def _fill(self) -> None:
        """Puts waiting children into empty rows."""
        empty = np.flatnonzero(self._held < 0)[: len(self._origins) - self._next]
        F = self._at_a_time
        for first in range(0, len(empty), F):  # always of one size, so that little is compiled
            self._fill_some(empty[first : first + F], F)

    def _fill_some(self, rows: np.ndarray, most: int) -> None:
        size, pool = len(self._held), self._pool
        origins = [self._origins[0]] * size  # what it is does not count where a row is not new
        table = np.full((most, pool.pages_of(self._state.cache[0].capacity)), NO_PAGE, np.int32)
        for place, row in enumerate(map(int, rows)):
            origin = origins[row] = self._origins[self._next]
            assert origin.pages is not None
            table[place, : len(origin.pages)] = origin.pages
            self._held[row], self._position[row], self._counted[row] = self._next, origin.position, origin.num_tokens
            self._next += 1

        def column(name: str) -> Any:
            return np.asarray([getattr(origin, name) for origin in origins], np.int32)

        ends = Origin(
            budget=_state_of(np.stack([origin.state for origin in origins])),
            num_tokens=column("num_tokens"),
            last_token=column("last_token"),
            position=column("position"),
        )
        new, places = np.isin(np.arange(size), rows), _padded(rows, most, size)
        self._state = self._functions.fill_rows(self._state, pool.arrays, new, ends, places, table)

    def _make_room(self, needed: int) -> None:
        """Gives the rows' cache room: attention reads all of it, so it grows as they do."""
        capacity = bucket(needed, self._most)
        if capacity > self._state.cache[0].capacity:
            self._state = self._functions.resize(self._state, capacity)

    def _shrink(self) -> None:
        """Goes on with fewer rows where few are left and none waits."""
        active = np.flatnonzero(self._held >= 0)
        if self._next < len(self._origins) or (smaller := self._smaller(len(self._held), len(active))) == len(
            self._held
        ):
            return
        rows = np.concatenate([active, np.flatnonzero(self._held < 0)])[:smaller]
        self._state = self._functions.take(self._state, rows)
        self._held, self._position, self._counted = (x[rows] for x in (self._held, self._position, self._counted))

    def _of_rows(self) -> tuple[control.Budget, PhaseSampling]:
        """Budget and settings of what each row holds; an empty one has those of child 0."""
        held = np.maximum(self._held, 0)
        budget, settings = jax.tree.map(lambda x: x[self._place[held]], (self._runs.budget, self._runs.settings))
        keys = self._keys[held]
        thinking, answer = (dataclasses.replace(x, key=keys) for x in (settings.thinking, settings.answer))
        return budget, PhaseSampling(thinking, answer)

    def _stop(self, active: np.ndarray) -> None:
        """Ends answers that have a stop string in them."""
        strings = {row: self._requests[self._place[self._held[row]]].stop_strings for row in np.flatnonzero(active)}
        if not any(strings.values()):
            return
        count = STEPS_PER_CALL + max(map(stops.width, strings.values()))
        rows = self._rows()
        found = [
            row for row in strings if stops.holds(self._engine.tokenizer, rows[row].last(count).answer, strings[row])
        ]
        if found:
            self._state = self._functions.end_rows(self._state, np.isin(np.arange(len(active)), found))

    def _rows(self) -> list[Row]:
        """What was recorded in each row, its place before the step left open."""
        return rows_of(dataclasses.replace(self._state, control=self._state.control.budget))

    def _ended(self, ended: np.ndarray) -> dict[int, _Node]:
        """Children whose step has ended; what they have added to the cache is in pages of their own."""
        if not len(ended):
            return {}
        rows, grown = self._rows(), {}
        budget = to_host(self._state.control.budget)
        states, done = _integers(budget), budget.done
        stored: list[tuple[int, int, int]] = []
        for i in map(int, ended):
            origin, position = self._origins[self._held[i]], int(self._position[i])
            of_step = slice(origin.num_tokens, None)
            row = rows[i]._replace(tokens=rows[i].tokens[of_step].copy(), kinds=rows[i].kinds[of_step].copy())
            pages = None
            if not done[i]:
                shared = (origin.position - 1) // self._pool.page  # full ones
                assert origin.pages is not None
                own = self._pool.take(self._pool.pages_of(position - 1) - shared)
                pages = self._pool.share(origin.pages[:shared]) + own
                stored += [(i, place, page) for place, page in enumerate(own, shared)]
            self._engine.decoded_tokens += row.num_decoded
            last = int(rows[i].tokens[-1]) if len(rows[i].tokens) else origin.last_token
            grown[int(self._held[i])] = _Node(
                origin.request, None, row, states[i], bool(done[i]), len(rows[i].tokens), position, last, pages
            )
            self._held[i] = -1
        self._pool.store(self._state.cache, stored, len(self._held))
        return grown


def _integers(states: control.BudgetState) -> np.ndarray:
    """A row of integers for each of the states, on the host: int64 [B, fields]."""
    return np.stack(jax.tree.leaves(states), axis=1).astype(np.int64)


def _state_of(integers: np.ndarray) -> control.BudgetState:
    """The states [...] that `_integers` made rows [..., fields] of."""
    names = [field.name for field in dataclasses.fields(control.BudgetState)]
    columns = zip(names, np.moveaxis(integers, -1, 0), strict=True)
    return control.BudgetState(**{name: x.astype(np.uint32 if name in UNSIGNED else np.int32) for name, x in columns})


def _padded(values: np.ndarray, size: int, filler: int) -> np.ndarray:
    return np.concatenate([values, np.full(size - len(values), filler)]).astype(np.int32)
