"""Runs that grow by steps and share what they have in common: the engine of a search.

A node is what a run was at the end of a step: the budget's state and the tokens of that step, kept on the host, and on
the devices the pages of the cache that hold all up to there, and the logits that follow. A child's node holds its
parent's full pages too, by reference, and pages of its own behind them; what both have of a page that is not full is
stored twice. Children of any nodes grow side by side, each as long as its step takes: see growth.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.config import StepConfig
from s1_jax.decoding import records
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import row_key
from s1_jax.decoding.device.paged import NOWHERE
from s1_jax.decoding.device.steps import make_ends
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.growth import Growth, Node, budget_state, integers
from s1_jax.decoding.host import stops
from s1_jax.decoding.host.pages import Pool
from s1_jax.decoding.host.rows import Row
from s1_jax.decoding.host.slots import Block
from s1_jax.errors import UserError
from s1_jax.sharding import to_host

STEP_APART = 2**20  # between the samples that a request's nodes draw as: more than anyone asks for of one problem
PAGE = {"tpu": 128}  # slots of a page, 32 elsewhere: more waste the last page of each node, fewer are slow to gather


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
        self._runs = engine.runs(requests)
        page = PAGE.get(jax.default_backend(), 32)
        self._pool = Pool(
            self._functions, engine.batch_size * -(-engine.max_model_len // page), page, engine.batch_size
        )
        self._growth = Growth(engine, self._requests, self._runs, jax.tree.map(jnp.asarray, ends), self._pool)
        self._nodes: dict[int, Node] = dict(enumerate(self._read_prompts()))
        self._parents: list[int | None] = [None] * len(self._nodes)
        self._next_ordinal = [1] * len(requests)  # a root's is 0
        self.roots = list(self._nodes)

    @property
    def pages_held(self) -> int:
        """Pages of the cache that are held by nodes, or for those that grow, each counted once."""
        return self._pool.pages.held

    @property
    def hungry(self) -> bool:
        """Whether none waits to grow, and rows of the batch stand empty."""
        return self._growth.hungry

    def plant(self, parents: Sequence[int]) -> list[int]:
        """A new child of each of these nodes, which may come several times; in their order. They wait to grow.

        Raises ValueError on a node that has ended or was pruned.
        """
        for node in parents:
            if self.ended(node) or self._nodes[node].pages is None:
                raise ValueError(f"node {node} {'has ended' if self.ended(node) else 'was pruned'}: it cannot grow")
        first = len(self._parents)
        for child, node in enumerate(parents, first):
            self._parents.append(node)
            self._growth.plant(child, self._nodes[node], self._key(self.request(node)))
        return list(range(first, len(self._parents)))

    def grow(self) -> list[int]:
        """Decodes on, for one call of the device; the nodes whose step has ended, none where nothing grows.

        Raises RunError where what the nodes hold no longer fits the device, and where a model's logits are not finite.
        """
        grown = self._growth.advance()
        self._nodes |= grown
        return list(grown)

    def parent(self, node: int) -> int | None:
        """The node it grew from; none: it is a root."""
        return self._parents[node]

    def request(self, node: int) -> int:
        """The place of its request."""
        return self._nodes[node].request

    def name(self, node: int) -> str:
        """How errors call its request."""
        return self._requests[self.request(node)].name

    def ended(self, node: int) -> bool:
        """Whether its run has its answer, and nothing can follow."""
        return self._nodes[node].ended

    def token_ids(self, node: int) -> list[int]:
        """Prompt, start marker and all that was recorded up to the node's end."""
        request = self._requests[self.request(node)]
        return [*request.prompt_token_ids, *self._engine.start(request), *self._path(node).tokens.tolist()]

    def text(self, node: int) -> str:
        """From the start marker to the node's end, special tokens kept: as `text` in a record."""
        opening = self._engine.opening(self._requests[self.request(node)])
        ids = [*opening, *self._path(node).tokens.tolist()]
        return self._engine.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)

    def num_tokens(self, node: int) -> int:
        """Tokens recorded in the node's own step."""
        return len(self._nodes[node].row.tokens)

    def record(self, node: int) -> dict[str, Any]:
        """What `Engine.run` gives for a run; of a node that has ended, else ValueError."""
        if not self.ended(node):
            raise ValueError(f"node {node} has not ended")
        request, row = self._requests[self.request(node)], self._path(node)
        outcome = records.outcome(self._engine.tokenizer, self._engine.opening(request), **row._asdict())
        return self._engine.identity(request) | outcome

    def prune(self, nodes: Sequence[int]) -> None:
        """Lets these grow no more: what only they hold of the cache is free. Twice is as good as once."""
        for node in nodes:
            held = self._nodes[node]
            if held.pages is not None:
                self._pool.pages.let_go(held.pages)
                self._pool.ends.let_go([held.end])
            held.pages = None

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
            at = self._parents[at]
        tokens, kinds = (np.concatenate(parts) for parts in ([s.tokens for s in steps], [s.kinds for s in steps]))
        row = last.row._replace(tokens=tokens, kinds=kinds)
        return stops.trimmed(self._engine.tokenizer, row, self._requests[last.request].stop_strings)

    def _read_prompts(self) -> Iterator[Node]:
        """Roots; requests with the same prompt share its pages and what follows them."""
        if not self._requests:
            return
        runs, pool, first = self._runs, self._pool, 0
        states = integers(to_host(self._functions.first_states(runs.budget)))
        while first < len(runs.prompts):
            block = Block(self._functions, runs, first, self._engine.batch_size, self._engine.max_model_len)
            while not block.whole:
                block.read_on()
            held = [pool.pages.take(pool.pages_of(int(length))) for length in block.lengths]
            ends = pool.ends.take(len(block.lengths))
            pieces = [(row, place, page) for row, pages in enumerate(held) for place, page in enumerate(pages)]
            pool.put_pages(block.content.cache, pieces, len(pieces))
            pool.put_logits(block.content.logits, list(enumerate(ends)), len(ends))
            for i, source in enumerate(block.sources, first):
                yield self._root(i, states[i], held[source], ends[source])
            for pages in held:
                pool.pages.let_go(pages)
            pool.ends.let_go(ends)
            first += len(block.sources)

    def _root(self, place: int, state: np.ndarray, pages: list[int], end: int) -> Node:
        prompt, nothing = self._runs.prompts[place], np.zeros(0, np.int32)
        of_state = budget_state(state)
        row = Row(nothing, nothing, int(of_state.end), int(of_state.answer_end), 0)
        if of_state.done:
            return Node(place, row, state, True, 0, len(prompt), prompt[-1], None, NOWHERE)
        held, end = self._pool.pages.share(pages), self._pool.ends.share([end])[0]
        return Node(place, row, state, False, 0, len(prompt), prompt[-1], held, end)
