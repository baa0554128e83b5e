"""Options of `python -m s1_jax.plan`."""

from __future__ import annotations

import dataclasses

from s1_jax.config.evaluate import EvaluateConfig
from s1_jax.config.options import Count, Place
from s1_jax.config.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class PlanConfig(TrainConfig):
    """The options of the run that is planned, and these."""

    topology: str | None = None  # the slice: v5p:4x4x2, v5e:16x16, v6e:8x8, or its name for gcloud, such as v5p-64
    lengths: Place | None = None  # JSON file of token counts, one an example, in the place of the data set
    full: bool = False  # in its place: 16 examples of data.max_length tokens each, the most a step can hold
    json: bool = False  # print one JSON object and nothing else
    search: bool = False  # try meshes, rows and remat policies, and rank them
    search_limit: Count = 12  # how many programs a search compiles at most


@dataclasses.dataclass(frozen=True)
class DecodePlanConfig(EvaluateConfig):
    """The options of the sweep that is planned, and these."""

    topology: str | None = None  # the slice: v5p:4x4x2, v5e:16x16, v6e:8x8, or its name for gcloud, such as v6e-8
    rows: bool = False  # find how many rows fit, and plan with so many instead of batch_size
    json: bool = False  # print one JSON object and nothing else
