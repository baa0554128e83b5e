"""REBASE: reward-balanced search (arXiv 2408.00724); the paper's tree search beside budget forcing (section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, exp

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Search, best_first, levels


def rebase(config: SearchConfig, root: int) -> Search:
    """Every run that goes on gets children in proportion to the softmax of its last step's score; all are kept.

    The budget is `width` runs; one that has ended is a leaf and uses up its place. Unlike the reference, a tree that
    ends without a leaf is not grown again from the root.
    """
    parents, leaves = [root] * config.width, []
    for _ in levels(config):
        if not parents:
            break
        found = best_first((yield parents))
        leaves += [node for node in found if node.ended]
        going = [node for node in found if not node.ended]
        counts = balance([node.score for node in going], len(going), config.score_temperature)
        parents = [node.id for node, count in zip(going, counts, strict=True) for _ in range(count)]
    return [node.leaf(config) for node in leaves]


def balance(scores: Sequence[float], width: int, temperature: float) -> list[int]:
    """How many of `width` children each of some scores, best first, gets: in all exactly `width`.

    Down the list each takes ceil(width_left * weight / weight_left), with weights exp(score / temperature): the best
    get a little more than their share, and the last may get nothing. Scores are finite, and equal ones are served in
    their order. The weights are floats and all else is exact: a rounded ratio could pass the next whole number.
    """
    highest = max(scores, default=0.0)
    weights = [Fraction(exp((score - highest) / temperature)) for score in scores]  # the highest has 1: none overflows
    left = sum(weights)
    counts = []
    for weight in weights:
        count = ceil(width * weight / left) if width else 0
        counts.append(count)
        width, left = width - count, left - weight
    return counts
