"""Shared traces: which requests are beginnings of one run, where each of them leaves it, and what its own trace is.

A run with a maximum of N tokens is the first N thinking tokens of one with a larger maximum, and a run that ignores k
ends is the beginning of one that ignores more. So the longest of such runs, the trunk, is decoded once. Each of the
others branches off where its own thinking ends, and only its answer is left to decode.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from s1_jax.config import BudgetConfig
from s1_jax.decoding.core.budget import End
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.traces import BranchPoint, Trace, ignored_ends

ALL_BUT_BUDGET = attrgetter(
    *(field.name for field in dataclasses.fields(Request) if field.name not in ("budget", "name"))
)


class Trunk(NamedTuple):
    """The requests that share one run, by their indices."""

    longest: int  # the request that is decoded
    branches: tuple[int, ...]  # the requests that begin as it does


class Plan(NamedTuple):
    """Requests, and the runs that decode them: one for each trunk."""

    requests: Sequence[Request]
    trunks: Sequence[Trunk]

    @property
    def runs(self) -> list[Request]:
        """The requests that are decoded, one for each trunk."""
        return [self.requests[trunk.longest] for trunk in self.trunks]


class Cut(NamedTuple):
    """The point at which a request's own run leaves its trunk, and the ends that it has ignored by then."""

    point: BranchPoint
    ignores_used: int


class SharedTrace:
    """A trunk that has been decoded, with its branch points, their answers, and the traces of all its requests.

    Requests that leave the trunk at the same branch point have the same answer, which is decoded once.
    """

    def __init__(self, plan: Plan, run: int, trunk: Trace, is_newline: np.ndarray) -> None:
        """Find the cuts of trunk number `run` of a plan, whose trace is `trunk`.

        `is_newline` [V] tells which tokens' texts end in a newline.
        """
        longest, branches = plan.trunks[run]
        own = trunk.branch_point
        ends = ignored_ends(trunk.kinds[: own.position])
        newlines = is_newline[trunk.tokens[: own.position]]
        self._trunk, self._newlines = trunk, newlines
        self._cuts = {i: cut_of(plan.requests[i].budget, ends, newlines, own.end) for i in branches}
        self._cuts[longest] = Cut(own, trunk.ignores_used)
        self._answers = {own: trunk}
        self.missing = sorted({cut.point for cut in self._cuts.values()} - {own}, key=attrgetter("end", "position"))

    @property
    def complete(self) -> bool:
        """Whether every branch point has its answer."""
        return len(self._answers) == 1 + len(self.missing)

    @property
    def num_decoded(self) -> int:
        """The number of thinking and answer tokens that were decoded for the trunk and all its branches."""
        return sum(answer.num_decoded for answer in self._answers.values())

    @property
    def num_requests(self) -> int:
        """The number of requests that share the trunk, the decoded one included."""
        return len(self._cuts)

    @property
    def cuts(self) -> Iterator[tuple[int, Cut]]:
        """Each request's index and its cut, in the order of the requests."""
        return iter(sorted(self._cuts.items()))

    def after_newline(self, point: BranchPoint) -> bool:
        """Tell whether the text of the last thinking token before a branch point ends in a newline."""
        return point.position > 0 and bool(self._newlines[point.position - 1])

    def add_answer(self, point: BranchPoint, answer: Trace) -> None:
        """Keep what was decoded from a branch point on: suffix and answer."""
        self._answers[point] = answer

    def trace(self, point: BranchPoint) -> Trace:
        """Put together the trace of the runs that leave the trunk at this point."""
        trunk, answer = self._trunk, self._answers[point]
        if answer is trunk:
            return trunk
        thinking = slice(point.position)
        return Trace(
            np.concatenate([trunk.tokens[thinking], answer.tokens]),
            np.concatenate([trunk.kinds[thinking], answer.kinds]),
            int(point.end),
            answer.answer_end,
            answer.ignores_used,
        )


def plan_alone(requests: Sequence[Request]) -> Plan:
    """Plan a run of its own for each request."""
    return Plan(requests, [Trunk(i, ()) for i in range(len(requests))])


def plan_shared(requests: Sequence[Request]) -> Plan:
    """Plan the fewest runs that hold all requests, in the order of the requests that are decoded.

    Requests share a run only where all but the budget is equal, so that they sample the same tokens.
    """
    alike: dict[tuple, list[int]] = {}
    for index, request in enumerate(requests):
        alike.setdefault(ALL_BUT_BUDGET(request), []).append(index)
    trunks = []
    for indices in alike.values():
        branches: dict[int, list[int]] = {}
        # a run comes after all that it can begin
        for index in sorted(indices, key=lambda index: _reach(requests[index].budget), reverse=True):
            budget = requests[index].budget
            longest = next((other for other in branches if begins(budget, requests[other].budget)), None)
            if longest is None:
                branches[index] = []
            else:
                branches[longest].append(index)
        trunks += [Trunk(longest, tuple(sorted(others))) for longest, others in branches.items()]
    return Plan(requests, sorted(trunks))


def begins(short: BudgetConfig, long: BudgetConfig) -> bool:
    """Tell whether a run under `short` thinks as one under `long` does, up to its own end."""
    same_string = short.ignore_string == long.ignore_string or short.num_ignore == 0
    same_bias = short.end_bias == long.end_bias and (not short.end_bias or _maximum(short) == _maximum(long))
    same_rules = (short.banned_words, short.max_repetitions) == (long.banned_words, long.max_repetitions)
    same_notices = _notices(short) == _notices(long)
    same_grace = short.newline_grace == long.newline_grace or long.max_thinking_tokens is None
    return (
        short.forcing
        and long.forcing
        and same_string
        and same_grace
        and same_bias
        and same_rules
        and same_notices
        and short.min_thinking_tokens == long.min_thinking_tokens
        and _maximum(short) <= _maximum(long)
        and short.num_ignore <= long.num_ignore
    )


def cut_of(budget: BudgetConfig, ends: np.ndarray, is_newline: np.ndarray, end: End) -> Cut:
    """Find where a run under `budget` leaves a trunk that it begins.

    The trunk's thinking ended for the reason `end`. `ends` are the ends that it ignored (see `ignored_ends`), and
    `is_newline` [n] tells which of its thinking tokens' texts end in a newline.
    """
    length = len(is_newline)
    natural = math.inf
    if len(ends) > budget.num_ignore:
        natural = int(ends[budget.num_ignore])
    elif end == End.NATURAL:
        natural = length
    maximum = _cut_at(budget, is_newline)
    if natural < maximum:  # at the maximum itself no end is sampled any more
        return Cut(BranchPoint(int(natural), End.NATURAL), budget.num_ignore)
    if maximum <= length:
        return Cut(BranchPoint(int(maximum), End.FORCED), int((ends < maximum).sum()))
    return Cut(BranchPoint(length, end), len(ends))


def _cut_at(budget: BudgetConfig, is_newline: np.ndarray) -> float:
    """Count the tokens after which thinking is cut, if it does not end before."""
    most = _maximum(budget) + budget.grace_tokens
    if not budget.grace_tokens:
        return most
    ends_line = np.flatnonzero(is_newline[int(_maximum(budget)) - 1 : int(most)])
    return _maximum(budget) + ends_line[0] if len(ends_line) else most


def _maximum(budget: BudgetConfig) -> float:
    return math.inf if budget.max_thinking_tokens is None else budget.max_thinking_tokens


def _notices(budget: BudgetConfig) -> tuple[object, ...]:
    """Return what two budgets must have in common for the same notices at the same positions."""
    return (budget.notices, budget.notice_fractions, budget.max_thinking_tokens) if budget.notices else ()


def _reach(budget: BudgetConfig) -> tuple[float, int]:
    return _maximum(budget), budget.num_ignore
