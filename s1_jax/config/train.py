"""Options of `python -m s1_jax.train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

import tyro

from s1_jax.config.budget import S1, FormatConfig
from s1_jax.config.model import HostsConfig, MeshConfig, ModelSource
from s1_jax.config.options import BelowOne, Count, NotNegative, Options, Place, Positive, Seed, Share
from s1_jax.config.types import Epochs, RowLength, Rows
from s1_jax.errors import UserError


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
