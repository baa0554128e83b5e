"""The engine as a queue: what is decoded does not depend on what comes and goes beside it, and nothing is compiled."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from s1_jax.config import BudgetConfig, MeshConfig, SamplingConfig
from s1_jax.decoding.core.budget import IS_THOUGHT, AnswerEnd, End, Kind
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.scores import NOTHING, OWN, WITH_LIKELIEST
from s1_jax.decoding.engine import Engine
from s1_jax.decoding.host.blocks import Reading
from s1_jax.decoding.warm_up import queue_lengths
from s1_jax.model import transformer
from s1_jax.model.transformer import param_axes, unstack
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.tokenizer import byte_tokenizer

V, MAX_MODEL_LEN, ROWS = 264, 256, 8
TOKENIZER = byte_tokenizer()
SYSTEM = tuple(TOKENIZER.encode("You are a careful assistant who thinks about every question at length. "))
SCORE_TOLERANCE = 1e-4  # of log-probabilities: one forward pass over the whole text in place of a cache


@pytest.fixture(scope="module")
def tiny(tiny_model):
    return tiny_model(1, vocab_size=V, max_position_embeddings=MAX_MODEL_LEN)


@pytest.fixture(scope="module")
def engine(tiny):
    return Engine(tiny.config, unstack(tiny.params), TOKENIZER, batch_size=ROWS, scores=True)


@pytest.fixture(scope="module")
def offline(tiny):
    return Engine(tiny.config, unstack(tiny.params), TOKENIZER, batch_size=ROWS)


@pytest.fixture(scope="module")
def queue(engine):
    return engine.queue(prefix_tokens=1024)


def random_request(rng, i):
    prompt = tuple(map(int, rng.integers(0, 256, rng.integers(1, 100))))
    most = int(rng.integers(1, 70))
    budget = BudgetConfig(
        int(rng.integers(0, most)),
        most if rng.random() < 0.8 else None,
        int(rng.integers(0, 4)),
        str(rng.choice(["Wait", "Hm", ""])),
        newline_grace=float(rng.choice([0, 0.1])),
        end_bias=0.0,
    )
    return Request(
        (SYSTEM if rng.random() < 0.4 else ()) + prompt,
        budget,
        SamplingConfig(float(rng.choice([0.0, 1.0])), int(rng.choice([0, 20]))),
        sample=i,
        seed=int(rng.integers(0, 5)),
        max_answer_tokens=int(rng.integers(0, 30)),
        stop_strings=("a", "e\n") if rng.random() < 0.2 else (),
        max_completion_tokens=int(rng.integers(10, 90)) if rng.random() < 0.3 else None,
        reserved_answer_tokens=int(rng.integers(0, 8)) if rng.random() < 0.3 else None,
        name=f"request {i}",
    )


def decoded(engine, queue, requests, rng, scored=None, cancelled=()):
    """Submit at random times, decode, and give the tokens, kinds and end of each request that is not cancelled."""
    waiting, index, parts, found = list(range(len(requests))), {}, {}, {}
    while waiting or not queue.idle:
        for i in [waiting.pop(0) for _ in range(min(len(waiting), int(rng.integers(0, 5))))]:
            engine.check(requests[i])
            runs = engine.runs([requests[i]], None if scored is None else [scored[i]])
            (number,) = queue.submit([requests[i]], runs)
            index[number], parts[i] = i, []
        gone = [number for number, i in index.items() if i in cancelled and i not in found and len(parts[i]) > 1]
        queue.cancel(gone)
        for number in gone:
            found[index[number]] = None
        for news in queue.look(int(rng.integers(1, 7))):
            i = index[news.number]
            parts[i].append(news)
            if news.ended is not None:
                found[i] = parts[i]
    return found


def joined(news):
    return np.concatenate([one.tokens for one in news]), np.concatenate([one.kinds for one in news])


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
def test_requests_at_random_times_are_those_of_the_engine(engine, offline, queue, seed):
    rng = np.random.default_rng(seed)
    requests = [random_request(rng, i) for i in range(60)]
    before, cached = engine.num_compiled, 0
    found = decoded(engine, queue, requests, rng, rng.integers(0, 3, len(requests)))
    for i, record in enumerate(offline.run(requests)):
        tokens, kinds = joined(found[i])
        last = found[i][-1]
        assert tokens[IS_THOUGHT[kinds]].tolist() == record["thinking_token_ids"], i
        assert tokens[kinds == int(Kind.ANSWER)].tolist() == record["answer_token_ids"], i
        ended = last.ended
        assert (End(ended.end).name.lower(), ended.ignores_used) == (record["end"], record["ignores_used"])
        assert AnswerEnd(ended.answer_end).name.lower() == record["answer_end"]
        cached += last.read.cached
    assert cached >= 10 * (len(SYSTEM) // 32 * 32), "the common beginning is read once"
    assert engine.num_compiled == before, "a request compiles nothing"
    assert queue.idle and not queue.num_waiting and not queue.num_running


def test_cancelled_requests_leave_no_trace(engine, offline, queue):
    rng = np.random.default_rng(7)
    requests = [dataclasses.replace(random_request(rng, i), stop_strings=()) for i in range(40)]
    gone = set(rng.permutation(40)[:15].tolist())
    found = decoded(engine, queue, requests, rng, cancelled=gone)
    for i, record in enumerate(offline.run(requests)):
        if found[i] is not None:
            tokens, kinds = joined(found[i])
            assert tokens[IS_THOUGHT[kinds]].tolist() == record["thinking_token_ids"]
    assert sum(one is None for one in found.values()) > 5
    assert not queue._slots.names and not queue._slots.read and not queue._followed


def test_a_request_that_waits_is_cancelled_too(engine, queue):
    requests = [Request((i + 1,), BudgetConfig(40, 40), max_answer_tokens=1) for i in range(2 * ROWS)]
    numbers = queue.submit(requests, engine.runs(requests))
    queue.look(1)
    assert queue.num_waiting
    queue.cancel(numbers)
    assert queue.idle and not queue.num_waiting and not queue.num_running
    assert queue.look(1) == []


def test_scores_are_log_probabilities_of_the_raw_distribution(tiny, engine, queue):
    rng = np.random.default_rng(3)
    request = Request(
        tuple(map(int, rng.integers(0, 256, 70))),
        BudgetConfig(5, 30, 2, banned_words=("a", "b")),
        SamplingConfig(1.7, top_k=50),
        max_answer_tokens=9,
    )
    engine.check(request)
    runs = engine.runs([request] * 3, [NOTHING, OWN, WITH_LIKELIEST], [True] * 3)
    numbers = queue.submit([request] * 3, runs)
    news = {number: [] for number in numbers}
    while not queue.idle:
        for one in queue.look(3):
            news[one.number].append(one)
    nothing, own, likeliest = (news[number] for number in numbers)
    assert all(one.scored is None for one in nothing)
    tokens, kinds = joined(own)
    prompt = runs.prompts[0]
    ids = np.asarray([[*prompt, *tokens.tolist()]], np.int32)
    positions = np.arange(ids.shape[1])[None]
    hidden = transformer.hidden_states(tiny.config, tiny.params, ids, positions, np.ones_like(ids))
    logits = np.asarray(transformer.logits(tiny.config, tiny.params, hidden)[0], np.float64)
    wanted = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    wanted -= logits.max(-1, keepdims=True)
    at = np.arange(len(prompt) - 1, ids.shape[1] - 1)
    real = np.isin(kinds, (Kind.THINKING, Kind.ANSWER))  # others may follow tokens that were taken back
    for of in (own, likeliest):
        scores = np.concatenate([one.scored.own for one in of])
        np.testing.assert_allclose(scores[real], wanted[at, tokens][real], atol=SCORE_TOLERANCE)
    top_ids, top = (np.concatenate([getattr(one.scored, name) for one in likeliest]) for name in ("top_ids", "top"))
    assert (np.diff(top, axis=1) <= 0).all()
    highest = np.sort(wanted[at], axis=1)[:, ::-1]
    np.testing.assert_allclose(top[real], highest[real, : top.shape[1]], atol=SCORE_TOLERANCE)
    np.testing.assert_allclose(np.take_along_axis(wanted[at], top_ids, 1)[real], top[real], atol=SCORE_TOLERANCE)
    told = {}
    for start, (scores, *_) in own[0].read.scores:
        told |= {start + i: score for i, score in enumerate(scores[0].tolist())}
    given = [told[i] for i in range(len(prompt) - 1)]
    np.testing.assert_allclose(given, wanted[np.arange(len(prompt) - 1), list(prompt[1:])], atol=SCORE_TOLERANCE)


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(1.0)])
def test_thinking_that_is_given_goes_on_as_it_would_have(engine, offline, queue, sampling):
    """Forks of a trace: thought on from any point, under another budget, it is the run of that budget."""
    rng = np.random.default_rng(4)
    one = Request(
        tuple(map(int, rng.integers(0, 256, 40))), BudgetConfig(90, 90), sampling, max_answer_tokens=8, seed=3
    )
    (whole,) = offline.run([one])
    thinking = whole["thinking_token_ids"]
    for at, most in ((0, 90), (1, 30), (17, 17), (33, 60), (64, 70), (89, 90), (90, 90)):
        shorter = dataclasses.replace(one, budget=BudgetConfig(most, most))
        (wanted,) = offline.run([shorter])
        fork = dataclasses.replace(shorter, given_thinking=tuple(thinking[:at]))
        queue.submit([fork], engine.runs([fork]))
        found = []
        while not queue.idle:
            found += queue.look(4)
        tokens, kinds = joined(found)
        assert [*thinking[:at], *tokens[IS_THOUGHT[kinds]].tolist()] == wanted["thinking_token_ids"]
        assert tokens[kinds == int(Kind.ANSWER)].tolist() == wanted["answer_token_ids"]
        assert next(offline.run([fork]))["thinking_token_ids"] == wanted["thinking_token_ids"]
        *_, streamed = offline.stream(fork)
        assert streamed["thinking_token_ids"] == wanted["thinking_token_ids"]
        if at >= 33:
            assert found[-1].read.cached >= 32, "a fork finds its trace in the prefix cache"


def test_a_completion_has_no_more_tokens_than_it_may(engine, queue):
    rng = np.random.default_rng(5)
    for most in (1, 2, 5, 12, 40):
        for thinking in (True, False):
            request = Request(
                tuple(map(int, rng.integers(0, 256, 9))),
                sampling=SamplingConfig(1.0),
                max_answer_tokens=100,
                reserved_answer_tokens=most // 4,
                max_completion_tokens=most,
                thinking=thinking,
            )
            engine.check(request)
            queue.submit([request], engine.runs([request]))
            found = []
            while not queue.idle:
                found += queue.look(5)
            tokens, _ = joined(found)
            assert len(tokens) <= most
            if found[-1].ended.answer_end != AnswerEnd.STOP:
                assert len(tokens) == most


def test_few_requests_have_a_small_batch(engine, queue):
    requests = [Request((i + 1,), BudgetConfig(100, 100), max_answer_tokens=1) for i in range(ROWS)]
    queue.submit(requests, engine.runs(requests))
    queue.look(1)
    assert queue.size == ROWS
    while not queue.idle:
        queue.look(8)
    queue.submit(requests[:1], engine.runs(requests[:1]))
    queue.look(1)
    assert queue.size == 1


@pytest.mark.parametrize(
    ("left", "width"),
    [(1, 64), (64, 64), (65, 64), (128, 64), (190, 64), (193, 256), (256, 256), (257, 256), (999, 256)],
)
def test_chunks_of_prompts_waste_few_tokens(left, width):
    assert Reading(1, (64, 256)).width(left) == width


@pytest.mark.parametrize(
    ("most", "by_kernel", "lengths"),
    [
        (50, False, [50]),
        (300, False, [64, 128, 256, 300]),
        (2048, False, [64, 128, 256, 512, 1024, 2048]),
        (32768, False, [64, 128, 256, 512, 1024, 4096, 16384, 32768]),
        (32768, True, [512, 4096, 32768]),
        (400, True, [400]),
    ],
)
def test_lengths_of_a_queue_are_few(most, by_kernel, lengths):
    assert queue_lengths(most, by_kernel) == lengths


@pytest.mark.slow
def test_a_queue_on_a_mesh(tiny, offline):
    layout = Layout(make_mesh(MeshConfig(fsdp=2, tensor=2), jax.devices()[:4]), DECODE_RULES)
    placed = unstack(jax.device_put(tiny.params, layout.tree(param_axes(tiny.config), tiny.params)))
    spread = Engine(tiny.config, placed, TOKENIZER, batch_size=ROWS, layout=layout, scores=True)
    queue, rng = spread.queue(prefix_tokens=512), np.random.default_rng(11)
    requests, before = [random_request(rng, i) for i in range(20)], spread.num_compiled
    found = decoded(spread, queue, requests, rng, rng.integers(0, 3, len(requests)))
    for i, record in enumerate(offline.run(requests)):
        tokens, kinds = joined(found[i])
        assert tokens[IS_THOUGHT[kinds]].tolist() == record["thinking_token_ids"]
        assert tokens[kinds == int(Kind.ANSWER)].tolist() == record["answer_token_ids"]
    assert spread.num_compiled == before
