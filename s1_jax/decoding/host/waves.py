"""Answers at the branch points of trunks that have ended, for as many branches at a time as there are slots.

A trunk keeps its slot until its answers are there. Letters: M tiles of a wave, R branches of a tile, which leave one
trunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from operator import attrgetter
from typing import NamedTuple

import jax
import numpy as np

from s1_jax.decoding.core.budget import Kind
from s1_jax.decoding.core.end_markers import Markers
from s1_jax.decoding.core.loop import ALL_FINITE
from s1_jax.decoding.core.sweep import BranchPoint
from s1_jax.decoding.device.branches import BranchPoints
from s1_jax.decoding.device.programs import Programs
from s1_jax.decoding.host.rows import Row, check_logits, rows_of
from s1_jax.decoding.host.slots import Slots, Use
from s1_jax.sharding import to_host

R = 4  # branches of a tile: they read the trunk's cache once for all of them
STEPS_PER_CALL = 32  # between two looks at progress and Ctrl-C
TAIL_MULTIPLES = {"tpu": 128}  # tails hold a multiple of this, 16 elsewhere: few programs, and tiles that are full


def tiles_of(slots: int, parts: int) -> int:
    """M: how many tiles a wave has beside so many slots, of a batch that a mesh cuts into `parts`."""
    return -(-max(slots // R, 1) // parts) * parts


class _Tile(NamedTuple):
    run: int
    points: list[BranchPoint]  # at most R
    after_newline: list[bool]


class Waves:
    """Branches of the runs that `slots` hold; `parts` is into how many pieces a mesh cuts the batch."""

    def __init__(self, programs: Programs, markers: Markers, slots: Slots, parts: int, use: Use) -> None:
        self._programs, self._slots, self._use = programs, slots, use
        self._is_newline = np.asarray(markers.is_newline)
        self._longest_suffix = int(markers.suffix_lengths.max())
        self._size = tiles_of(slots.size, parts)
        self._tiles: list[_Tile] = []
        self._answers: dict[int, dict[BranchPoint, Row]] = {}  # of runs that are held
        self._missing: dict[int, int] = {}  # tiles of each

    def add(self, run: int, row: Row, points: Collection[BranchPoint]) -> None:
        """Asks for the answers of a run that has ended; its own is there."""
        missing = sorted(set(points) - {row.branch_point}, key=attrgetter("end", "position"))
        tiles = [missing[first : first + R] for first in range(0, len(missing), R)]
        self._tiles += [_Tile(run, tile, [self._after_newline(row, point) for point in tile]) for tile in tiles]
        # a wave takes as long as its longest answer, and what follows "Final Answer:" is short
        self._tiles.sort(key=lambda tile: tile.points[0].end)
        self._answers[run], self._missing[run] = {row.branch_point: row}, len(tiles)

    def run(self, everything: bool, show: Callable[[], None]) -> Iterator[tuple[int, dict[BranchPoint, Row]]]:
        """Runs with all their answers; their slots are free then.

        Decodes while there are tiles enough, or `everything` there is. `show` is called between calls of the device.
        """
        while len(self._tiles) >= self._size or (everything and self._tiles):
            wave, self._tiles = self._tiles[: self._size], self._tiles[self._size :]
            decoding = self._decode(wave, show)
            next(decoding)  # the device is at work:
            yield from self._complete()  # meanwhile the caller has what is there
            (rows,) = decoding
            for i, tile in enumerate(wave):
                self._answers[tile.run] |= {point: rows[i * R + r] for r, point in enumerate(tile.points)}
                self._missing[tile.run] -= 1
        yield from self._complete()

    def _complete(self) -> list[tuple[int, dict[BranchPoint, Row]]]:
        complete = [run for run, tiles in self._missing.items() if not tiles]
        self._slots.free(complete)
        for run in complete:
            del self._missing[run]
        return [(run, self._answers.pop(run)) for run in complete]

    def _decode(self, wave: list[_Tile], show: Callable[[], None]) -> Iterator[list[Row]]:
        """Nothing once the device is at work, then a row for each branch of each tile, those of padding too."""
        runs = self._slots.runs
        held = np.zeros(self._size, int)
        held[: len(wave)] = [tile.run for tile in wave]
        budget, settings = jax.tree.map(lambda x: x[held], (runs.budget, runs.settings))
        lengths = np.asarray([len(runs.prompts[run]) for run in held], np.int32)
        at = self._branch_points(wave)
        slots = np.zeros(self._size, np.int32)
        slots[: len(wave)] = [self._slots.slot_of(tile.run) for tile in wave]
        cache = self._slots.state.cache
        prefix = self._programs.prefix(cache, slots, cache[0].capacity)
        longest_answer = np.minimum(runs.budget.max_answer_tokens, runs.budget.max_new_tokens).max()
        needed = self._longest_suffix + int(longest_answer) + 1
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
            check_logits(lost_at + before, np.where(at.active.ravel(), held.repeat(R), -1), runs.names)
            if done.all():
                break
        rows = rows_of(state)
        self._use.slot_steps += int(to_host(state.step)) * len(rows)
        self._use.tokens += sum(int((row.kinds != int(Kind.SUFFIX)).sum()) for row in rows)
        yield rows

    def _branch_points(self, wave: list[_Tile]) -> BranchPoints:
        position, end = (np.zeros((self._size, R), np.int32) for _ in range(2))
        after_newline, active = (np.zeros((self._size, R), bool) for _ in range(2))
        for i, tile in enumerate(wave):
            for r, point in enumerate(tile.points):
                position[i, r], end[i, r], active[i, r] = point.position, point.end, True
                after_newline[i, r] = tile.after_newline[r]
        return BranchPoints(position, end, after_newline, active)  # type: ignore[arg-type]

    def _after_newline(self, row: Row, point: BranchPoint) -> bool:
        return point.position > 0 and bool(self._is_newline[row.tokens[point.position - 1]])
