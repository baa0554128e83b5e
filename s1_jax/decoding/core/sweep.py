"""One run read at several points: which requests are beginnings of one run, and where each of them leaves it.

A run with a maximum of N tokens is the first N thinking tokens of one with a larger maximum, and a run that ignores k
ends is the beginning of one that ignores more. So the longest of them, the trunk, is decoded once. Each of the others
branches off where its own thinking ends; only its answer is left to decode.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from s1_jax.config import BudgetConfig
from s1_jax.decoding.core.budget import End, Kind
from s1_jax.decoding.core.requests import Request


class Trunk(NamedTuple):
    """Requests that share one run, by their places: the one that is decoded, and those that begin as it does."""

    longest: int
    branches: tuple[int, ...]


class BranchPoint(NamedTuple):
    """Where and how thinking ends; requests of one trunk with the same branch point have the same answer."""

    position: int  # thinking tokens before it
    end: End


def begins(short: BudgetConfig, long: BudgetConfig) -> bool:
    """Whether a run under `short` thinks as one under `long` does, up to its own end."""
    same_string = short.ignore_string == long.ignore_string or short.num_ignore == 0
    same_bias = short.end_bias == long.end_bias and (not short.end_bias or _maximum(short) == _maximum(long))
    same_grace = short.newline_grace == long.newline_grace or long.max_thinking_tokens is None
    return (
        short.forcing
        and long.forcing
        and same_string
        and same_grace
        and same_bias
        and short.min_thinking_tokens == long.min_thinking_tokens
        and _maximum(short) <= _maximum(long)
        and short.num_ignore <= long.num_ignore
    )


def plan_trunks(requests: Sequence[Request]) -> list[Trunk]:
    """The fewest runs that hold all requests, in the order of the requests that are decoded.

    Only requests whose draws are the same share one: all but the budget is equal.
    """
    alike: dict[Request, list[int]] = {}
    for place, request in enumerate(requests):
        alike.setdefault(dataclasses.replace(request, budget=BudgetConfig(), name=""), []).append(place)
    trunks = []
    for places in alike.values():
        branches: dict[int, list[int]] = {}
        # a run comes after all that it can begin
        for place in sorted(places, key=lambda place: _reach(requests[place].budget), reverse=True):
            budget = requests[place].budget
            longest = next((other for other in branches if begins(budget, requests[other].budget)), None)
            if longest is None:
                branches[place] = []
            else:
                branches[longest].append(place)
        trunks += [Trunk(longest, tuple(sorted(others))) for longest, others in branches.items()]
    return sorted(trunks)


def ignored_ends(kinds: np.ndarray) -> np.ndarray:
    """How many thinking tokens stand before each end that was ignored; `kinds` [n] are those of thinking tokens."""
    in_string = np.concatenate([[False], kinds == int(Kind.IGNORE)])
    begins_string = in_string[1:] & ~in_string[:-1]
    return np.flatnonzero(begins_string | (kinds == int(Kind.RESAMPLED)))


def branch_point(budget: BudgetConfig, ends: np.ndarray, is_newline: np.ndarray, end: End) -> tuple[BranchPoint, int]:
    """Where a run under `budget` leaves a trunk it begins, and the ends it has ignored by then.

    The trunk's thinking ended as `end` says; `ends` are those it ignored, `is_newline` [n] says which of its tokens'
    texts end in a newline.
    """
    length = len(is_newline)
    natural = math.inf
    if len(ends) > budget.num_ignore:
        natural = int(ends[budget.num_ignore])
    elif end == End.NATURAL:
        natural = length
    cut = _cut(budget, is_newline)
    if natural < cut:  # at the cut itself no end is drawn any more
        return BranchPoint(int(natural), End.NATURAL), budget.num_ignore
    if cut <= length:
        return BranchPoint(int(cut), End.FORCED), int((ends < cut).sum())
    return BranchPoint(length, end), len(ends)


def _cut(budget: BudgetConfig, is_newline: np.ndarray) -> float:
    """After how many of these tokens thinking is cut, if it does not end before."""
    most = _maximum(budget) + budget.grace_tokens
    if not budget.grace_tokens:
        return most
    ends_line = np.flatnonzero(is_newline[int(_maximum(budget)) - 1 : int(most)])
    return _maximum(budget) + ends_line[0] if len(ends_line) else most


def _maximum(budget: BudgetConfig) -> float:
    return math.inf if budget.max_thinking_tokens is None else budget.max_thinking_tokens


def _reach(budget: BudgetConfig) -> tuple[float, int]:
    return _maximum(budget), budget.num_ignore
