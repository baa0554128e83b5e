"""Devices of a slice on a mesh: each has one place, and rings along mesh axes cross each link as rarely as can be."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from s1_jax.sharding import RINGS
from s1_jax.torus import arrange, closed_walk, ring, ring_of

V5P, V6E = "TPU v5", "TPU v6 lite"
TENSOR, WEIGHTS = RINGS


@dataclass(frozen=True)
class Device:
    coords: tuple[int, ...]
    device_kind: str = V5P
    slice_index: int = 0


def slice_of(shape, kind=V5P):
    return [Device(at, kind) for at in itertools.product(*map(range, shape))]


def busiest(placed, axes, shape, wraps):
    places = np.array([device.coords for device in placed.flat]).reshape(*placed.shape, -1)
    return most(places, axes, shape, wraps)


def most(places, axes, shape, wraps):
    """Return what crosses the busiest link."""
    return max(ring(places, axes, shape, wraps)[1].values(), default=0)


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
    assert most(line, [0], (4, 1), (False, False)) == 2
    assert most(line, [0], (4, 1), (True, False)) == 1
    assert most(square, [0], (2, 2), (False, False)) == 1
    apart = square * 2  # its neighbors lie two links away, and two more such squares share the links
    four = np.stack([apart + np.array(offset) for offset in np.ndindex(2, 2)])
    assert most(four, [1], (4, 4), (False, False)) == 2


def test_the_order_of_a_ring_is_a_walk_around_a_plane_and_that_of_indices_around_a_line():
    plane = np.empty((2, 4), object)
    for at in np.ndindex(plane.shape):
        plane[at] = Device((*at, 0), V6E)
    order, load = ring_of(plane, [0, 1])
    assert load == 1
    steps = [
        np.abs(np.subtract(np.unravel_index(order[i], (2, 4)), np.unravel_index(order[i - 1], (2, 4))))
        for i in range(8)
    ]
    assert all(step.sum() == 1 for step in steps)
    line = np.empty((4, 4), object)
    for i in range(16):
        line[i // 4, i % 4] = Device((i, 0, 0), V6E)
    assert ring_of(line, [0, 1]) == (tuple(range(16)), 1)


def test_a_ring_along_a_line_goes_there_and_back_in_short_steps():
    line = np.array([Device((i, 0, 0), V6E) for i in range(8)], object)
    order, load = ring_of(line, [0])
    assert load == 2 and sorted(order) == list(range(8))
    assert max(abs(order[i] - order[i - 1]) for i in range(8)) == 2


def test_slices_have_links_of_their_own():
    one = arrange(slice_of((2, 2, 4)), (1, 4, 2, 2), RINGS)
    other = np.vectorize(lambda device: Device(device.coords, device.device_kind, 1), otypes=[object])(one)
    for axes in RINGS:
        assert ring_of(np.concatenate([one, other]), axes) == ring_of(one, axes)


def test_devices_in_no_torus_are_neighbors():
    devices = np.array([object() for _ in range(4)], object).reshape(2, 2)
    order, load = ring_of(devices, [0, 1])
    assert sorted(order) == [0, 1, 2, 3] and load == 1


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
