"""Monte Carlo tree search over steps: UCT (Kocsis and Szepesvári 2006) with progressive widening (Couëtoux 2011)."""

from __future__ import annotations

import dataclasses
from math import ceil, log, sqrt

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Node, Search
from s1_jax.search.vote import Leaf


@dataclasses.dataclass
class MctsNode:
    """One node of the search tree, with statistics of the rollouts through it."""

    id: int
    score: float = 0.0  # of its own step; not used for the root
    children: list[MctsNode] = dataclasses.field(default_factory=list)
    visits: int = 0
    total: float = 0.0  # sum of the rollouts' values
    leaf: Node | None = None  # set if its run has ended

    @property
    def value(self) -> float:
        """Mean of the rollouts' values and the score of the node's own step, which counts as one rollout."""
        return (self.score + self.total) / (1 + self.visits)


def mcts(config: SearchConfig, root: int) -> Search:
    """Run `width` rollouts in turn; each descends by UCT to a node that may have a new child and grows it to its end.

    All steps of a rollout stay in the tree. The value of a rollout, which is that of its leaf's path, is added to
    every node on the path; a run that reached `max_steps` without an end has the value 0. A rollout may reach a known
    leaf. The search ends at `max_nodes` steps.
    """
    top, nodes = MctsNode(root), 0
    leaves: list[Leaf] = []
    for _ in range(config.width):
        path = descend(top, config)
        while path[-1].leaf is None and len(path) - 1 != config.max_steps:
            if nodes == config.max_nodes:
                return leaves
            (node,) = yield [path[-1].id]
            nodes += 1
            child = MctsNode(node.id, node.score, leaf=node if node.ended else None)
            path[-1].children.append(child)
            path.append(child)
            if node.ended:
                leaves.append(node.leaf(config))
        end = path[-1].leaf
        value = end.leaf(config).weight if end else 0.0
        for visited in path:
            visited.visits += 1
            visited.total += value
    return leaves


def descend(top: MctsNode, config: SearchConfig) -> list[MctsNode]:
    """Return the path from the root to the first node that may have another child, counting this visit, or has none."""
    path = [top]
    while len(children := path[-1].children) >= allowed(path[-1].visits + 1, config) and children:
        visits = path[-1].visits
        path.append(max(children, key=lambda child: uct(child, visits, config.exploration)))
    return path


def allowed(visits: int, config: SearchConfig) -> int:
    """Return how many children a node with this many visits may have; at least 1."""
    return ceil(config.widening * visits**config.widening_power)


def uct(child: MctsNode, visits: int, exploration: float) -> float:
    """Return a child's value plus its exploration bonus; `visits` are those of its parent."""
    return child.value + exploration * sqrt(log(visits) / child.visits)
