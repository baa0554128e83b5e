"""The names of searches in tables and figures."""

from __future__ import annotations

import dataclasses

from s1_jax.config import SearchConfig
from s1_jax.config.search import READ_BY

NAMES = {"beam": "beam search", "dvts": "DVTS", "rebase": "REBASE", "mcts": "MCTS"}
FORCED = "budget forcing"  # single runs
BEST_OF_N = {"best": "best of N", "weighted": "weighted majority", "majority": "majority voting"}  # by how it votes
KINDS = (
    FORCED,
    "majority voting",
    "best of N",
    "weighted majority",
    *NAMES.values(),
)  # in the order in which reports list them
WORDS = {  # for options that are not at their defaults
    "branch": "{} children",
    "max_steps": "up to {} steps",
    "reads": "of {}",
    "score_temperature": "score T {:g}",
    "exploration": "exploration {:g}",
    "widening": "widening {:g}",
    "widening_power": "power {:g}",
    "max_nodes": "up to {} nodes",
}


def search_label(search: SearchConfig, reward: str | None) -> str:
    """Describe a search in a few words: "weighted majority, process min, width 16"."""
    return f"{search_name(search, reward)}, width {search.width}"


def search_name(search: SearchConfig, reward: str | None) -> str:
    """Describe a search without its width: searches that differ only in width have this name in common."""
    parts = [search_kind(search)]
    if search.method == "best_of_n":
        if search.vote != "majority":
            parts += [f"process {search.path_score}" if reward == "process" else str(reward)]
    else:
        how = {"best": f"best {search.path_score}", "weighted": search.path_score, "majority": "majority"}[search.vote]
        parts += [how] if how != "last" else []
    usual = dataclasses.asdict(
        SearchConfig(search.method, branch=1)
    )  # the name says how many children there are, unless it is one
    for name in READ_BY[search.method]:
        value = getattr(search, name)
        if value != usual[name]:
            parts.append(WORDS[name].format(value))
    return ", ".join(parts)


def search_kind(search: SearchConfig) -> str:
    """Name the method alone; best of N is named by how it votes."""
    return BEST_OF_N[search.vote] if search.method == "best_of_n" else NAMES[search.method]
