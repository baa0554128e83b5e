"""Options of `python -m s1_jax.convert`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s1_jax.config.options import Options, Place


@dataclass(frozen=True)
class ConvertConfig(Options):
    """Options of `python -m s1_jax.convert`."""

    source: Place
    """Model to convert: a folder or hub id in Hugging Face layout, a training run, its checkpoints folder, or an Orbax
    checkpoint."""
    target: Place
    """Folder to write, which must not exist."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Type to store the weights in; None keeps the type of the source."""
