"""Monte Carlo tree search over steps: UCT (Kocsis and Szepesvári 2006) with progressive widening (Couëtoux 2011)."""

from __future__ import annotations

import dataclasses
from math import ceil, log, sqrt

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Node, Search
from s1_jax.search.vote import Leaf


@dataclasses.dataclass
class Place:
    """A node of the tree, and what the rollouts through it have brought."""

    id: int
    score: float = 0.0  # of its own step; of the root nobody asks
    children: list[Place] = dataclasses.field(default_factory=list)
    visits: int = 0
    total: float = 0.0  # of the rollouts' values
    leaf: Node | None = None  # where its run has ended

    @property
    def value(self) -> float:
        """Mean of its own step's score, which counts as one rollout, and of the rollouts' values."""
        return (self.score + self.total) / (1 + self.visits)


def mcts(config: SearchConfig, root: int) -> Search:
    """`width` rollouts, one after another: down the tree by UCT to where a new child is allowed, from there to an end.

    All steps of a rollout stay in the tree. Its value, that of its leaf's path, goes to every node on its way; a run
    that was given up is worth 0. A rollout may come to a leaf that is known. At `max_nodes` steps all ends.
    """
    top, nodes = Place(root), 0
    leaves: list[Leaf] = []
    for _ in range(config.width):
        path = descend(top, config)
        while path[-1].leaf is None and len(path) - 1 != config.max_steps:
            if nodes == config.max_nodes:
                return leaves
            (node,) = yield [path[-1].id]
            nodes += 1
            place = Place(node.id, node.score, leaf=node if node.ended else None)
            path[-1].children.append(place)
            path.append(place)
            if node.ended:
                leaves.append(node.leaf(config))
        end = path[-1].leaf
        value = end.leaf(config).weight if end else 0.0
        for place in path:
            place.visits += 1
            place.total += value
    return leaves


def descend(top: Place, config: SearchConfig) -> list[Place]:
    """The places from the root to the first that may have another child, or none, this visit counted."""
    path = [top]
    while len(children := path[-1].children) >= allowed(path[-1].visits + 1, config) and children:
        place = path[-1]
        path.append(max(children, key=lambda child: uct(child, place.visits, config.exploration)))
    return path


def allowed(visits: int, config: SearchConfig) -> int:
    """How many children a node may have: 1 or more."""
    return ceil(config.widening * visits**config.widening_power)


def uct(child: Place, visits: int, exploration: float) -> float:
    """A child's value, and what speaks for looking there again, under a parent of so many visits."""
    return child.value + exploration * sqrt(log(visits) / child.visits)
