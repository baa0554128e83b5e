"""Model FLOPs against published and hand-counted figures."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from s1_jax.config import ModelConfig
from s1_jax.training import flops as flops_module
from s1_jax.training.flops import matmul_parameters, mfu, step_flops

QWEN2_5_32B = ModelConfig(152064, 5120, 27648, 64, 40, 8)


def test_matmul_parameters_of_32b_are_its_parameters_without_embedding_biases_and_norms():
    biases_and_norms = 64 * (5120 + 2 * 1024 + 2 * 5120) + 5120
    assert matmul_parameters(QWEN2_5_32B) == 32_763_876_352 - 152064 * 5120 - biases_and_norms


def test_step_flops_of_32b_at_32k_are_the_known_figure():
    """16 rows of 32,768: 4,199.7 TFLOP a chip on 32 chips, 25% of it attention (the compiled plan of the same step)."""
    positions = np.broadcast_to(np.arange(32768), (16, 32768))
    flops = step_flops(QWEN2_5_32B, positions, np.ones_like(positions))
    assert flops / 32 == pytest.approx(4199.7e12, rel=1e-3)


def test_documents_attend_only_within_themselves_and_padding_costs_nothing():
    tiny = ModelConfig(10, 8, 16, 2, 2, 1)
    positions = np.array([0, 1, 2, 0, 1, 0, 0])
    segments = np.array([1, 1, 1, 2, 2, 0, 0])
    assert step_flops(tiny, positions, segments) == 6 * matmul_parameters(tiny) * 5 + 6 * 2 * 8 * (3**2 + 2**2)


def test_mfu_is_null_where_the_peak_is_unknown():
    assert mfu(1e12, 1.0) is None


@pytest.mark.parametrize(("kind", "devices", "peak_of_a_chip"), [("TPU v5", 1, 459e12), ("TPU7x", 2, 2307e12)])
def test_mfu_is_a_fraction_of_the_chips_peak_whatever_devices_a_chip_has(monkeypatch, kind, devices, peak_of_a_chip):
    """Four chips that compute for a second at half their peak, on made-up devices."""
    made_up = [SimpleNamespace(device_kind=kind)] * (4 * devices)
    jax = SimpleNamespace(devices=lambda: made_up, device_count=lambda: len(made_up))
    monkeypatch.setattr(flops_module, "jax", jax)
    assert mfu(4 * peak_of_a_chip / 2, 1.0) == pytest.approx(0.5)
