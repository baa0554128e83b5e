"""From counted programs to a plan, without a compiler."""

from __future__ import annotations

import dataclasses
from collections import Counter
from types import SimpleNamespace

import pytest

from s1_jax.chips import GIB, chip_of
from s1_jax.config import ModelConfig
from s1_jax.errors import RunError, UserError
from s1_jax.planning import train_estimate
from s1_jax.planning.counts import Counts
from s1_jax.planning.roofline import Seconds
from s1_jax.planning.schedule import Timing
from s1_jax.planning.train_estimate import (
    Plan,
    RunSeconds,
    attention_kernels,
    between,
    capacity,
    spread_out,
    total_flops,
)
from s1_jax.planning.train_program import Memory, Program
from s1_jax.planning.workload import StepWork
from tests.planning.test_schedule import CHIP, slice_of

PLAN = Plan(
    chip=chip_of("TPU v5"),
    device_kind="TPU v5",
    mesh={"data": 1, "fsdp": 8, "context": 1, "tensor": 4},
    parameters=1000,
    shapes={(1, 8, 1024): 90, (1, 8, 2048): 10},
    memory=Memory(params=1 * GIB, optimizer=2 * GIB, temporaries=4 * GIB, total=7.5 * GIB, fits=True),
    model_flops=32 * 459e12,
    compile_seconds=60.0,
    compiled_flops=40 * 459e12,
    collectives=(("all-gather", "fsdp", 5.0),),
    seconds=Seconds(compute=1.0, hbm=0.5, ici=0.5),
    timing=Timing(
        1.6,
        hbm=0.5,
        latency=0.01,
        links=Counter({("all-gather", "fsdp"): 0.5}),
        exposed=Counter({("all-gather", "fsdp"): 0.2}),
    ),
    run_seconds=RunSeconds(100.0, 160.0, 200.0),
)


def test_the_json_object_has_the_keys_it_promises():
    told = PLAN.to_dict()
    assert list(told) == (
        "chips device_kind mesh parameters hbm_gib fits flops collectives seconds mfu run compile_seconds".split()
    )
    assert told["chips"] == 32 and told["fits"] is True
    assert told["hbm_gib"] == {
        "params": 1.0, "optimizer": 2.0, "temporaries": 4.0, "total": 7.5, "capacity": pytest.approx(95.74)
    }  # fmt: skip
    assert told["flops"] == {"model": 32 * 459e12, "compiled": 40 * 459e12, "ratio": 1.25}
    assert told["collectives"] == [{"kind": "all-gather", "axis": "fsdp", "bytes": 5.0, "exposed": 0.2, "hidden": 0.3}]
    assert told["seconds"] == {
        "compute": 1.0, "hbm": 0.5, "ici": 0.5, "step_overlap": 1.0, "step_no_overlap": 2.0,
        "scheduled": 1.6, "exposed": 0.2, "hidden": 0.3, "latency": 0.01,
    }  # fmt: skip
    assert told["mfu"] == pytest.approx(1 / 1.6)
    assert told["run"] == {
        "steps": 100,
        "minutes_overlap": pytest.approx(100 / 60),
        "minutes_scheduled": pytest.approx(160 / 60),
        "minutes_no_overlap": pytest.approx(200 / 60),
        "chip_hours": pytest.approx(32 * 160 / 3600),
    }


def test_a_step_that_does_not_fit_has_the_same_keys_and_no_times():
    memory = dataclasses.replace(PLAN.memory, total=120 * GIB, fits=False)
    kept = {f.name for f in dataclasses.fields(Plan) if f.default is dataclasses.MISSING} - {"memory"}
    plan = Plan(memory=memory, **{name: getattr(PLAN, name) for name in kept})
    told, fitting = plan.to_dict(), PLAN.to_dict()
    assert told.keys() == fitting.keys()
    for key in ("hbm_gib", "flops", "seconds", "run"):
        assert told[key].keys() == fitting[key].keys()
    assert told["fits"] is False and told["hbm_gib"]["total"] == 120.0
    assert told["flops"]["compiled"] is None and told["mfu"] is None and told["run"]["minutes_overlap"] is None
    assert told["seconds"]["scheduled"] is None and told["run"]["minutes_scheduled"] is None


def test_kernels_count_what_they_visit_in_every_layer_and_again_where_recomputed():
    model = ModelConfig(10, 8, 16, 3, 2, 1)
    layer = (20.0, 50.0)
    names = ("splash_mha_fwd_segmented_residuals", "splash_mha_dkv_segmented_no_residuals")
    saved = Counts(kernels={names[0]: 12.0, names[1]: 12.0})
    recomputed = Counts(kernels={names[0]: 24.0, names[1]: 12.0})
    assert attention_kernels(saved, layer, model) == {names[0]: 3 * 20 / 12, names[1]: 3 * 50 / 12}
    assert total_flops(saved, attention_kernels(saved, layer, model)) == 3 * (20 + 50)
    assert total_flops(recomputed, attention_kernels(recomputed, layer, model)) == 3 * (2 * 20 + 50)
    with pytest.raises(RunError, match="no attention kernel .*kernels: rms_norm"):
        attention_kernels(Counts(kernels={"rms_norm": 3.0}), layer, model)


def test_a_chip_whose_memory_nobody_knows_is_refused():
    with pytest.raises(UserError, match="memory of v7x"):
        capacity(chip_of("TPU7x"))


def test_a_plan_on_chips_of_two_devices_counts_chips_and_the_peak_once():
    """The mesh is of devices; hours are paid by the chip."""
    v7x = dataclasses.replace(chip_of("TPU7x"), hbm_bytes=95 * GIB)
    told = dataclasses.replace(PLAN, chip=v7x, model_flops=16 * 2307e12).to_dict()
    assert told["chips"] == 16 and told["mfu"] == pytest.approx(1 / 1.6)
    assert told["run"]["chip_hours"] == pytest.approx(16 * 160 / 3600)


SHAPES = [(1, 4, length) for length in (28_672, 24_576, 22_528, 21_504, 20_480)]


def test_few_programs_are_the_longest_the_shortest_and_some_between():
    assert spread_out(SHAPES, None) == spread_out(SHAPES, 5) == spread_out(SHAPES, 9) == SHAPES
    assert spread_out(SHAPES, 2) == [SHAPES[0], SHAPES[-1]]
    assert spread_out(SHAPES, 3) == [SHAPES[0], SHAPES[2], SHAPES[-1]]


def test_a_shape_that_is_not_compiled_lies_between_its_neighbors():
    compiled = spread_out(SHAPES, 3)
    assert between(SHAPES[2], compiled) == [(SHAPES[2], 1.0)]
    (below, less), (above, more) = between((1, 4, 24_576), compiled)
    assert (below[2], above[2]) == (22_528, 28_672) and less + more == 1.0
    assert less * 22_528 + more * 28_672 == pytest.approx(24_576)


def test_costs_of_a_run_are_linear_between_two_programs(monkeypatch):
    """Programs whose costs are their tokens: a run planned with two of them costs as much as with all."""
    mesh = slice_of(2, 2)
    work = [StepWork(shape, 1, 1.0, (4.0, 6.0), (4.0, 6.0)) for shape in SHAPES for _ in range(2)]
    monkeypatch.setattr(train_estimate, "count", lambda module, times: Counts(module, module, 0.0, {}, {"x_dkv": 1.0}))
    monkeypatch.setattr(
        train_estimate, "Schedule", lambda module, *_: SimpleNamespace(timing=lambda *_: Timing(module))
    )

    def totals(shapes):
        programs = {shape: Program(PLAN.memory, float(shape[2]), 1.0) for shape in shapes}
        layout = SimpleNamespace(mesh=mesh)
        return train_estimate._totals(work, programs, ModelConfig(10, 8, 16, 3, 2, 1), layout, CHIP, 0.0)

    few, every = totals([SHAPES[0], SHAPES[-1]]), totals(SHAPES)
    assert (
        few["timing"].seconds == pytest.approx(every["timing"].seconds) == pytest.approx(sum(s[2] for s in SHAPES) / 5)
    )
    assert few["compiled_flops"] == pytest.approx(every["compiled_flops"])
    assert dataclasses.astuple(few["seconds"]) == pytest.approx(dataclasses.astuple(every["seconds"]))
    assert few["run_seconds"] == pytest.approx(every["run_seconds"])
