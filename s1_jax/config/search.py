"""Options of the search methods: best-of-N, beam search, DVTS, REBASE and MCTS."""

from __future__ import annotations

import dataclasses
from typing import Literal

from s1_jax.config.options import Count, NotNegative, Options, Place, Positive, Share
from s1_jax.config.types import Rows, Softness
from s1_jax.errors import UserError

MethodName = Literal["best_of_n", "beam", "dvts", "rebase", "mcts"]


@dataclasses.dataclass(frozen=True)
class SearchConfig(Options, section="search"):
    """One method that spends several runs on a problem (s1_jax/search); each reads some of these, see `READ_BY`."""

    method: MethodName = "best_of_n"
    # runs (best_of_n), candidates in each step (beam), runs of all subtrees (dvts), budget (rebase), rollouts (mcts)
    width: Rows = 16
    branch: Rows = 4  # beam: candidates for each one that grows on; dvts: runs of each subtree
    # what the scores of a run's steps come to when it is weighed against others
    path_score: Literal["last", "min", "mean", "product"] = "last"
    # whose answer is taken: the best run's; the one with most weight; the most common
    vote: Literal["best", "weighted", "majority"] = "weighted"
    reads: Literal["all", "answer"] = "all"  # what of a run an outcome model reads
    max_steps: Count | None = None  # a run with more steps is given up; none: its budget is what ends it
    score_temperature: Softness = 0.2  # REBASE: of the softmax over scores
    exploration: NotNegative = 1.0  # MCTS: weight of what was seldom visited, beside values between 0 and 1
    widening: Positive = 1.0  # MCTS: a node may have ceil(widening * visits ** widening_power) children
    widening_power: Share = 0.5
    max_nodes: Count = 4096  # MCTS: steps in all; where they are used up, the search ends
    problems_at_a_time: Rows = 16  # that share a batch

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "dvts" and self.width % self.branch:
            raise UserError(
                f"search.width {self.width} is not a multiple of search.branch {self.branch}, as dvts needs"
            )

    @property
    def by_steps(self) -> bool:
        """Whether runs grow by steps; else they are plain runs."""
        return self.method != "best_of_n"


READ_BY_ALL = ("width", "vote", "path_score")
READ_BY: dict[str, tuple[str, ...]] = {
    "best_of_n": ("reads",),
    "beam": ("branch", "max_steps"),
    "dvts": ("branch", "max_steps"),
    "rebase": ("score_temperature", "max_steps"),
    "mcts": ("exploration", "widening", "widening_power", "max_nodes", "max_steps"),
}


@dataclasses.dataclass(frozen=True)
class RewardsConfig(Options, section="rewards"):
    """The reward models of searches."""

    process: Place | None = None  # folder or hub id of one that scores steps
    outcome: Place | None = None  # of one that scores whole runs
    max_length: Count | None = None  # tokens of a text that is scored; none: the model's context
    batch_size: Rows = 16  # texts read at a time
    slots: Rows = 64  # texts kept, of which others may go on

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size > self.slots:
            raise UserError(f"rewards.batch_size {self.batch_size} is above rewards.slots {self.slots}")
