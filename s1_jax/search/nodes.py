"""Interface between search methods and decoding: what a method sees of a tree of runs and what it may ask for.

A search method is a generator over one problem and never touches a model. It yields the nodes to which it wants a new
child (a node listed n times gets n), is sent those children in the same order, and returns the leaves that it found.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple, Protocol

from s1_jax.config import SearchConfig
from s1_jax.records import Record
from s1_jax.search.vote import Leaf, path_score


class Node(NamedTuple):
    """One node of a tree of runs: a run up to the end of a step."""

    id: int
    ended: bool  # the run is complete, with its answer
    scores: tuple[float, ...] = ()  # between 0 and 1, one per step of its path; an outcome model scores ended runs once
    answer: str | None = None  # extracted from an ended run

    @property
    def score(self) -> float:
        """Score of the last step of its path."""
        return self.scores[-1]

    def leaf(self, config: SearchConfig) -> Leaf:
        """Return the leaf of an ended run for the vote; without scores all leaves weigh the same."""
        return Leaf(self.id, self.answer, path_score(self.scores, config.path_score) if self.scores else 1.0)


Search = Generator[list[int], list[Node], list[Leaf]]


class Method(NamedTuple):
    """One search method, and whether it returns to older nodes."""

    search: Callable[[SearchConfig, int], Search]  # over the tree with this root
    turns_back: bool = False  # if False, nodes without a new child are freed


class Tree(Protocol):
    """Methods of decoding's tree of runs that searches need."""

    roots: list[int]

    def plant(self, parents: Sequence[int]) -> list[int]:
        """Add one child to each of these nodes and queue it for decoding; return their ids."""

    def grow(self) -> list[int]:
        """Continue to decode for a while and return the nodes that are now complete."""

    @property
    def hungry(self) -> bool:
        """Whether no node is queued and the batch has free rows."""

    def parent(self, node: int) -> int | None:
        """Return the parent of a node, or None for a root."""

    def name(self, node: int) -> str:
        """Return the name of the node's request for error messages."""

    def ended(self, node: int) -> bool:
        """Return whether the node's run is complete, with its answer."""

    def text(self, node: int) -> str:
        """Return the text of its run so far, with start marker and special tokens."""

    def num_tokens(self, node: int) -> int:
        """Return the number of tokens in this node's own step."""

    def record(self, node: int) -> Record:
        """Return the record of an ended run."""

    def prune(self, nodes: Sequence[int]) -> None:
        """Stop these nodes from growing and free them."""


def levels(config: SearchConfig) -> Iterator[int]:
    """Return an iterator over step numbers, up to `max_steps`."""
    return iter(range(config.max_steps)) if config.max_steps else itertools.count()


def best_first(nodes: Sequence[Node]) -> list[Node]:
    """Sort nodes by the score of their last step, highest first; the sort is stable."""
    return sorted(nodes, key=lambda node: -node.score)
