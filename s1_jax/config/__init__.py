"""Every option of the project, as frozen dataclasses that check themselves; `cli.py` turns command lines into them.

A model's own settings are in `model_config.py`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import tyro

from s1_jax.config.endpoint_url import is_unencrypted, url_mistake
from s1_jax.config.model_config import ModelConfig as ModelConfig
from s1_jax.config.options import (
    LARGEST,
    BelowOne,
    Count,
    NotNegative,
    Options,
    Place,
    Positive,
    Range,
    Seed,
    Share,
    Whole,
)
from s1_jax.config.rope_config import RopeScaling as RopeScaling
from s1_jax.errors import RunError as RunError
from s1_jax.errors import UserError as UserError


def _true_or_false(words: list[str]) -> bool:
    if words[0].lower() not in ("true", "false"):
        raise ValueError(f"{words[0]!r} is neither true nor false")
    return words[0].lower() == "true"


# what is planned, or has its place in memory, before anything is done: more would never begin
Epochs = Annotated[int, Range(1, 10_000)]
Limit = Annotated[int, Range(1, 10**6)]
Samples = Annotated[int, Range(1, 10**5)]
Devices = Annotated[int, Range(1, LARGEST, also=-1)]
Rows = Annotated[int, Range(1, 2**16)]
RowLength = Annotated[int, Range(1, 2**24)]
Drafted = Annotated[int, Range(0, 1024)]
# what float32 can divide by and add
Softness = Annotated[float, Range(1e-6, 1e6)]
Temperature = Annotated[float, Range(1e-6, 1e6, also=0)]
TopP = Annotated[float, Range(0, 1, above=True)]
Bias = Annotated[float, Range(0, 1e6)]
MOST_GRACE = 0.1
Grace = Annotated[float, Range(0, MOST_GRACE)]

# an option that is written out, `--section.name false`, instead of `--section.no-name`
Switch = Annotated[
    bool,
    tyro.conf.FlagConversionOff,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="{true,false}",
        instance_from_str=_true_or_false,
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [str(value).lower()],
    ),
]


@dataclasses.dataclass(frozen=True)
class ModelSource(Options, section="model"):
    """The model to start from."""

    path: Place = "Qwen/Qwen2.5-0.5B-Instruct"  # folder or hub id in Hugging Face layout
    # compute type; auto: bfloat16 on TPU and GPU, float32 on CPU
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    # what the backward pass recomputes (training only): s1_jax.model.qwen2.REMAT_POLICIES
    remat: Literal["none", "minimal", "up", "mlp", "full", "offload"] = "full"


@dataclasses.dataclass(frozen=True)
class DataConfig(Options, section="data"):
    """Training examples; the layouts are in s1_jax/data/sources.py."""

    path: Place = "simplescaling/s1K-1.1"  # hub id, folder, or .jsonl / .parquet / .csv file, which is read whole
    split: str = "train"  # of a hub id or folder; a folder's files tell their split as `datasets` has it
    layout: str = "auto"  # auto, or a name from s1_jax.data.sources.LAYOUTS
    columns: Mapping[str, str] | None = None  # own layout: question, thinking, answer (or text) -> column
    # the question says how long the thinking may be, in tokens or in steps that count down (data/conditional.py)
    control: Literal["none", "token", "step"] = "none"
    max_length: Count = 32768  # tokens an example may have
    row_lengths: tuple[RowLength, ...] = ()  # T: lengths of packed rows, each compiled once; none: max_length alone
    too_long: Literal["error", "drop", "truncate"] = "error"
    loss_weighting: Literal["example", "token"] = "example"  # what counts the same in the loss
    batch_by: Literal["examples", "tokens"] = "examples"
    batch_examples: Count = 16  # per optimizer step, with batch_by examples
    batch_tokens: Count | None = None  # per optimizer step, with batch_by tokens; best micro_batch_rows x a row length
    micro_batch_rows: Rows = 1  # B: packed rows of one micro-batch over all devices
    held_out_share: BelowOne = 0.0  # share of the examples kept aside for the held-out loss

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.row_lengths
        if list(given) != sorted(set(given)):
            raise UserError(f"data.row_lengths {' '.join(map(str, given))} must be ascending, each once")
        if given and self.max_length > given[-1]:
            raise UserError(f"data.max_length {self.max_length} is above the longest of data.row_lengths, {given[-1]}")

    @property
    def capacities(self) -> tuple[int, ...]:
        """The row lengths T to choose from, ascending."""
        return self.row_lengths or (self.max_length,)


@dataclasses.dataclass(frozen=True)
class OptimConfig(Options, section="optim"):
    """AdamW with warm-up and cosine to zero; the defaults are s1's."""

    peak_lr: NotNegative = 1e-5
    warmup_share: Share = 0.05  # of the steps, from a rate of 0 in the first one, as in transformers
    b1: BelowOne = 0.9
    b2: BelowOne = 0.95
    eps: Positive = 1e-8
    weight_decay: NotNegative = 1e-4  # not on biases and norms
    clip_norm: Positive = 1.0
    moments: Literal["float32", "bfloat16"] = "float32"  # how Adam's are kept; bfloat16 saves 4 bytes a parameter


@dataclasses.dataclass(frozen=True)
class TrainLoopConfig(Options, section="train"):
    """How long, from which seed, and what is written on the way."""

    epochs: Epochs = 5
    seed: Seed = 0
    log_every_steps: Count = 1  # a line is printed; metrics.jsonl has every step
    held_out_every_steps: Count = 50


@dataclasses.dataclass(frozen=True)
class LogConfig(Options, section="log"):
    """How a run is watched, beside metrics.jsonl and TensorBoard."""

    wandb_project: str | None = None  # Weights & Biases project (pip install wandb); none: off
    # a profiler trace of these steps in run_dir/profile, one for each unbroken range; for instance 10 11 12
    profile_steps: Annotated[tuple[Count, ...], tyro.conf.arg(aliases=("--profile",))] = ()


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Options, section="checkpoint"):
    """Training state on disk; the last step is always saved."""

    every_steps: Count = 50
    keep: Count = 2


@dataclasses.dataclass(frozen=True)
class MeshConfig(Options, section="mesh"):
    """Devices along each mesh axis; -1 takes what the others leave."""

    data: Devices = 1
    fsdp: Devices = -1
    context: Devices = 1
    tensor: Devices = 1


@dataclasses.dataclass(frozen=True)
class HostsConfig(Options, section="hosts"):
    """Several processes as one run, one a host of a TPU slice."""

    # auto: all hosts of a TPU slice, elsewhere this process alone; none: alone; or HOST:PORT,COUNT,INDEX
    processes: str = "auto"
    start_seconds: Count = 300  # at the start so long the others are waited for
    lost_after_seconds: Count = 100  # a process that says nothing for so long ends the others
    stall_seconds: Whole = 1800  # a run in which nothing moves for so long ends (exit code 70); 0: never


S1_ANSWER_START = "<|im_start|>answer"
S1_END_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@dataclasses.dataclass(frozen=True)
class FormatConfig(Options, section="format"):
    """How a model marks where its thinking and its answer begin; the defaults are s1's (data/chat.py)."""

    think_start: str = "<|im_start|>think"  # opens the thinking; appended to prompts that do not end in it
    answer_start: str = S1_ANSWER_START  # opens the answer; appended where thinking ends
    final_answer: str = "\nFinal Answer:"  # appended to that where thinking is cut
    # what ends the thinking where the model writes it, besides its stop tokens; left at s1's beside another
    # answer_start, it is that answer_start
    end_markers: tuple[str, ...] = S1_END_MARKERS

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.end_markers == S1_END_MARKERS and self.answer_start != S1_ANSWER_START:
            object.__setattr__(self, "end_markers", (self.answer_start,))
        for name in ("think_start", "answer_start"):
            if not getattr(self, name):
                raise UserError(f"format.{name} is empty")
        if not self.end_markers or not all(self.end_markers):
            raise UserError("format.end_markers needs at least one marker, and none of them empty")

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> FormatConfig:
        """The format a record was decoded in."""
        return cls(**values | {"end_markers": tuple(values["end_markers"])}) if (values := record.get("format")) else S1

    def to_record(self) -> dict[str, Any] | None:
        """A record's field `format`: nothing where it is s1's own, as in records of earlier versions."""
        return None if self == S1 else dataclasses.asdict(self) | {"end_markers": list(self.end_markers)}


S1 = FormatConfig()


@dataclasses.dataclass(frozen=True)
class TrainConfig(Options):
    """`python -m s1_jax.train`: supervised fine-tuning."""

    run_dir: Place = "runs/train"
    model: ModelSource = ModelSource()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainLoopConfig = TrainLoopConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()
    hosts: HostsConfig = HostsConfig()
    format: FormatConfig = S1  # of the examples; finished texts (data.layout text) are used as they are


@dataclasses.dataclass(frozen=True)
class BudgetConfig(Options):
    """Budget forcing of one row (paper section 3.1)."""

    min_thinking_tokens: Whole = 1  # the end of thinking cannot be drawn before
    # the end of thinking is forced here; without forcing, a run ends here unless its answer has begun
    max_thinking_tokens: Whole | None = None
    num_ignore: Whole = 0  # how many drawn ends are discarded
    ignore_string: str | tuple[str, ...] = "Wait"  # what follows a discarded end; several take turns
    # off: the model writes on freely after the start marker, until max_thinking_tokens; where none is given,
    # max_answer_tokens, as far as it is given, bounds all that it writes
    forcing: bool = True
    newline_grace: Grace = 0.0  # share of the maximum that thinking may pass it by, to the end of a line
    # added to the logits of end markers: nothing when thinking begins, in even steps all of it at the maximum
    end_bias: Bias = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_thinking_tokens is not None and self.min_thinking_tokens > max(self.max_thinking_tokens, 1):
            raise UserError(
                f"min_thinking_tokens {self.min_thinking_tokens} is above "
                f"max_thinking_tokens {self.max_thinking_tokens}"
            )
        if self.end_bias and self.max_thinking_tokens is None:
            raise UserError(f"end_bias {self.end_bias} rises towards max_thinking_tokens; give one")

    @property
    def grace_tokens(self) -> int:
        """How many tokens thinking may go on behind the maximum, at most."""
        return int((self.max_thinking_tokens or 0) * self.newline_grace)


@dataclasses.dataclass(frozen=True)
class SamplingConfig(Options):
    """How a token is drawn; temperature 0 is greedy."""

    temperature: Temperature = 0.0
    top_k: Whole = 0  # 0: all
    top_p: TopP = 1.0
    min_p: Share = 0.0


@dataclasses.dataclass(frozen=True)
class StepConfig(Options):
    """Where the steps of a search end: behind a separator, after so many tokens, or, at the latest, with the run."""

    separator: str | None = "\n\n"  # none: no text ends a step
    max_step_tokens: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.separator == "":
            raise UserError("separator is empty; leave it out (None) where no text is to end a step")


@dataclasses.dataclass(frozen=True)
class StoredConfig(Options, section="stored"):
    """What weights and cache are kept in while decoding; products are made in the compute type."""

    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # auto: the compute type; int8: layers' kernels
    cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # auto: the compute type; int8: a scale a head

    def resolved(self, compute: str) -> StoredConfig:
        """With `compute`, the compute type's name, in place of auto."""
        kept: Any = [compute if name == "auto" else name for name in (self.weights, self.cache)]
        return StoredConfig(*kept)


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
    instruction: str | None = None  # behind the question: "token N", "step N", "short", "long" (data/instructions.py)
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

    def to_record(self) -> dict[str, Any]:
        """A record's fields of it: the method, and the options it reads."""
        return {name: getattr(self, name) for name in ("method", *READ_BY_ALL, *READ_BY[self.method])}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> SearchConfig | None:
        """The search that a record is of, options that it does not read at their defaults; none for a plain run."""
        if "method" not in record:
            return None
        names = ("method", *READ_BY_ALL, *READ_BY[record["method"]])
        return cls(**{name: record[name] for name in names if name in record})


READ_BY_ALL = ("width", "vote", "path_score")
READ_BY: dict[str, tuple[str, ...]] = {
    "best_of_n": ("reads",),
    "beam": ("branch", "max_steps"),
    "dvts": ("branch", "max_steps"),
    "rebase": ("score_temperature", "max_steps"),
    "mcts": ("exploration", "widening", "widening_power", "max_nodes", "max_steps"),
}


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


DEFAULT_ANSWER_TOKENS = 512


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(Options):
    """`python -m s1_jax.evaluate`: a sweep of budgets over a task."""

    run_dir: Place = "runs/sweep"
    model: ModelSource = ModelSource()
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
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {self.seeds}: give one at least, and each once")

    @property
    def answer_tokens(self) -> int:
        """`max_answer_tokens`, or its default."""
        return DEFAULT_ANSWER_TOKENS if self.max_answer_tokens is None else self.max_answer_tokens


@dataclasses.dataclass(frozen=True)
class EndpointConfig(Options):
    """A model that answers questions: behind an endpoint in OpenAI's form, or decoded here."""

    model: str = ""  # its name at the endpoint, or a folder or hub id where there is none
    base_url: str | None = None  # of an endpoint that speaks OpenAI's protocol, up to and with /v1; none: decoded here
    key_variable: str = "OPENAI_API_KEY"  # the environment variable with the key, if it needs one
    # None: the request has none, for endpoints that refuse one; decoded here: greedy
    temperature: Temperature | None = 0.0
    max_tokens: Count = 16_384  # of one answer, thinking included
    concurrent: Annotated[int, Range(1, 1000)] = 16  # requests at a time; decoded here: rows of the batch
    requests_per_minute: Annotated[int, Range(1, 10**6)] = 600  # at most
    timeout_seconds: Annotated[float, Range(0, 86_400, above=True)] = 600.0  # of one request
    attempts: Annotated[int, Range(1, 100)] = 8  # at one request, ever longer apart
    thinking: Switch = True  # decoded here: after the start marker of `format`; false for plain instruct models
    mesh: MeshConfig = MeshConfig()  # decoded here
    # read and written, for the cost that is shown
    dollars_per_million_tokens: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    # the request's field for max_tokens; auto: max_tokens, and the newer name where the endpoint asks for it; none: the
    # request has no limit but the endpoint's own
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens", "none"] = "auto"
    plain_http: Switch = False  # allow http:// to other machines: the key, prompts and replies go there unencrypted
    format: FormatConfig = S1  # decoded here: how the model marks its thinking

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.section
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", self.key_variable):  # not shown: it may be the key itself
            raise UserError(f"{name}key_variable must be the name of an environment variable, never the key itself")
        if self.base_url is None:
            return
        if mistake := url_mistake(self.base_url):
            raise UserError(f"{name}base_url {mistake}")
        if not self.model:
            raise UserError(f"{name}base_url needs {name}model, the model's name at the endpoint")
        if is_unencrypted(self.base_url) and not self.plain_http:
            raise UserError(
                f"{name}base_url is http:// to another machine: the key, prompts and replies would go there "
                f"unencrypted; use https://, or allow it with {name}plain_http true"
            )


@dataclasses.dataclass(frozen=True)
class JudgeConfig(EndpointConfig, section="judge"):
    """An LLM that decides on answers which no rule could; without a model the rules alone decide."""

    max_tokens: Count = 4096  # of one answer, thinking included: a judge that reasons needs room before its yes or no
    requests_per_minute: Annotated[int, Range(1, 10**6)] = 60  # at most


@dataclasses.dataclass(frozen=True)
class GradeConfig(Options):
    """Options of `python -m s1_jax.grade RUN_DIR`."""

    judge: JudgeConfig = JudgeConfig()


def resolve_dtype(name: str) -> jnp.dtype:
    """The compute dtype: `auto` is float32 on CPU, bfloat16 on accelerators."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)
