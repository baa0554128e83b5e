"""Collectives as rings of permutes, which run beside the work on their pieces.

An all-gather or a reduce-scatter is one instruction, for which a TPU waits. A ring sends one piece at a time to a
neighbor, asynchronously, while the piece that came before is worked on (Wang et al. 2023, ASPLOS, "Overlap
communication with dependent computation via decomposition"; Google's "How to Scale Your Model", chapter 3). Pieces go
both ways round at once. All functions run within `shard_over`, and move the bytes that the collective would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.sharding import Layout
from s1_jax.torus import is_near


class Ring:
    """The devices along mesh axes, in an order in which each is as near as can be to the next."""

    def __init__(self, layout: Layout, axes: Sequence[str]) -> None:
        self.axes = tuple(axes)
        self.parts = layout.parts(self.axes)
        self.ways = min(self.parts, 2)  # in which sums travel, each with a part of its own
        self._order, load = layout.ring(self.axes)
        self.is_near = is_near(self.parts, load)

    def place(self) -> jax.Array:
        """Return this device's place in the ring, as an int32 scalar."""
        if self.parts == 1:
            return jnp.int32(0)
        return self._look_up(np.argsort(self._order), jax.lax.axis_index(self.axes))

    def index(self, place: jax.Array) -> jax.Array:
        """Return the index along the mesh axes of the device at this place, counted round the ring."""
        return self._look_up(np.array(self._order), place % self.parts)

    def send(self, x: jax.Array, way: int) -> jax.Array:
        """Send `x` to the next device (way 1) or the one before (-1), and return what arrives from the other side."""
        order = self._order
        pairs = [(order[i], order[(i + way) % self.parts]) for i in range(self.parts)]
        return jax.lax.ppermute(x, self.axes, pairs)

    def _look_up(self, table: np.ndarray, at: jax.Array) -> jax.Array:
        return at if list(table) == sorted(table) else jnp.asarray(table, jnp.int32)[at]


def pieces(ring: Ring, x: jax.Array, dimension: int) -> Iterator[tuple[jax.Array, int, jax.Array]]:
    """Yield (index, offset, piece) for the piece `x` of each device, this one's own first; they come from both sides.

    `index` is that of the device. The piece of the device opposite comes in halves along `dimension`, one from each
    side, where it can be cut; `offset` is where such a half begins.
    """
    size = x.shape[dimension]
    own = ring.place()
    yield ring.index(own), 0, x
    up = down = x
    for step in range(1, ring.parts // 2 + 1):
        opposite = 2 * step == ring.parts
        if opposite and ring.parts > 2 and size % 2 == 0:
            index = ring.index(own - step)
            yield index, 0, ring.send(halves(up, 2, dimension)[0], 1)
            yield index, size // 2, ring.send(halves(down, 2, dimension)[1], -1)
            continue
        up = ring.send(up, 1)
        yield ring.index(own - step), 0, up
        if not opposite:
            down = ring.send(down, -1)
            yield ring.index(own + step), 0, down


class Whole:
    """An array that is written piece by piece, along one dimension.

    JAX makes once, before the loop over layers, what depends on no input, and each layer then begins with a copy of it.
    So an array of the forward pass begins `filled` with a value of its first piece; others have no value to begin with.
    """

    def __init__(self, size: int, dimension: int, filled: bool = False) -> None:
        self._size, self._dimension, self._filled = size, dimension, filled  # the size of this dimension
        self._array: jax.Array | None = None

    @property
    def array(self) -> jax.Array:
        """The array with all pieces that have been put."""
        assert self._array is not None
        return self._array

    def put(self, start: jax.Array, piece: jax.Array) -> None:
        """Write a piece that begins at `start`."""
        if piece.shape[self._dimension] == self._size:
            self._array = piece
            return
        if self._array is None:
            shape = list(piece.shape)
            shape[self._dimension] = self._size
            first = piece[(0,) * piece.ndim]
            self._array = jnp.full(shape, first) if self._filled else jax.lax.empty(tuple(shape), piece.dtype)
        self._array = jax.lax.dynamic_update_slice_in_dim(self._array, piece, start, self._dimension)


def gather(ring: Ring, x: jax.Array, dimension: int, filled: bool = False) -> jax.Array:
    """Gather the pieces of all devices along `dimension`, in the order of their indices: an all-gather.

    `filled` is that of `Whole`.
    """
    size = x.shape[dimension]
    whole = Whole(ring.parts * size, dimension, filled)
    for index, offset, piece in pieces(ring, x, dimension):
        whole.put(index * size + offset, piece)
    return whole.array


def sum_parts(ring: Ring, part: Callable[[jax.Array, int], jax.Array], dimension: int) -> jax.Array:
    """Sum `part(index, way)` over the devices of a ring, where each keeps the one with its own index.

    `part` gives a part along `dimension` for each of the `ring.ways`. Sums are made in float32 and travel in the type
    of `part`.
    """
    own = ring.place()
    totals: dict[int, jax.Array] = {}
    for step in range(1, ring.parts + 1):
        for way, ahead in enumerate((1, -1)[: ring.ways]):
            index = ring.index(own - ahead * step)
            if way in totals:  # the compiler would make parts long before they are added, and they would hide nothing
                index, totals[way] = jax.lax.optimization_barrier((index, totals[way]))
            more = part(index, way)
            if way in totals:
                arrived = ring.send(totals[way], ahead)
                more = (arrived.astype(jnp.float32) + more.astype(jnp.float32)).astype(more.dtype)
            totals[way] = more
    return jnp.concatenate(list(totals.values()), dimension)


def cut(x: jax.Array, index: jax.Array, parts: int, dimension: int) -> jax.Array:
    """Take the piece with this index, of `parts` along `dimension`."""
    size = x.shape[dimension] // parts
    return x if parts == 1 else jax.lax.dynamic_slice_in_dim(x, index * size, size, dimension)


def halves(x: jax.Array, ways: int, dimension: int) -> Sequence[jax.Array]:
    """Cut an array along `dimension` into as many parts as there are ways, 1 or 2; the second one may be larger."""
    size = x.shape[dimension]
    return jax.lax.split(x, [size // 2, size - size // 2], dimension) if ways > 1 else [x]
