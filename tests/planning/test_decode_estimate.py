"""Rates of requests and answers, and how a plan of decoding is told."""

from __future__ import annotations

import dataclasses
import json

import pytest

from s1_jax import plan
from s1_jax.chips import chip_of
from s1_jax.config import EvaluateConfig
from s1_jax.planning.decode_estimate import Answers, DecodePlan, Requests, Step, lives, sizes_of
from s1_jax.planning.decode_program import PROMPT_TOKENS, Sizes
from s1_jax.planning.roofline import Seconds
from s1_jax.planning.schedule import Timing
from s1_jax.planning.topology import parse_topology
from tests.planning.test_decode_program import MODEL, layout_of

V6E = chip_of("TPU v6 lite")
REQUESTS = Requests(input_len=1024, output_len=8192)
TIMINGS = {1.0: Timing(0.02), 0.5: Timing(0.01), REQUESTS.live: Timing(0.012)}
STEP = Step(1e9, 1e9, 2e9, True, (), Seconds(0.001, 0.01, 0.001), 1.6e12, TIMINGS)
SWEEP = DecodePlan(
    chip=V6E,
    device_kind="TPU v6 lite",
    mesh={"data": 1, "fsdp": 1, "context": 1, "tensor": 4},
    parameters=10,
    sizes=Sizes(64, 9216, 16),
    weights=1e9,
    cache=1e9,
    needs={"decode": 3e9, "answers": 4e9},
    compile_seconds=1.0,
    prefill=Timing(0.04),
    answers=Answers(32, Timing(0.016), Timing(0.1)),
    step=STEP,
)
SERVED = dataclasses.replace(SWEEP, answers=None, requests=REQUESTS, sizes=Sizes(64, 9216, 16, 0, 1024))


def test_the_rate_of_requests_by_hand():
    """64 rows serve one request each in 8,192 steps, for which 64 prompts are read while all rows wait."""
    assert REQUESTS.capacity == 9216 and REQUESTS.live == (1024 + 4096) / 9216
    assert SERVED.request_rate == pytest.approx(64 * 8192 / (8192 * 0.012 + 64 * 0.04))
    told = SERVED.to_dict()["requests"]
    assert told["input_len"] == 1024 and told["output_len"] == 8192
    assert told["tokens_per_second"] == SERVED.request_rate == 4 * told["tokens_per_second_per_chip"]
    assert SWEEP.request_rate is None and SWEEP.to_dict()["requests"] is None
    assert dataclasses.replace(SERVED, step=None).request_rate is None, "it does not fit"


def test_answers_of_a_wave_by_hand():
    told = json.loads(plan.to_json(SWEEP))["answers"]
    assert told["tokens_per_second"] == pytest.approx(32 / 0.016) == 4 * told["tokens_per_second_per_chip"]
    assert told["suffixes"]["scheduled"] == 0.1 and SERVED.to_dict()["answers"] is None


def test_a_step_is_told_for_the_mean_cache_of_requests():
    assert list(lives(None)) == ["full", "half_full"] and lives(REQUESTS)["requests"] == REQUESTS.live
    assert SERVED.to_dict()["step"]["requests"]["tokens_per_second"] == pytest.approx(64 / 0.012)


def test_rows_are_as_long_as_the_requests():
    config = EvaluateConfig(max_model_len=32_768, batch_size=8)
    assert sizes_of(config, MODEL, layout_of(fsdp=8))[1::3] == (32_768, PROMPT_TOKENS)
    assert sizes_of(config, MODEL, layout_of(fsdp=8), REQUESTS)[1::3] == (9216, 1024)


def test_the_tables_tell_of_answers_and_requests():
    topology = parse_topology("v6e:2x2")
    told = [plan.format_decode_plan(each, "model", topology) for each in (SWEEP, SERVED)]
    assert "step of 32 answers     16.00" in told[0] and "prompt of 512 tokens   40.00" in told[0]
    assert "requests" not in told[0] and "answers  " not in told[1].replace("while: answers", "")
    rate = SERVED.request_rate
    assert f"requests of 1,024 + 8,192 tokens: {rate:.0f} new tokens/s, {rate / 4:.0f} per chip" in told[1]
