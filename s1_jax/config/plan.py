"""Options of `python -m s1_jax.plan`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from s1_jax.config.evaluate import EvaluateConfig
from s1_jax.config.options import LARGEST, Count, NotNegative, Place, Range
from s1_jax.config.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class PlanConfig(TrainConfig):
    """The options of the training run that is planned, and these."""

    topology: str | None = None
    """Slice to plan for, such as v5p:4x4x2, v5e:16x16 or v6e:8x8, or its name at Google Cloud, such as v5p-64."""
    lengths: Place | None = None
    """JSON file with the number of tokens of each example, used in place of the data set."""
    full: bool = False
    """Plan with 16 examples of data.max_length tokens, the most a step can hold, in place of the data set."""
    hop_latency_us: NotNegative = 1.0
    """Latency of a link in microseconds: a collective takes at least this for each link that its data crosses one after
    another. 1 is the figure of "How to Scale Your Model", chapter 3; 0 leaves latencies out."""
    programs: Annotated[int, Range(2, LARGEST)] | None = None
    """Compile the step for at most this many of the run's row lengths, including the shortest and the longest, and
    interpolate the costs of the others. All are compiled by default."""
    json: bool = False
    """Print one JSON object and nothing else."""
    search: bool = False
    """Try meshes, rows and remat policies, and rank them by the time of a step as scheduled."""
    search_limit: Count = 12
    """Maximum number of choices that a search compiles; each of their programs takes a few minutes."""


@dataclasses.dataclass(frozen=True)
class DecodePlanConfig(EvaluateConfig):
    """The options of the sweep that is planned, and these."""

    topology: str | None = None
    """Slice to plan for, such as v5p:4x4x2, v5e:16x16 or v6e:8x8, or its name at Google Cloud, such as v6e-8."""
    rows: bool = False
    """Find how many rows fit into memory and plan with that many, in place of batch_size."""
    input_len: Count | None = None
    """Prompt tokens of a request. With output_len the plan is for requests of this length in place of full rows: each
    row has a cache of input_len + output_len tokens and serves one request after another."""
    output_len: Count | None = None
    """New tokens of a request; goes with input_len."""
    hop_latency_us: NotNegative = 1.0
    """Latency of a link in microseconds: a collective takes at least this for each link that its data crosses one after
    another. 1 is the figure of "How to Scale Your Model", chapter 3; 0 leaves latencies out."""
    json: bool = False
    """Print one JSON object and nothing else."""
