"""Votes that choose one answer from the runs of a search, the same for every method."""

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
VOTES: dict[str, Callable[[Sequence[float]], float]] = {  # an answer's votes from the weights of its leaves
    "best": max,
    "weighted": sum,
    "majority": len,
}


class Leaf(NamedTuple):
    """One ended run with its answer and weight in the vote."""

    id: int
    answer: str | None
    weight: float


class Outcome(NamedTuple):
    """Result of one finished search: its leaves in the order in which they were found, and the chosen one."""

    leaves: list[Leaf]
    chosen: int | None  # id of the chosen leaf; None if no run has ended


def path_score(scores: Sequence[float], how: str) -> float:
    """Combine the scores of a run's steps (at least one) into one score."""
    return PATH_SCORES[how](scores)


def decide(leaves: Sequence[Leaf], vote: str, classes: Classes = text_classes) -> Outcome:
    """Choose the leaf with the highest weight among those of the answer with the most votes; ties go to the first.

    Answers that `classes` puts into one class are the same answer. A leaf without an answer has no vote, and is chosen
    only if no leaf has an answer.
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
