"""Groups of devices in collectives: their notations in HLO, and their meaning on a mesh.

Devices are numbered by their index in the flattened mesh, as in the compiled program.
"""

from __future__ import annotations

import re

import numpy as np
from jax.sharding import Mesh

Groups = tuple[tuple[int, ...], ...]  # one tuple of devices per group; for a permute, pairs (source, target)


def parse_groups(text: str | None, devices: int) -> Groups:
    """Parse `replica_groups=` or `source_target_pairs=` of a program for this many devices, in any of three notations.

    {{0,2},{1,3}} and [2,2]<=[2,2]T(1,0) and mesh['a'=2,'b'=2] {'a'} are the same two groups; None means all devices.
    """
    text = (text or "").strip()
    if text.startswith("mesh["):
        return _by_axes(text)
    if text.startswith("["):
        shape, iota = text.split("<=")
        return _tuples(_iota(iota).reshape(_numbers(shape)))
    groups = tuple(_numbers(group) for group in re.findall(r"\{([\d,\s]+)\}", text))
    return groups or (tuple(range(devices)),)


def mesh_axes(groups: Groups, mesh: Mesh) -> tuple[str, ...]:
    """Return the mesh axes along which members of a group differ, in the mesh's order."""
    coordinates = np.stack(np.unravel_index(np.arange(mesh.size), mesh.devices.shape), axis=-1)
    differ = np.zeros(coordinates.shape[1], bool)
    for group in groups:
        members = coordinates[list(group)]
        differ |= (members != members[0]).any(axis=0)
    return tuple(name for name, along in zip(mesh.axis_names, differ, strict=True) if along)


def _by_axes(text: str) -> Groups:
    """Parse mesh['a'=8,'b'=2], device_ids=([2,8]T(1,0)) {'a', 'b':(1)2}; `'b':(4)2` is the 2 in 'b' as 4 x 2 x rest."""
    found = re.match(r"mesh\[([^\]]*)\](?:, device_ids=\((.*?\]?(?:T\([\d,]*\))?)\))? ?\{([^}]*)\}", text)
    if found is None:
        raise ValueError(f"unknown form of replica groups: {text}")
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", found[1])}
    taken = {name: (pre, size) for name, pre, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", found[3])}
    shape: list[int] = []
    joined: list[int] = []
    for name, size in sizes.items():
        if name not in taken:
            shape.append(size)
            continue
        before, own = (int(taken[name][0]), int(taken[name][1])) if taken[name][0] else (1, size)
        joined.append(len(shape) + 1)
        shape += [before, own, size // before // own]
    devices = _iota(found[2]) if found[2] else np.arange(np.prod(shape, dtype=int))
    apart = [axis for axis in range(len(shape)) if axis not in joined]
    per_group = int(np.prod([shape[axis] for axis in joined], dtype=int))
    return _tuples(devices.reshape(shape).transpose(apart + joined).reshape(-1, per_group))


def _iota(text: str) -> np.ndarray:
    """Expand [8,2]T(1,0): the numbers 0 to 15 as 8 x 2, transposed and flattened."""
    shape, _, order = text.partition("T")
    numbers = np.arange(np.prod(_numbers(shape), dtype=int)).reshape(_numbers(shape))
    return (numbers.transpose(_numbers(order)) if order else numbers).reshape(-1)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text))


def _tuples(array: np.ndarray) -> Groups:
    return tuple(tuple(int(device) for device in row) for row in array)
