"""Checksums of arrays that do not depend on how they are sharded, so they can be compared on another mesh."""

from __future__ import annotations

import json
import zlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

NO_MESH = Mesh(np.empty((), object), ())
Digest = tuple[str, tuple[int, ...], int]  # type, shape, checksum


def digests(tree: Any) -> dict[str, Digest]:
    """Compute the digest of each array of a tree, by path, on the devices that hold its shards.

    All processes must call this. One changed element always changes the checksum of its array. Any other change is
    missed with a probability of about 2**-32.
    """
    leaves = {name: jnp.asarray(leaf) for name, leaf in named(tree).items()}
    with jax.set_mesh(NO_MESH):  # a shard is on one device, and the caller's mesh has more
        parts = [_sums_of_parts(leaf) for leaf in leaves.values()]  # all are dispatched before the first is waited for
    sums = np.asarray([sum(map(int, of_leaf)) % 2**32 for of_leaf in parts], np.uint32)
    if jax.process_count() > 1:
        sums = multihost_utils.process_allgather(sums).sum(axis=0, dtype=np.uint32)
    described = zip(leaves.items(), sums.tolist(), strict=True)
    return {name: (np.dtype(leaf.dtype).name, tuple(leaf.shape), checksum) for (name, leaf), checksum in described}


def named(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by path, the keys of a path joined by dots."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def json_digest(value: Any) -> int:
    """Compute a checksum of a value as JSON, which is the same before it is written and after it is read."""
    return zlib.crc32(json.dumps(value).encode())


def _sums_of_parts(x: Array) -> list[Array]:
    """Compute the checksums of this process's shards, each on its device; a replicated shard counts once."""
    return [
        _checksum(x.shape, part.data, np.asarray([cut.start or 0 for cut in part.index], np.uint32))
        for part in x.addressable_shards
        if part.replica_id == 0
    ]


@partial(jax.jit, static_argnums=0)
def _checksum(whole: tuple[int, ...], part: Array, begin: Array) -> Array:
    """Sum a mix of each element's bits and its index in an array of shape `whole`; the order has no effect. uint32 [].

    The first element of the shard `part` has the indices `begin` [axes].
    """
    bits = part.astype(jnp.uint8) if part.dtype == bool else part
    bits = jax.lax.bitcast_convert_type(bits, f"uint{8 * min(bits.dtype.itemsize, 4)}").astype(jnp.uint32)
    index = jnp.zeros((), jnp.uint32)
    for axis, size in enumerate(whole):
        index = index * np.uint32(size % 2**32) + begin[axis] + jax.lax.broadcasted_iota(jnp.uint32, part.shape, axis)
    return jnp.sum(_mixed(bits ^ _mixed(index + 1)), dtype=jnp.uint32)


def _mixed(x: Array) -> Array:
    """Apply the finalizer of MurmurHash3: one to one, and each bit of the input changes about half of the output's."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
