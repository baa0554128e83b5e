"""Options of `python -m s1_jax.evaluate`."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import tyro

from s1_jax.config.budget import S1, BudgetConfig, FormatConfig, SamplingConfig, StepConfig
from s1_jax.config.model import DecodeModelSource, HostsConfig, MeshConfig, ModelSource, StoredConfig
from s1_jax.config.options import Count, Options, Place, Seed, Whole
from s1_jax.config.search import MethodName, RewardsConfig, SearchConfig
from s1_jax.config.types import Bias, Drafted, Fraction, Grace, Limit, Repetitions, Rows, Samples, Switch
from s1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TaskConfig(Options, section="task"):
    """The problems, and with them the rules that grade their answers."""

    name: str = "synthetic"
    """Name of the task: aime24, aime24_figures, aime25, aime26, hmmt_feb25, hmmt_nov25, hmmt_feb26, brumo25, amc23,
    olympiadbench, minerva_math, math500, gpqa_diamond, gpqa_main, gsm8k, synthetic, or jsonl for problems of your
    own."""
    path: Place | None = None
    """File, folder or hub id with the problems; with None the task reads its own data set from the hub."""
    limit: Limit | None = None
    """Use the first problems only, at most this many; with None all of them. The synthetic task makes this many, 500
    with None."""
    seed: Seed = 0
    """Seed of the problems that synthetic makes, and of the order of choices in gpqa_diamond and gpqa_main."""
    no_letter_is_a: Switch = False
    """Count an answer of gpqa_diamond or gpqa_main that names no letter as A, as the paper's code does."""


@dataclasses.dataclass(frozen=True)
class SettingConfig(Options):
    """One setting beside the grid, such as majority voting, no forcing or another minimum."""

    budget: BudgetConfig = BudgetConfig()
    """Thinking budget of this setting."""
    sampling: SamplingConfig = SamplingConfig()
    """Sampling of this setting."""
    samples: Samples = 1
    """Samples per problem and seed."""
    instruction: str | None = None
    """Instruction on length appended to the question: token N, step N, short or long."""
    max_tries: Count = 1
    """Maximum number of times thinking is sampled again until it ends by itself (rejection sampling); 1 is once."""
    search: SearchConfig | None = None
    """Search over several runs per problem, of which one answer is chosen; None is a plain run."""
    reward: Literal["process", "outcome"] | None = None
    """Which reward model of --rewards scores the runs of the search; with None they vote."""

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
    """The grid of settings: instructions x max_thinking_tokens x num_ignore x ignore_strings."""

    max_thinking_tokens: tuple[Whole | None, ...] = (None,)
    """Maximum numbers of thinking tokens, such as 16 32 64 None; None is no maximum."""
    num_ignore: tuple[Whole, ...] = (0,)
    """Numbers of end-of-thinking markers to suppress, such as 0 2 4."""
    ignore_strings: tuple[str, ...] = ("Wait",)
    """Strings appended in place of a suppressed end marker; each one makes settings of its own."""
    min_thinking_tokens: Whole = 1
    """Minimum number of thinking tokens of every setting; the end-of-thinking marker is masked until they have been
    generated."""
    newline_grace: Grace = 0.0
    """Let thinking overrun its maximum by up to this fraction of it (0 to 0.1) so that it can finish its line."""
    end_bias: Bias = 0.0
    """Value added to the logits of end markers, growing linearly from 0 to this at the maximum; settings without a
    maximum have none. Each setting with a bias is decoded by itself."""
    notice_fractions: tuple[Fraction, ...] = ()
    """Append a notice when these fractions of the maximum have been used, such as 0.5 0.75; settings without a maximum
    have none. Settings with notices share a trace only if they have the same maximum."""
    notices: tuple[str, ...] = ()
    """Texts of the notices, one for each of notice_fractions."""
    banned_words: tuple[str, ...] = ()
    """Words that the model may not use while it thinks, such as wait hmm; see --budget.banned-words of generate."""
    max_repetitions: Repetitions = 0
    """Cut thinking where its last tokens, up to 256 of them, have occurred this many times in a row; 0 turns it off."""
    instructions: tuple[str | None, ...] = (None,)
    """Instructions on length appended to the question, such as None "token 2048" "step 32" short long; None is no
    instruction."""
    max_tries: Count = 1
    """Sample thinking again, at most this many times in all, until it ends by itself within the maximum (rejection
    sampling); 1 is once."""
    methods: tuple[MethodName, ...] = ()
    """Search methods to run under each budget too, with the options of --search: best_of_n beam dvts rebase mcts."""
    widths: tuple[Rows, ...] = (16,)
    """Widths of each search method, in runs per problem (see --search.width)."""
    shared_trace: Switch = True
    """Decode settings that think alike once and read them off at several points; false decodes each setting by itself.
    The records are the same, except where two tokens tie within rounding."""
    scaling: Literal["within", "across"] = "across"
    """Pairs of runs that the Scaling metric compares: all of them (across), or those with the same number of ignored
    markers (within)."""
    extra: Annotated[tuple[SettingConfig, ...], tyro.conf.Suppress] = ()
    """Settings beside the grid, given in a config file."""


DEFAULT_ANSWER_TOKENS = 512


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Options):
    """Options of `python -m s1_jax.evaluate`: a sweep of thinking budgets over a task."""

    run_dir: Place = "runs/sweep"
    """Folder of the run: its config, records, figures and report. The same command resumes it."""
    model: DecodeModelSource = DecodeModelSource()
    task: TaskConfig = TaskConfig()
    sweep: SweepConfig = SweepConfig()
    sampling: SamplingConfig = SamplingConfig()
    """Sampling of every setting of the grid."""
    samples: Samples = 1
    """Samples per problem and seed, for every setting of the grid."""
    seeds: tuple[Seed, ...] = (0,)
    """Sampling seeds. Greedy settings use only the first."""
    max_answer_tokens: Whole | None = None
    """Maximum number of answer tokens; None is 512. Without forcing it limits thinking and answer together, and None is
    no limit."""
    max_model_len: Count | None = None
    """Maximum number of tokens of prompt, thinking and answer together; None is the model's context."""
    batch_size: Rows = 64
    """Number of runs decoded at a time, rounded up to a multiple of the devices that share the batch."""
    draft_tokens: Drafted = 0
    """Draft this many tokens per step by prompt lookup and verify them in one forward pass; 0 turns it off. The output
    is the same, except where two tokens tie within rounding."""
    format: FormatConfig = S1
    search: SearchConfig = SearchConfig()
    """Options of the methods in --sweep.methods."""
    steps: StepConfig = StepConfig()
    """Where a step of a search ends."""
    rewards: RewardsConfig = RewardsConfig()
    stored: StoredConfig = StoredConfig()
    mesh: MeshConfig = MeshConfig()
    """Devices of one process. If they are enough for the mesh, each process decodes its own problems; otherwise all
    processes share one model."""
    hosts: HostsConfig = HostsConfig()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.model, ModelSource):  # of a config file: its `remat` says nothing here
            object.__setattr__(self, "model", self.model.for_decoding())
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {self.seeds}: give one at least, and each once")

    @property
    def answer_tokens(self) -> int:
        """Return `max_answer_tokens`, or its default if it is None."""
        return DEFAULT_ANSWER_TOKENS if self.max_answer_tokens is None else self.max_answer_tokens
