"""The batch of slots: full while runs wait, and never seen in what is decoded."""

import dataclasses

import numpy as np
import pytest

from s1_jax.config import BudgetConfig, SamplingConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host import blocks, slots
from s1_jax.model.transformer import unstack
from tests.tokenizer import byte_tokenizer

V, MAX_MODEL_LEN = 264, 256
TOKENIZER = byte_tokenizer()
SAMPLED = SamplingConfig(temperature=1.0)
FULL = 0.85  # share of slot-steps that bring a token


@pytest.fixture(scope="module")
def make_engine(tiny_model):
    tiny = tiny_model(1, vocab_size=V, max_position_embeddings=MAX_MODEL_LEN)
    layers = unstack(tiny.params)

    def make(batch_size):
        return Engine(tiny.config, layers, TOKENIZER, batch_size=batch_size)

    return make


@pytest.fixture(scope="module")
def engine(make_engine):
    return make_engine(8)


def lognormal_requests(count=160, median=8, ratio=20, seed=0):
    """Thinking of given lengths, the longest `ratio` times the median."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(size=count))
    lengths = np.clip(np.round(median * lengths / np.median(lengths)), 1, median * ratio).astype(int)
    lengths[rng.integers(count)] = median * ratio
    return [
        Request(
            tuple(map(int, rng.integers(0, 256, rng.integers(1, 60)))),
            BudgetConfig(int(n), int(n)),
            SAMPLED,
            problem_id=i,
            max_answer_tokens=1,
        )
        for i, n in enumerate(lengths)
    ]


def test_lengths_that_differ_leave_few_slots_empty(make_engine):
    engine = make_engine(8)
    records = list(engine.run(lognormal_requests()))
    assert engine.use.fraction >= FULL
    assert sum(record["num_thinking_tokens"] for record in records) <= engine.use.tokens


def test_tokens_and_order_do_not_depend_on_scheduling(make_engine, engine, monkeypatch):
    requests = lognormal_requests(40)
    records = list(engine.run(requests))
    assert [record["problem_id"] for record in records] == list(range(40))
    assert list(make_engine(3).run(requests)) == records
    order = np.random.default_rng(1).permutation(40)
    shuffled = list(engine.run([requests[i] for i in order]))
    assert [shuffled[j] for j in np.argsort(order)] == records
    monkeypatch.setattr(slots, "SHRINK", 3)
    assert list(make_engine(8).run(requests)) == records


@pytest.mark.parametrize(
    ("chunk", "block"), [(64, 64), *(pytest.param(*sizes, marks=pytest.mark.slow) for sizes in ((64, 1024), (16, 256)))]
)
def test_prompts_in_chunks_give_the_same(make_engine, engine, monkeypatch, chunk, block):
    rng = np.random.default_rng(2)
    requests = [
        Request(tuple(map(int, rng.integers(0, 256, n))), BudgetConfig(5, 30), SAMPLED, i, max_answer_tokens=2)
        for i, n in enumerate(rng.integers(1, 190, 20))
    ]
    expected = list(engine.run(requests))
    monkeypatch.setattr(blocks, "CHUNK", chunk)
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", block)
    assert list(make_engine(4).run(requests)) == expected


def test_a_prompt_is_read_once_for_all_its_samples(engine, monkeypatch):
    read = []
    prefill = engine.programs.prefill
    monkeypatch.setattr(
        engine.programs, "prefill", lambda block, chunk, *rest: read.append(chunk) or prefill(block, chunk, *rest)
    )
    one = Request((5, 6, 7), BudgetConfig(4, 20), SAMPLED, "a", max_answer_tokens=2)
    requests = [dataclasses.replace(one, sample=i) for i in range(20)]
    together = list(engine.run(requests))
    assert [chunk.shape[0] for chunk in read] == [1]
    assert len({record["text"] for record in together}) > 15
    assert together == [next(engine.run([request])) for request in requests]


@pytest.mark.parametrize(
    "batch_size", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 5]
)
def test_branches_never_wait_for_slots_that_wait_for_them(make_engine, batch_size):
    engine = make_engine(batch_size)
    requests = [
        Request((i + 1, 7), BudgetConfig(1, maximum), SAMPLED, i, max_answer_tokens=2)
        for i in range(7)
        for maximum in (2, 3, 5, 8, 13, 21)
    ]
    assert dict(engine.run_shared(requests)) == dict(enumerate(engine.run(requests)))


def test_slots_shrink_when_few_runs_are_left(make_engine):
    engine = make_engine(8)
    short = [Request((i + 1,), BudgetConfig(2, 2), SAMPLED, i, max_answer_tokens=1) for i in range(7)]
    long = Request((9,), BudgetConfig(220, 220), SAMPLED, "long", max_answer_tokens=1)
    records = list(engine.run([*short, long]))
    assert engine.use.slot_steps < 8 * 220 * 0.75
    assert records[-1] == next(engine.run([long]))
