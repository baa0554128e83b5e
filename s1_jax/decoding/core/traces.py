"""The trace of one run: what was decoded after the start marker, on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from s1_jax.decoding.core.budget import IS_THOUGHT, End, Kind


class BranchPoint(NamedTuple):
    """The point at which thinking ends, and the reason why it does."""

    position: int  # thinking tokens before it
    end: End


class Trace(NamedTuple):
    """The tokens of one run after the start marker, and how its thinking and its answer ended."""

    tokens: Any  # int32 [n]
    kinds: Any  # int32 [n], Kind
    end: int  # End
    answer_end: int  # AnswerEnd
    ignores_used: int

    @property
    def answer(self) -> Any:
        """The tokens of the answer without the stop token, int32 [a]."""
        return self.tokens[self.kinds == int(Kind.ANSWER)]

    @property
    def num_thinking(self) -> int:
        """The number of thinking tokens."""
        return int(IS_THOUGHT[self.kinds].sum())

    @property
    def num_decoded(self) -> int:
        """The number of thinking and answer tokens together."""
        return self.num_thinking + len(self.answer)

    @property
    def branch_point(self) -> BranchPoint:
        """The point at which the run's own thinking ends."""
        return BranchPoint(self.num_thinking, End(self.end))

    def last(self, count: int) -> Trace:
        """Keep the last `count` tokens alone."""
        return self._replace(tokens=self.tokens[-count:], kinds=self.kinds[-count:])


def ignored_ends(kinds: np.ndarray) -> np.ndarray:
    """Count the thinking tokens before each end that was ignored; `kinds` [n] are those of the thinking tokens."""
    in_string = np.concatenate([[False], kinds == int(Kind.IGNORE)])
    begins_string = in_string[1:] & ~in_string[:-1]
    return np.flatnonzero(begins_string | (kinds == int(Kind.RESAMPLED)))
