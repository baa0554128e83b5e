"""Options of `python -m s1_jax.convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s1_jax.config.options import Options, Place


@dataclass(frozen=True)
class ConvertConfig(Options):
    """What to convert."""

    source: Place  # folder or hub id in Hugging Face layout; or a training run, its checkpoints/, or an Orbax folder
    target: Place  # folder to write; must not exist
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # type to store; none: that of the source
