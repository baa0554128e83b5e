"""Which answers to a problem count as one vote.

Answers fall into classes in the order in which they are seen. Each is compared with the first answer of every class so
far, in turn, and joins the first class whose answer the task's grader calls equal, that answer given as the right one.
An answer that equals none, or on which the grader cannot decide, begins a class of its own. The true right answer is
not used. Classes are numbered from 0; what is no answer (None) is in none.

    3  \\frac12  3.0  None  $3$  1/2   ->   0  1  0  None  0  1
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import cache

from s1_jax.tasks.equivalence import plain_number
from s1_jax.tasks.task import Rules

Classes = Callable[[Sequence[str | None]], list[int | None]]


def grader_classes(rules: Rules) -> Classes:
    """Classes by a task's grader, which is asked about each pair of texts once. Raises RunError as the grader does."""

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
    """Classes without a grader: plain numbers by their value ("7", "07", "7.0"), all else by its text."""
    known: dict[Hashable, int] = {}
    return [known.setdefault(plain_number(one) or _spaced(one), len(known)) if one else None for one in answers]


def _spaced(answer: str) -> str:
    return " ".join(answer.split())
