"""The state of a training run between two steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from s1_jax.config import ModelConfig
from s1_jax.model.transformer import Params, abstract_params, param_axes
from s1_jax.sharding import Layout, assert_sharded


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Everything the next step depends on, besides its data."""

    step: jax.Array  # int32 scalar: optimizer steps done
    params: Params  # float32 master weights, the tree of model.transformer.init_params
    opt_state: Any  # optax state; its moments have the shapes of params


def abstract_state(model: ModelConfig, tx: optax.GradientTransformation, layout: Layout) -> TrainState:
    """Return the state as jax.ShapeDtypeStruct with shardings: moments as their parameter, scalars on every device."""
    params = abstract_params(model)
    params = jax.tree.map(_placed, params, layout.tree(param_axes(model), params))
    everywhere = NamedSharding(layout.mesh, PartitionSpec())
    opt_state = optax.tree.map_params(
        tx,
        lambda leaf, param: _placed(leaf, param.sharding),
        jax.eval_shape(tx.init, params),
        params,
        transform_non_params=lambda leaf: _placed(leaf, everywhere),
    )
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return TrainState(step, params, opt_state)  # type: ignore[arg-type]  # shapes in the place of arrays


def init_state(params: Params, tx: optax.GradientTransformation, target: TrainState) -> TrainState:
    """Make a state at step 0 around `params`, and check that every leaf, moments too, lies where `target` says."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, target)
    opt_state = jax.jit(tx.init, out_shardings=shardings.opt_state)(params)
    state = TrainState(jax.device_put(jnp.zeros((), jnp.int32), shardings.step), params, opt_state)
    assert_sharded(state, shardings)
    return state


def _placed(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
