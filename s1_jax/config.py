"""Every option of the project, as frozen dataclasses that check themselves; `cli.py` turns command lines into them.

A model's own settings are in `model_config.py`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import tyro

from s1_jax.endpoint_url import is_unencrypted, url_mistake
from s1_jax.errors import RunError as RunError
from s1_jax.errors import UserError as UserError
from s1_jax.model_config import ModelConfig as ModelConfig
from s1_jax.rope_config import RopeScaling as RopeScaling


def _true_or_false(words: list[str]) -> bool:
    if words[0].lower() not in ("true", "false"):
        raise ValueError(f"{words[0]!r} is neither true nor false")
    return words[0].lower() == "true"


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
class ModelSource:
    """The model to start from."""

    path: str = "Qwen/Qwen2.5-0.5B-Instruct"  # folder or hub id in Hugging Face layout
    dtype: Literal["auto", "float32", "bfloat16"] = (
        "auto"  # compute type; auto: bfloat16 on TPU and GPU, float32 on CPU
    )
    remat: Literal["none", "minimal", "up", "mlp", "full", "offload"] = (
        "full"  # what the backward pass recomputes (training only): s1_jax.model.qwen2.REMAT_POLICIES
    )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Training examples; the layouts are in s1_jax/data/sources.py."""

    path: str = "simplescaling/s1K-1.1"  # hub id, folder, or .jsonl / .parquet / .csv file, which is read whole
    split: str = "train"  # of a hub id or folder; a folder's files tell their split as `datasets` has it
    layout: str = "auto"  # auto, or a name from s1_jax.data.sources.LAYOUTS
    columns: Mapping[str, str] | None = None  # own layout: question, thinking, answer (or text) -> column
    # the question says how long the thinking may be, in tokens or in steps that count down (data/conditional.py)
    control: Literal["none", "token", "step"] = "none"
    max_length: int = 32768  # tokens an example may have
    row_lengths: tuple[int, ...] = ()  # T: lengths of packed rows, each compiled once; none: max_length alone
    too_long: Literal["error", "drop", "truncate"] = "error"
    loss_weighting: Literal["example", "token"] = "example"  # what counts the same in the loss
    batch_by: Literal["examples", "tokens"] = "examples"
    batch_examples: int = 16  # per optimizer step, with batch_by examples
    batch_tokens: int | None = None  # per optimizer step, with batch_by tokens; best micro_batch_rows x a row length
    micro_batch_rows: int = 1  # B: packed rows of one micro-batch over all devices
    held_out_share: float = 0.0  # share of the examples kept aside for the held-out loss

    def __post_init__(self) -> None:
        given = self.row_lengths
        if any(length < 1 for length in given) or list(given) != sorted(set(given)):
            raise UserError(f"data.row_lengths {' '.join(map(str, given))} must be positive and ascending, each once")
        if given and self.max_length > given[-1]:
            raise UserError(f"data.max_length {self.max_length} is above the longest of data.row_lengths, {given[-1]}")

    @property
    def capacities(self) -> tuple[int, ...]:
        """The row lengths T to choose from, ascending."""
        return self.row_lengths or (self.max_length,)


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """AdamW with warm-up and cosine to zero; the defaults are s1's."""

    peak_lr: float = 1e-5
    warmup_share: float = 0.05  # of the steps, from a rate of 0 in the first one, as in transformers
    b1: float = 0.9
    b2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 1e-4  # not on biases and norms
    clip_norm: float = 1.0
    moments: Literal["float32", "bfloat16"] = "float32"  # how Adam's are kept; bfloat16 saves 4 bytes a parameter


@dataclasses.dataclass(frozen=True)
class TrainLoopConfig:
    """How long, from which seed, and what is written on the way."""

    epochs: int = 5
    seed: int = 0
    log_every_steps: int = 1  # a line is printed; metrics.jsonl has every step
    held_out_every_steps: int = 50

    def __post_init__(self) -> None:
        for name in ("epochs", "log_every_steps", "held_out_every_steps"):
            if getattr(self, name) < 1:
                raise UserError(f"train.{name} is {getattr(self, name)}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """How a run is watched, beside metrics.jsonl and TensorBoard."""

    wandb_project: str | None = None  # Weights & Biases project (pip install wandb); none: off
    # a profiler trace of these steps in run_dir/profile, one for each unbroken range; for instance 10 11 12
    profile_steps: Annotated[tuple[int, ...], tyro.conf.arg(aliases=("--profile",))] = ()

    def __post_init__(self) -> None:
        if self.profile_steps and min(self.profile_steps) < 1:
            raise UserError(f"log.profile_steps has {min(self.profile_steps)}; steps count from 1")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Training state on disk; the last step is always saved."""

    every_steps: int = 50
    keep: int = 2

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"checkpoint.{name} is {getattr(self, name)}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 takes what the others leave."""

    data: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class HostsConfig:
    """Several processes as one run, one a host of a TPU slice."""

    # auto: all hosts of a TPU slice, elsewhere this process alone; none: alone; or HOST:PORT,COUNT,INDEX
    processes: str = "auto"
    start_seconds: int = 300  # at the start so long the others are waited for
    lost_after_seconds: int = 100  # a process that says nothing for so long ends the others
    stall_seconds: int = 1800  # a run in which nothing moves for so long ends (exit code 70); 0: never

    def __post_init__(self) -> None:
        if min(self.start_seconds, self.lost_after_seconds) < 1 or self.stall_seconds < 0:
            raise UserError("hosts: start_seconds and lost_after_seconds must be at least 1, stall_seconds at least 0")


S1_ANSWER_START = "<|im_start|>answer"
S1_END_MARKERS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")


@dataclasses.dataclass(frozen=True)
class FormatConfig:
    """How a model marks where its thinking and its answer begin; the defaults are s1's (data/chat.py)."""

    think_start: str = "<|im_start|>think"  # opens the thinking; appended to prompts that do not end in it
    answer_start: str = S1_ANSWER_START  # opens the answer; appended where thinking ends
    final_answer: str = "\nFinal Answer:"  # appended to that where thinking is cut
    # what ends the thinking where the model writes it, besides its stop tokens; left at s1's beside another
    # answer_start, it is that answer_start
    end_markers: tuple[str, ...] = S1_END_MARKERS

    def __post_init__(self) -> None:
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
class TrainConfig:
    """`python -m s1_jax.train`: supervised fine-tuning."""

    run_dir: str = "runs/train"
    model: ModelSource = ModelSource()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainLoopConfig = TrainLoopConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()
    hosts: HostsConfig = HostsConfig()
    format: FormatConfig = S1  # of the examples; finished texts (data.layout text) are used as they are


MOST_GRACE = 0.1


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """Budget forcing of one row (paper section 3.1)."""

    min_thinking_tokens: int = 1  # the end of thinking cannot be drawn before
    # the end of thinking is forced here; without forcing, a run ends here unless its answer has begun
    max_thinking_tokens: int | None = None
    num_ignore: int = 0  # how many drawn ends are discarded
    ignore_string: str | tuple[str, ...] = "Wait"  # what follows a discarded end; several take turns
    # off: the model writes on freely after the start marker, until max_thinking_tokens; where none is given,
    # max_answer_tokens, as far as it is given, bounds all that it writes
    forcing: bool = True
    newline_grace: float = 0.0  # share of the maximum that thinking may pass it by, to the end of a line
    # added to the logits of end markers: nothing when thinking begins, in even steps all of it at the maximum
    end_bias: float = 0.0

    def __post_init__(self) -> None:
        for name in ("min_thinking_tokens", "max_thinking_tokens", "num_ignore"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"{name} {value} is negative")
        if self.max_thinking_tokens is not None and self.min_thinking_tokens > max(self.max_thinking_tokens, 1):
            raise UserError(
                f"min_thinking_tokens {self.min_thinking_tokens} is above "
                f"max_thinking_tokens {self.max_thinking_tokens}"
            )
        if not 0 <= self.newline_grace <= MOST_GRACE:
            raise UserError(f"newline_grace {self.newline_grace} is not between 0 and {MOST_GRACE}")
        if not 0 <= self.end_bias < math.inf:
            raise UserError(f"end_bias {self.end_bias} is not a number of 0 or more")
        if self.end_bias and self.max_thinking_tokens is None:
            raise UserError(f"end_bias {self.end_bias} rises towards max_thinking_tokens; give one")

    @property
    def grace_tokens(self) -> int:
        """How many tokens thinking may go on behind the maximum, at most."""
        return int((self.max_thinking_tokens or 0) * self.newline_grace)


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How a token is drawn; temperature 0 is greedy."""

    temperature: float = 0.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1 or not 0 <= self.min_p <= 1:
            raise UserError("sampling needs temperature >= 0, top_k >= 0, 0 < top_p <= 1, 0 <= min_p <= 1")


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Where the steps of a search end: behind a separator, after so many tokens, or, at the latest, with the run."""

    separator: str | None = "\n\n"  # none: no text ends a step
    max_step_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.separator == "":
            raise UserError("separator is empty; leave it out (None) where no text is to end a step")
        if self.max_step_tokens is not None and self.max_step_tokens < 1:
            raise UserError(f"max_step_tokens {self.max_step_tokens} is below 1")


@dataclasses.dataclass(frozen=True)
class StoredConfig:
    """What weights and cache are kept in while decoding; products are made in the compute type."""

    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # auto: the compute type; int8: layers' kernels
    cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # auto: the compute type; int8: a scale a head

    def resolved(self, compute: str) -> StoredConfig:
        """With `compute`, the compute type's name, in place of auto."""
        kept: Any = [compute if name == "auto" else name for name in (self.weights, self.cache)]
        return StoredConfig(*kept)


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """The problems and the rule that grades them."""

    name: str = "synthetic"  # a key of s1_jax.tasks.TASKS
    path: str | None = None  # file, folder or hub id; none: the task's own data set on the hub
    limit: int | None = None  # only the first so many problems (synthetic: how many are made; none: 500)
    seed: int = 0  # of the problems that are made (synthetic), of the order of choices (gpqa_diamond)
    no_letter_is_a: Switch = False  # gpqa_diamond: an answer that names no letter is A, as in the reference


@dataclasses.dataclass(frozen=True)
class SettingConfig:
    """One run over the task beside the grid: majority voting, no forcing, another minimum."""

    budget: BudgetConfig = BudgetConfig()
    sampling: SamplingConfig = SamplingConfig()
    samples: int = 1
    instruction: str | None = None  # behind the question: "token N", "step N", "short", "long" (data/instructions.py)
    max_tries: int = 1  # rejection sampling: drawn again until thinking ends by itself, at most so often
    search: SearchConfig | None = None  # several runs, of which one is chosen
    reward: Literal["process", "outcome"] | None = None  # which of `rewards` scores them; none: they vote

    def __post_init__(self) -> None:
        if self.search is not None:
            if self.max_tries > 1 or not (self.sampling.temperature > 0 and self.budget.forcing):
                raise UserError(
                    f"search.method {self.search.method} needs forcing, one try and a temperature above 0 "
                    "(--sampling.temperature 1), else its runs are all the same"
                )
            if self.search.by_steps and self.reward != "process":
                raise UserError(f"search.method {self.search.method} needs a process reward model, which scores steps")
        if self.max_tries < 1:
            raise UserError(f"max_tries {self.max_tries} is below 1")
        if self.max_tries > 1 and not (self.sampling.temperature > 0 and self.budget.forcing):
            raise UserError(
                f"max_tries {self.max_tries} needs forcing and a temperature above 0, else every try is the same"
            )


MethodName = Literal["best_of_n", "beam", "dvts", "rebase", "mcts"]


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """One method that spends several runs on a problem (s1_jax/search); each reads some of these, see `READ_BY`."""

    method: MethodName = "best_of_n"
    # runs (best_of_n), candidates in each step (beam), runs of all subtrees (dvts), budget (rebase), rollouts (mcts)
    width: int = 16
    branch: int = 4  # beam: candidates for each one that grows on; dvts: runs of each subtree
    # what the scores of a run's steps come to when it is weighed against others
    path_score: Literal["last", "min", "mean", "product"] = "last"
    # whose answer is taken: the best run's; the one with most weight; the most common
    vote: Literal["best", "weighted", "majority"] = "weighted"
    reads: Literal["all", "answer"] = "all"  # what of a run an outcome model reads
    max_steps: int | None = None  # a run with more steps is given up; none: its budget is what ends it
    score_temperature: float = 0.2  # REBASE: of the softmax over scores
    exploration: float = 1.0  # MCTS: weight of what was seldom visited, beside values between 0 and 1
    widening: float = 1.0  # MCTS: a node may have ceil(widening * visits ** widening_power) children
    widening_power: float = 0.5
    max_nodes: int = 4096  # MCTS: steps in all; where they are used up, the search ends
    problems_at_a_time: int = 16  # that share a batch

    def __post_init__(self) -> None:
        for name in ("width", "branch", "max_steps", "max_nodes", "problems_at_a_time"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UserError(f"search.{name} {value} is below 1")
        for name in ("score_temperature", "widening"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise UserError(f"search.{name} {value} is not a number above 0")
        if not 0 <= self.exploration < math.inf:
            raise UserError(f"search.exploration {self.exploration} is not a number of 0 or more")
        if not 0 <= self.widening_power <= 1:
            raise UserError(f"search.widening_power {self.widening_power} is not between 0 and 1")
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
class SweepConfig:
    """The grid instructions x max_thinking_tokens x num_ignore x ignore_strings, and single settings beside it."""

    max_thinking_tokens: tuple[int | None, ...] = (None,)  # on the command line: 16 32 64 None
    num_ignore: tuple[int, ...] = (0,)
    ignore_strings: tuple[str, ...] = ("Wait",)
    min_thinking_tokens: int = 1
    newline_grace: float = 0.0
    end_bias: float = 0.0  # of runs with a maximum; each such run is decoded by itself
    # what the question asks of the thinking: None "token 2048" "step 32" short long
    instructions: tuple[str | None, ...] = (None,)
    max_tries: int = 1  # more: rejection sampling, a run is drawn again until its thinking ends within the maximum
    # each of these too, under each budget of the grid, with the options of `search`: best_of_n beam dvts rebase mcts
    methods: tuple[MethodName, ...] = ()
    widths: tuple[int, ...] = (16,)  # of each method
    shared_trace: Switch = True  # settings that think alike are one run, read at several points; false: each by itself
    scaling: Literal["within", "across"] = "across"  # the Scaling metric within one ignore count, or across all runs
    extra: Annotated[tuple[SettingConfig, ...], tyro.conf.Suppress] = ()  # set in config files only


@dataclasses.dataclass(frozen=True)
class RewardsConfig:
    """The reward models of searches."""

    process: str | None = None  # folder or hub id of one that scores steps
    outcome: str | None = None  # of one that scores whole runs
    max_length: int | None = None  # tokens of a text that is scored; none: the model's context
    batch_size: int = 16  # texts read at a time
    slots: int = 64  # texts kept, of which others may go on

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= self.slots:
            raise UserError(f"rewards.batch_size {self.batch_size} is not between 1 and rewards.slots {self.slots}")


DEFAULT_ANSWER_TOKENS = 512


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """`python -m s1_jax.evaluate`: a sweep of budgets over a task."""

    run_dir: str = "runs/sweep"
    model: ModelSource = ModelSource()
    task: TaskConfig = TaskConfig()
    sweep: SweepConfig = SweepConfig()
    sampling: SamplingConfig = SamplingConfig()  # of the grid
    samples: int = 1  # of the grid, per problem and seed
    seeds: tuple[int, ...] = (0,)  # of what is drawn; settings at temperature 0 are decoded under the first alone
    # none: 512, and as much as fits of a run without forcing, of which it bounds thinking and answer together
    max_answer_tokens: int | None = None
    max_model_len: int | None = None  # none: the model's max_position_embeddings
    batch_size: int = 64
    draft_tokens: int = 0  # looked up in prompt and thinking, and checked by one pass of the model; no token changes
    format: FormatConfig = S1
    search: SearchConfig = SearchConfig()  # options of sweep.methods
    steps: StepConfig = StepConfig()  # of searches
    rewards: RewardsConfig = RewardsConfig()
    stored: StoredConfig = StoredConfig()
    mesh: MeshConfig = MeshConfig()  # over the devices of one process; several take problems in turn
    hosts: HostsConfig = HostsConfig()

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds {self.seeds}: give one at least, and each once")

    @property
    def answer_tokens(self) -> int:
        """`max_answer_tokens`, or its default."""
        return DEFAULT_ANSWER_TOKENS if self.max_answer_tokens is None else self.max_answer_tokens


MOST_OF_ENDPOINT = (  # what an option of a model that is asked can be at most: seconds of a day, threads of a machine
    *(("max_tokens", 10**9), ("concurrent", 1000), ("requests_per_minute", 10**6)),
    *(("timeout_seconds", 86_400.0), ("attempts", 100)),
)


@dataclasses.dataclass(frozen=True)
class EndpointConfig:
    """A model that answers questions: behind an endpoint in OpenAI's form, or decoded here."""

    model: str = ""  # its name at the endpoint, or a folder or hub id where there is none
    base_url: str | None = None  # of an endpoint that speaks OpenAI's protocol, up to and with /v1; none: decoded here
    key_variable: str = "OPENAI_API_KEY"  # the environment variable with the key, if it needs one
    temperature: float | None = 0.0  # None: the request has none, for endpoints that refuse one; decoded here: greedy
    max_tokens: int = 16_384  # of one answer, thinking included
    concurrent: int = 16  # requests at a time; decoded here: rows of the batch
    requests_per_minute: int = 600  # at most
    timeout_seconds: float = 600.0  # of one request
    attempts: int = 8  # at one request, ever longer apart
    thinking: Switch = True  # decoded here: after the start marker of `format`; false for plain instruct models
    mesh: MeshConfig = MeshConfig()  # decoded here
    dollars_per_million_tokens: tuple[float, float] = (0.0, 0.0)  # read and written, for the cost that is shown
    # the request's field for max_tokens; auto: max_tokens, and the newer name where the endpoint asks for it; none: the
    # request has no limit but the endpoint's own
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens", "none"] = "auto"
    plain_http: Switch = False  # allow http:// to other machines: the key, prompts and replies go there unencrypted
    format: FormatConfig = S1  # decoded here: how the model marks its thinking

    section: ClassVar[str] = ""  # before the names of options in messages

    def __post_init__(self) -> None:
        name = self.section
        for field, most in MOST_OF_ENDPOINT:
            if not 0 < (value := getattr(self, field)) <= most:
                raise UserError(f"{name}{field} is {value}; it must be positive, and at most {most:,}")
        if self.temperature is not None and not 0 <= self.temperature < math.inf:
            raise UserError(f"{name}temperature is {self.temperature}; it must be 0 or more")
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
class JudgeConfig(EndpointConfig):
    """An LLM that decides on answers which no rule could; without a model the rules alone decide."""

    max_tokens: int = 4096  # of one answer, thinking included: a judge that reasons needs room before its yes or no
    requests_per_minute: int = 60  # at most

    section: ClassVar[str] = "judge."


@dataclasses.dataclass(frozen=True)
class GradeConfig:
    """Options of `python -m s1_jax.grade RUN_DIR`."""

    judge: JudgeConfig = JudgeConfig()


def resolve_dtype(name: str) -> jnp.dtype:
    """The compute dtype: `auto` is float32 on CPU, bfloat16 on accelerators."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)
