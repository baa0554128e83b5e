"""Options with which the programs of training are compiled, by platform and, on TPU, by generation.

They are passed with each program, so no environment variable is needed. The options for v5p and v6e are here because
the schedule of the compiled step showed a gain of each on v5p (docs/performance.md). Those for v5e are one set, whose
parts were not tried alone.
"""

from __future__ import annotations

import jax

from s1_jax.chips import chip_of

CompilerOptions = dict[str, str | bool | int | float]

# Eigen's matmuls; YNNPACK's, the default since JAX 0.10, take up to twice as long on large float32 arrays
CPU: CompilerOptions = {"xla_cpu_experimental_ynn_fusion_type": ""}
# All-gathers of weights run on the SparseCores, beside matmuls; those over two dimensions of the torus have their own
# option. The other way, fusions with matmuls, libtpu refuses there from 0.0.43.2 on: it may give wrong results.
ON_SPARSE_CORES: CompilerOptions = {
    "xla_tpu_enable_sparse_core_collective_offload_all_gather": True,
    "xla_tpu_enable_sparse_core_collective_offload_2d_all_gather": True,
}
# v5e has no SparseCores, and may fuse all-gathers with matmuls
IN_FUSIONS: CompilerOptions = {
    "xla_tpu_enable_async_collective_fusion": True,
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": True,
    "xla_tpu_enable_async_collective_fusion_multiple_steps": True,
    "xla_tpu_overlap_compute_collective_tc": True,
    "xla_enable_async_all_gather": True,
}
ASYNC_COLLECTIVES: dict[str, CompilerOptions] = {  # by `chips.Chip.name`
    "v5e": IN_FUSIONS,
    "v5p": ON_SPARSE_CORES,
    "v6e": ON_SPARSE_CORES,
}


def compiler_options(device: jax.Device, async_collectives: bool) -> CompilerOptions | None:
    """Return the options for programs of this device; those of TPU only with `async_collectives`."""
    if device.platform == "cpu":
        return CPU
    chip = chip_of(device.device_kind) if device.platform == "tpu" else None
    return ASYNC_COLLECTIVES.get(chip.name) if chip is not None and async_collectives else None
