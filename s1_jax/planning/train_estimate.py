"""Estimate of a training run on a slice: memory, work and time of its steps, and the length of the run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from s1_jax.chips import GIB, Chip, chip_of
from s1_jax.config import EvaluateConfig, ModelConfig, TrainConfig
from s1_jax.data.tokens import Corpus
from s1_jax.errors import RunError, UserError
from s1_jax.model.transformer import abstract_params
from s1_jax.planning.counts import Counts, count
from s1_jax.planning.groups import mesh_axes
from s1_jax.planning.roofline import TIMES, Seconds, seconds
from s1_jax.planning.schedule import HOP_LATENCY, SCHEDULED, Kernel, Schedule, Timing
from s1_jax.planning.train_program import Memory, Program, compile_program
from s1_jax.planning.workload import StepWork, steps
from s1_jax.sharding import TRAIN_RULES, Layout, Rules, make_mesh

Shape = tuple[int, int, int]  # M, B, T of a step's arrays


class RunSeconds(NamedTuple):
    """Length of a whole run."""

    overlap: float  # with everything overlapped
    scheduled: float
    no_overlap: float  # with nothing overlapped


@dataclass(frozen=True)
class Plan:
    """Plan of a training run; values of a step are means over all steps, and memory is that of the largest shape."""

    chip: Chip
    device_kind: str
    mesh: dict[str, int]
    parameters: int
    shapes: dict[Shape, int]  # number of steps of each shape
    memory: Memory
    model_flops: float  # of all chips, like compiled_flops
    compile_seconds: float
    compiled_flops: float | None = None  # this and the following are None if the run does not fit
    collectives: tuple[tuple[str, str, float], ...] = ()  # kind, mesh axes, bytes of one group's whole arrays
    seconds: Seconds | None = None
    timing: Timing | None = None  # in the order of the compiled schedule
    run_seconds: RunSeconds | None = None
    host_bytes: float = 0.0  # exchanged by one chip with its host per step

    @property
    def chips(self) -> int:
        """Number of chips in the slice."""
        return math.prod(self.mesh.values()) // self.chip.devices

    @property
    def fits(self) -> bool:
        """Whether every shape of the run fits into HBM."""
        return self.memory.fits

    @property
    def steps(self) -> int:
        """Number of steps of the whole run."""
        return sum(self.shapes.values())

    @property
    def mfu(self) -> float | None:
        """Model FLOPs as a fraction of the peak over the time of a step as scheduled."""
        if self.timing is None:
            return None
        return self.model_flops / (self.timing.seconds * math.prod(self.mesh.values()) * self.chip.peak_flops)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; times, compiled FLOPs and MFU are null if the step does not fit."""
        memory, times = self.memory, self.seconds
        bounds = {name: None if times is None else getattr(times, name) for name in TIMES}
        run = dict.fromkeys(RunSeconds._fields) if self.run_seconds is None else self.run_seconds._asdict()
        return {
            "chips": self.chips,
            "device_kind": self.device_kind,
            "mesh": self.mesh,
            "parameters": self.parameters,
            "hbm_gib": {
                "params": memory.params / GIB,
                "optimizer": memory.optimizer / GIB,
                "temporaries": memory.temporaries / GIB,
                "total": memory.total / GIB,
                "capacity": capacity(self.chip) / GIB,
            },
            "fits": self.fits,
            "flops": {
                "model": self.model_flops,
                "compiled": self.compiled_flops,
                "ratio": None if self.compiled_flops is None else self.compiled_flops / self.model_flops,
            },
            "collectives": [
                {"kind": kind, "axis": axis, "bytes": size, **waits(self.timing or Timing(), kind, axis)}
                for kind, axis, size in self.collectives
            ],
            "seconds": bounds | (dict.fromkeys(SCHEDULED) if self.timing is None else self.timing.to_dict()),
            "mfu": self.mfu,
            "run": {
                "steps": self.steps,
                **{f"minutes_{name}": None if spent is None else spent / 60 for name, spent in run.items()},
                "chip_hours": None if run["scheduled"] is None else run["scheduled"] / 3600 * self.chips,
            },
            "compile_seconds": self.compile_seconds,
        }


def waits(timing: Timing, kind: str, axis: str) -> dict[str, float]:
    """Return the exposed and the hidden seconds of the collectives of one kind over these mesh axes."""
    return {"exposed": timing.exposed[kind, axis], "hidden": timing.hidden[kind, axis]}


def capacity(chip: Chip) -> float:
    """Return the bytes of HBM that a program may use. Raises UserError for a chip without a known value."""
    if chip.hbm_bytes is None:
        raise UserError(f"the usable memory of {chip.name} is unknown; add it to s1_jax/chips.py")
    return chip.hbm_bytes


def slice_layout(
    config: TrainConfig | EvaluateConfig, devices: Sequence[jax.Device], rules: Rules = TRAIN_RULES
) -> tuple[Layout, Chip]:
    """Return the run's layout on these devices, as on real ones. Raises UserError if the mesh does not fit."""
    chip = chip_of(devices[0].device_kind)
    if chip is None:
        raise UserError(f"the chip {devices[0].device_kind} is unknown; add it to s1_jax/chips.py")
    return Layout(make_mesh(config.mesh, list(devices)), rules), chip


def make_plan(
    config: TrainConfig,
    model: ModelConfig,
    corpus: Corpus,
    devices: Sequence[jax.Device],
    say: Callable[[str], None] = lambda line: None,
    hop_latency: float = HOP_LATENCY,
    limit: int | None = None,
) -> Plan:
    """Compile the step for the shapes of the run, and sum over its steps; `hop_latency` is in seconds.

    At most `limit` (at least 2) shapes are compiled, and the costs of the others are interpolated. Stops at the first
    shape that does not fit. Raises UserError as training would, and RunError if the compiler fails.
    """
    layout, chip = slice_layout(config, devices)
    work = list(steps(config, model, corpus, layout.size("batch"), layout.size("length")))
    shapes = Counter(step.shape for step in work)
    programs: dict[Shape, Program] = {}
    wanted = spread_out(sorted(shapes, key=math.prod, reverse=True), limit)
    for number, shape in enumerate(wanted, start=1):
        say(f"compiling the step on {list(shape)} tokens, {number} of {len(wanted)}; this takes a few minutes")
        programs[shape] = compile_program(config, model, layout, shape, len(work))
        if programs[shape].module is None:
            break
    largest = max(programs.values(), key=lambda program: (not program.memory.fits, program.memory.total))
    about = {
        "chip": chip,
        "device_kind": devices[0].device_kind,
        "mesh": dict(layout.mesh.shape),
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(model))),
        "shapes": dict(shapes),
        "memory": largest.memory,
        "model_flops": sum(step.model_flops for step in work) / len(work),
        "compile_seconds": sum(program.compile_seconds for program in programs.values()),
    }
    if not largest.memory.fits:
        return Plan(**about)
    return Plan(**about, **_totals(work, programs, model, layout, chip, hop_latency))


def spread_out(shapes: Sequence[Shape], limit: int | None) -> list[Shape]:
    """Return at most `limit` of these: the first, the last, and others at even distances between them."""
    if limit is None or len(shapes) <= limit:
        return list(shapes)
    return [shapes[round(i * (len(shapes) - 1) / (limit - 1))] for i in range(limit)]


def between(shape: Shape, compiled: Collection[Shape]) -> list[tuple[Shape, float]]:
    """Return the compiled shapes next to this one in size, with their shares of it: itself alone if it is compiled."""
    if shape in compiled:
        return [(shape, 1.0)]
    size = math.prod(shape)
    below = max((each for each in compiled if math.prod(each) < size), key=math.prod)
    above = min((each for each in compiled if math.prod(each) > size), key=math.prod)
    share = (size - math.prod(below)) / (math.prod(above) - math.prod(below))
    return [(below, 1 - share), (above, share)]


def _totals(
    work: Sequence[StepWork],
    programs: Mapping[Shape, Program],
    model: ModelConfig,
    layout: Layout,
    chip: Chip,
    hop_latency: float,
) -> dict[str, Any]:
    chips, number = layout.mesh.size, len(work)
    modules = {shape: program.module for shape, program in programs.items() if program.module is not None}
    schedules = {shape: Schedule(module, layout.mesh, chip, hop_latency) for shape, module in modules.items()}
    counted: dict[tuple, Counts] = {}
    compiled_flops = overlap = host_bytes = 0.0
    spent, timing = Seconds(0.0, 0.0, 0.0), Timing()
    collectives: Counter[tuple[str, str]] = Counter()
    for step in work:
        for shape, share in between(step.shape, modules):
            key = (shape, step.micro_batches)
            if key not in counted:
                counted[key] = count(modules[shape], step.micro_batches)
            counts = counted[key]
            kernels = attention_kernels(counts, step.attention_flops, model)
            waited = attention_kernels(counts, step.attention_waited, model)
            times = seconds(counts, total_flops(counts, waited) / chips, layout.mesh, chip)
            spent, overlap = spent + times * share, overlap + share * times.step_overlap
            on_chip = {name: Kernel(flops / chips) for name, flops in waited.items()}
            timing.add(schedules[shape].timing(step.micro_batches, on_chip), share / number)
            compiled_flops += share * (counts.matmul_flops * chips + total_flops(counts, kernels))
            host_bytes += share * counts.host_bytes
            for collective, often in counts.collectives.items():
                axes = "+".join(mesh_axes(collective.groups, layout.mesh))
                collectives[collective.kind, axes] += share * collective.bytes * often  # type: ignore[assignment]
    mean = spent * (1 / number)
    return {
        "compiled_flops": compiled_flops / number,
        "collectives": tuple((*key, total / number) for key, total in collectives.most_common()),
        "seconds": mean,
        "timing": timing,
        "run_seconds": RunSeconds(overlap, timing.seconds * number, spent.step_no_overlap),
        "host_bytes": host_bytes / number,
    }


def attention_kernels(counts: Counts, attention_flops: tuple[float, float], model: ModelConfig) -> dict[str, float]:
    """Return the FLOPs of one execution of each of a step's attention kernels on all chips, by name.

    HLO does not state the FLOPs of a kernel; `attention_flops` are those of one layer, forward and backward. Each
    layer's backward kernel runs once per row. The forward kernel runs as often, or twice if it is recomputed, which the
    program shows. Raises RunError if there is no backward kernel, since the result would silently lack attention.
    """
    backward = sum(times for name, times in counts.kernels.items() if "_dkv" in name)
    if not backward:
        found = ", ".join(sorted(counts.kernels)) or "none"
        raise RunError(f"the compiled step has no attention kernel with a known name (its kernels: {found})")
    passes = dict(zip(("_fwd", "_dkv"), attention_flops, strict=True))
    return {
        name: model.num_hidden_layers * flops / backward
        for name in counts.kernels
        for mark, flops in passes.items()
        if mark in name
    }


def total_flops(counts: Counts, kernels: Mapping[str, float]) -> float:
    """Return the FLOPs of all executions of these kernels."""
    return sum(counts.kernels[name] * flops for name, flops in kernels.items())
