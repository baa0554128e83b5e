"""A sweep's programs compiled with few layers, whose memory and times are extrapolated to all layers.

In decoding all layers have their own arrays and run one after another, so that each adds the same. For the loop with 17
rows on v6e-8 this gives 24.80 GiB, while compiling all 64 layers gives 24.74.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from s1_jax.chips import Chip
from s1_jax.config import ModelConfig
from s1_jax.planning.decode_program import Built, Sizes, Sweep, Types
from s1_jax.planning.hlo import parse
from s1_jax.planning.schedule import Schedule, Timing
from s1_jax.sharding import Layout

FEW_LAYERS = (2, 3)


class FewLayers:
    """The programs of one sweep, except the decoding loop, compiled with FEW_LAYERS, with `answers` or without.

    Raises RunError for one that does not fit even alone.
    """

    def __init__(self, model: ModelConfig, types: Types, layout: Layout, sizes: Sizes, answers: bool = True) -> None:
        self._layout = layout
        self._further = (model.num_hidden_layers - FEW_LAYERS[0]) / (FEW_LAYERS[1] - FEW_LAYERS[0])
        self._built = [
            Sweep(dataclasses.replace(model, num_hidden_layers=layers), types, layout, sizes).others(answers)
            for layers in FEW_LAYERS
        ]

    def needs(self) -> dict[str, float]:
        """Return the bytes in use on each chip while each program runs with all layers."""
        return {name: sum(share * built.bytes for share, built in self._shares(name)) for name in self._built[0]}

    def once(self, name: str, chip: Chip, hop_latency: float) -> Timing:
        """Return the times of one run of a program with all layers; loops of unknown length are left out."""
        return self._timing(name, chip, hop_latency, {0: 1.0})

    def step(self, name: str, chip: Chip, hop_latency: float) -> Timing:
        """Return the times of one iteration of a program's loop of unknown length, with all layers."""
        return self._timing(name, chip, hop_latency, {1: 1.0, 0: -1.0})

    def _timing(self, name: str, chip: Chip, hop_latency: float, runs: dict[int, float]) -> Timing:
        total = Timing()
        for share, built in self._shares(name):
            schedule = Schedule(parse(built.compiled.as_text() or ""), self._layout.mesh, chip, hop_latency)
            for trips, times in runs.items():
                total.add(schedule.timing(trips, {}), share * times)
        return total

    def _shares(self, name: str) -> Iterator[tuple[float, Built]]:
        """Yield the programs of this name, each with the weight that it has in what is extrapolated."""
        return zip((1 - self._further, self._further), (built[name] for built in self._built), strict=True)
