"""Attention of a decode step to the cache on TPU, reading no more of a row than is live (see decode_kernel).

`plan_visits` makes the work of a step once; each layer then attends by it, on a mesh every device to its own rows and
kv heads.

Letters: B rows, Q queries a row (T tokens of it, or of R branches), N query heads, K kv heads, G = N // K, S slots (the
capacity), C slots of a tail, H head_dim.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from s1_jax.model import decode_kernel
from s1_jax.model.decode_kernel import Arrays, Visits
from s1_jax.model.kv_cache import LayerCache
from s1_jax.sharding import constrain, current_layout, is_sharded, shard_over

New = LayerCache | Arrays  # a token as a cache of its type holds it, or ()
Partial = tuple[jax.Array, jax.Array]  # of a softmax over some slots: out [..., H], and lse [...] to merge it by


def plan_visits(lengths: jax.Array, cache: LayerCache) -> Visits:
    """Plan the work of a step whose queries see the first `lengths` [B, Q] int32 slots, at most S, of a row.

    `cache` is any layer's, keys and values [B, K, S, H]; of tails [B, K, R, C, H] the branches are rows, of `lengths`
    [B * R, Q].
    """
    B, K = cache[0].shape[:2]
    devices, cores = _parts("batch", B), _cores()
    cores = cores if len(lengths) // devices % cores == 0 else 1
    block = decode_kernel.block_slots(cache[0], K // _parts("act_kv_heads", K))
    visits = decode_kernel.plan(lengths, cache[0].shape[-2], block, devices, cores)
    return jax.tree.map(lambda x: constrain(x, "batch", *[None] * (x.ndim - 1)), visits)


def attend_partial(
    queries: jax.Array, cache: LayerCache, visits: Visits, new: New = (), *, interpret: bool = False
) -> tuple[Partial, LayerCache]:
    """Softmax attention to the slots that `visits` was made for, which may be a part of all that is to be seen.

    queries [B, Q, N, H]; cache keys and values [B, K, S, H] of any dtype, with int8 also their float32 scales
    [B, K, S], or tails as in `plan_visits`, without scales. `new` is a token's keys and values [B, 1, K, H] (and scales
    [B, 1, K]), where Q is 1: it goes into the last slot seen, and the cache comes back with it. -> out float32
    [B, K, Q, G, H], 0 where no slot is seen; lse, the logarithm of the softmax's denominator, float32 [B, K, Q, G]; the
    cache.

    A row's slots are read once for all its queries, of which Q * G should be at most 128 or so. Slots that none sees
    may hold anything. A row of length 0, as one that has ended, costs one block and keeps its cache as it is. Where H
    is below 128, S should be a multiple of 128: XLA may lay out others in a way that the kernel needs a copy of. Raises
    ValueError where `new` comes with more than one query.
    """
    B, Q, N, H = queries.shape
    K = cache[0].shape[1]
    if len(new) and Q > 1:
        raise ValueError(f"one token of a row can be put into the cache, not {Q}")
    by_head = queries.reshape(B, Q, K, N // K, H).swapaxes(1, 2).reshape(B, K, Q * N // K, H)
    arrays, added = (tuple(jax.tree.leaves(x)) for x in (cache, new))
    new = tuple(x.swapaxes(1, 2).astype(stored.dtype) for x, stored in zip(added, arrays, strict=bool(added)))
    run: Callable[..., Any] = partial(decode_kernel.attend, interpret)
    layout = current_layout()
    if layout is not None and is_sharded():
        rows = "batch" if _parts("batch", cache[0].shape[0]) > 1 else None
        heads = "act_kv_heads" if _parts("act_kv_heads", K) > 1 else None

        def axes(*xs: jax.Array) -> tuple:
            return tuple((rows, heads, *[None] * (x.ndim - 2)) for x in xs)

        of_visits = jax.tree.map(lambda x: (rows, *[None] * (x.ndim - 1)), visits)
        inputs = (of_visits, *axes(by_head), axes(*arrays), axes(*new))
        run = shard_over(layout, run, inputs, (*axes(by_head, by_head), axes(*arrays)))
    out, lse, arrays = run(visits, by_head, arrays, new)
    shape = (B, K, Q, N // K)
    return (out.reshape(*shape, H), lse.reshape(shape)), jax.tree.unflatten(jax.tree.structure(cache), arrays)


def attend_cache(
    queries: jax.Array, cache: LayerCache, visits: Visits, new: New = (), *, interpret: bool = False
) -> tuple[jax.Array, LayerCache]:
    """`attention.attend` of queries [B, T, N, H] -> [B, T, N * H], and the cache; the rest as in `attend_partial`."""
    (out, _), cache = attend_partial(queries, cache, visits, new, interpret=interpret)
    return _side_by_side(out, queries.dtype), cache


def attend_branches(
    queries: jax.Array,
    prefix: LayerCache,
    tails: LayerCache,
    visits: tuple[Visits, Visits],
    new: New = (),
    *,
    interpret: bool = False,
) -> tuple[jax.Array, LayerCache]:
    """`attention.attend_branches`: T tokens of R branches a row, each to the prefix they share and to its own tail.

    queries [B, R, T, N, H]; prefix keys and values [B, K, S, H]; tails [B, K, R, C, H]; `visits` of both, for lengths
    [B, R * T] and [B * R, T]; `new` [B, R, 1, K, H], for the tails, where T is 1 -> [B, R, T, N * H], and the tails.
    The prefix is read once for all branches of a row; R * T * G should be at most 128 or so.
    """
    B, R, T, N, H = queries.shape
    (shared, shared_lse), _ = attend_partial(queries.reshape(B, R * T, N, H), prefix, visits[0], interpret=interpret)
    new = tuple(x.reshape(B * R, *x.shape[2:]) for x in jax.tree.leaves(new))
    each = queries.reshape(B * R, T, N, H)
    (own, own_lse), tails = attend_partial(each, tails, visits[1], new, interpret=interpret)
    own, own_lse = (
        x.reshape(B, R, *x.shape[1:]).swapaxes(1, 2).reshape(like.shape)
        for x, like in ((own, shared), (own_lse, shared_lse))
    )
    share = jax.nn.sigmoid(shared_lse - own_lse)[..., None]
    out = _side_by_side(shared * share + own * (1 - share), queries.dtype)
    return out.reshape(B, R, T, -1), tails


def _side_by_side(out: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """[B, K, Q, G, H] -> [B, Q, N * H]."""
    B, _, Q = out.shape[:3]
    return constrain(out.swapaxes(1, 2).reshape(B, Q, -1).astype(dtype), "batch", "length", "act_heads")


def _parts(axis: str, size: int) -> int:
    """Into how many pieces a dimension is cut: 1 where it does not divide, as `constrain` has it."""
    layout = current_layout()
    return layout.size(axis) if layout is not None and size % layout.size(axis) == 0 else 1


def _cores() -> int:
    """TensorCores of a device: two on v4 and v5p."""
    layout = current_layout()
    device = jax.devices()[0] if layout is None else layout.mesh.devices.flat[0]
    return getattr(device, "num_cores", 1)
