"""From runs with answers to one answer: the same for every method."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from math import prod
from statistics import fmean
from typing import NamedTuple

from s1_jax.tasks.classes import Classes, text_classes

PATH_SCORES: dict[str, Callable[[Sequence[float]], float]] = {
    "last": lambda scores: scores[-1],
    "min": min,
    "mean": fmean,
    "product": prod,
}
VOTES: dict[str, Callable[[Sequence[float]], float]] = {  # what an answer's leaves, by their weights, give it
    "best": max,
    "weighted": sum,
    "majority": len,
}


class Leaf(NamedTuple):
    """A run that has ended, and its weight."""

    id: int
    answer: str | None
    weight: float


class Outcome(NamedTuple):
    """What a search has found: its leaves in the order they were found, and the one that speaks for all."""

    leaves: list[Leaf]
    chosen: int | None  # its id; none where no run has ended


def path_score(scores: Sequence[float], how: str) -> float:
    """What the scores of a run's steps, one or more, come to."""
    return PATH_SCORES[how](scores)


def decide(leaves: Sequence[Leaf], vote: str, classes: Classes = text_classes) -> Outcome:
    """The answer that most speaks for, and of the leaves that have it the heaviest; of equals the first found.

    Answers of one class, as `classes` tells them in the order of the leaves, are the same answer. A leaf without an
    answer has no vote, and is chosen only where there are no others.
    """
    answers: dict[int, list[Leaf]] = defaultdict(list)
    for leaf, number in zip(leaves, classes([leaf.answer for leaf in leaves]), strict=True):
        if number is not None:
            answers[number].append(leaf)

    def won(members: Sequence[Leaf]) -> float:
        return VOTES[vote]([leaf.weight for leaf in members])

    candidates = max(answers.values(), key=won, default=leaves)
    heaviest = max(candidates, key=lambda leaf: leaf.weight, default=None)
    return Outcome(list(leaves), heaviest.id if heaviest else None)
