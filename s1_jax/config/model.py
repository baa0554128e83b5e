"""The model, the devices that hold it, and the types it is stored in while decoding."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from s1_jax.config.options import Count, Options, Place, Whole
from s1_jax.config.types import Devices


@dataclasses.dataclass(frozen=True)
class DecodeModelSource(Options, section="model"):
    """The model to decode with, and the type of its matrix products."""

    path: Place = "Qwen/Qwen2.5-0.5B-Instruct"
    """Model folder or hub id, in Hugging Face layout."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of matrix products; auto is float32 on CPU and bfloat16 on TPU and GPU."""


@dataclasses.dataclass(frozen=True)
class ModelSource(DecodeModelSource, section="model"):
    """The model to start from, and what its training recomputes."""

    remat: Literal["none", "minimal", "up", "mlp", "attention", "full", "offload"] = "full"
    """What the backward pass recomputes instead of keeping. From none to full, less memory is used and more is computed
    again; offload is full with the layers' inputs in host memory."""

    def for_decoding(self) -> DecodeModelSource:
        """Return the same model without the options of training."""
        return DecodeModelSource(self.path, self.dtype)


@dataclasses.dataclass(frozen=True)
class MeshConfig(Options, section="mesh"):
    """Number of devices along each mesh axis."""

    data: Devices = 1
    """Copies of the model, each with its own part of the batch. It is the only axis that may cross slices."""
    fsdp: Devices = -1
    """Devices that share one copy of the weights, each with its own part of the batch. One axis may be -1, which takes
    the devices that the others leave."""
    context: Devices = 1
    """Devices that share the length of each row in training. In decoding it shares weights and batch, as fsdp does."""
    tensor: Devices = 1
    """Devices that share each layer's heads, its MLP and the vocabulary."""


@dataclasses.dataclass(frozen=True)
class HostsConfig(Options, section="hosts"):
    """How several processes form one run, one process on each host of a TPU slice."""

    processes: str = "auto"
    """Processes of the run. auto is all hosts of a TPU slice, and elsewhere this process alone; none is this process
    alone. HOST:PORT,COUNT,INDEX gives the address of the first process, their number and the index of this one."""
    start_seconds: Count = 300
    """Wait this many seconds for the other processes at the start."""
    lost_after_seconds: Count = 100
    """If one process is silent for this many seconds, the others exit with code 70."""
    stall_seconds: Whole = 1800
    """If the run makes no progress for this many seconds, it exits with code 70; 0 turns this off."""


@dataclasses.dataclass(frozen=True)
class StoredConfig(Options, section="stored"):
    """What weights and cache are kept in while decoding; matrix products have the type of model.dtype."""

    weights: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Type that weights are kept in; auto is the type of matrix products. int8 keeps each layer's matrices in 8 bits,
    with one scale per output; embedding and output head stay as they are."""
    cache: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    """Type that the KV cache is kept in; auto is the type of matrix products. int8 keeps one scale per token and
    head."""

    def resolved(self, compute: str) -> StoredConfig:
        """Return the same config with `compute`, the name of the compute type, in place of auto."""
        kept: Any = [compute if name == "auto" else name for name in (self.weights, self.cache)]
        return StoredConfig(*kept)
