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
    wraps = wraps_of(devices[0], shape)
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


def ring_of(devices: np.ndarray, axes: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Return the best order of the devices along `axes` of a mesh, and what then crosses the busiest link.

    The order lists indices along the axes, flattened. Devices that are in no torus are all neighbors: the load is 1. Of
    a mesh over several slices, which have the same coordinates, the first one counts; only the first axis crosses them.
    """
    slices = [getattr(device, "slice_index", 0) for device in devices.reshape(len(devices), -1)[:, 0]]
    devices = devices[[index == slices[0] for index in slices]]
    if any(not hasattr(device, "coords") for device in devices.flat):
        sizes = [devices.shape[axis] for axis in axes]
        return tuple(_flat(closed_walk(sizes), sizes)), 1
    places = np.array([device.coords for device in devices.flat])
    places = (places - places.min(axis=0)).reshape(*devices.shape, -1)
    shape = tuple(int(size) for size in places.max(axis=tuple(range(devices.ndim))) + 1)
    order, loads = ring(places, axes, shape, wraps_of(devices.flat[0], shape))
    return order, max(loads.values(), default=0)


def ring(
    places: np.ndarray, axes: Sequence[int], shape: Sequence[int], wraps: Sequence[bool]
) -> tuple[tuple[int, ...], Counter[Link]]:
    """Return the best of some orders of the devices along `axes`, and what crosses each link.

    The orders are a closed walk, that of the indices, and there and back along the indices, by ones of two. The best
    loads the busiest link least, and then has the shortest steps. Counted is what every device sends: a piece to each
    of its neighbors. `places` [*mesh, dimensions] are the positions of the devices.
    """
    sizes = [places.shape[axis] for axis in axes]
    n = math.prod(sizes)
    rings = np.moveaxis(places, axes, range(len(axes))).reshape(n, -1, len(shape))

    def count(order: Sequence[int]) -> tuple[int, int, Counter[Link]]:
        crossed: Counter[Link] = Counter()
        longest = 0
        for here, there in zip(order, (*order[1:], order[0]), strict=True):
            for sources, targets in ((rings[here], rings[there]), (rings[there], rings[here])):
                for source, target in zip(sources, targets, strict=True):
                    links = list(route(source, target, shape, wraps))
                    longest = max(longest, len(links))
                    crossed.update(links)
        return max(crossed.values(), default=0), longest, crossed

    orders = [tuple(_flat(closed_walk(sizes), sizes)), tuple(range(n)), (*range(0, n, 2), *range(1, n, 2)[::-1])]
    found = [(order, *count(order)) for order in dict.fromkeys(orders)]
    order, _, _, crossed = min(found, key=lambda one: one[1:3])
    return order, crossed


def wraps_of(device: jax.Device, shape: Sequence[int]) -> list[bool]:
    """Tell for each dimension of a slice of this shape whether its ends are linked."""
    chip = chip_of(device.device_kind)
    wraps = [False] * len(shape)
    if chip is not None and chip.torus:
        wraps[: chip.torus] = chip.wraps(tuple(shape[: chip.torus]))
    return wraps


def _flat(positions: Sequence[tuple[int, ...]], sizes: Sequence[int]) -> list[int]:
    return [int(np.ravel_multi_index(at, sizes)) if sizes else 0 for at in positions]


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


def is_near(parts: int, load: int) -> bool:
    """Whether a ring of this load is worth more than the one collective that it replaces."""
    return load <= (4 if parts == 2 else 2)  # two devices send both halves of a piece over the same link


def _cost(places: np.ndarray, rings: Rings, shape: Sequence[int], wraps: Sequence[bool]) -> tuple[float, ...]:
    """Return times in pieces that one link carries: what to compare first, that of the busiest link, that of each ring.

    Rings may run at once, but wait for what they carry: so the sum of their times counts, and the busiest link.
    """
    alone, together, apart = [], Counter[Link](), 0.0
    for axes in rings:
        loads = ring(places, axes, shape, wraps)[1]
        most = max(loads.values(), default=0)
        if is_near(math.prod(places.shape[axis] for axis in axes), most):
            alone.append(most / 2)  # half of a piece goes each way
            together.update(loads)
        else:
            alone.append(1 / _bandwidth(places, axes, shape, wraps))
            apart += 2 * alone[-1]
    busiest = max(together.values(), default=0) + apart
    return sum(alone) + busiest, busiest, *alone


def _bandwidth(places: np.ndarray, axes: Sequence[int], shape: Sequence[int], wraps: Sequence[bool]) -> float:
    """Return the links in each direction that one collective along `axes` has, as `planning.roofline` counts them."""
    group = np.moveaxis(places, axes, range(len(axes)))
    group = group.reshape(math.prod(group.shape[: len(axes)]), -1, len(shape))[:, 0]
    links = 0.0
    for axis, size in enumerate(shape):
        along = np.unique(group[:, axis])
        if len(along) == size > 1:
            links += 2.0 if wraps[axis] else 1.0
        elif len(along) > 1:
            links += (len(along) - 1) / float(along[-1] - along[0])
    return links


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
