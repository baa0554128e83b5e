"""Placement of every array: one table from logical axes to mesh axes for training, one for decoding.

Nothing outside this file names a mesh axis. Models name the logical axes of their arrays; a `Layout` turns those into
shardings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from s1_jax.chips import LANES
from s1_jax.config import MeshConfig
from s1_jax.errors import UserError
from s1_jax.torus import arrange, ring_of

MESH_AXES = ("data", "fsdp", "context", "tensor")  # `data` may cross slices (DCN); the others stay on ICI
RINGS = tuple(tuple(map(MESH_AXES.index, axes)) for axes in (("tensor",), ("fsdp", "context")))  # see `torus.arrange`
LARGEST_CHUNK = 512  # tokens of a row that stay together, at most: a block of the attention kernel (`model/splash.py`)
RESIDUAL = ("residual_batch", "residual_length", "act_embed")  # logical axes of [B, T, D] between layers
Rules = Mapping[str, str | tuple[str, ...] | None]

TRAIN_RULES: Rules = {
    # parameters: every chip that reads other tokens keeps another piece
    "layers": None,
    "embed": ("fsdp", "context"),
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "norm": None,
    "q_norm": None,
    "k_norm": None,
    "table_vocab": None,  # of the embedding, cut along D so that a lookup moves activations and no weights
    "table_embed": ("fsdp", "context", "tensor"),
    "vocab": ("context", "tensor"),  # of the output head
    "head_embed": "fsdp",
    # activations
    "micro": None,
    "batch": ("data", "fsdp"),
    "residual_batch": ("data", "fsdp"),
    "length": "context",
    "residual_length": ("context", "tensor"),  # between attention and MLP, which cut heads and mlp instead
    "act_embed": None,
    "act_heads": "tensor",
    "act_kv_heads": "tensor",
    "act_mlp": "tensor",
    "act_vocab": ("context", "tensor"),
    "head_dim": None,
    "cache": None,
}
# Decoding reads every weight once a step, for few tokens: weights stay where they are, in pieces over all chips but
# those of `data`, and tokens travel (2D weight-stationary, arXiv 2211.05102). Between layers each chip has its columns
# of all rows; in attention `tensor` cuts the heads and the other axes the rows, so more chips than kv heads can share a
# cache without keeping any of it twice.
DECODE_RULES: Rules = {
    **TRAIN_RULES,
    "table_vocab": "tensor",
    "table_embed": ("fsdp", "context"),
    "vocab": "tensor",
    "head_embed": ("fsdp", "context"),
    "batch": ("data", "fsdp", "context"),
    "residual_batch": "data",
    "length": None,
    "residual_length": None,
    "act_embed": ("fsdp", "context"),
    "act_vocab": "tensor",
}


@dataclass(frozen=True)
class Layout:
    """A mesh and the rules that place logical axes on it."""

    mesh: Mesh
    rules: Rules

    def spec(self, *axes: str | None) -> PartitionSpec:
        """Return the PartitionSpec of logical axes. Raises ValueError on an unknown word or a mesh axis used twice."""
        if unknown := [axis for axis in axes if axis is not None and axis not in self.rules]:
            raise ValueError(f"unknown logical axis {unknown[0]!r}; known: {', '.join(self.rules)}")
        placed = [None if axis is None else self.rules[axis] for axis in axes]
        used = [name for place in placed if place for name in ((place,) if isinstance(place, str) else place)]
        if twice := {name for name in used if used.count(name) > 1}:
            raise ValueError(f"mesh axis {sorted(twice)[0]!r} is used twice in {axes}")
        return PartitionSpec(*placed)

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Return the sharding of these logical axes on this mesh.

        Mesh axes of one device are left out, since they divide nothing. With them the compiler would know several
        shardings for one way to place an array, and a jitted function would be compiled for each.
        """
        places = self.places(*axes)
        return NamedSharding(self.mesh, PartitionSpec(*places) if any(places) else PartitionSpec())

    def places(self, *axes: str | None) -> list[str | tuple[str, ...] | None]:
        """Return the mesh axes of more than one device that divide each of these logical axes; None: none does."""
        return [self._dividing(place) for place in self.spec(*axes)]

    def _dividing(self, place: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        if isinstance(place, tuple):
            return tuple(name for name in place if self.mesh.shape[name] > 1) or None
        return place if place is not None and self.mesh.shape[place] > 1 else None

    def tree(self, axes: Any, shapes: Any) -> Any:
        """Return a sharding for each leaf of `shapes`, from the tree of logical-axis tuples beside it.

        Raises UserError if a dimension does not divide.
        """

        def place(path: Any, leaf: Any, names: tuple[str | None, ...]) -> NamedSharding:
            for size, name, mesh_axes in zip(leaf.shape, names, self.spec(*names), strict=True):
                parts = self.parts(mesh_axes)
                if size % parts:
                    where = jax.tree_util.keystr(path, simple=True, separator=".")
                    raise UserError(
                        f"{where}: axis {name!r} of size {size} does not divide over {parts} devices ({mesh_axes}); "
                        "choose another mesh"
                    )
            return self.sharding(*names)

        return jax.tree_util.tree_map_with_path(place, shapes, axes)

    def axes(self, name: str) -> tuple[str, ...]:
        """Return the mesh axes that shard a logical axis, for collectives within `shard_over`."""
        place = self.spec(name)[0]
        return () if place is None else (place,) if isinstance(place, str) else place

    def size(self, name: str) -> int:
        """Return the number of shards of a logical axis."""
        return self.parts(self.axes(name))

    def local(self, name: str, size: int) -> tuple[int, ...]:
        """Return the indices, of `size` along this logical axis, that this process's devices hold."""
        held: Any = self.sharding(name).addressable_devices_indices_map((size,)).values()
        return tuple(sorted({index for (indices,) in held for index in range(size)[indices]}))

    @property
    def moves_weights(self) -> bool:
        """Whether weights are gathered where the tokens are, as in training; otherwise tokens go to the weights."""
        return bool(self.axes("embed")) and not self.axes("act_embed")

    def planes(self, axes: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Group `axes` so that each group spans at most two dimensions of the torus, as far as they can be split."""
        spanned = [self._torus_dimensions(axis) for axis in axes]
        if len(set().union(*spanned)) <= 2:
            return [axes]
        return [(axis,) for axis in axes]

    def ring(self, axes: tuple[str, ...]) -> tuple[tuple[int, ...], int]:
        """Return `torus.ring_of` these mesh axes."""
        return _ring_of(self.mesh, axes)

    def _torus_dimensions(self, axis: str) -> set[int]:
        devices = np.moveaxis(self.mesh.devices, MESH_AXES.index(axis), 0).reshape(self.mesh.shape[axis], -1)[:, 0]
        coordinates = np.array([getattr(device, "coords", (device.id,)) for device in devices])
        return set(np.flatnonzero(np.ptp(coordinates, axis=0)))

    def parts(self, mesh_axes: str | tuple[str, ...] | None) -> int:
        """Return the number of shards that these mesh axes make of a dimension."""
        names = () if mesh_axes is None else (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes
        return math.prod(self.mesh.shape[name] for name in names)

    @property
    def spans_processes(self) -> bool:
        """Whether other processes have devices of the mesh: then all run the same programs, in the same order."""
        return self.mesh.is_multi_process

    def everywhere(self, tree: Any) -> Any:
        """Put arrays of the host, the same in all processes, whole on every device."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda x: jax.make_array_from_callback(np.shape(x), whole, np.asarray(x).__getitem__), tree)

    @contextmanager
    def use(self):  # noqa: ANN201
        """Use this layout within the block: `constrain` places activations by it."""
        token = _current.set(self)
        try:
            with jax.set_mesh(self.mesh):
                yield self
        finally:
            _current.reset(token)


_current: ContextVar[Layout | None] = ContextVar("layout", default=None)


def devices_for(config: MeshConfig) -> list[jax.Device]:
    """Return the devices to decode on: this process's if the mesh fits on them, else those of all processes.

    A mesh that gives every axis a size, without -1, may have fewer devices than the process: it has the first ones.
    """
    own, sizes = jax.local_devices(), [getattr(config, axis) for axis in MESH_AXES]
    needed = math.prod(size for size in sizes if size != -1)
    if needed > len(own):
        return jax.devices()
    return own if -1 in sizes else own[:needed]


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Make the mesh of `config` over all devices; an axis of -1 takes what the others leave.

    Raises UserError if the sizes do not fit.
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
    # Explicit axes would want an out_sharding for most gathers and reshapes, another one under each table and without
    # a mesh, though all of these share one forward pass: see docs/design/architecture.md.
    auto = (jax.sharding.AxisType.Auto,) * len(MESH_AXES)
    if math.prod(sizes) == 1:
        return Mesh(np.asarray(devices).reshape(sizes), MESH_AXES, axis_types=auto)
    slices: dict[int, list[jax.Device]] = {}
    for device in devices:
        slices.setdefault(getattr(device, "slice_index", 0) if device.platform == "tpu" else 0, []).append(device)
    if sizes[0] % len(slices):
        raise UserError(f"mesh.data {sizes[0]} must be a multiple of the {len(slices)} slices: only it may cross them")
    within = (sizes[0] // len(slices), *sizes[1:])
    grids = [arrange(slices[index], within, RINGS) for index in sorted(slices)]
    if all(grid is not None for grid in grids):
        return Mesh(np.concatenate(grids), MESH_AXES, axis_types=auto)  # type: ignore[arg-type]
    if len(slices) > 1:
        across = (len(slices), 1, 1, 1)
        grid = mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)
        return Mesh(grid, MESH_AXES, axis_types=auto)
    try:
        return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=auto, devices=devices)
    except NotImplementedError:  # two mesh axes share one axis of the torus, which jax does only when asked to
        grid = mesh_utils.create_device_mesh(tuple(sizes), devices=devices, allow_split_physical_axes=True)
        return Mesh(grid, MESH_AXES, axis_types=auto)


@lru_cache
def _ring_of(mesh: Mesh, axes: tuple[str, ...]) -> tuple[tuple[int, ...], int]:
    return ring_of(mesh.devices, [MESH_AXES.index(axis) for axis in axes])


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Place `x` by the layout in use (see `Layout.use`); without one, return it as it is.

    A dimension that does not divide is left whole: batches and heads of tiny models need not fill a mesh.
    """
    layout = _current.get()
    if layout is None or layout.mesh.size == 1:
        return x
    places = zip(x.shape, layout.places(*axes), strict=True)
    fits = [place if size % layout.parts(place) == 0 else None for size, place in places]
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, PartitionSpec(*fits)))


def current_layout() -> Layout | None:
    """Return the layout in use, or None."""
    return _current.get()


def to_host(tree: Any) -> Any:
    """Fetch arrays as NumPy arrays; of one that several processes share, each gets the whole, and all must ask."""

    def whole(x: Any) -> Any:
        spread = isinstance(x, jax.Array) and not x.is_fully_addressable
        return multihost_utils.process_allgather(x, tiled=True) if spread else x

    return jax.device_get(jax.tree.map(whole, tree))


def is_sharded() -> bool:
    """Whether the layout in use has more than one device."""
    layout = _current.get()
    return layout is not None and layout.mesh.size > 1


def platform() -> str:
    """Return "tpu", "gpu" or "cpu", the platform of the layout in use, whose devices may be planned ones."""
    layout = _current.get()
    return jax.default_backend() if layout is None else layout.mesh.devices.flat[0].platform


def shard_over(layout: Layout, function: Callable, inputs: Any, outputs: Any) -> Callable:
    """Let every device run `function` on its shards; `inputs` and `outputs` have a tuple of logical axes an array."""

    def specs(axes: Any) -> Any:
        return jax.tree.map(lambda names: layout.spec(*names), axes, is_leaf=_is_axes)

    return jax.shard_map(function, mesh=layout.mesh, in_specs=specs(inputs), out_specs=specs(outputs), check_vma=False)


def sum_scatter(layout: Layout, x: jax.Array, axes: tuple[str, ...], dimension: int) -> jax.Array:
    """Sum x over the devices along `axes`, within `shard_over`; each keeps its shard of `dimension`.

    Two things keep XLA on TPU from making an all-reduce of it, which moves twice as much: the dimension stands first,
    and no more than two axes of the torus are summed over at once.
    """
    if not axes:
        return x
    for group in layout.planes(axes):
        parts = layout.parts(group)
        before, size, after = x.shape[:dimension], x.shape[dimension] // parts, x.shape[dimension + 1 :]
        x = jnp.moveaxis(x.reshape(*before, parts, size, *after), dimension, 0)
        x = jax.lax.psum_scatter(x, group, scatter_dimension=0, tiled=False)
    return x


def _is_axes(x: Any) -> bool:
    return type(x) is tuple and all(name is None or isinstance(name, str) for name in x)


def row_order(length: int, parts: int) -> np.ndarray:
    """Return the token of a row that each slot holds, so that a row cut into `parts` is cut fairly: [length] int.

    Under a causal mask the end of a document costs the most. Chunks of `row_chunk` tokens are dealt to the parts in
    rounds, every other one backwards. With two rounds this is zig-zag, as in context parallelism in Llama 3 (arXiv
    2407.21783, section 3.3.2); a row holds several documents, and more rounds divide each of them. Lengths that do not
    divide stay in order.
    """
    if parts == 1 or length % parts:
        return np.arange(length)
    rounds = np.arange(length).reshape(-1, parts, row_chunk(length, parts))
    rounds[1::2] = rounds[1::2, ::-1]
    return rounds.swapaxes(0, 1).ravel()


def row_chunk(length: int, parts: int) -> int:
    """Return the tokens of a chunk of `row_order`: a block of attention, or half of one that has all of a part's."""
    tokens = length // parts
    block = largest_block(tokens) or tokens
    return tokens // 2 if block == tokens and tokens % 2 == 0 else block


def largest_block(length: int, most: int = LARGEST_CHUNK) -> int | None:
    """Return the largest multiple of LANES up to `most` that divides `length`, or None."""
    return next((size for size in range(most, 0, -LANES) if length % size == 0), None)


def current_row_order(length: int) -> np.ndarray:
    """Return the token of a row that each slot holds on the layout in use, as `place_rows` puts them: [length] int."""
    layout = current_layout()
    return row_order(length, 1 if layout is None else layout.size("length"))


def place_rows(layout: Layout, arrays: Mapping[str, np.ndarray], rows: int) -> dict[str, jax.Array]:
    """Put packed rows [M, rows, T] on the mesh, each in `row_order`.

    `arrays` are [M, own rows, T]: this process has filled those rows that its devices hold (`Layout.local`).
    """
    sharding = layout.sharding("micro", "batch", "length")
    own = {row: i for i, row in enumerate(layout.local("batch", rows))}

    def placed(array: np.ndarray) -> jax.Array:
        ordered = array[:, :, row_order(array.shape[2], layout.size("length"))]

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None
            micro, wanted, length = index
            return ordered[micro, [own[row] for row in range(rows)[wanted]], length]

        return jax.make_array_from_callback((array.shape[0], rows, array.shape[2]), sharding, part)

    return {name: placed(array) for name, array in arrays.items()}


def assert_sharded(tree: Any, shardings: Any) -> None:
    """Raise AssertionError naming every leaf that is not placed as `shardings` says.

    A guard, not a formality: `jit(tx.init)` on an Auto mesh silently replicates the Adam moments.
    """
    wrong = []

    def check(path: Any, leaf: jax.Array, sharding: NamedSharding) -> None:
        if not leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
            wrong.append(f"{jax.tree_util.keystr(path)}: {leaf.sharding} instead of {sharding}")

    jax.tree_util.tree_map_with_path(check, tree, shardings)
    assert not wrong, "misplaced arrays: " + "; ".join(wrong)
