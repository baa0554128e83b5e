"""Estimate of a sweep on a slice: a decoding step's traffic and least time, and how many rows fit into memory.

The roofline is the memory bandwidth: a step must read every weight and every row's cache at least once.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from s1_jax.chips import GIB, Chip
from s1_jax.config import EvaluateConfig, ModelConfig
from s1_jax.decoding.engine import context_length
from s1_jax.decoding.host.blocks import CHUNK
from s1_jax.decoding.host.waves import R, tiles_of
from s1_jax.errors import UserError
from s1_jax.model.transformer import Params
from s1_jax.planning.counts import Counts, count
from s1_jax.planning.decode_program import PROMPT_TOKENS, Sizes, Sweep, Types, cache_bytes, decode_params
from s1_jax.planning.few_layers import FewLayers
from s1_jax.planning.groups import mesh_axes
from s1_jax.planning.hlo import Module, parse
from s1_jax.planning.roofline import TIMES, Seconds, seconds
from s1_jax.planning.schedule import HOP_LATENCY, Kernel, Schedule, Timing
from s1_jax.planning.train_estimate import capacity, slice_layout, waits
from s1_jax.planning.train_program import compile_lowered, compute_dtype, local_bytes
from s1_jax.sharding import DECODE_RULES, Layout

LIVE = {"full": 1.0, "half_full": 0.5}  # names of fractions of the caches in use
ROOM = 0.99  # fraction of HBM; the compiler refuses programs that need more (see `compile_lowered`)
FIRST_GUESS = 1.3 * GIB  # memory of a program in addition to weights and caches
ATTENTION = "decode_attention"  # the kernel that skips unused parts of the cache


@dataclass(frozen=True)
class Step:
    """One decoding step, which adds a token to every row; bytes are per chip, `live` is the part of caches in use."""

    weights: float  # without the embedding table, of which a step reads only a few rows
    cache: float  # all rows' caches, full
    moved_full: float  # HBM traffic of the compiled step with full caches
    skips: bool  # whether attention skips unused parts of the cache
    collectives: tuple[tuple[str, str, float, int], ...]  # kind, mesh axes, bytes of one group's arrays, number
    seconds_full: Seconds
    bandwidth: float  # bytes/s of HBM
    timings: Mapping[float, Timing]  # in the order of the compiled schedule, by the fraction of the caches in use

    def least(self, live: float) -> float:
        """Return the bytes that any step must read: the weights and the live part of the cache."""
        return self.weights + live * self.cache

    def moved(self, live: float) -> float:
        """Return the bytes that the compiled step reads and writes in HBM."""
        return self.moved_full - (1 - live) * self.cache * self.skips

    def seconds(self, live: float) -> Seconds:
        """Return the times of the step with caches filled to this fraction."""
        full = self.seconds_full
        return Seconds(full.compute, self.moved(live) / self.bandwidth, full.ici)

    def roofline_share(self, live: float) -> float:
        """Return the least time at full memory bandwidth divided by the step's time as scheduled."""
        return self.least(live) / self.bandwidth / self.timings[live].seconds


class Answers(NamedTuple):
    """The answers at points of long traces, decoded together in a wave."""

    branches: int  # decoded together
    step: Timing  # adds a token to each
    suffixes: Timing  # of a wave: all its branches read what ends their thinking

    def to_dict(self, chips: int) -> dict[str, Any]:
        """Return the answers' part of the plan's JSON object."""
        rate = self.branches / self.step.seconds
        return {
            "branches": self.branches,
            "step": {"hbm": self.step.hbm} | self.step.to_dict(),
            "suffixes": self.suffixes.to_dict(),
            "tokens_per_second": rate,
            "tokens_per_second_per_chip": rate / chips,
        }


class Requests(NamedTuple):
    """Requests of one length; each row serves one after another."""

    input_len: int
    output_len: int

    @property
    def capacity(self) -> int:
        """Tokens of a row's cache."""
        return self.input_len + self.output_len

    @property
    def live(self) -> float:
        """Mean fraction of a row's cache in use."""
        return (self.input_len + self.output_len / 2) / self.capacity

    def rate(self, rows: int, step_seconds: float, prefill_seconds: float) -> float:
        """Return the new tokens per second of all rows, where each stops for every prompt that is read."""
        return rows / (step_seconds + rows * prefill_seconds / self.output_len)


@dataclass(frozen=True)
class DecodePlan:
    """Plan of a sweep's decoding on a slice, with bytes per chip."""

    chip: Chip
    device_kind: str
    mesh: dict[str, int]
    parameters: int
    sizes: Sizes
    weights: float
    cache: float
    needs: dict[str, float]  # peak HBM use while each program of the sweep runs
    compile_seconds: float
    prefill: Timing  # of one prompt
    answers: Answers | None  # None with requests, which have no shared traces
    requests: Requests | None = None
    step: Step | None = None  # None where it does not fit

    @property
    def chips(self) -> int:
        """Number of chips in the slice."""
        return math.prod(self.mesh.values()) // self.chip.devices

    @property
    def fits(self) -> bool:
        """Whether every program of the sweep fits into memory."""
        return max(self.needs.values()) <= room(self.chip)

    @property
    def live(self) -> dict[str, float]:
        """The fractions of the caches in use for which there are figures, by name."""
        return lives(self.requests)

    @property
    def request_rate(self) -> float | None:
        """New tokens per second of all rows; None without requests, or if the sweep does not fit."""
        if self.requests is None or self.step is None:
            return None
        step = self.step.timings[self.requests.live]
        return self.requests.rate(self.sizes.rows, step.seconds, self.prefill.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object; the step's values are null if the sweep does not fit."""
        step = self.step
        told = None if step is None else {name: self._at(step, live) for name, live in self.live.items()}
        return {
            "chips": self.chips,
            "device_kind": self.device_kind,
            "mesh": self.mesh,
            "parameters": self.parameters,
            **{name: value for name, value in self.sizes._asdict().items() if name != "prompt_tokens"},
            "hbm_gib": {
                "weights": self.weights / GIB,
                "cache": self.cache / GIB,
                "programs": {name: size / GIB for name, size in self.needs.items()},
                "total": max(self.needs.values()) / GIB,
                "capacity": capacity(self.chip) / GIB,
            },
            "fits": self.fits,
            "collectives": [
                {"kind": kind, "axis": axis, "bytes": size, "count": times, **waits(step.timings[1.0], kind, axis)}
                for step in ([] if step is None else [step])
                for kind, axis, size, times in step.collectives
            ],
            "step": told,
            "prefill": {"prompt_tokens": self.sizes.prompt_tokens} | self.prefill.to_dict(),
            "answers": None if self.answers is None else self.answers.to_dict(self.chips),
            "requests": None if self.request_rate is None else self._of_requests(self.request_rate),
            "compile_seconds": self.compile_seconds,
        }

    def _of_requests(self, rate: float) -> dict[str, Any]:
        assert self.requests is not None
        return {
            **self.requests._asdict(),
            "tokens_per_second": rate,
            "tokens_per_second_per_chip": rate / self.chips,
        }

    def _at(self, step: Step, live: float) -> dict[str, Any]:
        times, timing = step.seconds(live), step.timings[live]
        rate = self.sizes.rows / timing.seconds
        return {
            "bytes_moved": step.moved(live),
            "bytes_least": step.least(live),
            "ratio": step.moved(live) / step.least(live),
            "seconds": {name: getattr(times, name) for name in TIMES} | timing.to_dict(),
            "tokens_per_second": rate,
            "tokens_per_second_per_chip": rate / self.chips,
            "roofline_share": step.roofline_share(live),
        }


def make_decode_plan(
    config: EvaluateConfig,
    model: ModelConfig,
    devices: Sequence[jax.Device],
    say: Callable[[str], None] = lambda line: None,
    few: FewLayers | None = None,
    hop_latency: float = HOP_LATENCY,
    requests: Requests | None = None,
) -> DecodePlan:
    """Compile the step for `batch_size` rows of `max_model_len` tokens, and the other programs with few layers.

    `few` are those if they are there already; `hop_latency` is in seconds; rows are those of `requests` if there are
    any. Raises UserError for rows that cannot be divided over the mesh, and if weights and caches alone are too large;
    RunError if the compiler fails.
    """
    layout, chip = slice_layout(config, devices, DECODE_RULES)
    sizes, types = sizes_of(config, model, layout, requests), types_of(config)
    weights, cache = local_bytes(decode_params(model, types, layout)), cache_bytes(model, types, layout, sizes)
    if weights + cache > capacity(chip):
        raise UserError(
            f"weights ({weights / GIB:.1f} GiB) and the cache of {sizes.rows} rows of {sizes.capacity} tokens "
            f"({cache / GIB:.1f} GiB) do not fit into the {capacity(chip) / GIB:.2f} GiB of a chip; "
            "use fewer rows (--batch-size; --rows finds how many fit) or more chips"
        )
    started = time.perf_counter()
    if few is None:
        say(f"compiling the programs of a sweep with {sizes.rows} rows and few layers")
        few = FewLayers(model, types, layout, sizes, answers=requests is None)
    say(f"compiling the step with all {model.num_hidden_layers} layers; this takes a few minutes")
    sweep = Sweep(model, types, layout, sizes)
    compiled, total = compile_lowered(sweep.decode())
    P, T = sweep.block.cache[0].keys.shape[0], sweep.block.cache[0].capacity
    prefill = Timing()
    prefill.add(few.once("prefill", chip, hop_latency), math.ceil(T / CHUNK) / P)
    answers = None
    if requests is None:
        of_wave = few.step("answers", chip, hop_latency), few.once("suffixes", chip, hop_latency)
        answers = Answers(R * tiles_of(sizes.rows, layout.size("batch")), *of_wave)
    return DecodePlan(
        chip=chip,
        device_kind=devices[0].device_kind,
        mesh=dict(layout.mesh.shape),
        parameters=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(sweep.params)),
        sizes=sizes,
        weights=weights,
        cache=cache,
        needs=few.needs() | {"decode": total + local_bytes(sweep.block)},
        compile_seconds=time.perf_counter() - started,
        prefill=prefill,
        answers=answers,
        requests=requests,
        step=None
        if compiled is None
        else step_of(
            parse(compiled.as_text() or ""), sweep, model, layout, chip, lives(requests).values(), hop_latency
        ),
    )


def most_rows(
    config: EvaluateConfig,
    model: ModelConfig,
    devices: Sequence[jax.Device],
    say: Callable[[str], None] = lambda line: None,
    requests: Requests | None = None,
) -> tuple[int, FewLayers]:
    """Return the largest `batch_size` with which every program of the sweep fits, and those programs.

    The number is estimated from the size of the caches, the programs are compiled, and the number is estimated again
    with the memory that they need in addition. Raises UserError if not even the smallest number of rows fits.
    """
    layout, chip = slice_layout(config, devices, DECODE_RULES)
    parts, free = layout.size("batch"), room(chip)
    one = sizes_of(dataclasses.replace(config, batch_size=parts), model, layout, requests)
    types = types_of(config)
    weights = local_bytes(decode_params(model, types, layout))
    row = cache_bytes(model, types, layout, one) / parts

    def held(rows: int) -> float:
        tiles = tiles_of(rows, parts) if requests is None else 0
        return weights + row * (rows + tiles * (1 + R * one.max_answer_tokens / one.capacity))

    def estimate(on_top: float) -> int:
        rows = 0
        while held(rows + parts) + on_top <= free:
            rows += parts
        return rows

    tried: dict[int, FewLayers] = {}
    fitting: list[int] = []
    rows = estimate(FIRST_GUESS)
    while rows and rows not in tried:
        tried[rows] = FewLayers(model, types, layout, one._replace(rows=rows), answers=requests is None)
        total = max(tried[rows].needs().values())
        fitting += [rows] if total <= free else []
        say(f"{rows} rows need {total / GIB:.2f} of {free / GIB:.2f} GiB")
        rows = estimate(total - held(rows)) or rows // (2 * parts) * parts
    if not fitting:
        raise UserError(
            f"not even {parts} rows of {one.capacity} tokens fit on {layout.mesh.size} chips; "
            "use more chips, or lower max_model_len"
        )
    return max(fitting), tried[max(fitting)]


def room(chip: Chip) -> float:
    """Return the bytes of HBM that the programs of a sweep may use."""
    return ROOM * capacity(chip)


def lives(requests: Requests | None) -> dict[str, float]:
    """Return the fractions of the caches in use for which a plan has figures, by name."""
    return LIVE if requests is None else LIVE | {"requests": requests.live}


def sizes_of(config: EvaluateConfig, model: ModelConfig, layout: Layout, requests: Requests | None = None) -> Sizes:
    """Return the sizes of the sweep's arrays. Raises UserError for rows that cannot be divided over the mesh."""
    parts = layout.size("batch")
    if config.batch_size < 1 or config.batch_size % parts:
        raise UserError(
            f"batch_size {config.batch_size} must be a multiple of {parts}, the mesh's data x fsdp x context"
        )
    if requests is not None:
        length, prompt = requests.capacity, requests.input_len
    else:
        length, prompt = config.max_model_len or context_length(model), PROMPT_TOKENS
    return Sizes(config.batch_size, length, config.answer_tokens, config.draft_tokens, prompt)


def types_of(config: EvaluateConfig) -> Types:
    """Return the types of the sweep's arrays on the slice."""
    compute = compute_dtype(config.model.dtype).name
    stored = config.stored.resolved(compute)
    return Types(compute, stored.weights, stored.cache)


def step_of(
    module: Module,
    sweep: Sweep,
    model: ModelConfig,
    layout: Layout,
    chip: Chip,
    fractions: Iterable[float] = LIVE.values(),
    hop_latency: float = HOP_LATENCY,
) -> Step:
    """Count one execution of the body of the program's loop, and read its schedule by `fractions` of caches in use."""
    counts = Counts()
    counts.add(count(module, 1), 1)
    counts.add(count(module, 0), -1)
    sent: Counter[tuple[str, str]] = Counter()
    times: Counter[tuple[str, str]] = Counter()
    for collective, often in counts.collectives.items():
        key = collective.kind, "+".join(mesh_axes(collective.groups, layout.mesh))
        sent[key] += collective.bytes * often  # type: ignore[assignment]
        times[key] += round(often)
    skips = ATTENTION in counts.kernels
    attention = 4.0 * math.prod(sweep.sizes[:2]) * model.num_attention_heads * model.head_dim * model.num_hidden_layers
    flops, cache = skips * attention / layout.mesh.size, local_bytes(sweep.state.cache)
    schedule = Schedule(module, layout.mesh, chip, hop_latency)
    timings = {}
    for live in fractions:
        runs = counts.kernels.get(ATTENTION, 1.0)
        kernels = {ATTENTION: Kernel(flops / runs, -(1 - live) * cache / runs)}
        timings[live] = Timing()
        timings[live].add(schedule.timing(1, kernels))
        timings[live].add(schedule.timing(0, kernels), -1)
    return Step(
        weights=weights_read(sweep.params),
        cache=cache,
        moved_full=counts.hbm_bytes,
        skips=skips,
        collectives=tuple((*key, size, times[key]) for key, size in sent.most_common() if times[key]),
        seconds_full=seconds(counts, flops, layout.mesh, chip),
        bandwidth=chip.hbm_bandwidth,
        timings=timings,
    )


def weights_read(params: Params) -> float:
    """Return the bytes of weights that a step reads on one chip, without an embedding table that is not tied."""
    return local_bytes(params) - (local_bytes(params["embed_tokens"]) if "lm_head" in params else 0.0)
