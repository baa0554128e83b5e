"""Matrix products over a mesh: weights gathered where they are used, their gradients summed in float32.

XLA's own partitioning sums weight gradients in the compute type, and by all-reduces that move twice what a
reduce-scatter does; so on a training mesh the collectives are written out. `expand` and `contract` are the two halves
of attention and of the MLP (Megatron-LM with sequence parallelism, arXiv 2205.05198; weights in pieces as in ZeRO-3,
arXiv 1910.02054): tokens come in and go out in pieces (`residual_length`), between the two the other axis is sharded.

Letters: B batch, T length, D hidden_size, F the dimension that is sharded between the two.
"""

from __future__ import annotations

from functools import partial, reduce

import jax
import jax.numpy as jnp

from s1_jax.model.stored_weights import product
from s1_jax.sharding import RESIDUAL, Layout, current_layout, is_sharded, shard_over, sum_scatter

WeightAxes = tuple[str, str]  # logical axes of a weight: one is "embed", the other is sharded
Arrays = tuple[jax.Array, ...]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def expand(x: jax.Array, weights: Arrays, axes: tuple[WeightAxes, ...]) -> Arrays:
    """Multiply x [B, T, D] by each weight [D, F], in the type of `x`: [B, T, F] each. x is gathered once for all."""
    layout = _training_layout(x)
    if layout is None:
        return tuple(_matmul(x, weight) for weight in weights)

    def local(x: jax.Array, weights: Arrays) -> Arrays:
        x = _gather_tokens(layout, x)
        return tuple(x @ _gather(layout, weight, name, x.dtype) for weight, name in zip(weights, axes, strict=True))

    return shard_over(layout, local, (RESIDUAL, axes), tuple(map(_inner, axes)))(x, weights)


def _expand_backward(
    axes: tuple[WeightAxes, ...], kept: tuple[jax.Array, Arrays], grads: Arrays
) -> tuple[jax.Array, Arrays]:
    x, weights = kept
    layout = _training_layout(x)
    if layout is None:
        pairs = [_matmul_backward(x, weight, grad) for weight, grad in zip(weights, grads, strict=True)]
        return _sum([to_x for to_x, _ in pairs]), tuple(to_weight for _, to_weight in pairs)

    def local(x: jax.Array, weights: Arrays, grads: Arrays) -> tuple[jax.Array, Arrays]:
        parts = [
            grad @ _gather(layout, weight, name, x.dtype).T
            for weight, name, grad in zip(weights, axes, grads, strict=True)
        ]
        x = _gather_tokens(layout, x)
        to_weights = (_scatter(layout, _outer(x, grad), name) for name, grad in zip(axes, grads, strict=True))
        return _scatter_tokens(layout, _sum(parts)), tuple(to_weights)

    inputs = (RESIDUAL, axes, tuple(map(_inner, axes)))
    to_x, to_weights = shard_over(layout, local, inputs, (RESIDUAL, axes))(x, weights, grads)
    return to_x, tuple(g.astype(weight.dtype) for g, weight in zip(to_weights, weights, strict=True))


expand.defvjp(lambda x, weights, axes: (expand(x, weights, axes), (x, weights)), _expand_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, weight: jax.Array, axes: WeightAxes) -> jax.Array:
    """Multiply x [B, T, F] by a weight [F, D], in the type of `x`: [B, T, D]."""
    layout = _training_layout(x)
    if layout is None:
        return _matmul(x, weight)

    def local(x: jax.Array, weight: jax.Array) -> jax.Array:
        return _scatter_tokens(layout, x @ _gather(layout, weight, axes, x.dtype))

    return shard_over(layout, local, (_inner(axes), axes), RESIDUAL)(x, weight)


def _contract_backward(
    axes: WeightAxes, kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    layout = _training_layout(x)
    if layout is None:
        return _matmul_backward(x, weight, grad)

    def local(x: jax.Array, weight: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        grad = _gather_tokens(layout, grad)
        return grad @ _gather(layout, weight, axes, x.dtype).T, _scatter(layout, _outer(x, grad), axes)

    to_x, to_weight = shard_over(layout, local, (_inner(axes), axes, RESIDUAL), (_inner(axes), axes))(x, weight, grad)
    return to_x, to_weight.astype(weight.dtype)


contract.defvjp(lambda x, weight, axes: (contract(x, weight, axes), (x, weight)), _contract_backward)


def _training_layout(x: jax.Array) -> Layout | None:
    """Return the layout in use if it gathers weights and divides `x` [B, T, ...]; None leaves it to XLA."""
    layout = current_layout()
    if layout is None or not is_sharded() or not layout.moves_weights:
        return None
    divides = x.shape[0] % layout.size("batch") == 0 and x.shape[1] % layout.size("residual_length") == 0
    return layout if divides else None


def _inner(axes: WeightAxes) -> tuple[str, str, str]:
    """Return the logical axes of [B, T, F]."""
    return ("batch", "length", axes[1] if axes[0] == "embed" else axes[0])


def _gather(layout: Layout, weight: jax.Array, axes: WeightAxes, dtype: jnp.dtype) -> jax.Array:
    return jax.lax.all_gather(weight.astype(dtype), layout.axes("embed"), axis=axes.index("embed"), tiled=True)


def _scatter(layout: Layout, grad: jax.Array, axes: WeightAxes) -> jax.Array:
    """Sum a weight's gradient over the tokens of all devices; each device keeps its shard."""
    own = layout.axes("embed")
    grad = sum_scatter(layout, grad, own, axes.index("embed"))
    others = tuple(axis for name in ("batch", "length") for axis in layout.axes(name) if axis not in own)
    return jax.lax.psum(grad, others)


def _inner_axes(layout: Layout) -> tuple[str, ...]:
    """Return the mesh axes that shard tokens outside `expand` ... `contract` and F inside."""
    return tuple(axis for axis in layout.axes("residual_length") if axis not in layout.axes("length"))


def _gather_tokens(layout: Layout, x: jax.Array) -> jax.Array:
    return jax.lax.all_gather(x, _inner_axes(layout), axis=1, tiled=True)


def _scatter_tokens(layout: Layout, x: jax.Array) -> jax.Array:
    return sum_scatter(layout, x, _inner_axes(layout), 1)


def _sum(parts: list[jax.Array]) -> jax.Array:
    return reduce(jnp.add, parts)


def _outer(x: jax.Array, grad: jax.Array) -> jax.Array:
    """[B, T, in], [B, T, out] -> [in, out] float32: a weight's gradient."""
    return jax.lax.dot_general(x, grad, (((0, 1), (0, 1)), ((), ())), preferred_element_type=jnp.float32)


def _matmul(x: jax.Array, weight: jax.Array) -> jax.Array:
    # two-dimensional where nothing is cut: the backward pass of a 3-D product costs XLA on CPU an extra transpose
    flat = _flat(x)
    return product(flat, weight).reshape(*x.shape[:-1], weight.shape[1])


def _matmul_backward(x: jax.Array, weight: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
    flat_x, flat_grad = _flat(x), _flat(grad)
    tokens = tuple(range(flat_x.ndim - 1))
    to_weight = jax.lax.dot_general(flat_x, flat_grad, ((tokens, tokens), ((), ())), preferred_element_type=jnp.float32)
    return (flat_grad @ weight.astype(x.dtype).T).reshape(x.shape), to_weight.astype(weight.dtype)


def _flat(x: jax.Array) -> jax.Array:
    return x if is_sharded() else x.reshape(-1, x.shape[-1])
