"""Options of `python -m s1_jax.train`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

import tyro

from s1_jax.config.budget import S1, FormatConfig
from s1_jax.config.model import HostsConfig, MeshConfig, ModelSource
from s1_jax.config.options import BelowOne, Count, NotNegative, Options, Place, Positive, Seed, UnitInterval
from s1_jax.config.types import Epochs, RowLength, Rows
from s1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataConfig(Options, section="data"):
    """Training examples, and how they are packed into batches."""

    path: Place = "simplescaling/s1K-1.1"
    """Data set: a hub id, a folder, or a JSONL, Parquet or CSV file."""
    split: str = "train"
    """Split of a hub data set or of a folder; a single file is read whole."""
    layout: str = "auto"
    """Meaning of the columns: s1k_tokenized, s1k_1_1, s1k, traces or plain; auto finds it by their names."""
    columns: Mapping[str, str] | None = None
    """Names of the columns of another layout, as pairs of question, thinking and answer (or text) with a column."""
    control: Literal["none", "token", "step"] = "none"
    """Append a limit on thinking to each question, in tokens or in steps that count down, to train conditional
    control."""
    max_length: Count = 32768
    """Maximum number of tokens of an example; see too_long."""
    row_lengths: tuple[RowLength, ...] = ()
    """Lengths in tokens of packed rows, ascending; each batch uses the shortest that fits, and each is compiled once.
    With none given, max_length is the only one."""
    too_long: Literal["error", "drop", "truncate"] = "error"
    """What happens to an example longer than max_length: an error, or it is dropped or truncated."""
    loss_weighting: Literal["example", "token"] = "example"
    """What counts the same in the loss of a batch: each example, whatever its length, or each token."""
    batch_by: Literal["examples", "tokens"] = "examples"
    """Size of a batch: a number of examples (batch_examples), or a number of tokens (batch_tokens)."""
    batch_examples: Count = 16
    """Examples per optimizer step, if batch_by is examples."""
    batch_tokens: Count | None = None
    """Tokens per optimizer step, if batch_by is tokens; best a multiple of micro_batch_rows times a row length."""
    micro_batch_rows: Rows = 1
    """Packed rows of one micro-batch over all devices, a multiple of mesh.data x mesh.fsdp. More rows use more memory
    and make fewer micro-batches per optimizer step."""
    held_out_share: BelowOne = 0.0
    """Fraction of the examples that is kept for the held-out loss and not trained on."""

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.row_lengths
        if list(given) != sorted(set(given)):
            raise UserError(f"data.row_lengths {' '.join(map(str, given))} must be ascending, each once")
        if given and self.max_length > given[-1]:
            raise UserError(f"data.max_length {self.max_length} is above the longest of data.row_lengths, {given[-1]}")

    @property
    def capacities(self) -> tuple[int, ...]:
        """Return the lengths T that packed rows may have, ascending."""
        return self.row_lengths or (self.max_length,)


@dataclasses.dataclass(frozen=True)
class OptimConfig(Options, section="optim"):
    """AdamW with a linear warm-up and a cosine decay to zero; the defaults are s1's."""

    peak_lr: NotNegative = 1e-5
    """Highest learning rate, at the end of the warm-up."""
    warmup_share: UnitInterval = 0.05
    """Fraction of the steps in which the learning rate rises from 0 to its peak."""
    b1: BelowOne = 0.9
    """Decay of the mean of gradients in AdamW."""
    b2: BelowOne = 0.95
    """Decay of the mean of squared gradients in AdamW."""
    eps: Positive = 1e-8
    """Constant in the denominator of AdamW's update, against division by zero."""
    weight_decay: NotNegative = 1e-4
    """Decoupled weight decay; biases and norms have none."""
    clip_norm: Positive = 1.0
    """Scale gradients down to this global norm where theirs is larger."""
    moments: Literal["float32", "bfloat16"] = "float32"
    """Type that AdamW's moments are kept in; bfloat16 saves 4 bytes per parameter."""


@dataclasses.dataclass(frozen=True)
class TrainLoopConfig(Options, section="train"):
    """Length and seed of the run, and how often it reports."""

    epochs: Epochs = 5
    """Number of passes over the training examples."""
    seed: Seed = 0
    """Seed of the order of examples and of the held-out choice."""
    log_every_steps: Count = 1
    """Print a line every so many steps; metrics.jsonl has every step."""
    held_out_every_steps: Count = 50
    """Compute the held-out loss every so many steps, if held_out_share is above 0."""
    async_collectives: bool = True
    """Compile for TPU so that weights are gathered beside matmuls."""


@dataclasses.dataclass(frozen=True)
class LogConfig(Options, section="log"):
    """Logs beside metrics.jsonl and TensorBoard."""

    wandb_project: str | None = None
    """Project of Weights & Biases to log to (pip install wandb); None turns it off."""
    profile_steps: Annotated[tuple[Count, ...], tyro.conf.arg(aliases=("--profile",))] = ()
    """Steps to write a profiler trace of into run_dir/profile, such as 10 11 12; each unbroken range is one trace."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Options, section="checkpoint"):
    """Checkpoints of the training state; the last step is always saved."""

    every_steps: Count = 50
    """Save a checkpoint every so many steps."""
    keep: Count = 2
    """Number of latest checkpoints to keep; older ones are deleted."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(Options):
    """Options of `python -m s1_jax.train`: supervised fine-tuning."""

    run_dir: Place = "runs/train"
    """Folder of the run: its config, metrics, checkpoints and, at the end, the model in hf/. The same command resumes
    it."""
    model: ModelSource = ModelSource()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainLoopConfig = TrainLoopConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    mesh: MeshConfig = MeshConfig()
    hosts: HostsConfig = HostsConfig()
    format: FormatConfig = S1
    """How thinking is marked in the examples; finished texts (data.layout s1k_tokenized) are used as they are."""
