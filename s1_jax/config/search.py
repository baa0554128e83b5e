"""Options of the search methods: best-of-N, beam search, DVTS, REBASE and MCTS."""

from __future__ import annotations

import dataclasses
from typing import Literal

from s1_jax.config.options import Count, NotNegative, Options, Place, Positive, UnitInterval
from s1_jax.config.types import Rows, Softness
from s1_jax.errors import UserError

MethodName = Literal["best_of_n", "beam", "dvts", "rebase", "mcts"]


@dataclasses.dataclass(frozen=True)
class SearchConfig(Options, section="search"):
    """One method that spends several runs on a problem; each method reads some of these options."""

    method: MethodName = "best_of_n"
    """Method of the search: best_of_n, beam, dvts, rebase or mcts."""
    width: Rows = 16
    """Size of the search: runs (best_of_n), candidates per step (beam), runs of all subtrees (dvts), runs (rebase) or
    rollouts (mcts)."""
    branch: Rows = 4
    """Candidates for each beam that goes on (beam), or runs of each subtree (dvts), which must divide the width."""
    path_score: Literal["last", "min", "mean", "product"] = "last"
    """How the scores of a run's steps become one score: the last, the lowest, their mean or their product."""
    vote: Literal["best", "weighted", "majority"] = "weighted"
    """How the answer is chosen: that of the best run, the one with the largest sum of scores, or the most common
    one."""
    reads: Literal["all", "answer"] = "all"
    """What an outcome reward model reads of a run: all of it, or its answer."""
    max_steps: Count | None = None
    """Maximum number of steps of a run, after which it is given up; with None only its budget ends it."""
    score_temperature: Softness = 0.2
    """Temperature of the softmax over scores (rebase); lower values give the best steps more of the runs."""
    exploration: NotNegative = 1.0
    """Weight of steps that were rarely visited, compared with values between 0 and 1 (mcts)."""
    widening: Positive = 1.0
    """Factor c in the maximum number of children of a node, ceil(c * visits ** widening_power) (mcts)."""
    widening_power: UnitInterval = 0.5
    """Exponent in the maximum number of children of a node (mcts); 0 keeps it constant."""
    max_nodes: Count = 4096
    """Maximum number of steps of one tree, after which its search ends (mcts)."""
    problems_at_a_time: Rows = 16
    """Number of problems whose searches share a batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method == "dvts" and self.width % self.branch:
            raise UserError(
                f"search.width {self.width} is not a multiple of search.branch {self.branch}, as dvts needs"
            )

    @property
    def by_steps(self) -> bool:
        """Return whether runs grow step by step; otherwise they are plain runs."""
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

    process: Place | None = None
    """Folder or hub id of a reward model that scores steps; beam, dvts, rebase and mcts need one."""
    outcome: Place | None = None
    """Folder or hub id of a reward model that scores whole runs; best_of_n may use one."""
    max_length: Count | None = None
    """Maximum number of tokens of a text that is scored; None is the reward model's context."""
    batch_size: Rows = 16
    """Number of texts that a reward model reads at a time."""
    slots: Rows = 64
    """Number of texts kept in a reward model's cache, so that a text which continues one of them is not read from the
    start; at least batch_size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size > self.slots:
            raise UserError(f"rewards.batch_size {self.batch_size} is above rewards.slots {self.slots}")
