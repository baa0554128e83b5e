"""Extrapolation to all layers, of programs written by hand that grow by the same with each layer."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from s1_jax.config import ModelConfig
from s1_jax.planning import few_layers
from s1_jax.planning.decode_program import Built
from s1_jax.planning.few_layers import FewLayers
from tests.planning.test_schedule import CHIP, Y, computation, entry, gather, slice_of, timing, work

MODEL = ModelConfig(512, 128, 256, 2, 4, 2)
BEFORE, LAYER, SENT, BYTES = 7, 3, 2, 100  # work once, work and bytes sent of a layer, memory of a layer


def program(layers: int) -> str:
    """Return a program that works before its loop, and in each iteration works and waits once for each layer."""
    body = [line for i in range(layers) for line in (work(LAYER, f"w{i}"), gather(SENT, Y, f"g{i}"))]
    call = "  %w = s32[] while(%p), condition=%cond, body=%body"
    module = entry(work(BEFORE, "before"), call).splitlines()
    return "\n".join(module[:2] + computation("%body", *body) + computation("%cond") + module[2:])


class StandIn:
    """In place of `Sweep`."""

    def __init__(self, model, types, layout, sizes):
        self.layers = model.num_hidden_layers

    def others(self, answers):
        compiled = SimpleNamespace(as_text=lambda: program(self.layers))
        return dict.fromkeys(("prefill", *["answers"] * answers), Built(1000.0 + BYTES * self.layers, compiled))


@pytest.fixture
def of_all_layers(monkeypatch):
    monkeypatch.setattr(few_layers, "Sweep", StandIn)

    def make(layers, **options):
        model = dataclasses.replace(MODEL, num_hidden_layers=layers)
        return FewLayers(model, None, SimpleNamespace(mesh=slice_of(2, 2)), None, **options)

    return make


@pytest.mark.parametrize("layers", [2, 3, 5, 64])
def test_memory_and_times_are_those_of_all_layers(of_all_layers, layers):
    few = of_all_layers(layers)
    assert few.needs() == pytest.approx(dict.fromkeys(("prefill", "answers"), 1000 + BYTES * layers))
    whole, once = timing(program(layers), 1), timing(program(layers), 0)
    assert few.once("prefill", CHIP, 0.0).seconds == pytest.approx(once.seconds) == pytest.approx(BEFORE)
    step = few.step("answers", CHIP, 0.0)
    assert step.seconds == pytest.approx(whole.seconds - once.seconds) == pytest.approx(layers * (LAYER + SENT))
    assert step.exposed == {("all-gather", "y"): pytest.approx(layers * SENT)}


def test_programs_of_answers_are_left_out_where_there_are_none(of_all_layers):
    assert set(of_all_layers(5, answers=False).needs()) == {"prefill"}
