"""One optimizer step, a pure function: gradients summed over micro-batches, then the update."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax

from s1_jax.config import ModelConfig
from s1_jax.model.transformer import Params
from s1_jax.sharding import Layout
from s1_jax.training.compiler_options import compiler_options
from s1_jax.training.losses import Batch, weighted_nll
from s1_jax.training.state import TrainState

BATCH_KEYS = ("token_ids", "positions", "segment_ids", "targets", "weights")


def loss_and_grads(
    model: ModelConfig, params: Params, batch: Batch, micro_batches: jax.Array, *, compute_dtype: jnp.dtype, remat: str
) -> tuple[jax.Array, Params]:
    """Compute the loss (scalar) and the gradients of the first `micro_batches` of a batch of arrays [M, B, T].

    The loop has a traced bound, so steps with fewer micro-batches neither compile anew nor compute padding. A batch of
    one needs no loop, and so no second set of gradients.
    """
    grad = jax.value_and_grad(partial(weighted_nll, model, compute_dtype=compute_dtype, remat=remat))
    if batch["token_ids"].shape[0] == 1:
        return grad(params, jax.tree.map(lambda x: x[0], batch))

    def add(index: jax.Array, total: tuple[jax.Array, Params]) -> tuple[jax.Array, Params]:
        micro = jax.tree.map(lambda x: x[index], batch)
        return jax.tree.map(jnp.add, total, grad(params, micro))

    zero = (jnp.zeros((), jnp.float32), jax.tree.map(jnp.zeros_like, params))
    return jax.lax.fori_loop(0, micro_batches, add, zero)


def train_step(
    model: ModelConfig,
    tx: optax.GradientTransformation,
    state: TrainState,
    batch: Batch,
    micro_batches: jax.Array,
    *,
    compute_dtype: jnp.dtype,
    remat: str,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Take one step, and return the new state and scalars.

    The scalars are `loss`, `grad_norm` before clipping and `param_norm` after the update.
    """
    loss, grads = loss_and_grads(model, state.params, batch, micro_batches, compute_dtype=compute_dtype, remat=remat)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss, "grad_norm": optax.tree.norm(grads), "param_norm": optax.tree.norm(params)}
    return TrainState(state.step + 1, params, opt_state), metrics


def compile_step(
    model: ModelConfig,
    tx: optax.GradientTransformation,
    target: TrainState,
    layout: Layout,
    *,
    compute_dtype: jnp.dtype,
    remat: str,
    async_collectives: bool = True,
) -> Callable[[TrainState, Batch, jax.Array], tuple[TrainState, dict[str, jax.Array]]]:
    """Jit `train_step` for one layout, with the state donated; call the result within `layout.use()`."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    rows = layout.sharding("micro", "batch", "length")
    everywhere = shardings.step
    return jax.jit(
        partial(train_step, model, tx, compute_dtype=compute_dtype, remat=remat),
        in_shardings=(shardings, dict.fromkeys(BATCH_KEYS, rows), everywhere),
        out_shardings=(shardings, everywhere),
        donate_argnums=0,
        compiler_options=compiler_options(layout.mesh.devices.flat[0], async_collectives),
    )


def compile_loss(
    model: ModelConfig,
    target: TrainState,
    layout: Layout,
    *,
    compute_dtype: jnp.dtype,
    remat: str,
    async_collectives: bool = True,
) -> Callable[[Params, Batch, jax.Array], jax.Array]:
    """Jit the loss of a batch [M, B, T] without gradients, for held-out examples."""

    def loss(params: Params, batch: Batch, micro_batches: jax.Array) -> jax.Array:
        def add(index: jax.Array, total: jax.Array) -> jax.Array:
            micro = jax.tree.map(lambda x: x[index], batch)
            return total + weighted_nll(model, params, micro, compute_dtype=compute_dtype, remat=remat)

        return jax.lax.fori_loop(0, micro_batches, add, jnp.zeros((), jnp.float32))

    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    rows = layout.sharding("micro", "batch", "length")
    return jax.jit(
        loss,
        in_shardings=(shardings.params, dict.fromkeys(BATCH_KEYS, rows), shardings.step),
        compiler_options=compiler_options(layout.mesh.devices.flat[0], async_collectives),
    )
