"""How long a step must take: matmuls, memory and interconnect each at the speed of the chip.

Bounds, not measurements: no latencies, no elementwise work but for the bytes it moves, every transfer at full speed.
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

Link = tuple[tuple[int, ...], int, int]  # from which chip, along which axis, and which way
TIMES = ("compute", "hbm", "ici", "step_overlap", "step_no_overlap")  # of `Seconds`
MATMUL_SHARE = 0.75  # of peak, that the matmuls of a step are taken to reach


@dataclass(frozen=True)
class Seconds:
    """Of one step on every chip at once."""

    compute: float
    hbm: float
    ici: float

    @property
    def step_overlap(self) -> float:
        """Everything behind the longest of the three."""
        return max(self.compute, self.hbm, self.ici)

    @property
    def step_no_overlap(self) -> float:
        """One after the other."""
        return self.compute + self.hbm + self.ici

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.compute + other.compute, self.hbm + other.hbm, self.ici + other.ici)


def seconds(counts: Counts, kernel_flops: float, mesh: Mesh, chip: Chip) -> Seconds:
    """The step of `counts` on the slice of `mesh`; `kernel_flops` are its Pallas kernels', on the busiest chip."""
    return Seconds(
        compute=(counts.matmul_flops + kernel_flops) / (MATMUL_SHARE * chip.peak_flops),
        hbm=counts.hbm_bytes / chip.hbm_bandwidth,
        ici=ici_seconds(counts.collectives, mesh, chip),
    )


def ici_seconds(collectives: Mapping[Collective, float], mesh: Mesh, chip: Chip) -> float:
    """All collectives, one after the other; permutes along the same mesh axes share the time, as each way has its link.

    A group of n spans physical axes of the torus, and each gives it one link's bandwidth, or two where the group is the
    whole axis and its ends are linked; divided by the distance of neighbours, where other groups lie between. With W
    their sum and V the bytes of the whole array: all-gather and reduce-scatter V (n-1)/n / W, all-reduce twice that.
    An all-to-all is limited by the links that cross the middle of its longest axis, V/4 over them each way.
    """
    slice_of = _Slice(mesh, chip)
    total = 0.0
    permuted: dict[tuple[str, ...], dict[Link, float]] = {}
    for collective, times in collectives.items():
        if collective.kind == "collective-permute":
            loads = permuted.setdefault(mesh_axes(collective.groups, mesh), {})
            for link, crossed in slice_of.loads(collective.groups).items():
                loads[link] = loads.get(link, 0.0) + crossed * collective.bytes * times
        else:
            total += times * max(slice_of.group_seconds(collective, group) for group in collective.groups)
    return total + sum(max(loads.values(), default=0) for loads in permuted.values()) / chip.link_bandwidth


class _Slice:
    """Where the devices of a mesh stand in the torus."""

    def __init__(self, mesh: Mesh, chip: Chip):
        self.chip = chip
        self.places = np.array([device.coords[: chip.torus] for device in mesh.devices.flat])
        self.shape = tuple(int(size) for size in self.places.max(axis=0) + 1)
        self.wraps = chip.wraps(self.shape)

    def group_seconds(self, collective: Collective, group: tuple[int, ...]) -> float:
        """Of one collective within one of its groups."""
        links = self._links(group)
        n, V = len(group), collective.bytes
        if not links:  # several devices on one chip
            return 0.0
        if collective.kind == "all-to-all":
            return max(V / n * extent / 4 / bandwidth for extent, bandwidth in links)
        passes = 2 if collective.kind == "all-reduce" else 1
        return passes * V * (n - 1) / n / sum(bandwidth for _, bandwidth in links)

    def _links(self, group: tuple[int, ...]) -> list[tuple[int, float]]:
        """Of each physical axis the group spans: how many places along it, and bytes/s each way between them."""
        links = []
        for axis, size in enumerate(self.shape):
            along = np.unique(self.places[list(group), axis])
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
        """How many of the (source, target) pairs cross each link each way, going along one axis after another."""
        loads: Counter[Link] = Counter()
        for source, target in pairs:
            place = list(self.places[source])
            for axis, size in enumerate(self.shape):
                distance = int(self.places[target][axis] - place[axis])
                if self.wraps[axis] and abs(distance) > size / 2:
                    distance -= size if distance > 0 else -size
                step = 1 if distance > 0 else -1
                for _ in range(abs(distance)):
                    loads[(tuple(place), axis, step)] += 1
                    place[axis] = (place[axis] + step) % size
        return loads
