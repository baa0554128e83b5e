"""Where every array lives: one table from logical axes to mesh axes for training, one for decoding.

Nothing outside this file names a mesh axis. Models name the logical axes of their arrays; a `Layout` turns those into
shardings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from s1_jax.config import MeshConfig, UserError

MESH_AXES = ("data", "fsdp", "context", "tensor")  # `data` may cross slices (DCN); the others stay on ICI
Rules = Mapping[str, str | tuple[str, ...] | None]

TRAIN_RULES: Rules = {
    # parameters
    "layers": None,
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "norm": None,
    # activations
    "micro": None,
    "batch": ("data", "fsdp"),
    "length": "context",
    "act_embed": None,
    "act_heads": "tensor",
    "act_kv_heads": "tensor",
    "act_mlp": "tensor",
    "act_vocab": "tensor",
    "head_dim": None,
    "cache": None,
}
# Decoding reads every weight once a step: gathering them over `fsdp` each time would cost more than it saves.
DECODE_RULES: Rules = {**TRAIN_RULES, "embed": None, "length": None}


@dataclass(frozen=True)
class Layout:
    """A mesh and the rules that place logical axes on it."""

    mesh: Mesh
    rules: Rules

    def spec(self, *axes: str | None) -> PartitionSpec:
        """The PartitionSpec of these logical axes. Raises ValueError on an unknown word or a mesh axis used twice."""
        if unknown := [axis for axis in axes if axis is not None and axis not in self.rules]:
            raise ValueError(f"unknown logical axis {unknown[0]!r}; known: {', '.join(self.rules)}")
        placed = [None if axis is None else self.rules[axis] for axis in axes]
        used = [name for place in placed if place for name in ((place,) if isinstance(place, str) else place)]
        if twice := {name for name in used if used.count(name) > 1}:
            raise ValueError(f"mesh axis {sorted(twice)[0]!r} is used twice in {axes}")
        return PartitionSpec(*placed)

    def sharding(self, *axes: str | None) -> NamedSharding:
        """`spec` on this mesh."""
        return NamedSharding(self.mesh, self.spec(*axes))

    def tree(self, axes: Any, shapes: Any) -> Any:
        """A sharding for each leaf of `shapes`, from the tree of logical-axis tuples beside it.

        Raises UserError where a dimension does not divide.
        """

        def place(path: Any, leaf: Any, names: tuple[str | None, ...]) -> NamedSharding:
            sharding = self.sharding(*names)
            for size, name, mesh_axes in zip(leaf.shape, names, sharding.spec, strict=True):
                parts = self.parts(mesh_axes)
                if size % parts:
                    where = jax.tree_util.keystr(path, simple=True, separator=".")
                    raise UserError(
                        f"{where}: axis {name!r} of size {size} does not divide over {parts} devices ({mesh_axes}); "
                        "choose another mesh"
                    )
            return sharding

        return jax.tree_util.tree_map_with_path(place, shapes, axes)

    def parts(self, mesh_axes: str | tuple[str, ...] | None) -> int:
        """Into how many pieces these mesh axes cut a dimension."""
        names = () if mesh_axes is None else (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
        return math.prod(self.mesh.shape[name] for name in names)

    @contextmanager
    def use(self):  # noqa: ANN201
        """Within: `constrain` places activations by this layout."""
        token = _current.set(self)
        try:
            with jax.set_mesh(self.mesh):
                yield self
        finally:
            _current.reset(token)


_current: ContextVar[Layout | None] = ContextVar("layout", default=None)


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh of `config` over all devices; an axis of -1 takes what the others leave.

    Raises UserError where the sizes do not fit.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    if sizes.count(-1) > 1:
        raise UserError("only one mesh axis may be -1")
    known = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        shape = ", ".join(f"{axis} {size}" for axis, size in zip(MESH_AXES, sizes, strict=True))
        raise UserError(f"mesh ({shape}) has {math.prod(sizes)} places; there are {len(devices)} devices")
    auto = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    if math.prod(sizes) == 1:
        return Mesh(np.asarray(devices).reshape(sizes), MESH_AXES, axis_types=auto)
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=auto, devices=devices)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """`x` placed by the layout in use (see `Layout.use`), or as it is where there is none.

    A dimension that does not divide is left whole: batches and heads of tiny models need not fill a mesh.
    """
    layout = _current.get()
    if layout is None or layout.mesh.size == 1:
        return x
    spec = layout.spec(*axes)
    fits = [place if size % layout.parts(place) == 0 else None for size, place in zip(x.shape, spec, strict=True)]
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, PartitionSpec(*fits)))


def assert_sharded(tree: Any, shardings: Any) -> None:
    """Raises AssertionError naming every leaf that is not placed as `shardings` says.

    A guard, not a formality: `jit(tx.init)` on an Auto mesh silently replicates the Adam moments.
    """
    wrong = []

    def check(path: Any, leaf: jax.Array, sharding: NamedSharding) -> None:
        if not leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            wrong.append(f"{jax.tree_util.keystr(path)}: {leaf.sharding} instead of {sharding}")

    jax.tree_util.tree_map_with_path(check, tree, shardings)
    assert not wrong, "misplaced arrays: " + "; ".join(wrong)
