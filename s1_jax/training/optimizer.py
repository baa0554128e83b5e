"""AdamW as s1 uses it: warm-up, cosine to zero, clipping by the global norm, no decay on biases and norms."""

from __future__ import annotations

import math

import jax
import optax

from s1_jax.config import ModelConfig, OptimConfig
from s1_jax.model.qwen2 import Params, param_axes


def learning_rate(config: OptimConfig, total_steps: int) -> optax.Schedule:
    """The rate of step 0, 1, ...: linear from 0 over ceil(warmup_share * total) steps, then half a cosine to 0.

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
    """True for each parameter that weight decay applies to: the matrices."""

    def is_matrix(path: tuple, axes: tuple[str, ...]) -> bool:
        return path[-1].key != "bias" and "norm" not in axes

    return jax.tree_util.tree_map_with_path(is_matrix, param_axes(config), is_leaf=lambda x: isinstance(x, tuple))


def make_optimizer(config: OptimConfig, model: ModelConfig, total_steps: int) -> optax.GradientTransformation:
    """Clip, then AdamW; moments in the parameters' own dtype (float32)."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, total_steps),
            b1=config.b1,
            b2=config.b2,
            eps=config.eps,
            weight_decay=config.weight_decay,
            mask=decayed(model),
        ),
    )
