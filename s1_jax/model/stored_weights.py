"""How kernels may be kept for decoding: as training has them, transposed, or in int8.

`bind` makes whole ones of those in int8 within a program. Transposed is what XLA's products on CPU read fastest when
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
class TransposedKernel:
    """A kernel [in, out] the other way round, as Hugging Face stores it; `linear` multiplies by it as it lies.

    As an array that is transposed within the program, XLA on CPU would copy it in every step that has one row.
    """

    values: jax.Array  # [out, in]

    def __getitem__(self, whole: Any) -> TransposedKernel:
        return self  # as a parameter's value is read: kernel[...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the kernel."""
        return self.values.shape[::-1]


class Int8Kernel(NamedTuple):
    """A kernel [in, out] as rounded multiples of its scales."""

    values: jax.Array  # int8 [in, out]
    scales: jax.Array  # float32 [out]


def transpose(params: Any) -> Any:
    """The parameters of `qwen2.unstack` with their layers' kernels transposed; those they had are deleted."""
    return _of_layers(transposed, params)


def quantize(params: Any) -> Any:
    """The parameters of `qwen2.unstack` with their layers' kernels in int8; those they had are deleted."""
    return _of_layers(rounded, params)


def whole(params: Any) -> Any:
    """The parameters with every kernel in int8 as an array [in, out] of float32; transposed ones stay."""

    def leaf(x: Any) -> Any:
        return x.values.astype(jnp.float32) * x.scales if isinstance(x, Int8Kernel) else x

    return jax.tree.map(leaf, params, is_leaf=lambda x: isinstance(x, (Int8Kernel, TransposedKernel)))


def product(x: jax.Array, kernel: jax.Array | TransposedKernel) -> jax.Array:
    """x [..., in] @ kernel [in, out], in the type of `x`."""
    if isinstance(kernel, TransposedKernel):
        over = ((x.ndim - 1,), (1,)), ((), ())
        return jax.lax.dot_general(x, kernel.values.astype(x.dtype), over)
    return x @ kernel.astype(x.dtype)


def _of_layers(change: Callable[[jax.Array], Any], params: Any) -> Any:
    def leaf(path: tuple, x: jax.Array) -> Any:
        names = [key.key for key in path]
        return change(x) if names[0] == "layers" and names[-1] == "kernel" else x

    return jax.tree_util.tree_map_with_path(leaf, params)


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
