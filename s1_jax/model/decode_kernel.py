"""Attention of a decode step on one TPU device: a Pallas kernel that reads no more of a row than is live.

Its grid is a list of work, a step for each block of slots that some query of its row sees, so neither traffic nor steps
grow with the cache's capacity. The softmax is online (arXiv 2205.14135); as a row's blocks follow each other, its state
can be the kernel's own results. A row's new token is put into its last block while that is at hand, and so much of the
block is written back.

A cache is a layer's keys and values [B, K, S, H] and, for int8, their scales [B, K, S]. Tails of R branches a row, keys
and values [B, K, R, S, H], are a cache of B * R rows.

Letters: B rows, Q queries a row, K kv heads, G query heads a kv head, S slots (the capacity), H head_dim.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from s1_jax.chips import LANES

# Of keys, and of values as much again: enough that reading it takes longer than the 0.35 us a step costs by itself, and
# twice that, for the next block, leaves room in the 16 MiB of VMEM that a kernel has on v5e.
BLOCK_BYTES = 2**20
LARGEST_BLOCK = 2048  # slots: on average half of a row's last block is read for nothing
TILE = 32  # slots that are written back for one: the tile of int8, and two or four of wider types
LOWEST = -1e30  # lse of no slots; finite, as exp(-inf - -inf) is NaN

Arrays = tuple[jax.Array, ...]


class Visits(NamedTuple):
    """The work of a step, the same for all layers: row by row the blocks that a query sees, M of which make up S.

    P cores have each the work of their own rows: their share of the tables, as far as it goes. Rows count from 0 on
    every device.
    """

    lengths: jax.Array  # [B, Q] int32
    longest: jax.Array  # [B] int32, of a row's queries
    counts: jax.Array  # [P] int32, steps of each core
    rows: jax.Array  # [B, M] int32
    blocks: jax.Array  # [B, M] int32
    whole: jax.Array  # [B, M] int32: 1 where every query of the row sees all of the block and more


def block_slots(keys: jax.Array, kv_heads: int) -> int:
    """Slots a block of so many heads of `keys` [..., S, H]: a multiple of 128, or S."""
    S, H = keys.shape[-2:]
    in_budget = BLOCK_BYTES // (kv_heads * H * keys.dtype.itemsize)
    return min(max(in_budget // LANES * LANES, LANES), LARGEST_BLOCK, S)


def plan(lengths: jax.Array, S: int, block: int, devices: int, cores: int) -> Visits:
    """Plan the work of queries that see the first `lengths` [B, Q] slots of S; devices * cores must divide B."""
    B, M = len(lengths), pl.cdiv(S, block)
    lengths = jnp.minimum(lengths, S)
    longest, shortest, own = (
        x.reshape(devices * cores, 1, -1) for x in (lengths.max(1), lengths.min(1), jnp.arange(B) % (B // devices))
    )
    blocks = jnp.maximum(pl.cdiv(longest, block), 1)  # a row without slots is visited too, or it would have no result
    ends = jnp.cumsum(blocks, axis=-1)
    starts, counts = ends - blocks, ends[:, 0, -1]
    # behind its work a core has the last step again, which fetches nothing
    steps = jnp.minimum(jnp.arange(own.shape[-1] * M)[None], counts[:, None] - 1)[..., None]
    of_row = (steps >= starts) & (steps < ends)
    rows, first, seen_by_all = (jnp.where(of_row, x, 0).sum(-1) for x in (own, starts, shortest))
    at = steps[..., 0] - first
    tables = (x.reshape(B, M).astype(jnp.int32) for x in (rows, at, (at + 1) * block < seen_by_all))
    return Visits(lengths, longest.reshape(B), counts, *tables)


def attend(
    interpret: bool, visits: Visits, queries: jax.Array, cache: Arrays, new: Arrays
) -> tuple[jax.Array, jax.Array, Arrays]:
    """Compute softmax attention of queries [B, K, Q * G, H] over the cache.

    The result is out and lse, float32 [B, K, Q * G, H] and [B, K, Q * G, 1], and the cache. new, unless it is (),
    belongs into the last slot that a row's one query sees: [B, K, 1, H], of scales [B, K, 1].
    """
    B, K, rows, H = queries.shape
    block, cores = block_slots(cache[0], K), len(visits.counts)
    share = visits.rows.size // cores
    limits = jnp.repeat(visits.lengths, rows // visits.lengths.shape[1], axis=1)[..., None]
    R = cache[0].shape[2] if cache[0].ndim == 5 else 0
    axes = [1] * len(cache)  # of the slots in a block [K, ...]
    if turned := H < LANES <= cache[0].shape[-2]:
        # XLA fills its tiles by laying out such keys and values with S last: this moves nothing, as they lie that way
        cache, new, axes[:2] = _turn(cache), _turn(new), (2, 2)

    def of_row(*shape: int) -> pl.BlockSpec:
        def index(core: Any, step: Any, longest: Any, rows: Any, *_: Any) -> tuple:
            return rows[core * share + step], *[0] * len(shape)

        return pl.BlockSpec((None, *shape), index)

    def of_slots(x: jax.Array, axis: int, size: int, newest: bool = False) -> pl.BlockSpec:
        shape = [K, *x.shape[3 if R else 2 :]]
        shape[axis] = size

        def index(core: Any, step: Any, longest: Any, rows: Any, blocks: Any, *_: Any) -> tuple:
            row = rows[core * share + step]
            place: list[Any] = [0] * len(shape)
            place[axis] = jnp.maximum(longest[row] - 1, 0) // size if newest else blocks[core * share + step]
            return (row // R, 0, row % R, *place[1:]) if R else (row, *place)

        return pl.BlockSpec((None, K, None, *shape[1:]) if R else (None, *shape), index)

    work = (visits.longest, *(x.reshape(-1) for x in (visits.rows, visits.blocks, visits.whole)), visits.counts)
    read = [of_slots(x, axis, block) for x, axis in zip(cache, axes, strict=True)]
    written = []
    if new:
        sizes = [_written_slots(block, minor=x.ndim < 4 or axis == 2) for x, axis in zip(cache, axes, strict=True)]
        written = [of_slots(*x, newest=True) for x in zip(cache, axes, sizes, strict=True)]
    out, lse, *stored = pl.pallas_call(
        partial(_kernel, axes=axes, share=share, block=block),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(work),
            grid=(cores, visits.counts.max()),
            in_specs=[of_row(K, rows, H), of_row(rows, 1), *read, *[of_row(*x.shape[1:]) for x in new]],
            out_specs=[of_row(K, rows, H), of_row(K, rows, 1), *written],
        ),
        out_shape=[
            *[jax.ShapeDtypeStruct((B, K, rows, size), jnp.float32) for size in (H, 1)],
            *[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cache if new],
        ],
        input_output_aliases={len(work) + 2 + i: 2 + i for i in range(len(new))},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        name="decode_attention",
        interpret=interpret,
    )(*work, queries, limits, *cache, *new)
    cache = tuple(stored) if new else cache
    return out, lse, _turn(cache) if turned else cache


def _turn(cache: Arrays) -> Arrays:
    return *(x.swapaxes(-1, -2) for x in cache[:2]), *cache[2:]


def _written_slots(block: int, minor: bool) -> int:
    """Slots written back for a new one: those of a tile of memory, or of the block where it is not cut into such."""
    size = LANES if minor else TILE
    return size if block % size == 0 else block


def _kernel(longest, rows, blocks, whole, counts, queries, limits, *refs, axes, share, block) -> None:
    """Run one step of a core: attend to one block of a row's slots, and add the result to that of earlier blocks."""
    cache, refs = refs[: len(axes)], refs[len(axes) :]
    appends = len(refs) > 2
    new, (out, lse, *written) = refs[: len(axes) * appends], refs[len(axes) * appends :]
    core, step = pl.program_id(0), pl.program_id(1)
    at = core * share + step
    working = step < counts[core]
    start, length = blocks[at] * block, longest[rows[at]]

    def with_new(i: int, x: jax.Array, first: jax.Array | int) -> tuple[jax.Array, jax.Array]:
        """Slots x of an array of the cache with the new token among them, and which they are; x begins at `first`."""
        slots = first + jax.lax.broadcasted_iota(jnp.int32, x.shape, axes[i])
        return (jnp.where(slots == length - 1, new[i][...], x) if appends else x), slots

    def live(i: int, x: jax.Array) -> jax.Array:
        """Replace slots of a row's last block that no query sees by zeros: their weight is 0, but 0 * NaN is NaN."""
        x, slots = with_new(i, x, start)
        return jnp.where(slots < length, x, jnp.zeros_like(x))

    @pl.when(working & (blocks[at] == 0))
    def _() -> None:
        out[...] = jnp.zeros_like(out)
        lse[...] = jnp.full_like(lse, LOWEST)

    def attend(masked: bool) -> None:
        q = queries[...]
        keys, values, *scales = (live(i, x[...]) if masked else x[...] for i, x in enumerate(cache))
        by_slot = "khs" if axes[0] == 2 else "ksh"
        scores = jnp.einsum(f"kqh,{by_slot}->kqs", q, keys.astype(q.dtype), preferred_element_type=jnp.float32)
        scores *= q.shape[-1] ** -0.5
        if scales:
            scores *= scales[0][:, None]
        if masked:
            slots = start + jax.lax.broadcasted_iota(jnp.int32, scores.shape[1:], 1)
            scores = jnp.where(slots < limits[...], scores, -jnp.inf)
        before = lse[...]
        top = jnp.maximum(before, scores.max(-1, keepdims=True))
        kept, weights = jnp.exp(before - top), jnp.exp(scores - top)
        total = kept + weights.sum(-1, keepdims=True)
        if scales:
            weights *= scales[1][:, None]
        weights, values = weights.astype(q.dtype), values.astype(q.dtype)
        added = jnp.einsum(f"kqs,{by_slot}->kqh", weights, values, preferred_element_type=jnp.float32)
        out[...] = (out[...] * kept + added) / total
        lse[...] = top + jnp.log(total)

    @pl.when(working & (whole[at] == 1))
    def _() -> None:
        attend(masked=False)

    @pl.when(working & (whole[at] == 0))
    def _() -> None:
        attend(masked=True)
        for i, (axis, tile) in enumerate(zip(axes, written, strict=False)):
            size = tile.shape[axis]
            first = 0 if size == block else pl.multiple_of(jnp.maximum(length - 1 - start, 0) // size * size, size)
            place: list[Any] = [slice(None)] * len(tile.shape)
            place[axis] = pl.ds(first, size)
            tile[...], _ = with_new(i, cache[i][tuple(place)], start + first)
