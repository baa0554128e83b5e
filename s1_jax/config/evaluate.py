"""Options of `python -m s1_jax.evaluate`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from s1_jax.config.budget import S1, BudgetConfig, FormatConfig, SamplingConfig, StepConfig
from s1_jax.config.model import DecodeModelSource, HostsConfig, MeshConfig, ModelSource, StoredConfig
from s1_jax.config.options import Count, Options, Place, Seed, Whole
from s1_jax.config.search import MethodName, RewardsConfig, SearchConfig
from s1_jax.config.types import Bias, Drafted, Grace, Limit, Rows, Samples, Switch
from s1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TaskConfig(Options, section="task"):
    """The problems and the rule that grades them."""

    name: str = "synthetic"  # a key of s1_jax.tasks.TASKS
    path: Place | None = None  # file, folder or hub id; none: the task's own data set on the hub
    limit: Limit | None = None  # only the first so many problems (synthetic: how many are made; none: 500)
    seed: Seed = 0  # of the problems that are made (synthetic), of the order of choices (gpqa_diamond)
    no_letter_is_a: Switch = False  # gpqa_diamond: an answer that names no letter is A, as in the reference


@dataclasses.dataclass(frozen=True)
class SettingConfig(Options):
    """One run over the task beside the grid: majority voting, no forcing, another minimum."""

    budget: BudgetConfig = BudgetConfig()
    sampling: SamplingConfig = SamplingConfig()
    samples: Samples = 1
    instruction: str | None = None  # behind the question: "token N", "step N", "short", "long" (config/instructions.py)
    max_tries: Count = 1  # rejection sampling: drawn again until thinking ends by itself, at most so often
    search: SearchConfig | None = None  # several runs, of which one is chosen
    reward: Literal["process", "outcome"] | None = None  # which of `rewards` scores them; none: they vote

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.search is not None:
            if self.max_tries > 1 or not (self.sampling.temperature > 0 and self.budget.forcing):
                raise UserError(
                    f"search.method {self.search.method} needs forcing, one try and a temperature above 0 "
                    "(--sampling.temperature 1), else its runs are all the same"
                )
            if self.search.by_steps and self.reward != "process":
                raise UserError(f"search.method {self.search.method} needs a process reward model, which scores steps")
        if self.max_tries > 1 and not (self.sampling.temperature > 0 and self.budget.forcing):
            raise UserError(
                f"max_tries {self.max_tries} needs forcing and a temperature above 0, else every try is the same"
            )


@dataclasses.dataclass(frozen=True)
class SweepConfig(Options, section="sweep"):
    """The grid instructions x max_thinking_tokens x num_ignore x ignore_strings, and single settings beside it."""

    max_thinking_tokens: tuple[Whole | None, ...] = (None,)  # on the command line: 16 32 64 None
    num_ignore: tuple[Whole, ...] = (0,)
    ignore_strings: tuple[str, ...] = ("Wait",)
    min_thinking_tokens: Whole = 1
    newline_grace: Grace = 0.0
    end_bias: Bias = 0.0  # of runs with a maximum; each such run is decoded by itself
    # what the question asks of the thinking: None "token 2048" "step 32" short long
    instructions: tuple[str | None, ...] = (None,)
    max_tries: Count = 1  # more: rejection sampling, a run is drawn again until its thinking ends within the maximum
    # each of these too, under each budget of the grid, with the options of `search`: best_of_n beam dvts rebase mcts
    methods: tuple[MethodName, ...] = ()
    widths: tuple[Rows, ...] = (16,)  # of each method
    shared_trace: Switch = True  # settings that think alike are one run, read at several points; false: each by itself
    scaling: Literal["within", "across"] = "across"  # the Scaling metric within one ignore count, or across all runs
    extra: Annotated[tuple[SettingConfig, ...], tyro.conf.Suppress] = ()  # set in config files only


DEFAULT_ANSWER_TOKENS = 512


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Options):
    """`python -m s1_jax.evaluate`: a sweep of budgets over a task."""

    run_dir: Place = "runs/sweep"
    model: DecodeModelSource = DecodeModelSource()
    task: TaskConfig = TaskConfig()
    sweep: SweepConfig = SweepConfig()
    sampling: SamplingConfig = SamplingConfig()  # of the grid
    samples: Samples = 1  # of the grid, per problem and seed
    seeds: tuple[Seed, ...] = (0,)  # of what is drawn; settings at temperature 0 are decoded under the first alone
    # none: 512, and as much as fits of a run without forcing, of which it bounds thinking and answer together
    max_answer_tokens: Whole | None = None
    max_model_len: Count | None = None  # none: the model's max_position_embeddings
    batch_size: Rows = 64
    # looked up in prompt and thinking, and checked by one pass of the model; no token changes
    draft_tokens: Drafted = 0
    format: FormatConfig = S1
    search: SearchConfig = SearchConfig()  # options of sweep.methods
    steps: StepConfig = StepConfig()  # of searches
    rewards: RewardsConfig = RewardsConfig()
    stored: StoredConfig = StoredConfig()
    mesh: MeshConfig = MeshConfig()  # over the devices of one process; several take problems in turn
    hosts: HostsConfig = HostsConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.model, ModelSource):  # of a config file: its `remat` says nothing here
            object.__setattr__(self, "model", self.model.for_decoding())
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {self.seeds}: give one at least, and each once")

    @property
    def answer_tokens(self) -> int:
        """`max_answer_tokens`, or its default."""
        return DEFAULT_ANSWER_TOKENS if self.max_answer_tokens is None else self.max_answer_tokens
