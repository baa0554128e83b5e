"""Options with which the step is compiled: by platform, by generation, and only where they were asked for."""

from dataclasses import dataclass

import jax
import pytest

from s1_jax.training.compiler_options import ASYNC_COLLECTIVES, CPU, compiler_options


@dataclass(frozen=True)
class Device:
    platform: str
    device_kind: str


@pytest.mark.parametrize("kind,name", [("TPU v5", "v5p"), ("TPU v5 lite", "v5e"), ("TPU v6 lite", "v6e")])
def test_a_tpu_has_the_options_of_its_generation(kind, name):
    assert compiler_options(Device("tpu", kind), True) == ASYNC_COLLECTIVES[name]
    assert compiler_options(Device("tpu", kind), False) is None


@pytest.mark.parametrize("kind", ["TPU v4", "TPU v99"])
def test_a_tpu_that_was_never_planned_has_none(kind):
    assert compiler_options(Device("tpu", kind), True) is None


def test_a_gpu_has_none_and_a_cpu_its_own():
    assert compiler_options(Device("gpu", "NVIDIA H200"), True) is None
    assert compiler_options(jax.devices()[0], False) == CPU
