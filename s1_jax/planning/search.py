"""Search for the mesh, rows and remat policy with which a run is fastest, by cheap bounds and then by compiling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from s1_jax.chips import Chip
from s1_jax.config import MeshConfig, ModelConfig, TrainConfig
from s1_jax.data.tokens import Corpus
from s1_jax.errors import UserError
from s1_jax.model.transformer import REMAT_POLICIES
from s1_jax.planning.counts import Collective
from s1_jax.planning.groups import Groups
from s1_jax.planning.roofline import MATMUL_SHARE, ici_seconds
from s1_jax.planning.schedule import HOP_LATENCY
from s1_jax.planning.train_estimate import Plan, capacity, make_plan, slice_layout
from s1_jax.planning.train_program import local_bytes, state_of
from s1_jax.planning.workload import StepWork, steps
from s1_jax.sharding import Layout
from s1_jax.training.flops import matmul_parameters

ROW_GRANULE = 1024  # row lengths are multiples of this
BF16, F32 = 2, 4
# of communication or compute, whichever is shorter: about what schedules on v5p show
EXPOSED = 0.15


class Candidate(NamedTuple):
    """One choice, with lower bounds of its time and memory."""

    config: TrainConfig
    seconds: float  # per step
    bytes: float  # of HBM per chip


class Result(NamedTuple):
    """One compiled choice with its plan."""

    config: TrainConfig
    plan: Plan


def search(
    config: TrainConfig,
    model: ModelConfig,
    corpus: Corpus,
    devices: Sequence[jax.Device],
    limit: int,
    say: Callable[[str], None] = lambda line: None,
    hop_latency: float = HOP_LATENCY,
    programs: int | None = None,
) -> list[Result]:
    """Compile at most `limit` choices, the most promising first, and return them ranked by their time as scheduled.

    For each mesh and rows the remat policies are tried in the order of REMAT_POLICIES, from little to much recompute,
    until one fits; policies that did not fit are not tried with the next mesh. The last choice is the fastest one with
    the other value of `train.async_collectives`. Of each, the step is compiled for at most `programs` of its shapes.
    Raises UserError if nothing can fit.
    """
    found = sorted(candidates(config, model, corpus, devices), key=lambda candidate: candidate.seconds)
    say(f"{len(found)} meshes and rows could fit; compiling at most {limit} choices")
    results: list[Result] = []

    def try_(chosen: TrainConfig) -> Plan:
        plan = make_plan(chosen, model, corpus, devices, hop_latency=hop_latency, limit=programs)
        results.append(Result(chosen, plan))
        say(f"{len(results)}/{limit}  {label(chosen)}: {outcome(plan)}")
        return plan

    policies = list(REMAT_POLICIES)
    for candidate in found:
        for remat in policies:
            if len(results) + any(result.plan.fits for result in results) < limit:
                source = dataclasses.replace(candidate.config.model, remat=remat)  # type: ignore[arg-type]
                if try_(dataclasses.replace(candidate.config, model=source)).fits:
                    policies = policies[policies.index(remat) :]
                    break
    fastest = ranked(results)[0]
    if fastest.plan.fits and len(results) < limit and len(devices) > 1:
        other = not fastest.config.train.async_collectives
        loop = dataclasses.replace(fastest.config.train, async_collectives=other)
        try_(dataclasses.replace(fastest.config, train=loop))
    return ranked(results)


def ranked(results: Sequence[Result]) -> list[Result]:
    """Sort results, the fastest as scheduled first; those that do not fit come last, sorted by the missing memory."""

    def key(result: Result) -> tuple[float, ...]:
        times = result.plan.run_seconds
        return (math.inf, result.plan.memory.total) if times is None else (times.scheduled,)

    return sorted(results, key=key)


def candidates(
    config: TrainConfig, model: ModelConfig, corpus: Corpus, devices: Sequence[jax.Device]
) -> Iterator[Candidate]:
    """Yield every mesh and number of rows that model, examples and memory allow; fewer rows are longer.

    Raises UserError if there is none.
    """
    none = True
    work: dict[tuple, list[StepWork]] = {}
    examples = config.data.batch_examples
    for mesh in meshes(model, len(devices)):
        for rows, row_lengths in row_choices(config, mesh.fsdp, examples):
            data = dataclasses.replace(config.data, micro_batch_rows=rows, row_lengths=row_lengths)
            chosen = dataclasses.replace(config, mesh=mesh, data=data)
            try:
                layout, chip = slice_layout(chosen, devices)
                state = state_of(chosen, model, layout)
                key = (rows, row_lengths, mesh.fsdp, mesh.context)
                if key not in work:
                    one_epoch = dataclasses.replace(chosen, train=dataclasses.replace(config.train, epochs=1))
                    work[key] = list(steps(one_epoch, model, corpus, mesh.fsdp, mesh.context))
            except UserError:  # not divisible, or an example does not fit into a row
                continue
            tokens = max(B * T for _, B, T in (step.shape for step in work[key]))
            inputs = model.num_hidden_layers * tokens * model.hidden_size * BF16 / len(devices)
            least = local_bytes(state) + local_bytes(state.params) + inputs  # the second term is the gradients
            if least <= capacity(chip):
                none = False
                yield Candidate(chosen, least_seconds(work[key], model, layout, chip), least)
    if none:
        raise UserError(
            f"no mesh of {len(devices)} chips has memory for the training state of this model and one row; "
            "plan with more chips"
        )


def meshes(model: ModelConfig, chips: int) -> Iterator[MeshConfig]:
    """Yield all meshes fsdp x context x tensor that divide the heads evenly."""
    for tensor in _divisors(chips):
        if model.num_key_value_heads % tensor == 0:
            for context in _divisors(chips // tensor):
                yield MeshConfig(data=1, fsdp=chips // tensor // context, context=context, tensor=tensor)


def row_choices(config: TrainConfig, fsdp: int, examples: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield numbers of rows, multiples of `fsdp`, with lengths that keep the tokens of the config's micro-batch.

    The longest row still fits the longest example.
    """
    rows = fsdp
    while rows <= max(examples, 1):
        share = config.data.micro_batch_rows / rows
        scaled = {math.ceil(length * share / ROW_GRANULE) * ROW_GRANULE for length in config.data.capacities}
        longest = max(max(scaled), math.ceil(config.data.max_length / ROW_GRANULE) * ROW_GRANULE)
        yield rows, tuple(sorted(scaled - {max(scaled)} | {longest}))
        rows *= 2


def least_seconds(work: Sequence[StepWork], model: ModelConfig, layout: Layout, chip: Chip) -> float:
    """Estimate a mean step's time, from matmuls without recompute and the least traffic with this mesh.

    The longer of the two counts, and EXPOSED of the shorter.
    For each micro-batch weights are gathered in forward and backward pass, and their gradients scattered in float32.
    `tensor` gathers and scatters the activations around attention and MLP; `context` gathers keys and values.
    """
    mesh, D, L = layout.mesh, model.hidden_size, model.num_hidden_layers
    sizes = dict(mesh.shape)
    weights = matmul_parameters(model)
    total = 0.0
    for step in work:
        _, B, T = step.shape
        tokens = step.micro_batches * B * T
        attention = L * sum(step.attention_waited)
        compute = (6.0 * weights * tokens + attention) / mesh.size / (MATMUL_SHARE * chip.peak_flops)
        cut = ("fsdp", "context")
        gathered = step.micro_batches * weights / sizes["tensor"]
        activations = L * tokens * D * BF16 / sizes["fsdp"] / sizes["context"]
        keys = L * tokens * 2 * model.num_key_value_heads * model.head_dim * BF16 / sizes["fsdp"] / sizes["tensor"]
        needed = {
            Collective("all-gather", 2 * BF16 * gathered, groups_along(layout, cut)): 1.0,
            Collective("reduce-scatter", F32 * gathered, groups_along(layout, cut)): 1.0,
            Collective("all-gather", 4 * activations, groups_along(layout, ("tensor",))): 2.0,
            Collective("all-gather", 3 * keys, groups_along(layout, ("context",))): 1.0,
        }
        moved = {collective: times for collective, times in needed.items() if len(collective.groups[0]) > 1}
        ici = ici_seconds(moved, mesh, chip)
        total += max(compute, ici) + EXPOSED * min(compute, ici)
    return total / len(work)


def groups_along(layout: Layout, axes: tuple[str, ...]) -> Groups:
    """Return the groups of devices that differ only along these mesh axes."""
    mesh = layout.mesh
    number = np.arange(mesh.size).reshape(mesh.devices.shape)
    joined = [mesh.axis_names.index(axis) for axis in axes]
    apart = [axis for axis in range(number.ndim) if axis not in joined]
    size = math.prod(mesh.devices.shape[axis] for axis in joined)
    return tuple(tuple(int(i) for i in row) for row in number.transpose(apart + joined).reshape(-1, size))


def label(config: TrainConfig) -> str:
    """Describe the choice in a few words."""
    mesh = (
        " x ".join(f"{axis} {size}" for axis, size in dataclasses.asdict(config.mesh).items() if size != 1) or "1 chip"
    )
    lengths = " ".join(str(length) for length in config.data.capacities)
    plain = "" if config.train.async_collectives else ", no async collectives"
    return f"{mesh}, {config.data.micro_batch_rows} rows of {lengths}, {config.model.remat}{plain}"


def outcome(plan: Plan) -> str:
    """Describe the result in a few words."""
    if plan.timing is None:
        return f"does not fit, {plan.memory.total / 2**30:.1f} GiB"
    waits = f"{plan.timing.exposed.total():.2f} s of it waiting for links"
    return f"{plan.timing.seconds:.2f} s per step as scheduled, {waits}, {plan.memory.total / 2**30:.1f} GiB"


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
