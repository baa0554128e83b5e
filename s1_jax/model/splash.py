"""Packed causal attention on TPU: JAX's splash kernel (Pallas), told which blocks no document reaches.

A packed row holds several documents, and a token sees only its own. Splash takes segment ids but visits every block
under the diagonal; here a table made from the ids lets it skip those that lie wholly across documents. Rows may be
split over the mesh (`length`), queries staying where they are and keys and values gathered.

Letters: B batch, T query length, S key length, N query heads, K kv heads, H head_dim.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.pallas.ops.tpu.splash_attention import BlockSizes, SegmentIds
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_kernel import SplashAttentionKernel
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

from s1_jax.chips import LANES
from s1_jax.config import ModelConfig
from s1_jax.errors import UserError
from s1_jax.model.rings import Ring, cut, gather, halves, sum_parts
from s1_jax.sharding import LARGEST_CHUNK, current_layout, is_sharded, largest_block, row_chunk, row_order, shard_over

# s1's documents are about 5,500 tokens: larger blocks visit more of what lies across them, and in rows of 32,768 the
# 32B step takes 9 GiB a chip more with 1,024.
LARGEST_BLOCK = LARGEST_CHUNK
KEPT = "qkv"  # name, for remat policies, of keys and values as the kernel reads them
SAVED = "attention"  # name, for remat policies, of what the kernel's backward pass needs of its forward pass
MASK_VALUE = -0.7 * float(np.finfo(np.float32).max)  # splash's own


class Visits(NamedTuple):
    """Table of the blocks that the kernel visits in every row, with q blocks and q tokens in the order of slots."""

    q_documents: jax.Array  # [B, T] int32
    kv_documents: jax.Array  # [B, S] int32, in the order of the row
    needed: jax.Array  # [B, T / block, S / block] int32: 1 where a query of the block sees a key of the block
    next_kv: jax.Array  # same shape: the kv block to have at hand there, the last needed one where none is
    next_q: jax.Array  # same shape: as next_kv, of the q blocks, for the backward pass


def block_sizes(T: int, parts: int) -> tuple[int, int]:
    """Return the block sizes of queries and keys, for rows of T over `parts` devices. Raises UserError if none fits."""
    return block_size(T // parts), block_size(T)


def block_size(length: int) -> int:
    """Return the largest block up to LARGEST_BLOCK that divides `length`. Raises UserError if none does."""
    size = largest_block(length, LARGEST_BLOCK)
    if size is None:
        raise UserError(f"attention on TPU needs a length per device that is a multiple of {LANES}, not {length}")
    return size


def documents(segment_ids: jax.Array | np.ndarray, order: np.ndarray) -> jax.Array:
    """Give documents ids that never fall along a row: those of `segment_ids`; padding (0) has one per LANES tokens.

    Padding must see something, or its softmax is 0 / 0; this way it visits no more than the diagonal.
    """
    padding = np.iinfo(np.int32).max - order.max() // LANES - 1 + order // LANES
    return jnp.where(segment_ids > 0, segment_ids, padding.astype(np.int32))


def needed_blocks(
    q_documents: jax.Array, kv_documents: jax.Array, order: np.ndarray, q_block: int, kv_block: int
) -> jax.Array:
    """Find the blocks [B, T / q_block, S / kv_block] in which a query sees a key.

    The document ids [B, T] and [B, S] never fall along the row; query slot t holds token `order[t]` of the row, key
    slot s token s. The result is exact except for blocks whose documents' ranges overlap only before the query.
    """

    def edges(x: jax.Array, block: int) -> tuple[jax.Array, jax.Array]:
        x = x.reshape(*x.shape[:-1], -1, block)
        return x.min(-1), x.max(-1)

    (q_first, q_last), (kv_first, kv_last) = edges(q_documents, q_block), edges(kv_documents, kv_block)
    overlap = (q_first[..., :, None] <= kv_last[..., None, :]) & (kv_first[..., None, :] <= q_last[..., :, None])
    latest = order.reshape(-1, q_block).max(-1)
    return overlap & (latest[None, :, None] >= np.arange(0, kv_documents.shape[-1], kv_block)[None, None])


def plan_visits(segment_ids: jax.Array, order: np.ndarray, parts: int) -> Visits:
    """Make the table of rows over `parts` devices each: `segment_ids` [B, T], with token `order[t]` in slot t."""
    B, T = segment_ids.shape
    q_documents = documents(segment_ids, order)
    kv_documents = q_documents[:, np.argsort(order)]
    q_block, kv_block = block_sizes(T, parts)
    needed = needed_blocks(q_documents, kv_documents, order, q_block, kv_block)
    local = needed.reshape(B, parts, -1, needed.shape[-1])  # a device counts its own q blocks

    def last_needed(axis: int) -> jax.Array:
        index = jax.lax.broadcasted_iota(jnp.int32, local.shape, axis)
        return jnp.maximum(jax.lax.cummax(jnp.where(local, index, -1), axis=axis), 0).reshape(needed.shape)

    return Visits(q_documents, kv_documents, needed.astype(jnp.int32), last_needed(3), last_needed(2))


def attend_packed(
    q: jax.Array, k: jax.Array, v: jax.Array, visits: Visits, order: np.ndarray, *, interpret: bool = False
) -> jax.Array:
    """Compute softmax attention within documents: q [B, T, N, H], k and v [B, T, K, H], all in slots -> [B, T, N * H].

    K and V are not repeated for the N // K queries of a kv head. Raises UserError where heads or lengths do not divide
    over the mesh.
    """
    layout = current_layout()
    T = q.shape[1]
    run = partial(_attend_local, T, interpret)
    if layout is None or not is_sharded():
        return run(q, checkpoint_name(k, KEPT), checkpoint_name(v, KEPT), visits, jnp.asarray(order))
    if q.shape[0] % layout.size("batch") or k.shape[2] % layout.size("act_kv_heads") or T % layout.size("length"):
        raise UserError(
            f"attention on TPU: {q.shape[0]} rows of {T} with {k.shape[2]} kv heads do not divide over the mesh's "
            f"{layout.size('batch')} x {layout.size('length')} x {layout.size('act_kv_heads')} "
            "(rows x length x heads)"
        )
    heads = ("batch", "length", "act_heads", "head_dim")
    kv_heads = ("batch", "length", "act_kv_heads", "head_dim")
    table = ("batch", "length", None)
    of_visits = Visits(*[("batch", "length"), ("batch", None), table, table, table])  # type: ignore[arg-type]
    # every device of a row has a copy of its own, so that gradients of the copies need not be equal
    copies = ("length", "batch", None, "act_kv_heads", "head_dim")
    ring = Ring(layout, layout.axes("length"))
    whole = shard_over(layout, lambda x: whole_rows(ring, x)[None], kv_heads, copies)
    k, v = (checkpoint_name(whole(x), KEPT) for x in (k, v))

    def local(q: jax.Array, k: jax.Array, v: jax.Array, visits: Visits, order: jax.Array) -> jax.Array:
        return run(q, k[0], v[0], visits, order)

    inputs = (heads, copies, copies, of_visits, ("length",))
    out = ("batch", "length", "act_heads")
    return shard_over(layout, local, inputs, out)(q, k, v, visits, jnp.asarray(order))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def whole_rows(ring: Ring, x: jax.Array) -> jax.Array:
    """Gather the pieces [b, t, ...] of a row's devices, within `shard_over`: [b, T, ...], tokens in order."""
    if ring.parts == 1:
        return x
    if ring.is_near:
        return _in_order(ring.parts, gather(ring, x, 1, filled=True))
    return _in_order(ring.parts, jax.lax.all_gather(x, ring.axes, axis=1, tiled=True))


def _scatter_rows(ring: Ring, _: None, grad: jax.Array) -> tuple[jax.Array]:
    if ring.parts == 1:
        return (grad,)
    of_devices = _by_device(ring.parts, grad)

    def part(index: jax.Array, way: int) -> jax.Array:
        return halves(cut(of_devices, index, ring.parts, 1), ring.ways, 1)[way]

    if ring.is_near:
        return (sum_parts(ring, part, 1),)
    return (jax.lax.psum_scatter(of_devices, ring.axes, scatter_dimension=1, tiled=True),)


whole_rows.defvjp(lambda ring, x: (whole_rows(ring, x), None), _scatter_rows)


def _in_order(parts: int, row: jax.Array) -> jax.Array:
    """Bring a row [b, T, ...] from the order of its devices' slots, as `row_order` deals it, into its own."""
    b, T, *rest = row.shape
    rounds = row.reshape(b, parts, -1, row_chunk(T, parts), *rest).swapaxes(1, 2)
    return _turned(rounds).reshape(row.shape)


def _by_device(parts: int, row: jax.Array) -> jax.Array:
    """Do the reverse of `_in_order`."""
    b, T, *rest = row.shape
    rounds = row.reshape(b, -1, parts, row_chunk(T, parts), *rest)
    return _turned(rounds).swapaxes(1, 2).reshape(row.shape)


def _turned(rounds: jax.Array) -> jax.Array:
    """Turn every other round of chunks [b, rounds, parts, ...] around."""
    backwards = np.arange(rounds.shape[1]) % 2 == 1
    return jnp.where(backwards.reshape(1, -1, *[1] * (rounds.ndim - 2)), rounds[:, :, ::-1], rounds)


def _attend_local(
    T: int, interpret: bool, q: jax.Array, k: jax.Array, v: jax.Array, visits: Visits, order: Any
) -> jax.Array:
    """One device's share: its queries [b, t, n, H] against the keys and values of whole rows [b, T, k, H]."""
    b, t, n, H = q.shape
    q_block, kv_block = block_sizes(T, T // t)
    sizes = BlockSizes(
        block_q=q_block,
        block_kv=kv_block,
        block_q_dkv=q_block,
        block_kv_dkv=kv_block,
        use_fused_bwd_kernel=True,  # five matmuls a block instead of seven
    )

    def row(arguments: tuple) -> jax.Array:
        q, k, v, visits = arguments

        def mask_info(data_next: jax.Array) -> MaskInfo:
            return MaskInfo(data_next[None], None, visits.needed[None], None, order)

        kernel = SplashAttentionKernel(
            mask_info(visits.next_kv),
            None,
            mask_info(visits.next_q),
            block_sizes=sizes,
            is_mqa=False,
            save_residuals=False,
            mask_value=MASK_VALUE,
            attn_logits_soft_cap=None,
            residual_checkpoint_name=SAVED,
            mask_function=_sees,
            interpret=interpret,
        )
        scaled = (q.astype(jnp.float32) * H**-0.5).astype(q.dtype)
        by_head = (x.swapaxes(0, 1) for x in (scaled, k, v))
        out = jnp.asarray(kernel(*by_head, SegmentIds(visits.q_documents, visits.kv_documents)))
        return out.swapaxes(0, 1).reshape(t, n * H)

    if b == 1:
        return row(jax.tree.map(lambda x: x[0], (q, k, v, visits)))[None]
    return jax.lax.map(row, (q, k, v, visits))


def _sees(q_index: jax.Array, kv_index: jax.Array) -> jax.Array:
    return q_index >= kv_index


def visited_flops(model: ModelConfig, segment_ids: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Count the matmul FLOPs (forward, backward) of one layer's visited blocks, for all heads: each [B, parts].

    `segment_ids` [B, T] in the order of the row, over `parts` devices a row. A block is two matmuls forward and five
    backward.
    """
    B, T = segment_ids.shape
    order = row_order(T, parts)
    kv_documents = documents(segment_ids, np.arange(T))
    q_block, kv_block = block_sizes(T, parts)
    needed = needed_blocks(kv_documents[:, order], kv_documents, order, q_block, kv_block)
    visited = np.asarray(needed).reshape(B, parts, -1).sum(-1).astype(float)
    matmul = 2 * q_block * kv_block * model.head_dim * model.num_attention_heads
    return 2 * matmul * visited, 5 * matmul * visited
