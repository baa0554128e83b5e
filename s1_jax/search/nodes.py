"""What a method sees of a tree of runs, and what it may ask for: the seam between methods and decoding.

A method is a generator over one problem and never touches a model. It yields the nodes it wants a child of, one that
stands there n times gets n of them; it is sent those children, in that order; it returns the leaves that it has found.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import NamedTuple, Protocol

from s1_jax.config import SearchConfig
from s1_jax.records import Record
from s1_jax.search.vote import Leaf, path_score


class Node(NamedTuple):
    """A run as far as it has grown."""

    id: int
    ended: bool  # its answer is there, nothing can follow
    scores: tuple[float, ...] = ()  # between 0 and 1, of the steps of its path; of an outcome model one, once ended
    answer: str | None = None  # extracted, of an ended run that has one

    @property
    def score(self) -> float:
        """Of its last step."""
        return self.scores[-1]

    def leaf(self, config: SearchConfig) -> Leaf:
        """What an ended run brings to the vote; where nothing scores runs, all weigh the same."""
        return Leaf(self.id, self.answer, path_score(self.scores, config.path_score) if self.scores else 1.0)


Search = Generator[list[int], list[Node], list[Leaf]]


class Method(NamedTuple):
    """A method, and what it needs."""

    search: Callable[[SearchConfig, int], Search]  # over the tree of this root
    turns_back: bool = False  # to nodes that it did not ask for last time; else they are let go


class Tree(Protocol):
    """What is needed of decoding's tree of runs."""

    roots: list[int]

    def plant(self, parents: Sequence[int]) -> list[int]:
        """A new child of each, that waits to grow."""

    def grow(self) -> list[int]:
        """Decodes on for a while; the nodes that are whole now."""

    @property
    def hungry(self) -> bool:
        """Whether none waits to grow, and there is room for some."""

    def parent(self, node: int) -> int | None:
        """None of a root."""

    def name(self, node: int) -> str:
        """How errors call its request."""

    def ended(self, node: int) -> bool:
        """Whether its run has its answer."""

    def text(self, node: int) -> str:
        """All that was recorded of its run, start marker and special tokens kept."""

    def num_tokens(self, node: int) -> int:
        """Recorded in this step alone."""

    def record(self, node: int) -> Record:
        """Of an ended one."""

    def prune(self, nodes: Sequence[int]) -> None:
        """These grow no more."""


def levels(config: SearchConfig) -> Iterator[int]:
    """Counts steps as far as a run may go."""
    return iter(range(config.max_steps)) if config.max_steps else itertools.count()


def best_first(nodes: Sequence[Node]) -> list[Node]:
    """By the score of the last step; of equals the earlier."""
    return sorted(nodes, key=lambda node: -node.score)
