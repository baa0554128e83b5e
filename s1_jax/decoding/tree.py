"""Trees of runs that grow by steps and share what they have in common: the engine of a search.

A node is a run at the end of one of its steps. The host keeps the state of the budget controller and the tokens of that
step. The devices keep the pages of the cache up to there, and the logits that follow. A child's node holds its parent's
full pages by reference, and pages of its own after them. A page that is not full is copied. Children of any nodes grow
side by side, each for as long as its step takes: see growth.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from s1_jax.config import StepConfig
from s1_jax.decoding import records
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import row_key
from s1_jax.decoding.core.traces import Trace
from s1_jax.decoding.device.paged import NOWHERE
from s1_jax.decoding.device.steps import make_ends
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.growth import Growth, Node, budget_state, integers
from s1_jax.decoding.host import stops
from s1_jax.decoding.host.blocks import Block, Reading, Waiting
from s1_jax.decoding.host.pages import Pool
from s1_jax.errors import UserError
from s1_jax.records import Record
from s1_jax.runtime.compilation import power_of_two
from s1_jax.sharding import to_host

STEP_APART = 2**20  # distance of the sample numbers of a request's nodes, more than the samples of any problem
PAGE_SIZE = {"tpu": 128}  # tokens, elsewhere 32; more waste the last page of each node, fewer are slow to gather


class Tree:
    """The runs that grow from requests, each of which has a root: prompt and start marker.

    A node's tokens follow from its request and from the order in which the nodes on its path were planted, not from
    what was decoded beside it. Raises UserError naming a request that cannot be decoded, and where the engine's mesh
    spans several processes.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request], steps: StepConfig) -> None:
        for request in requests:
            engine.check(request)
        if engine.programs.spans_processes:
            raise UserError("a search runs in one process: choose a mesh of this host's devices")
        self._engine, self._programs, self._requests = engine, engine.programs, list(requests)
        ends = make_ends(engine.tokenizer, engine.config.vocab_size, steps)
        self._runs = engine.runs(requests)
        page_size = PAGE_SIZE.get(jax.default_backend(), 32)
        pages = engine.batch_size * -(-engine.max_model_len // page_size)
        self._pool = Pool(self._programs, pages, page_size, engine.batch_size)
        self._growth = Growth(engine, self._requests, self._runs, self._programs.everywhere(ends), self._pool)
        self._nodes: dict[int, Node] = dict(enumerate(self._read_prompts()))
        self._parents: list[int | None] = [None] * len(self._nodes)
        self._next_ordinal = [1] * len(requests)  # a root's is 0
        self.roots = list(self._nodes)

    @property
    def pages_held(self) -> int:
        """The number of pages that nodes hold, or children that grow, each counted once."""
        return self._pool.pages.held

    @property
    def hungry(self) -> bool:
        """Whether no child waits to grow, while rows of the batch stand empty."""
        return self._growth.hungry

    def plant(self, parents: Sequence[int]) -> list[int]:
        """Make a new child of each of these nodes, in their order; a node may come several times.

        The children wait to grow. Raises ValueError on a node that has ended or was pruned.
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
        """Decode for one call of the device, and give the nodes whose step has ended; none where nothing grows.

        Raises RunError where the pages of the nodes no longer fit the device, and where logits are not finite.
        """
        grown = self._growth.advance()
        self._nodes |= grown
        return list(grown)

    def parent(self, node: int) -> int | None:
        """Give the node that this one grew from; None: it is a root."""
        return self._parents[node]

    def request(self, node: int) -> int:
        """Give the index of the node's request."""
        return self._nodes[node].request

    def name(self, node: int) -> str:
        """Give the name by which errors call the node's request."""
        return self._requests[self.request(node)].name

    def ended(self, node: int) -> bool:
        """Tell whether the node's run has its answer, and nothing can follow."""
        return self._nodes[node].ended

    def token_ids(self, node: int) -> list[int]:
        """Give the tokens up to the node's end: prompt, start marker and all that was recorded."""
        request = self._requests[self.request(node)]
        return [*request.prompt_token_ids, *self._engine.start(request), *self._path(node).tokens.tolist()]

    def text(self, node: int) -> str:
        """Give the text from the start marker to the node's end, special tokens kept, as `text` in a record."""
        opening = self._engine.opening(self._requests[self.request(node)])
        ids = [*opening, *self._path(node).tokens.tolist()]
        return self._engine.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)

    def num_tokens(self, node: int) -> int:
        """Count the tokens recorded in the node's own step."""
        return len(self._nodes[node].trace.tokens)

    def record(self, node: int) -> Record:
        """Make the record of a node that has ended, as `Engine.run` does. Raises ValueError where it has not."""
        if not self.ended(node):
            raise ValueError(f"node {node} has not ended")
        request, trace = self._requests[self.request(node)], self._path(node)
        outcome = records.outcome(self._engine.tokenizer, self._engine.opening(request), **trace._asdict())
        return self._engine.identity(request) | outcome

    def prune(self, nodes: Sequence[int]) -> None:
        """Let these nodes grow no more, and free the pages that only they hold. A node may be pruned twice."""
        for node in nodes:
            held = self._nodes[node]
            if held.pages is not None:
                self._pool.pages.release(held.pages)
                self._pool.ends.release([held.end])
            held.pages = None

    def _key(self, index: int) -> np.ndarray:
        """Make the random key of the next node of request `index`."""
        request, ordinal = self._requests[index], self._next_ordinal[index]
        self._next_ordinal[index] += 1
        sample = request.sample + ordinal * STEP_APART
        return row_key(request.seed, request.problem_id, request.prompt_token_ids, sample)

    def _path(self, node: int) -> Trace:
        """Put together the trace up to the node's end, or up to a stop string in its answer."""
        last = self._nodes[node]
        steps: list[Trace] = []
        at: int | None = node
        while at is not None:
            steps.insert(0, self._nodes[at].trace)
            at = self._parents[at]
        tokens, kinds = (np.concatenate(parts) for parts in ([s.tokens for s in steps], [s.kinds for s in steps]))
        trace = last.trace._replace(tokens=tokens, kinds=kinds)
        return stops.trimmed(self._engine.tokenizer, trace, self._requests[last.request].stop_strings)

    def _read_prompts(self) -> Iterator[Node]:
        """Make the roots; requests with the same prompt share its pages and the logits that follow."""
        if not self._requests:
            return
        runs, pool, first = self._runs, self._pool, 0
        states = integers(to_host(self._programs.first_states(runs.budget)))
        waiting, reading = (
            [Waiting(i, runs, i) for i in range(len(runs.prompts))],
            Reading(power_of_two(self._engine.batch_size)),
        )
        while first < len(waiting):
            block = Block(self._programs, waiting[first:], reading, self._engine.max_model_len)
            while not block.whole:
                block.read_chunk()
            held = [pool.pages.allocate(pool.pages_of(int(length))) for length in block.lengths]
            ends = pool.ends.allocate(len(block.lengths))
            pieces = [(row, index, page) for row, pages in enumerate(held) for index, page in enumerate(pages)]
            pool.put_pages(block.content.cache, pieces, len(pieces))
            pool.put_logits(block.content.logits, list(enumerate(ends)), len(ends))
            for i, source in enumerate(block.sources, first):
                yield self._root(i, states[i], held[source], ends[source])
            for pages in held:
                pool.pages.release(pages)
            pool.ends.release(ends)
            first += len(block.sources)

    def _root(self, request: int, state: np.ndarray, pages: list[int], end: int) -> Node:
        prompt, nothing = self._runs.prompts[request], np.zeros(0, np.int32)
        row = budget_state(state[None])
        trace = Trace(nothing, nothing, int(row.end[0]), int(row.answer_end[0]), 0)
        if row.done[0]:
            return Node(request, trace, state, True, 0, len(prompt), prompt[-1], None, NOWHERE)
        held, end = self._pool.pages.share(pages), self._pool.ends.share([end])[0]
        return Node(request, trace, state, False, 0, len(prompt), prompt[-1], held, end)
