"""Rings against the collectives that they replace, on every number of devices that a mesh axis may have."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from s1_jax.config import MeshConfig
from s1_jax.model.rings import Ring, cut, gather, halves, pieces, sum_parts
from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh

TOLERANCE = 1e-5  # of the largest value: float32 sums in another order
AXES = ("fsdp", "context")
SIZES = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (8, 1), (2, 2), (4, 2), (2, 3)]  # of the two axes
F = 6


def layout_of(fsdp, context):
    return Layout(make_mesh(MeshConfig(fsdp=fsdp, context=context), jax.devices()[: fsdp * context]), TRAIN_RULES)


def run(layout, function, x, out=PartitionSpec(AXES)):
    """Apply `function` to the pieces of x along its first dimension, one for each device."""
    mapped = jax.shard_map(function, mesh=layout.mesh, in_specs=PartitionSpec(AXES), out_specs=out, check_vma=False)
    return jax.jit(mapped)(x)


def numbers(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), dtype)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("size", [1, 4, 5])
def test_every_device_gets_all_pieces_in_order(sizes, size):
    layout = layout_of(*sizes)
    ring = Ring(layout, AXES)
    x = numbers(ring.parts * size, F)
    copies = run(layout, lambda x: gather(ring, x, 0)[None], x)
    assert np.array_equal(copies, np.broadcast_to(x, (ring.parts, *x.shape)))


@pytest.mark.parametrize("sizes", SIZES)
def test_pieces_come_from_the_devices_that_they_say(sizes):
    layout = layout_of(*sizes)
    ring = Ring(layout, AXES)

    def arrivals(x):
        return jnp.stack([jnp.stack([index, piece[0]]) for index, _, piece in pieces(ring, x, 0)])[None]

    said, came = np.moveaxis(np.asarray(run(layout, arrivals, jnp.arange(ring.parts))), -1, 0)
    assert np.array_equal(said, came)
    assert all(sorted(row) == list(range(ring.parts)) for row in said)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("size", [1, 4, 5])
def test_sums_are_those_of_a_reduce_scatter(sizes, size):
    layout = layout_of(*sizes)
    ring = Ring(layout, AXES)
    x = numbers(ring.parts, ring.parts * size, F)

    def scatter(x):
        whole = x[0]
        return sum_parts(ring, lambda index, way: halves(cut(whole, index, ring.parts, 0), ring.ways, 0)[way], 0)

    summed = np.asarray(run(layout, scatter, x))
    wanted = np.asarray(x).sum(axis=0)
    assert summed.shape == wanted.shape
    assert np.abs(summed - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("sizes", [(2, 1), (4, 1), (8, 1), (4, 2)])
def test_devices_send_to_their_neighbors_only_and_both_ways(sizes):
    """On the mesh: each permute moves every piece by one step along one of the axes, or round its end."""
    layout = layout_of(*sizes)
    ring = Ring(layout, AXES)
    mapped = jax.shard_map(
        partial(gather, ring, dimension=0), mesh=layout.mesh, in_specs=PartitionSpec(AXES), out_specs=PartitionSpec(),
        check_vma=False,
    )  # fmt: skip
    text = jax.jit(mapped).lower(numbers(8 * ring.parts, F)).compile().as_text()
    assert "all-gather" not in text
    sent = re.findall(r"source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}", text)
    steps = set()
    for pairs in sent:
        for source, target in re.findall(r"(\d+),(\d+)", pairs):
            apart = np.subtract(np.unravel_index(int(target), sizes), np.unravel_index(int(source), sizes))
            around = np.minimum(np.abs(apart), np.array(sizes) - np.abs(apart))
            assert around.sum() == 1
            steps.add((int(source), int(target)))
    assert all((target, source) in steps for source, target in steps)
