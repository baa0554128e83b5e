"""A decoded row on the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from s1_jax.decoding.core.budget import IS_THOUGHT, End, Kind
from s1_jax.decoding.core.loop import ALL_FINITE, DecodeState
from s1_jax.decoding.core.sweep import BranchPoint
from s1_jax.errors import RunError
from s1_jax.sharding import to_host

NOT_FINITE = "weights that are NaN or infinite, or too narrow a dtype, give this"


class Row(NamedTuple):
    """What was decoded after the start marker, as `records.outcome` takes it."""

    tokens: Any  # int32 [n]
    kinds: Any  # int32 [n], budget.Kind
    end: int
    answer_end: int
    ignores_used: int

    @property
    def answer(self) -> Any:
        """Its answer's tokens, without the stop token; int32 [a]."""
        return self.tokens[self.kinds == int(Kind.ANSWER)]

    @property
    def num_thinking(self) -> int:
        """Thinking tokens."""
        return int(IS_THOUGHT[self.kinds].sum())

    @property
    def num_decoded(self) -> int:
        """Thinking and answer tokens."""
        return self.num_thinking + len(self.answer)

    def last(self, count: int) -> Row:
        """With the last `count` of its tokens alone."""
        return self._replace(tokens=self.tokens[-count:], kinds=self.kinds[-count:])

    @property
    def branch_point(self) -> BranchPoint:
        """Where its own thinking ends."""
        return BranchPoint(self.num_thinking, End(self.end))


def check_logits(lost_at: np.ndarray, runs: Iterable[int], names: Sequence[str]) -> None:
    """Raises RunError that names the first of the `runs` whose logits were not finite, and the step.

    `lost_at` [B] is that of a state, `runs` [B] says whose each row is: an index into `names`, or below 0 nobody's.
    """
    lost = [(int(run), int(at)) for run, at in zip(runs, lost_at, strict=True) if run >= 0 and at != ALL_FINITE]
    if lost:
        run, at = min(lost)
        raise RunError(f"{names[run]}: the model's logits are not finite at step {at + 1}; {NOT_FINITE}")


def rows_of(state: DecodeState) -> list[Row]:
    """What each row of a state holds."""
    tokens, kinds, lengths, status = to_host((state.tokens, state.kinds, state.num_tokens, state.controller_state))
    kinds = kinds.copy()
    for i in np.flatnonzero(status.own_marker):  # the model's own marker is known as such once it is whole
        first = status.num_thinking[i]
        kinds[i, first : first + status.own_marker[i]] = int(Kind.SUFFIX)
    ends = zip(lengths, status.end, status.answer_end, status.ignores_used, strict=True)
    return [Row(tokens[i, :n], kinds[i, :n], *map(int, end)) for i, (n, *end) in enumerate(ends)]
