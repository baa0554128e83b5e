"""Biases and norms on a training mesh: the sums of their gradients over devices come once, after the last layer.

All tokens use these vectors, so devices that hold other tokens sum their gradients. XLA does that in each layer, with
all-reduces of a few KiB for which the chip waits, behind whatever the links carry at that time. Here each such device
has a copy of its own, and the gradient of all layers' copies is summed at once.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from s1_jax.sharding import RESIDUAL, constrain, current_layout

TOKENS = {"norm": RESIDUAL[:2]}  # logical axes of the tokens that meet a vector; of all others:
INNER_TOKENS = ("batch", "length")


def spread(layers: Any, axes: Any, B: int, T: int) -> Any:
    """Give each vector [L, n] of stacked layers, with these logical axes, a copy for each piece of [B, T] tokens.

    That is [L, b, t, n]. Without a training mesh, and where tokens do not divide, the layers are returned as they are.
    """
    layout = current_layout()
    if layout is None or not layout.moves_weights or 0 in layers:
        return layers

    def copies(names: tuple[str, ...], vector: jax.Array) -> jax.Array:
        if vector.ndim != 2:
            return vector
        tokens = TOKENS.get(names[1], INNER_TOKENS)
        b, t = (layout.size(name) for name in tokens)
        if b * t == 1 or B % b or T % t:
            return vector
        L, n = vector.shape
        return constrain(jnp.broadcast_to(vector[:, None, None], (L, b, t, n)), "layers", *tokens, names[1])

    return jax.tree.map(copies, axes, layers, is_leaf=lambda x: type(x) is tuple)


def along_last(vector: jax.Array, x: jax.Array) -> jax.Array:
    """Give a vector [n] the dimensions of x [B, T, ..., n], in float32; all are 1 but those of its copies [b, t, n]."""
    wide = vector.astype(jnp.float32)
    if vector.ndim == 1:
        return jnp.expand_dims(wide, range(x.ndim - 1))
    (b, t, n), (B, T) = vector.shape, x.shape[:2]
    pieces = jnp.broadcast_to(wide[:, None, :, None], (b, B // b, t, T // t, n))
    return pieces.reshape(B, T, *(1,) * (x.ndim - 3), n)
