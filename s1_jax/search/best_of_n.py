"""Best of N: plain runs, of which one is chosen (self-consistency, arXiv 2203.11171; verifiers, arXiv 2110.14168)."""

from __future__ import annotations

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Search


def best_of_n(config: SearchConfig, root: int) -> Search:
    """`width` runs, in a tree without steps. Without a reward model all weigh the same: majority voting."""
    runs = yield [root] * config.width
    return [run.leaf(config) for run in runs if run.ended]
