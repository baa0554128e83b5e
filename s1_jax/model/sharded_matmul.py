"""Matrix products over a mesh: weights gathered where they are used, their gradients summed in float32.

XLA's own partitioning sums weight gradients in the compute type, and by all-reduces that move twice what a
reduce-scatter does; so on a training mesh the collectives are written out. `expand` and `contract` are the two halves
of attention and of the MLP (Megatron-LM with sequence parallelism, arXiv 2205.05198; weights in pieces as in ZeRO-3,
arXiv 1910.02054): tokens come in and go out in pieces (`residual_length`), between the two the other axis is cut.

Letters: B batch, T length, D hidden_size, F what the mesh cuts between the two.
"""

from __future__ import annotations

from functools import partial, reduce

import jax
import jax.numpy as jnp

from s1_jax.model.stored_weights import product
from s1_jax.sharding import RESIDUAL, Layout, current_layout, is_sharded, shard_over, sum_scatter

KernelAxes = tuple[str, str]  # logical axes of a kernel: one is "embed", the other is cut over the mesh
Arrays = tuple[jax.Array, ...]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def expand(x: jax.Array, kernels: Arrays, axes: tuple[KernelAxes, ...]) -> Arrays:
    """x [B, T, D] @ each kernel [D, F] -> [B, T, F] each, in the type of `x`; x is gathered once for all."""
    layout = _training_layout(x)
    if layout is None:
        return tuple(_matmul(x, kernel) for kernel in kernels)

    def local(x: jax.Array, kernels: Arrays) -> Arrays:
        x = _gather_tokens(layout, x)
        return tuple(x @ _gather(layout, kernel, name, x.dtype) for kernel, name in zip(kernels, axes, strict=True))

    return shard_over(layout, local, (RESIDUAL, axes), tuple(map(_inner, axes)))(x, kernels)


def _expand_backward(
    axes: tuple[KernelAxes, ...], kept: tuple[jax.Array, Arrays], grads: Arrays
) -> tuple[jax.Array, Arrays]:
    x, kernels = kept
    layout = _training_layout(x)
    if layout is None:
        pairs = [_matmul_backward(x, kernel, grad) for kernel, grad in zip(kernels, grads, strict=True)]
        return _sum([to_x for to_x, _ in pairs]), tuple(to_kernel for _, to_kernel in pairs)

    def local(x: jax.Array, kernels: Arrays, grads: Arrays) -> tuple[jax.Array, Arrays]:
        parts = [
            grad @ _gather(layout, kernel, name, x.dtype).T
            for kernel, name, grad in zip(kernels, axes, grads, strict=True)
        ]
        x = _gather_tokens(layout, x)
        to_kernels = (_scatter(layout, _outer(x, grad), name) for name, grad in zip(axes, grads, strict=True))
        return _scatter_tokens(layout, _sum(parts)), tuple(to_kernels)

    inputs = (RESIDUAL, axes, tuple(map(_inner, axes)))
    to_x, to_kernels = shard_over(layout, local, inputs, (RESIDUAL, axes))(x, kernels, grads)
    return to_x, tuple(g.astype(kernel.dtype) for g, kernel in zip(to_kernels, kernels, strict=True))


expand.defvjp(lambda x, kernels, axes: (expand(x, kernels, axes), (x, kernels)), _expand_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, kernel: jax.Array, axes: KernelAxes) -> jax.Array:
    """x [B, T, F] @ kernel [F, D] -> [B, T, D], in the type of `x`."""
    layout = _training_layout(x)
    if layout is None:
        return _matmul(x, kernel)

    def local(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _scatter_tokens(layout, x @ _gather(layout, kernel, axes, x.dtype))

    return shard_over(layout, local, (_inner(axes), axes), RESIDUAL)(x, kernel)


def _contract_backward(
    axes: KernelAxes, kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    layout = _training_layout(x)
    if layout is None:
        return _matmul_backward(x, kernel, grad)

    def local(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        grad = _gather_tokens(layout, grad)
        return grad @ _gather(layout, kernel, axes, x.dtype).T, _scatter(layout, _outer(x, grad), axes)

    to_x, to_kernel = shard_over(layout, local, (_inner(axes), axes, RESIDUAL), (_inner(axes), axes))(x, kernel, grad)
    return to_x, to_kernel.astype(kernel.dtype)


contract.defvjp(lambda x, kernel, axes: (contract(x, kernel, axes), (x, kernel)), _contract_backward)


def _training_layout(x: jax.Array) -> Layout | None:
    """The layout in use where it gathers weights and `x` [B, T, ...] divides over it; elsewhere XLA partitions."""
    layout = current_layout()
    if layout is None or not is_sharded() or not layout.moves_weights:
        return None
    divides = x.shape[0] % layout.size("batch") == 0 and x.shape[1] % layout.size("residual_length") == 0
    return layout if divides else None


def _inner(axes: KernelAxes) -> tuple[str, str, str]:
    """Where [B, T, F] lies."""
    return ("batch", "length", axes[1] if axes[0] == "embed" else axes[0])


def _gather(layout: Layout, kernel: jax.Array, axes: KernelAxes, dtype: jnp.dtype) -> jax.Array:
    return jax.lax.all_gather(kernel.astype(dtype), layout.axes("embed"), axis=axes.index("embed"), tiled=True)


def _scatter(layout: Layout, grad: jax.Array, axes: KernelAxes) -> jax.Array:
    """A kernel's gradient, summed over everyone's tokens; each keeps its piece."""
    own = layout.axes("embed")
    grad = sum_scatter(layout, grad, own, axes.index("embed"))
    others = tuple(axis for name in ("batch", "length") for axis in layout.axes(name) if axis not in own)
    return jax.lax.psum(grad, others)


def _inner_axes(layout: Layout) -> tuple[str, ...]:
    """The mesh axes that cut tokens outside `expand` ... `contract` and F inside."""
    return tuple(axis for axis in layout.axes("residual_length") if axis not in layout.axes("length"))


def _gather_tokens(layout: Layout, x: jax.Array) -> jax.Array:
    return jax.lax.all_gather(x, _inner_axes(layout), axis=1, tiled=True)


def _scatter_tokens(layout: Layout, x: jax.Array) -> jax.Array:
    return sum_scatter(layout, x, _inner_axes(layout), 1)


def _sum(parts: list[jax.Array]) -> jax.Array:
    return reduce(jnp.add, parts)


def _outer(x: jax.Array, grad: jax.Array) -> jax.Array:
    """[B, T, in], [B, T, out] -> [in, out] float32: a kernel's gradient."""
    return jax.lax.dot_general(x, grad, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32)


def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    # two-dimensional where nothing is cut: the backward pass of a 3-D product costs XLA on CPU an extra transpose
    flat = _flat(x)
    return product(flat, kernel).reshape(*x.shape[:-1], kernel.shape[1])


def _matmul_backward(x: jax.Array, kernel: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    flat_x, flat_grad = _flat(x), _flat(grad)
    tokens = tuple(range(flat_x.ndim - 1))
    to_kernel = jax.lax.dot_general(flat_x, flat_grad, ((tokens, tokens), ((), ())), preferred_element_type=jnp.float32)
    return (flat_grad @ kernel.astype(x.dtype).T).reshape(x.shape), to_kernel.astype(kernel.dtype)


def _flat(x: jax.Array) -> jax.Array:
    return x if is_sharded() else x.reshape(-1, x.shape[-1])
