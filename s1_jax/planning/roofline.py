"""Least time of a step, with matmuls, memory and interconnect each at the speed of the chip.

These are bounds, not measurements: there are no latencies, elementwise work counts only by its memory traffic, and
every transfer runs at full bandwidth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from s1_jax.chips import Chip
from s1_jax.planning.counts import Collective, Counts
from s1_jax.planning.groups import Groups, mesh_axes
from s1_jax.torus import Link, route

TIMES = ("compute", "hbm", "ici", "step_overlap", "step_no_overlap")  # fields and properties of `Seconds`
PERMUTE = "collective-permute"
MATMUL_SHARE = 0.75  # fraction of peak assumed for the matmuls of a step


@dataclass(frozen=True)
class Seconds:
    """Times of one step, which all chips run in parallel."""

    compute: float
    hbm: float
    ici: float

    @property
    def step_overlap(self) -> float:
        """Time with full overlap: the longest of the three."""
        return max(self.compute, self.hbm, self.ici)

    @property
    def step_no_overlap(self) -> float:
        """Time without overlap: the sum of the three."""
        return self.compute + self.hbm + self.ici

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.compute + other.compute, self.hbm + other.hbm, self.ici + other.ici)

    def __mul__(self, times: float) -> Seconds:
        return Seconds(times * self.compute, times * self.hbm, times * self.ici)


def seconds(counts: Counts, kernel_flops: float, mesh: Mesh, chip: Chip) -> Seconds:
    """Return the times of a step with these counts; `kernel_flops` are those of Pallas kernels on the busiest chip."""
    return Seconds(
        compute=(counts.matmul_flops + kernel_flops) / (MATMUL_SHARE * chip.peak_flops),
        hbm=counts.hbm_bytes / chip.hbm_bandwidth,
        ici=ici_seconds(counts.collectives, mesh, chip),
    )


def ici_seconds(collectives: Mapping[Collective, float], mesh: Mesh, chip: Chip) -> float:
    """Return the time of all collectives in sequence; permutes along the same mesh axes run at the same time.

    A group of n devices spans physical axes of the torus. Each axis adds the bandwidth of one link, or of two if the
    group is the whole axis and its ends are linked, divided by the distance of neighbors if other groups lie between.
    With W their sum and V the bytes of the whole array, all-gather and reduce-scatter take V (n-1)/n / W, and
    all-reduce takes twice that. An all-to-all is limited by the links across the middle of its longest axis, with V/4
    over them in each direction.
    """
    torus = Torus(mesh, chip)
    total = 0.0
    permuted: dict[tuple[str, ...], dict[Link, float]] = {}
    for collective, times in collectives.items():
        if collective.kind == PERMUTE:
            loads = permuted.setdefault(mesh_axes(collective.groups, mesh), {})
            for link, crossed in torus.loads(collective.groups).items():
                loads[link] = loads.get(link, 0.0) + crossed * collective.bytes * times
        else:
            total += times * torus.seconds(collective)
    return total + sum(max(loads.values(), default=0) for loads in permuted.values()) / chip.link_bandwidth


class Torus:
    """Positions of the devices of a mesh in the torus, and the links between them."""

    def __init__(self, mesh: Mesh, chip: Chip):
        self.chip = chip
        self.coordinates = np.array([device.coords[: chip.torus] for device in mesh.devices.flat])
        self.shape = tuple(int(size) for size in self.coordinates.max(axis=0) + 1)
        self.wraps = chip.wraps(self.shape)

    def seconds(self, collective: Collective) -> float:
        """Return the time of one collective by itself, which all of its groups run at the same time."""
        if collective.kind == PERMUTE:
            loads = self.loads(collective.groups)
            return max(loads.values(), default=0) * collective.bytes / self.chip.link_bandwidth
        return max(self._group_seconds(collective, group) for group in collective.groups)

    def links(self, collective: Collective) -> frozenset[Link]:
        """Return all links that a collective uses: those that a permute crosses, or those within the groups."""
        pairs = list(collective.groups) if collective.kind == PERMUTE else []
        for group in collective.groups if collective.kind != PERMUTE else ():
            for axis in range(len(self.shape)):
                lines: dict[tuple[int, ...], list[int]] = {}
                for device in sorted(group, key=lambda device: self.coordinates[device][axis]):
                    lines.setdefault(tuple(np.delete(self.coordinates[device], axis)), []).append(device)
                for line in lines.values():
                    around = list(zip(line, line[1:] + line[:1], strict=True))
                    pairs += around + [(target, source) for source, target in around]
        return frozenset(self.loads(tuple(pairs)))

    def hops(self, collective: Collective) -> int:
        """Return the number of links that data crosses one after another; an all-reduce crosses them twice."""
        longest = 0
        for group in collective.groups:
            along = self.coordinates[list(group)]
            apart = np.abs(along[:, None] - along)
            apart = np.where(self.wraps, np.minimum(apart, np.array(self.shape) - apart), apart)
            longest = max(longest, int(apart.max(axis=(0, 1)).sum()))
        return longest * (2 if collective.kind == "all-reduce" else 1)

    def _group_seconds(self, collective: Collective, group: tuple[int, ...]) -> float:
        """Return the time of one collective within one of its groups."""
        links = self._links(group)
        n, V = len(group), collective.bytes
        if not links:  # several devices on one chip
            return 0.0
        if collective.kind == "all-to-all":
            return max(V / n * extent / 4 / bandwidth for extent, bandwidth in links)
        passes = 2 if collective.kind == "all-reduce" else 1
        return passes * V * (n - 1) / n / sum(bandwidth for _, bandwidth in links)

    def _links(self, group: tuple[int, ...]) -> list[tuple[int, float]]:
        """Return for each physical axis of the group the number of positions and the bytes/s in each direction."""
        links = []
        for axis, size in enumerate(self.shape):
            along = np.unique(self.coordinates[list(group), axis])
            extent = len(along)
            if extent == 1:
                continue
            if extent == size:
                shares = 2.0 if self.wraps[axis] else 1.0
            else:
                shares = (extent - 1) / float(along[-1] - along[0])
            links.append((extent, shares * self.chip.link_bandwidth))
        return links

    def loads(self, pairs: Groups) -> Counter[Link]:
        """Count the (source, target) pairs that cross each link in each direction, routed along one axis at a time."""
        loads: Counter[Link] = Counter()
        for source, target in pairs:
            loads.update(route(self.coordinates[source], self.coordinates[target], self.shape, self.wraps))
        return loads
