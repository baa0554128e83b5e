"""Forms in which weights may be stored for decoding: as training has them, transposed, or in int8.

`bind` makes int8 weights whole within a program. Transposed is what XLA's products on CPU read fastest when
rows are few. In int8, with a scale for each output, they take a quarter of float32's memory. Embedding and output head
stay as they are: they are small in large models, and errors in the head are errors in the logits. Products are made in
the type of the activations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TransposedWeight:
    """A weight [in, out] transposed, as Hugging Face stores it; `product` multiplies by it without a copy.

    As an array that is transposed within the program, XLA on CPU would copy it in every step that has one row.
    """

    values: jax.Array  # [out, in]

    def __getitem__(self, whole: Any) -> TransposedWeight:
        return self  # a parameter's value is read as weight[...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [in, out] of the weight that is stored."""
        return self.values.shape[::-1]


class Int8Weight(NamedTuple):
    """A weight [in, out] as rounded multiples of its scales."""

    values: jax.Array  # int8 [in, out]
    scales: jax.Array  # float32 [out]


def transpose(params: Any) -> Any:
    """Transpose the layers' weights in the parameters of `transformer.unstack`; the old ones are deleted."""
    return _of_layers(transposed, params)


def quantize(params: Any) -> Any:
    """Store the layers' weights in the parameters of `transformer.unstack` in int8; the old ones are deleted."""
    return _of_layers(rounded, params)


def whole(params: Any) -> Any:
    """Turn every int8 weight into an array [in, out] of float32; transposed ones stay."""

    def leaf(x: Any) -> Any:
        return x.values.astype(jnp.float32) * x.scales[None] if isinstance(x, Int8Weight) else x

    return jax.tree.map(leaf, params, is_leaf=lambda x: isinstance(x, (Int8Weight, TransposedWeight)))


def product(x: jax.Array, weight: jax.Array | TransposedWeight) -> jax.Array:
    """Multiply x [..., in] by a weight [in, out], in the type of `x`."""
    if isinstance(weight, TransposedWeight):
        over = ((x.ndim - 1,), (1,)), ((), ())
        return jax.lax.dot_general(x, weight.values.astype(x.dtype), over)
    return x @ weight.astype(x.dtype)


def _of_layers(change: Callable[[jax.Array], Any], params: Any) -> Any:
    def leaf(path: tuple, x: jax.Array) -> Any:
        names = [key.key for key in path]
        return change(x) if names[0] == "layers" and names[-1] == "kernel" else x

    return jax.tree_util.tree_map_with_path(leaf, params)


@partial(jax.jit, donate_argnums=0)
def transposed(weight: jax.Array) -> TransposedWeight:
    """Transpose a weight [in, out]; the old one is deleted."""
    return TransposedWeight(weight.T)


@partial(jax.jit, donate_argnums=0)
def rounded(weight: jax.Array) -> Int8Weight:
    """Round a weight [in, out] to int8; the old one is deleted."""
    wide = weight.astype(jnp.float32)
    scales = jnp.maximum(jnp.abs(wide).max(axis=0), jnp.finfo(jnp.float32).tiny) / 127
    return Int8Weight(jnp.round(wide / scales[None]).astype(jnp.int8), scales)
