"""Table of what each TPU chip can do, behind MFU and every planned time.

Sources. Peak, memory bandwidth and interconnect: "How to Scale Your Model" (jax-ml.github.io/scaling-book), chapter 2,
table of TPU specs; the peaks also on Google Cloud's page of each version (cloud.google.com/tpu/docs/v5p, and so on).
Usable memory: the limit that the compiler names when a program exceeds it (libtpu 0.0.42), which is the chip's memory
less what the runtime keeps. Wrap-around links: Google Cloud's v5p page (slices of whole 4x4x4 cubes are a full torus,
smaller ones have none) and, for the 2D generations, the book (only an axis of 16 wraps).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

GIB = 2**30
LANES = 128  # width of a TPU's registers and memory tiles: last dimensions that are multiples of it waste nothing


@dataclass(frozen=True)
class Chip:
    """Figures of one generation of TPU chips.

    All figures are those of one JAX device: `jax.device_count()` and a mesh count devices, and some chips are two.
    """

    name: str  # as in topology names
    device_kinds: tuple[str, ...]  # as jax.Device.device_kind spells it
    peak_flops: float  # dense bfloat16, FLOP/s
    hbm_bytes: float | None = None  # that a program may use; None if unknown
    hbm_bandwidth: float = 0.0  # bytes/s
    link_bandwidth: float = 0.0  # bytes/s over one ICI link in one direction
    torus: int = 0  # dimensions of the interconnect
    wrap: int = 0  # an axis has wrap-around links where its length is a multiple of this
    cubes: bool = False  # and only where all axes are
    devices: int = 1  # JAX devices of one chip

    def wraps(self, shape: tuple[int, ...]) -> tuple[bool, ...]:
        """Tell for each axis of a slice of this shape whether its ends are linked."""
        full = [size % self.wrap == 0 for size in shape]
        return tuple(all(full) if self.cubes else axis for axis in full)


CHIPS = (
    Chip("v4", ("TPU v4",), 275e12, None, 1.2e12, 4.5e10, 3, 4, cubes=True),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 197e12, 15.75 * GIB, 8.1e11, 4.5e10, 2, 16),
    Chip("v5p", ("TPU v5", "TPU v5p"), 459e12, 95.74 * GIB, 2.765e12, 9e10, 3, 4, cubes=True),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 918e12, 31.25 * GIB, 1.64e12, 9e10, 2, 16),
    Chip("v7x", ("TPU7x",), 2307e12 / 2, devices=2),  # its peak alone, for MFU
)


def chip_of(device_kind: str) -> Chip | None:
    """Return the chip behind `jax.Device.device_kind`, or None if the table does not have it."""
    return next((chip for chip in CHIPS if device_kind in chip.device_kinds), None)


def resolve_dtype(name: str) -> jnp.dtype:
    """Resolve the compute dtype: `auto` is float32 on CPU and bfloat16 on accelerators."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)
