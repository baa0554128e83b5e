"""The model, the devices it lies on, and how it is stored while it decodes."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from s1_jax.config.options import Count, Options, Place, Whole
from s1_jax.config.types import Devices


@dataclasses.dataclass(frozen=True)
class DecodeModelSource(Options, section="model"):
    """The model to decode with."""

    path: Place = "Qwen/Qwen2.5-0.5B-Instruct"
    """Model folder or hub id, in Hugging Face layout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products; auto is float32 on CPU and bfloat16 on TPU and GPU."""


@dataclasses.dataclass(frozen=True)
class ModelSource(DecodeModelSource, section="model"):
    """The model to start from."""

    remat: Literal["none", "minimal", "up", "mlp", "full", "offload"] = "full"
    """What the backward pass recomputes instead of keeping. From none to full, less memory is used and more is computed
    again; offload is full with the layers' inputs in host memory."""

    def for_decoding(self) -> DecodeModelSource:
        """Return the same model without the options of training."""
        return DecodeModelSource(self.path, self.dtype)


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


@dataclasses.dataclass(frozen=True)
class StoredConfig(Options, section="stored"):
    """What weights and cache are kept in while decoding; products are made in the compute type."""

    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # auto: the compute type; int8: layers' kernels
    cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"  # auto: the compute type; int8: a scale a head

    def resolved(self, compute: str) -> StoredConfig:
        """With `compute`, the compute type's name, in place of auto."""
        kept: Any = [compute if name == "auto" else name for name in (self.weights, self.cache)]
        return StoredConfig(*kept)
