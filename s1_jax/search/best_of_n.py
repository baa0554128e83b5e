"""Best of N chooses one of several plain runs (self-consistency, arXiv 2203.11171; verifiers, arXiv 2110.14168)."""

from __future__ import annotations

from s1_jax.config import SearchConfig
from s1_jax.search.nodes import Search


def best_of_n(config: SearchConfig, root: int) -> Search:
    """Sample `width` whole runs and vote; without a reward model all weights are equal (majority voting)."""
    runs = yield [root] * config.width
    return [run.leaf(config) for run in runs if run.ended]
