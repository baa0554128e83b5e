"""Times by hand: which links a collective has, and how it shares them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from s1_jax.chips import chip_of
from s1_jax.planning.counts import Collective, Counts
from s1_jax.planning.roofline import MATMUL_SHARE, Seconds, Torus, ici_seconds, seconds

V5P, V6E = chip_of("TPU v5"), chip_of("TPU v6 lite")
LINK = 9e10  # bytes/s one way, of both
V = 9e10  # bytes: a second over one link


def slice_of(*shape: int) -> SimpleNamespace:
    """A mesh of one axis per physical axis, devices in the order of their coordinates."""
    places = list(itertools.product(*(range(size) for size in shape)))
    devices = np.empty(len(places), object)
    for number, place in enumerate(places):
        devices[number] = SimpleNamespace(coords=(*place, *(0,) * (3 - len(place))))
    return SimpleNamespace(devices=devices.reshape(shape), size=len(places), axis_names=("x", "y", "z")[: len(shape)])


def time(chip, mesh, kind, *groups):
    return ici_seconds({Collective(kind, V, groups): 1.0}, mesh, chip)


def test_gather_and_reduce_by_the_links_of_the_axes_they_span():
    mesh = slice_of(4, 8)
    row, everyone = tuple(range(8)), tuple(range(32))
    assert time(V6E, mesh, "all-gather", row) == pytest.approx(7 / 8)
    assert time(V6E, mesh, "reduce-scatter", row) == pytest.approx(7 / 8)
    assert time(V6E, mesh, "all-reduce", row) == pytest.approx(2 * 7 / 8)
    assert time(V6E, mesh, "all-gather", everyone) == pytest.approx(31 / 32 / 2)


def test_wrap_around_links_double_an_axis():
    assert time(V6E, slice_of(16, 16), "all-gather", tuple(range(16))) == pytest.approx(15 / 16 / 2)
    assert time(V5P, slice_of(4, 4, 4), "all-gather", tuple(range(64))) == pytest.approx(63 / 64 / 6)
    assert time(V5P, slice_of(2, 4, 4), "all-gather", tuple(range(32))) == pytest.approx(31 / 32 / 3)
    # half of an axis has no use of its wrap-around
    assert time(V6E, slice_of(16, 16), "all-gather", tuple(range(8))) == pytest.approx(7 / 8)


def test_groups_that_lie_between_each_other_share_the_links():
    mesh = slice_of(2, 4)
    assert time(V6E, mesh, "all-gather", (0, 1), (2, 3)) == pytest.approx(1 / 2)
    assert time(V6E, mesh, "all-gather", (0, 2), (1, 3)) == pytest.approx(1)


def test_all_to_all_is_limited_by_the_middle_of_the_longest_axis():
    assert time(V6E, slice_of(16, 16), "all-to-all", tuple(range(16))) == pytest.approx(1 / 4 / 2)
    assert time(V6E, slice_of(4, 8), "all-to-all", tuple(range(32))) == pytest.approx(8 / 32 / 4)


def test_permutes_take_the_links_they_cross_and_opposite_ones_do_not_meet_on_a_ring():
    def ring(size, step):
        return Collective("collective-permute", V, tuple((i, (i + step) % size) for i in range(size)))

    line, wrapped = slice_of(1, 8), slice_of(1, 16)
    assert ici_seconds({ring(8, 1): 1.0}, line, V6E) == pytest.approx(1)
    assert ici_seconds({ring(8, 1): 1.0, ring(8, -1): 1.0}, line, V6E) == pytest.approx(2)
    assert ici_seconds({ring(16, 1): 3.0, ring(16, -1): 3.0}, wrapped, V6E) == pytest.approx(3)


def test_compute_and_memory_times():
    counts = Counts(matmul_flops=V5P.peak_flops, hbm_bytes=2 * V5P.hbm_bandwidth)
    times = seconds(counts, V5P.peak_flops / 2, slice_of(2, 2, 1), V5P)
    assert (times.compute, times.hbm, times.ici) == (pytest.approx(1.5 / MATMUL_SHARE), 2.0, 0.0)
    assert Seconds(3, 1, 2).step_overlap == 3 and Seconds(3, 1, 2).step_no_overlap == 6


def test_the_links_and_hops_of_a_collective():
    """On a line of 4 of 8 chips: three links each way. On a ring a permute around it takes the one between the ends."""

    def of(kind, *groups):
        return Collective(kind, V, groups)

    line, ring = Torus(slice_of(1, 8), V6E), Torus(slice_of(1, 16), V6E)
    within = {((0, y), 1, 1) for y in range(3)} | {((0, y), 1, -1) for y in range(1, 4)}
    assert line.links(of("all-gather", (0, 1, 2, 3))) == within
    assert line.hops(of("all-gather", (0, 1, 2, 3))) == 3 and line.hops(of("all-reduce", (1, 0, 2, 3))) == 6
    assert len(ring.links(of("all-gather", tuple(range(16))))) == 32 and ring.hops(of("all-gather", range(16))) == 8
    assert ring.links(of("collective-permute", (15, 0))) == {((0, 15), 1, 1)}
    assert line.hops(of("collective-permute", (0, 1), (7, 0))) == 7
    square = Torus(slice_of(2, 2), V6E)
    assert len(square.links(of("all-reduce", (0, 1, 2, 3)))) == 8 and square.hops(of("all-gather", (0, 1, 2, 3))) == 2
    assert square.links(of("all-gather", (0, 1), (2, 3))).isdisjoint(square.links(of("all-gather", (0, 2), (1, 3))))
