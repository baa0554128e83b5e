"""How kernels may be kept for decoding: as training has them, transposed, or in int8.

`bind` makes whole ones of them within a program, so nothing else knows. Transposed is what XLA's products on CPU read
fastest when rows are few. In int8, with a scale for each output, the layers' take a quarter of float32's memory;
embedding and output head stay as they are: they are small in large models, and errors in the head are errors in the
logits. Products are made in the type of the activations.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class TransposedKernel(NamedTuple):
    """A kernel [in, out] the other way round, as Hugging Face stores it."""

    values: jax.Array  # [out, in]


class Int8Kernel(NamedTuple):
    """A kernel [in, out] as rounded multiples of its scales."""

    values: jax.Array  # int8 [in, out]
    scales: jax.Array  # float32 [out]


def transpose(params: Any) -> Any:
    """The parameters of `qwen2.unstack` with all kernels transposed; those they had are deleted."""

    def leaf(path: tuple, x: jax.Array) -> Any:
        return transposed(x) if path[-1].key == "kernel" else x

    return jax.tree_util.tree_map_with_path(leaf, params)


def quantize(params: Any) -> Any:
    """The parameters of `qwen2.unstack` with their layers' kernels in int8; those they had are deleted."""

    def leaf(path: tuple, x: jax.Array) -> Any:
        names = [key.key for key in path]
        return rounded(x) if names[0] == "layers" and names[-1] == "kernel" else x

    return jax.tree_util.tree_map_with_path(leaf, params)


def whole(params: Any) -> Any:
    """The parameters with every kernel as an array [in, out], of float32 where it was in int8."""

    def leaf(x: Any) -> Any:
        if isinstance(x, Int8Kernel):
            return x.values.astype(jnp.float32) * x.scales
        return x.values.T if isinstance(x, TransposedKernel) else x

    return jax.tree.map(leaf, params, is_leaf=lambda x: isinstance(x, (Int8Kernel, TransposedKernel)))


@partial(jax.jit, donate_argnums=0)
def transposed(kernel: jax.Array) -> TransposedKernel:
    """A kernel [in, out] transposed; the one it was is deleted."""
    return TransposedKernel(kernel.T)


@partial(jax.jit, donate_argnums=0)
def rounded(kernel: jax.Array) -> Int8Kernel:
    """A kernel [in, out] in int8; the one it was is deleted."""
    wide = kernel.astype(jnp.float32)
    scales = jnp.maximum(jnp.abs(wide).max(axis=0), jnp.finfo(jnp.float32).tiny) / 127
    return Int8Kernel(jnp.round(wide / scales).astype(jnp.int8), scales)
