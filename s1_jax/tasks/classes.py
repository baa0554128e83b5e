"""Classes of equal answers, which count as one vote.

Answers are taken in order. Each is compared with the first answer of every class so far, which the task's grader gets
as the gold answer, and joins the first class with which it agrees. An answer that equals none, or that the grader
cannot decide on, starts a new class. The problem's gold answer is not used. Classes are numbered from 0; a missing
answer (None) has no class.

    3  \\frac12  3.0  None  $3$  1/2   ->   0  1  0  None  0  1
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache

from s1_jax.tasks.equivalence import plain_number
from s1_jax.tasks.task import Rules

Classes = Callable[[Sequence[str | None]], list[int | None]]


def grader_classes(rules: Rules) -> Classes:
    """Return a function that classifies answers with a task's grader, asking it about each pair of texts once.

    The function raises RunError where the grader does.
    """

    @cache
    def same(first: str, answer: str) -> bool:
        return rules.grade(answer, first).correct

    def classes(answers: Sequence[str | None]) -> list[int | None]:
        firsts: list[str] = []
        known: dict[str, int] = {}
        for answer in filter(None, answers):
            if (text := _spaced(answer)) not in known:
                known[text] = next((i for i, first in enumerate(firsts) if same(first, answer)), len(firsts))
                firsts += [answer] if known[text] == len(firsts) else []
        return [known[_spaced(answer)] if answer else None for answer in answers]

    return classes


def text_classes(answers: Sequence[str | None]) -> list[int | None]:
    """Classify answers without a grader: plain numbers by value ("7", "07", "7.0"), other answers by their text."""
    known: dict[Hashable, int] = {}
    return [known.setdefault(plain_number(one) or _spaced(one), len(known)) if one else None for one in answers]


def _spaced(answer: str) -> str:
    return " ".join(answer.split())
