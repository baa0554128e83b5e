"""Train step of a run, compiled ahead of time for absent devices, and its memory."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from s1_jax.chips import GIB
from s1_jax.config import ModelConfig, TrainConfig
from s1_jax.errors import RunError
from s1_jax.planning.hlo import Module, parse
from s1_jax.sharding import Layout
from s1_jax.training.optimizer import make_optimizer
from s1_jax.training.state import TrainState, abstract_state
from s1_jax.training.step import BATCH_KEYS, compile_step

UNITS = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
# the compiler's wordings for the memory that a program needs and what is available
_TOO_LARGE = (
    re.compile(r"required .*?\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)"),
    re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm", re.IGNORECASE),
)


@dataclass(frozen=True)
class Memory:
    """Bytes of HBM in use on one chip while the step runs."""

    params: float
    optimizer: float
    temporaries: float  # peak of activations, gradients, gathered weights, the batch and the program
    total: float  # sum of these
    fits: bool
    host: float = 0.0  # offloaded to the memory of the chip's host


@dataclass(frozen=True)
class Program:
    """One compiled step; `module` is None if it does not fit."""

    memory: Memory
    module: Module | None
    compile_seconds: float


def lower_step(
    config: TrainConfig, model: ModelConfig, layout: Layout, shape: tuple[int, int, int], total_steps: int
) -> jax.stages.Lowered:
    """Lower the step that `train.py` jits, on batches [M, B, T], for the devices of `layout` without any arrays.

    Raises UserError if model and mesh do not fit together.
    """
    tx = make_optimizer(config.optim, model, total_steps)
    target = abstract_state(model, tx, layout)
    step = compile_step(
        model,
        tx,
        target,
        layout,
        compute_dtype=compute_dtype(config.model.dtype),
        remat=config.model.remat,
        async_collectives=config.train.async_collectives,
    )
    rows = layout.sharding("micro", "batch", "length")
    batch: Any = {
        key: jax.ShapeDtypeStruct(shape, jnp.float32 if key == "weights" else jnp.int32, sharding=rows)
        for key in BATCH_KEYS
    }
    micro_batches: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=target.step.sharding)
    with layout.use():
        return step.lower(target, batch, micro_batches)  # type: ignore[attr-defined]


def compile_program(
    config: TrainConfig, model: ModelConfig, layout: Layout, shape: tuple[int, int, int], total_steps: int
) -> Program:
    """Compile the lowered step; that it does not fit into HBM is a result. Raises RunError if the compiler fails."""
    state = state_of(config, model, layout)
    params, optimizer = local_bytes(state.params), local_bytes(state.opt_state)
    started = time.perf_counter()
    compiled, total = compile_lowered(lower_step(config, model, layout, shape, total_steps))
    took = time.perf_counter() - started
    if compiled is None:
        memory = Memory(params, optimizer, max(total - params - optimizer, 0.0), total, fits=False)
        return Program(memory, None, took)
    stats: Any = compiled.memory_analysis()
    memory = Memory(params, optimizer, total - params - optimizer, total, True, stats.host_temp_size_in_bytes)
    return Program(memory, parse(compiled.as_text() or ""), took)


def compile_lowered(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled | None, float]:
    """Compile a program and return it with its peak bytes of HBM, including the program itself.

    If it does not fit, returns None and the bytes that it would need. Raises RunError for other failures.
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        total = too_large(str(error))
        if total is None:
            raise RunError(f"the TPU compiler failed: {str(error).splitlines()[0]}") from None
        return None, total
    stats: Any = compiled.memory_analysis()
    # Not arguments + temporaries: libtpu accepts programs for which these exceed the memory by a fifth, and refuses
    # those whose peak is within 1% of it.
    return compiled, float(stats.peak_memory_in_bytes + stats.generated_code_size_in_bytes)


def compute_dtype(name: str) -> jnp.dtype:
    """Return `model.dtype` on the slice: `auto` is bfloat16, whatever this machine is."""
    return jnp.dtype("bfloat16" if name == "auto" else name)


def too_large(error: str) -> float | None:
    """Return the bytes of HBM that a program would need, from the compiler's error; None for another error."""
    for pattern in _TOO_LARGE:
        if found := pattern.search(error):
            return float(found[1]) * UNITS[found[2].upper()]
    return None


def local_bytes(tree: Any) -> float:
    """Return the bytes per device of a tree of jax.ShapeDtypeStruct with shardings."""
    return float(
        sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    )


def state_of(config: TrainConfig, model: ModelConfig, layout: Layout) -> TrainState:
    """Return the training state of a run as shapes with shardings."""
    return abstract_state(model, make_optimizer(config.optim, model, 1), layout)
