"""Devices of a slice on a mesh: each has one place, and rings along mesh axes cross each link as rarely as can be."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from s1_jax.sharding import RINGS
from s1_jax.torus import arrange, closed_walk, ring_loads

V5P, V6E = "TPU v5", "TPU v6 lite"
TENSOR, WEIGHTS = RINGS


@dataclass(frozen=True)
class Device:
    coords: tuple[int, ...]
    device_kind: str = V5P


def slice_of(shape, kind=V5P):
    return [Device(at, kind) for at in itertools.product(*map(range, shape))]


def busiest(placed, axes, shape, wraps):
    places = np.array([device.coords for device in placed.flat]).reshape(*placed.shape, -1)
    return max(ring_loads(places, axes, shape, wraps).values(), default=0)


def distance(one, other):
    return int(np.abs(np.subtract(one, other)).sum())


@pytest.mark.parametrize(
    "extents",
    [(), (1,), (2,), (7,), (2, 2), (4, 4), (2, 8), (3, 4), (5, 2), (2, 2, 2), (3, 2, 5), (4, 3, 3), (1, 4, 2)],
)
def test_a_closed_walk_visits_every_position_once_and_steps_to_a_neighbor(extents):
    walk = closed_walk(extents)
    assert sorted(walk) == sorted(itertools.product(*map(range, extents)))
    assert all(distance(one, other) == 1 for one, other in itertools.pairwise(walk))
    if len([extent for extent in extents if extent > 1]) > 1:
        assert distance(walk[0], walk[-1]) == 1


def test_a_walk_through_an_odd_box_is_not_closed():
    walk = closed_walk((3, 3))
    assert len(set(walk)) == 9
    assert all(distance(one, other) == 1 for one, other in itertools.pairwise(walk))


def test_a_line_is_crossed_twice_and_a_square_or_a_line_around_the_torus_once():
    line = np.array([[i, 0] for i in range(4)])
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]])
    assert set(ring_loads(line, [0], (4, 1), (False, False)).values()) == {2}
    assert set(ring_loads(line, [0], (4, 1), (True, False)).values()) == {1}
    assert set(ring_loads(square, [0], (2, 2), (False, False)).values()) == {1}
    apart = square * 2  # its neighbors lie two links away, and two more such squares share the links
    four = np.stack([apart + np.array(offset) for offset in np.ndindex(2, 2)])
    assert max(ring_loads(four, [1], (4, 4), (False, False)).values()) == 2


@pytest.mark.parametrize(
    "shape,kind,sizes,tensor,weights",
    [
        ((2, 2, 1), V5P, (4, 1, 1), 0, 1),
        ((2, 2, 4), V5P, (4, 1, 4), 1, 2),
        ((2, 4, 4), V5P, (4, 8, 1), 0, 1),
        ((2, 4, 4), V5P, (4, 4, 2), 2, 1),  # both halves of a piece cross the one link between two chips
        ((2, 4, 4), V5P, (4, 2, 4), 1, 2),
        ((4, 8, 1), V6E, (4, 2, 4), 2, 2),
        ((16, 16, 1), V6E, (16, 1, 16), 1, 1),
    ],
)
def test_every_device_has_one_place_and_rings_cross_links_rarely(shape, kind, sizes, tensor, weights):
    devices = slice_of(shape, kind)
    placed = arrange(devices, (1, *sizes), RINGS)
    assert placed.shape == (1, *sizes) and set(placed.flat) == set(devices)
    wraps = [kind == V6E and size == 16 for size in shape]
    assert busiest(placed, TENSOR, shape, wraps) == tensor
    assert busiest(placed, WEIGHTS, shape, wraps) == weights


def test_what_is_no_full_box_is_left_to_jax():
    devices = slice_of((2, 4, 4))
    assert arrange(devices[:-1], (1, 31, 1, 1), RINGS) is None
    assert arrange([*devices[:-1], devices[0]], (1, 32, 1, 1), RINGS) is None  # two cores of one chip
    assert arrange([object()] * 4, (1, 4, 1, 1), RINGS) is None  # no TPU
