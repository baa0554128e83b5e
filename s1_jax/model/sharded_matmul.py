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

from s1_jax.model.rings import Ring, Whole, cut, gather, halves, pieces, sum_parts
from s1_jax.model.stored_weights import product
from s1_jax.sharding import RESIDUAL, Layout, current_layout, is_sharded, shard_over, sum_scatter

WeightAxes = tuple[str, str]  # logical axes of a weight: one is "embed", the other is sharded
Arrays = tuple[jax.Array, ...]
GATHERED = ("batch", "length", "act_embed")


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def expand(x: jax.Array, weights: Arrays, axes: tuple[WeightAxes, ...]) -> Arrays:
    """Multiply x [B, T, D] by each weight [D, F], in the type of `x`: [B, T, F] each. x is gathered once for all."""
    return _expand(x, weights, axes)[0]


def _expand(x: jax.Array, weights: Arrays, axes: tuple[WeightAxes, ...]) -> tuple[Arrays, jax.Array]:
    """Return the products, and x as it was gathered."""
    layout = _training_layout(x)
    if layout is None:
        return tuple(_matmul(x, weight) for weight in weights), x

    def local(x: jax.Array, weights: Arrays) -> tuple[Arrays, jax.Array]:
        whole = [_gather(layout, weight, name, x.dtype) for weight, name in zip(weights, axes, strict=True)]
        ring = _inner_ring(layout)
        results = [Whole(ring.parts * x.shape[1], 1, filled=True) for _ in whole]
        gathered = Whole(ring.parts * x.shape[1], 1)
        for index, offset, piece in pieces(ring, x, 1):
            start = index * x.shape[1] + offset
            gathered.put(start, piece)
            for result, weight in zip(results, whole, strict=True):
                result.put(start, piece @ weight)
        return tuple(result.array for result in results), gathered.array

    return shard_over(layout, local, (RESIDUAL, axes), (tuple(map(_inner, axes)), GATHERED))(x, weights)


def _expand_forward(x: jax.Array, weights: Arrays, axes: tuple[WeightAxes, ...]) -> tuple[Arrays, tuple]:
    products, gathered = _expand(x, weights, axes)
    return products, (gathered, weights)


def _expand_backward(
    axes: tuple[WeightAxes, ...], kept: tuple[jax.Array, Arrays], grads: Arrays
) -> tuple[jax.Array, Arrays]:
    x, weights = kept
    layout = _training_layout(x)
    if layout is None:
        pairs = [_matmul_backward(x, weight, grad) for weight, grad in zip(weights, grads, strict=True)]
        return _sum([to_x for to_x, _ in pairs]), tuple(to_weight for _, to_weight in pairs)

    def local(x: jax.Array, weights: Arrays, grads: Arrays) -> tuple[jax.Array, Arrays]:
        whole = [_gather(layout, weight, name, x.dtype).T for weight, name in zip(weights, axes, strict=True)]

        def part(index: jax.Array, way: int) -> jax.Array:
            return _sum([_tokens(ring, grad, index, way) @ weight for grad, weight in zip(grads, whole, strict=True)])

        ring = _inner_ring(layout)
        to_x = sum_parts(ring, part, 1)
        if ring.parts > 1:  # gathering x, if it is made again here, then runs beside the matmuls of to_x
            x, to_x = jax.lax.optimization_barrier((x, to_x))
        return to_x, _sum_outers(layout, x, grads)

    inputs = (GATHERED, axes, tuple(map(_inner, axes)))
    to_x, to_weights = shard_over(layout, local, inputs, (RESIDUAL, axes))(x, weights, grads)
    return to_x, tuple(g.astype(weight.dtype) for g, weight in zip(to_weights, weights, strict=True))


expand.defvjp(_expand_forward, _expand_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def contract(x: jax.Array, weight: jax.Array, axes: WeightAxes) -> jax.Array:
    """Multiply x [B, T, F] by a weight [F, D], in the type of `x`: [B, T, D]."""
    layout = _training_layout(x)
    if layout is None:
        return _matmul(x, weight)

    def local(x: jax.Array, weight: jax.Array) -> jax.Array:
        whole = _gather(layout, weight, axes, x.dtype)
        ring = _inner_ring(layout)
        return sum_parts(ring, lambda index, way: _tokens(ring, x, index, way) @ whole, 1)

    return shard_over(layout, local, (_inner(axes), axes), RESIDUAL)(x, weight)


def _contract_backward(
    axes: WeightAxes, kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    layout = _training_layout(x)
    if layout is None:
        return _matmul_backward(x, weight, grad)

    def local(x: jax.Array, weight: jax.Array, grad: jax.Array) -> tuple[jax.Array, jax.Array]:
        ring, whole = _inner_ring(layout), _gather(layout, weight, axes, x.dtype)
        grads = gather(ring, grad, 1)
        to_weight = _sum_outer(layout, grads, x)
        # the layer's first weight in a backward pass: nothing else could hide how it is gathered
        whole, to_weight = jax.lax.optimization_barrier((whole, to_weight))
        return grads @ whole.T, to_weight.T

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


def _sum_outer(layout: Layout, x: jax.Array, y: jax.Array) -> jax.Array:
    """Compute x^T y over everyone's tokens in float32, for x [B, T, D] and y [B, T, F]: this device's piece of [D, F].

    The ring adds products as they are made; where its devices are far apart, a reduce-scatter sums whole ones.
    """
    own = layout.axes("embed")
    ring = Ring(layout, own)
    if ring.is_near:
        ways = halves(y, ring.ways, 2)
        total = sum_parts(ring, lambda index, way: _outer(cut(x, index, ring.parts, 2), ways[way]), 1)
    else:
        total = sum_scatter(layout, _outer(x, y), own, 0)
    return jax.lax.psum(total, tuple(a for name in ("batch", "length") for a in layout.axes(name) if a not in own))


def _sum_outers(layout: Layout, x: jax.Array, others: Arrays) -> Arrays:
    """Compute `_sum_outer` of x with each of `others`. Narrow ones share a ring: alone, none would hide its steps."""
    widths = [y.shape[2] for y in others]
    if max(widths) >= x.shape[2]:
        return tuple(_sum_outer(layout, x, y) for y in others)
    return tuple(jax.lax.split(_sum_outer(layout, x, jnp.concatenate(others, 2)), widths, 1))


def _inner_ring(layout: Layout) -> Ring:
    """Return the ring of the devices that hold other tokens outside `expand` ... `contract` and other F inside."""
    return Ring(layout, [axis for axis in layout.axes("residual_length") if axis not in layout.axes("length")])


def _tokens(ring: Ring, x: jax.Array, index: jax.Array, way: int) -> jax.Array:
    """Take those tokens of x [B, T, ...] that the device with this index keeps outside, and that travel this way."""
    return halves(cut(x, index, ring.parts, 1), ring.ways, 1)[way]


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
