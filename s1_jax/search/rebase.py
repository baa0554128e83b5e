"""REBASE (reward-balanced search, arXiv 2408.00724), which the s1 paper compares with budget forcing (section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, exp

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Search, best_first, levels


def rebase(config: SearchConfig, root: int) -> Search:
    """Give each unfinished run children in proportion to the softmax of its last step's score, and keep all of them.

    The budget is `width` runs, and an ended run uses up one of them. Unlike in the reference implementation, a tree
    that ends without a leaf is not grown again from the root.
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
    """Divide `width` children among runs with these scores, best first; the counts sum to `width`.

    In order, each run gets ceil(width_left * weight / weight_left), with weights exp(score / temperature). The best
    runs thus get slightly more than their proportion, and the last may get none. Scores must be finite. The arithmetic
    after the exponential is exact: a rounded ratio could pass the next whole number.
    """
    highest = max(scores, default=0.0)
    weights = [Fraction(exp((score - highest) / temperature)) for score in scores]  # at most 1: no overflow
    left = sum(weights)
    counts = []
    for weight in weights:
        count = ceil(width * weight / left) if width else 0
        counts.append(count)
        width, left = width - count, left - weight
    return counts
