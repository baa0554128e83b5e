"""Which mesh, rows and remat policy make a run fastest on a slice: cheap bounds first, then the compiler's word."""

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
from s1_jax.model.qwen2 import REMAT_POLICIES
from s1_jax.planning.counts import Collective
from s1_jax.planning.groups import Groups
from s1_jax.planning.roofline import MATMUL_SHARE, ici_seconds
from s1_jax.planning.train_estimate import Plan, capacity, make_plan, slice_layout
from s1_jax.planning.train_program import local_bytes, state_of
from s1_jax.planning.workload import StepWork, steps
from s1_jax.sharding import Layout
from s1_jax.training.flops import matmul_parameters

ROW_GRANULE = 1024  # rows made longer or shorter keep a multiple of this
BF16, F32 = 2, 4


class Candidate(NamedTuple):
    """One choice, and bounds that no compiler goes under."""

    config: TrainConfig
    seconds: float  # of a step, without overlap
    bytes: float  # of a chip's HBM


class Result(NamedTuple):
    """A choice and what the compiler made of it."""

    config: TrainConfig
    plan: Plan


def search(
    config: TrainConfig,
    model: ModelConfig,
    corpus: Corpus,
    devices: Sequence[jax.Device],
    limit: int,
    say: Callable[[str], None] = lambda line: None,
) -> list[Result]:
    """At most `limit` choices compiled, the most promising first; those that fit by their time, then the others.

    For each mesh and rows the remat policies are tried in the order of REMAT_POLICIES, from little recompute to much,
    up to the first that fits; what did not fit before it is not tried again with the next mesh. Raises UserError where
    nothing can fit.
    """
    found = sorted(candidates(config, model, corpus, devices), key=lambda candidate: candidate.seconds)
    say(f"{len(found)} meshes and rows could fit; compiling at most {limit} choices")
    results: list[Result] = []
    policies = list(REMAT_POLICIES)
    for candidate in found:
        for remat in policies:
            if len(results) == limit:
                return ranked(results)
            source = dataclasses.replace(candidate.config.model, remat=remat)  # type: ignore[arg-type]
            chosen = dataclasses.replace(candidate.config, model=source)
            plan = make_plan(chosen, model, corpus, devices)
            results.append(Result(chosen, plan))
            say(f"{len(results)}/{limit}  {label(chosen)}: {outcome(plan)}")
            if plan.fits:
                policies = policies[policies.index(remat) :]
                break
    return ranked(results)


def ranked(results: Sequence[Result]) -> list[Result]:
    """The fastest first; what does not fit comes last, by what it lacks."""
    return sorted(
        results, key=lambda r: (r.plan.run_seconds[1],) if r.plan.run_seconds else (math.inf, r.plan.memory.total)
    )


def candidates(
    config: TrainConfig, model: ModelConfig, corpus: Corpus, devices: Sequence[jax.Device]
) -> Iterator[Candidate]:
    """Every mesh and number of rows that model, examples and memory admit; rows get longer as they get fewer.

    Raises UserError where there is none.
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
            except UserError:  # does not divide, or an example does not fit a row
                continue
            tokens = max(B * T for _, B, T in (step.shape for step in work[key]))
            inputs = model.num_hidden_layers * tokens * model.hidden_size * BF16 / len(devices)
            least = local_bytes(state) + local_bytes(state.params) + inputs  # with the gradients
            if least <= capacity(chip):
                none = False
                yield Candidate(chosen, least_seconds(work[key], model, layout, chip), least)
    if none:
        raise UserError(f"no mesh of {len(devices)} chips can hold the training state of this model and a row")


def meshes(model: ModelConfig, chips: int) -> Iterator[MeshConfig]:
    """All of fsdp x context x tensor that cut the heads evenly."""
    for tensor in _divisors(chips):
        if model.num_key_value_heads % tensor == 0:
            for context in _divisors(chips // tensor):
                yield MeshConfig(data=1, fsdp=chips // tensor // context, context=context, tensor=tensor)


def row_choices(config: TrainConfig, fsdp: int, examples: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Rows of a micro-batch and their lengths: a multiple of `fsdp`, holding as many tokens as the config's do.

    The longest row takes the longest example all the same.
    """
    rows = fsdp
    while rows <= max(examples, 1):
        share = config.data.micro_batch_rows / rows
        scaled = {math.ceil(length * share / ROW_GRANULE) * ROW_GRANULE for length in config.data.capacities}
        longest = max(max(scaled), math.ceil(config.data.max_length / ROW_GRANULE) * ROW_GRANULE)
        yield rows, tuple(sorted(scaled - {max(scaled)} | {longest}))
        rows *= 2


def least_seconds(work: Sequence[StepWork], model: ModelConfig, layout: Layout, chip: Chip) -> float:
    """Of a mean step: its matmuls without recompute, and the traffic that no program with this mesh can do without.

    Weights are gathered forward and backward and their gradients scattered in float32, for each micro-batch; `tensor`
    gathers and scatters the activations around attention and MLP; `context` gathers keys and values.
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
        total += compute + ici_seconds(moved, mesh, chip)
    return total / len(work)


def groups_along(layout: Layout, axes: tuple[str, ...]) -> Groups:
    """The devices that differ along these mesh axes only."""
    mesh = layout.mesh
    number = np.arange(mesh.size).reshape(mesh.devices.shape)
    joined = [mesh.axis_names.index(axis) for axis in axes]
    apart = [axis for axis in range(number.ndim) if axis not in joined]
    size = math.prod(mesh.devices.shape[axis] for axis in joined)
    return tuple(tuple(int(i) for i in row) for row in number.transpose(apart + joined).reshape(-1, size))


def label(config: TrainConfig) -> str:
    """The choice in a few words."""
    mesh = (
        " x ".join(f"{axis} {size}" for axis, size in dataclasses.asdict(config.mesh).items() if size != 1) or "1 chip"
    )
    lengths = " ".join(str(length) for length in config.data.capacities)
    return f"{mesh}, {config.data.micro_batch_rows} rows of {lengths}, {config.model.remat}"


def outcome(plan: Plan) -> str:
    """The result in a few words."""
    if plan.seconds is None:
        return f"does not fit, {plan.memory.total / 2**30:.1f} GiB"
    return f"{plan.seconds.step_no_overlap:.2f} s a step without overlap, {plan.memory.total / 2**30:.1f} GiB"


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
