"""Kernels of layers in int8, a scale for each output: a quarter of float32's memory, for decoding.

Embedding and output head stay as they are: they are small in large models, and errors in the head are errors in the
logits. Products are made in the type of the activations.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Int8Kernel(NamedTuple):
    """A kernel [in, out] as rounded multiples of its scales."""

    values: jax.Array  # int8 [in, out]
    scales: jax.Array  # float32 [out]


def quantize(params: Any) -> Any:
    """The parameters of `qwen2.unstack` with their layers' kernels in int8; those they had are deleted."""

    def leaf(path: tuple, x: jax.Array) -> Any:
        names = [key.key for key in path]
        return rounded(x) if names[0] == "layers" and names[-1] == "kernel" else x

    return jax.tree_util.tree_map_with_path(leaf, params)


def whole(params: Any) -> Any:
    """The parameters with every kernel as an array of float32, as far as they were in int8."""

    def leaf(x: Any) -> Any:
        return x.values.astype(jnp.float32) * x.scales if isinstance(x, Int8Kernel) else x

    return jax.tree.map(leaf, params, is_leaf=lambda x: isinstance(x, Int8Kernel))


@partial(jax.jit, donate_argnums=0)
def rounded(kernel: jax.Array) -> Int8Kernel:
    """A kernel [in, out] in int8; the one it was is deleted."""
    wide = kernel.astype(jnp.float32)
    scales = jnp.maximum(jnp.abs(wide).max(axis=0), jnp.finfo(jnp.float32).tiny) / 127
    return Int8Kernel(jnp.round(wide / scales).astype(jnp.int8), scales)
