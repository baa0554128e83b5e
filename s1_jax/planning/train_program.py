"""The train step of a run, compiled ahead of time for devices nobody has, and the memory it takes."""

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
# how the compiler words it: what the program takes, and what there is
_TOO_LARGE = (
    re.compile(r"required .*?\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)"),
    re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm", re.IGNORECASE),
)


@dataclass(frozen=True)
class Memory:
    """Bytes of one chip's HBM while the step runs."""

    params: float
    optimizer: float
    temporaries: float  # activations, gradients, gathered weights, the batch and the program, when they take most
    total: float  # all of these
    fits: bool
    host: float = 0.0  # offloaded, in the memory of the chip's host


@dataclass(frozen=True)
class Program:
    """A compiled step; `module` is None where it did not fit."""

    memory: Memory
    module: Module | None
    compile_seconds: float


def lower_step(
    config: TrainConfig, model: ModelConfig, layout: Layout, shape: tuple[int, int, int], total_steps: int
) -> jax.stages.Lowered:
    """The step that `train.py` jits, on batches [M, B, T], lowered for the devices of `layout` without any array.

    Raises UserError where model and mesh do not fit together.
    """
    tx = make_optimizer(config.optim, model, total_steps)
    target = abstract_state(model, tx, layout)
    step = compile_step(
        model, tx, target, layout, compute_dtype=compute_dtype(config.model.dtype), remat=config.model.remat
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
    """Compiles `lower_step`. That it does not fit into HBM is a result; raises RunError for what else goes wrong."""
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
    """The compiled program and the bytes of HBM that it takes at its peak, itself included.

    None where it does not fit, with the bytes it would have taken. Raises RunError for what else goes wrong.
    """
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        total = too_large(str(error))
        if total is None:
            raise RunError(f"the TPU compiler failed: {str(error).splitlines()[0]}") from None
        return None, total
    stats: Any = compiled.memory_analysis()
    # Not arguments + temporaries: libtpu accepts programs for which these add up to a fifth more than there is, and
    # refuses those whose peak comes within a hundredth of it.
    return compiled, float(stats.peak_memory_in_bytes + stats.generated_code_size_in_bytes)


def compute_dtype(name: str) -> jnp.dtype:
    """`model.dtype` on the slice: `auto` is bfloat16 there, whatever this machine has."""
    return jnp.dtype("bfloat16" if name == "auto" else name)


def too_large(error: str) -> float | None:
    """Bytes of HBM a program would have needed, from the compiler's error; None where that is not what it says."""
    for pattern in _TOO_LARGE:
        if found := pattern.search(error):
            return float(found[1]) * UNITS[found[2].upper()]
    return None


def local_bytes(tree: Any) -> float:
    """Bytes one device holds of a tree of jax.ShapeDtypeStruct with shardings."""
    return float(
        sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    )


def state_of(config: TrainConfig, model: ModelConfig, layout: Layout) -> TrainState:
    """The training state of a run as shapes with shardings."""
    return abstract_state(model, make_optimizer(config.optim, model, 1), layout)
