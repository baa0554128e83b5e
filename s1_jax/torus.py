"""Devices of a TPU slice on a mesh, placed so that rings along its axes cross each link as rarely as can be.

Rings of permutes go round some axes of the mesh (`model/rings.py`), each device sending to both of its neighbors. A
link carries several pieces at once where two rings share it, or where neighbors on the mesh are none in the torus.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from s1_jax.chips import chip_of

Box = tuple[int, ...]  # how many chips of each dimension of the torus one axis of the mesh has
Link = tuple[tuple[int, ...], int, int]  # the chip that it starts from, its axis and its direction
Rings = Sequence[Sequence[int]]  # the axes of the mesh, by index, that each kind of ring goes round


def arrange(devices: Sequence[jax.Device], sizes: Sequence[int], rings: Rings) -> np.ndarray | None:
    """Return the devices of a slice as an array of these sizes; None unless they are a box of single-core chips."""
    coordinates = np.array([getattr(device, "coords", ()) for device in devices])
    if coordinates.size == 0 or len(np.unique(coordinates, axis=0)) != len(devices):
        return None
    coordinates -= coordinates.min(axis=0)
    shape = tuple(int(size) for size in coordinates.max(axis=0) + 1)
    if math.prod(shape) != len(devices):
        return None
    chip = chip_of(devices[0].device_kind)
    wraps = [False] * len(shape)
    if chip is not None and chip.torus:
        wraps[: chip.torus] = chip.wraps(shape[: chip.torus])
    inner_first = sorted(range(len(sizes)), reverse=True)
    places = (_places(sizes, inner_first, boxes) for boxes in _boxes(shape, [sizes[axis] for axis in inner_first]))
    best = min(places, key=lambda at: _cost(at, rings, shape, wraps), default=None)
    if best is None:
        return None
    placed = np.empty(shape, object)
    placed[tuple(coordinates.T)] = devices
    return placed[tuple(np.moveaxis(best, -1, 0))]


def closed_walk(extents: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all positions of a box so that each is next to the one before, and the last to the first if possible."""
    even = next((d for d, extent in enumerate(extents) if extent % 2 == 0), None)
    if even is None:
        return _walk(extents)
    others = _walk([extent for d, extent in enumerate(extents) if d != even])

    def position(i: int, other: tuple[int, ...]) -> tuple[int, ...]:
        return (*other[:even], i, *other[even:])

    if len(others) == 1:
        return [position(i, others[0]) for i in range(extents[even])]
    ways = others[1:], others[:0:-1]
    there = [position(i, other) for i in range(extents[even]) for other in ways[i % 2]]
    back = [position(i, others[0]) for i in range(extents[even])]
    return [back[0], *there, *back[:0:-1]]


def ring_loads(places: np.ndarray, axes: Sequence[int], shape: Sequence[int], wraps: Sequence[bool]) -> Counter[Link]:
    """Count what crosses each link while every device sends one piece to each of its neighbors along `axes`.

    `places` [*mesh, dimensions] are the positions of the devices.
    """
    walk = closed_walk([places.shape[axis] for axis in axes])
    rings = np.moveaxis(places, axes, range(len(axes)))
    loads: Counter[Link] = Counter()
    for here, there in zip(walk, walk[1:] + walk[:1], strict=True):
        for one, other in ((here, there), (there, here)):
            pairs = zip(rings[one].reshape(-1, len(shape)), rings[other].reshape(-1, len(shape)), strict=True)
            for source, target in pairs:
                loads.update(route(source, target, shape, wraps))
    return loads


def route(source: Sequence[int], target: Sequence[int], shape: Sequence[int], wraps: Sequence[bool]) -> Iterator[Link]:
    """Yield the links from one chip to another, in one dimension after the other."""
    position = [int(x) for x in source]
    for axis, size in enumerate(shape):
        distance = int(target[axis]) - position[axis]
        if wraps[axis] and abs(distance) > size / 2:
            distance -= size if distance > 0 else -size
        step = 1 if distance > 0 else -1
        for _ in range(abs(distance)):
            yield tuple(position), axis, step
            position[axis] = (position[axis] + step) % size


def _cost(places: np.ndarray, rings: Rings, shape: Sequence[int], wraps: Sequence[bool]) -> tuple[int, ...]:
    """Return what crosses the busiest link when all rings run at once, then the sum of each alone, then each alone."""
    loads = [ring_loads(places, axes, shape, wraps) for axes in rings]
    alone = [max(load.values(), default=0) for load in loads]
    return max(sum(loads, Counter()).values(), default=0), sum(alone), *alone


def _places(sizes: Sequence[int], order: Sequence[int], boxes: Sequence[Box]) -> np.ndarray:
    """Return the position of each device of a mesh [*sizes, dimensions]; `order` lists its axes as `boxes` does."""
    places = np.zeros((*sizes, len(boxes[0])), int)
    strides = np.ones(len(boxes[0]), int)
    for axis, box in zip(order, boxes, strict=True):
        walk = np.array(closed_walk(box)) * strides
        places += walk.reshape(*(size if i == axis else 1 for i, size in enumerate(sizes)), len(box))
        strides *= box
    return places


def _boxes(shape: Sequence[int], sizes: Sequence[int]) -> Iterator[tuple[Box, ...]]:
    """Yield all ways to give boxes of these sizes to axes; those of later axes lie around those of earlier ones."""
    if not sizes:
        yield ()
        return
    for box in itertools.product(*([n for n in range(1, size + 1) if size % n == 0] for size in shape)):
        if math.prod(box) == sizes[0]:
            for others in _boxes([size // n for size, n in zip(shape, box, strict=True)], sizes[1:]):
                yield (box, *others)


def _walk(extents: Sequence[int]) -> list[tuple[int, ...]]:
    """Return all positions of a box, each next to the one before."""
    if not extents:
        return [()]
    rest = _walk(extents[1:])
    return [(i, *other) for i in range(extents[0]) for other in (rest if i % 2 == 0 else rest[::-1])]
