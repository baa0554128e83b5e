"""AdamW as s1 uses it: warm-up, cosine to zero, clipping by the global norm, no decay on biases and norms."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from s1_jax.config import ModelConfig, OptimConfig
from s1_jax.model.transformer import Params, param_axes


def learning_rate(config: OptimConfig, total_steps: int) -> optax.Schedule:
    """Make the learning-rate schedule: linear from 0 over ceil(warmup_share * total) steps, then half a cosine to 0.

    As transformers' `get_cosine_schedule_with_warmup`: the very first step has rate 0.
    """
    warmup = math.ceil(config.warmup_share * total_steps)
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, config.peak_lr, max(warmup, 1)),
            optax.cosine_decay_schedule(config.peak_lr, max(total_steps - warmup, 1)),
        ],
        [warmup],
    )


def decayed(config: ModelConfig) -> Params:
    """Mark each parameter that weight decay applies to: the matrices."""

    def is_matrix(path: tuple, axes: tuple[str, ...]) -> bool:
        return path[-1].key != "bias" and not {"norm", "q_norm", "k_norm"} & set(axes)

    return jax.tree_util.tree_map_with_path(is_matrix, param_axes(config), is_leaf=lambda x: isinstance(x, tuple))


def make_optimizer(config: OptimConfig, model: ModelConfig, total_steps: int) -> optax.GradientTransformation:
    """Make the optimizer: clipping, then AdamW (as optax.adamw) with its moments stored in `config.moments`."""
    adamw = optax.chain(
        kept_as(jnp.dtype(config.moments), optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)),
        optax.add_decayed_weights(config.weight_decay, mask=decayed(model)),
        optax.scale_by_learning_rate(learning_rate(config, total_steps)),
    )
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def kept_as(dtype: jnp.dtype, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Store the floating-point arrays of the state of `tx` as `dtype` between steps, and as float32 within one."""

    def cast(state: Any, dtype: jnp.dtype) -> Any:
        return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, state)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = tx.update(updates, cast(state, jnp.dtype(jnp.float32)), params)
        return updates, cast(state, dtype)

    return optax.GradientTransformation(lambda params: cast(tx.init(params), dtype), update)
