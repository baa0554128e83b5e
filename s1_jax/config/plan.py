"""Options of `python -m s1_jax.plan`."""

from __future__ import annotations

import dataclasses

from s1_jax.config.evaluate import EvaluateConfig
from s1_jax.config.options import Count, NotNegative, Place
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
    json: bool = False
    """Print one JSON object and nothing else."""
    search: bool = False
    """Try meshes, rows and remat policies, and rank them by the time of a step as scheduled."""
    search_limit: Count = 12
    """Maximum number of programs that a search compiles; each takes a minute or two."""


@dataclasses.dataclass(frozen=True)
class DecodePlanConfig(EvaluateConfig):
    """The options of the sweep that is planned, and these."""

    topology: str | None = None
    """Slice to plan for, such as v5p:4x4x2, v5e:16x16 or v6e:8x8, or its name at Google Cloud, such as v6e-8."""
    rows: bool = False
    """Find how many rows fit into memory and plan with that many, in place of batch_size."""
    hop_latency_us: NotNegative = 1.0
    """Latency of a link in microseconds: a collective takes at least this for each link that its data crosses one after
    another. 1 is the figure of "How to Scale Your Model", chapter 3; 0 leaves latencies out."""
    json: bool = False
    """Print one JSON object and nothing else."""
