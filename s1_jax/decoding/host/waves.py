"""Waves: the answers at the branch points of trunks that have ended, about as many at a time as there are slots.

A wave has a fixed number of tiles, and a tile is R branches of one trunk. A trunk keeps its slot until all its answers
are there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np

from s1_jax.decoding.core.budget import Kind
from s1_jax.decoding.core.loop import ALL_FINITE
from s1_jax.decoding.core.sweep import SharedTrace
from s1_jax.decoding.core.traces import BranchPoint, Trace
from s1_jax.decoding.device.branches import BranchPoints
from s1_jax.decoding.device.programs import Programs
from s1_jax.decoding.host.results import check_logits, traces_of
from s1_jax.decoding.host.slots import Slots, Use
from s1_jax.sharding import to_host

R = 4  # branches of a tile, which read the cache of their trunk once for all of them
STEPS_PER_CALL = 32  # between two looks at progress and Ctrl-C
TAIL_MULTIPLES = {"tpu": 128}  # the capacity of tails is a multiple of this, elsewhere of 16


def tiles_of(slots: int, parts: int) -> int:
    """Choose the number of tiles of a wave beside this many slots, of a batch that a mesh cuts into `parts`."""
    return -(-max(slots // R, 1) // parts) * parts


class _Tile(NamedTuple):
    run: int
    trunk: SharedTrace
    points: list[BranchPoint]  # at most R


class Waves:
    """Branches of the runs that `slots` hold; `parts` is into how many pieces a mesh cuts the batch."""

    def __init__(self, programs: Programs, longest_suffix: int, slots: Slots, parts: int, use: Use) -> None:
        self._programs, self._longest_suffix, self._slots, self._use = programs, longest_suffix, slots, use
        self._size = tiles_of(slots.size, parts)
        self._tiles: list[_Tile] = []
        self._trunks: dict[int, SharedTrace] = {}  # the trunks whose slots are held, by their run

    def add(self, run: int, trunk: SharedTrace) -> None:
        """Ask for the answers that are missing of a run that has ended."""
        tiles = [trunk.missing[first : first + R] for first in range(0, len(trunk.missing), R)]
        self._tiles += [_Tile(run, trunk, points) for points in tiles]
        # a wave takes as long as its longest answer, and the answers to "Final Answer:" are short
        self._tiles.sort(key=lambda tile: tile.points[0].end)
        self._trunks[run] = trunk

    def run(self, everything: bool, show: Callable[[], None]) -> Iterator[SharedTrace]:
        """Give the trunks that have all their answers, whose slots are free then.

        This decodes waves while they are full, or `everything` that is left. `show` is called between calls of the
        device.
        """
        while len(self._tiles) >= self._size or (everything and self._tiles):
            wave, self._tiles = self._tiles[: self._size], self._tiles[self._size :]
            decoding = self._decode(wave, show)
            next(decoding)  # the device is at work:
            yield from self._complete()  # meanwhile the caller handles what is complete
            (answers,) = decoding
            for i, tile in enumerate(wave):
                for r, point in enumerate(tile.points):
                    tile.trunk.add_answer(point, answers[i * R + r])
        yield from self._complete()

    def _complete(self) -> list[SharedTrace]:
        complete = [run for run, trunk in self._trunks.items() if trunk.complete]
        self._slots.free(complete)
        return [self._trunks.pop(run) for run in complete]

    def _decode(self, wave: list[_Tile], show: Callable[[], None]) -> Iterator[list[Trace]]:
        """Yield nothing once the device is at work, then a trace for each branch of each tile, padding included."""
        held = np.full(self._size, wave[0].run)
        held[: len(wave)] = [tile.run for tile in wave]
        slots = self._slots.slots_of(held.tolist())
        budget, settings, lengths = self._slots.rows(slots)
        at = self._branch_points(wave)
        cache = self._slots.state.cache
        prefix = self._programs.prefix(cache, slots, cache[0].capacity)
        needed = self._longest_suffix + self._slots.longest_answer + 1
        multiple = TAIL_MULTIPLES.get(jax.default_backend(), 16)
        capacity = -(-needed // multiple) * multiple
        state = self._programs.start_branches(capacity, prefix, lengths, at, budget)
        for stop_step in itertools.count(STEPS_PER_CALL, STEPS_PER_CALL):
            state = self._programs.decode_branches(state, prefix, lengths, at, budget, settings, np.int32(stop_step))
            if stop_step == STEPS_PER_CALL:
                yield []
            show()
            done, lost_at = to_host((state.controller_state.done, state.lost_at))
            before = np.where(lost_at == ALL_FINITE, 0, at.position.ravel())
            check_logits(lost_at + before, np.where(at.active.ravel(), held.repeat(R), -1), self._slots.names)
            if done.all():
                break
        answers = traces_of(state)
        self._use.slot_steps += int(to_host(state.step)) * len(answers)
        self._use.tokens += sum(int((answer.kinds != int(Kind.SUFFIX)).sum()) for answer in answers)
        yield answers

    def _branch_points(self, wave: list[_Tile]) -> BranchPoints:
        position, end = (np.zeros((self._size, R), np.int32) for _ in range(2))
        after_newline, active = (np.zeros((self._size, R), bool) for _ in range(2))
        for i, tile in enumerate(wave):
            for r, point in enumerate(tile.points):
                position[i, r], end[i, r], active[i, r] = point.position, point.end, True
                after_newline[i, r] = tile.trunk.after_newline(point)
        return BranchPoints(position, end, after_newline, active)  # type: ignore[arg-type]
