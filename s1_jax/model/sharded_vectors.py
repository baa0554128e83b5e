"""Biases and norms on a training mesh: the sums of their gradients over devices come once, after the last layer.

All tokens use these vectors, so devices that hold other tokens sum their gradients. XLA does that in each layer, with
all-reduces of a few KiB for which the chip waits, behind whatever the links carry at that time. Here each such device
has a copy of its own, and the gradient of all layers' copies is summed at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from s1_jax.sharding import RESIDUAL, constrain, current_layout

INNER = ("batch", "length")  # logical axes of the tokens that biases are added to
# those of what a norm is applied to: tokens between layers, or the heads of tokens within attention
MET = {"norm": RESIDUAL[:2], "q_norm": (*INNER, "act_heads"), "k_norm": (*INNER, "act_kv_heads")}


def spread(layers: Any, axes: Any, sizes: Mapping[str, int]) -> Any:
    """Give each vector [L, n] of stacked layers, with these logical axes, a copy for each piece of what it meets.

    That is [L, b, t, n], or [L, b, t, h, n] for norms of heads. `sizes` has the numbers of rows, tokens and heads by
    logical axis; one that does not divide stays whole. Without a training mesh the layers are returned as they are.
    """
    layout = current_layout()
    if layout is None or not layout.moves_weights or 0 in layers:
        return layers

    def copies(names: tuple[str, ...], vector: jax.Array) -> jax.Array:
        if vector.ndim != 2:
            return vector
        met = MET.get(names[1], INNER)
        pieces = [1 if sizes[name] % (parts := layout.size(name)) else parts for name in met]
        if math.prod(pieces) == 1:
            return vector
        L, n = vector.shape
        single = vector.reshape(L, *(1,) * len(pieces), n)
        return constrain(jnp.broadcast_to(single, (L, *pieces, n)), "layers", *met, names[1])

    return jax.tree.map(copies, axes, layers, is_leaf=lambda x: type(x) is tuple)


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Give a vector [n] the dimensions of x [B, T, ..., n], in float32; all are 1 but those of its copies.

    Those, [b, t, n] or [b, t, h, n], are repeated to the sizes of x.
    """
    *copies, n = vector.shape
    sizes = x.shape[: len(copies)]
    each = vector.astype(jnp.float32).reshape(*(size for c in copies for size in (c, 1)), n)
    repeated = (size for c, whole in zip(copies, sizes, strict=True) for size in (c, whole // c))
    return jnp.broadcast_to(each, (*repeated, n)).reshape(*sizes, *(1,) * (x.ndim - vector.ndim), n)
