"""What the server decodes is what `generate` decodes for the same request, whatever else is in the batch.

Products of other batch sizes round differently, so two tokens that are as likely as each other may change places. Such
requests are counted.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest

from s1_jax.decoding.core.scores import NOTHING, OWN, WITH_LIKELIEST
from tests.serving.mixed import expected, made_up, said, said_by_stream
from tests.serving.running import CHAT, MAX_MODEL_LEN, NAME, frames_of, started

NEAR_TIE = 1e-3  # of two logits: rounding moves each by at most 1e-5
MOST_TIES = 200  # one request in this many may differ by a near-tie, or one at all
BATCH = 8  # rows of the engine that decodes without a queue
ALL_AT_ONCE = 12  # requests over the wire


class Trace(NamedTuple):
    """The tokens of a run, as a record has them."""

    thinking: list[int]
    answer: list[int]
    end: str
    answer_end: str
    ignores_used: int


def trace_of(record):
    names = ("thinking_token_ids", "answer_token_ids", "end", "answer_end", "ignores_used")
    return Trace(*(record[name] for name in names))


@pytest.fixture(scope="module")
def offline(model):
    """`offline(requests)`: their records, without a queue and without scores."""

    def run(requests):
        return list(model.engine(MAX_MODEL_LEN, BATCH).run(requests))

    return run


def most_ties(count):
    return max(1, count // MOST_TIES)


class Collected:
    """The tokens of the runs of a queue, as they are told."""

    def __init__(self) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.kinds: dict[int, list[int]] = {}
        self.ended: dict[int, Any] = {}

    def add(self, news) -> None:
        for one in news:
            assert one.number not in self.ended
            self.tokens.setdefault(one.number, []).extend(one.tokens.tolist())
            self.kinds.setdefault(one.number, []).extend(one.kinds.tolist())
            if one.scored is not None:
                assert len(one.scored.own) == len(one.tokens) and np.all(one.scored.own <= 0)
            if one.ended is not None:
                self.ended[one.number] = one.ended

    def trace(self, number):
        from s1_jax.decoding.core.budget import IS_THOUGHT, AnswerEnd, End, Kind

        tokens, kinds, ended = np.array(self.tokens[number]), np.array(self.kinds[number]), self.ended[number]
        thinking, answer = tokens[IS_THOUGHT[kinds]].tolist(), tokens[kinds == Kind.ANSWER].tolist()
        ends = End(ended.end).name.lower(), AnswerEnd(ended.answer_end).name.lower()
        return Trace(thinking, answer, *ends, ended.ignores_used)


def test_a_queue_decodes_what_the_engine_does(model, offline):
    """Requests come at any time, a few at once, and some are cancelled; a part of them is scored."""
    asked = [one.request for one in made_up(model, 64)]
    wanted = [trace_of(record) for record in offline(asked)]
    engine = model.engine(MAX_MODEL_LEN, 4, scores=True)
    queue, rng, found = engine.queue(2 * MAX_MODEL_LEN), np.random.default_rng(0), Collected()
    compiled = engine.num_compiled
    numbers: dict[int, int] = {}  # of each request
    gone: set[int] = set()
    left = list(range(len(asked)))
    while left or not queue.idle:
        some, left = (left[: (size := int(rng.integers(0, 4)))], left[size:])
        if some:
            requests = [asked[i] for i in some]
            scored = rng.choice([NOTHING, OWN, WITH_LIKELIEST], len(some)).tolist()
            numbers |= zip(some, queue.submit(requests, engine.runs(requests, scored)), strict=True)
        if numbers and rng.random() < 0.05:
            gone.add(int(rng.choice(list(numbers))))
            queue.cancel([numbers[i] for i in gone])
        found.add(queue.look(int(rng.integers(1, 33)), rng.choice([None, 1, 256])))
    assert engine.num_compiled == compiled, "nothing is compiled after the queue is made"
    ended = [i for i in numbers if numbers[i] in found.ended]
    assert len(ended) > len(asked) - len(gone) and set(range(len(asked))) - set(ended) <= gone
    different = [i for i in ended if found.trace(numbers[i]) != wanted[i]]
    assert len(different) <= most_ties(len(asked)), [(asked[i], found.trace(numbers[i]), wanted[i]) for i in different]
    for i in different:
        assert asked[i].sampling.temperature > 0 or is_near_tie(
            model, asked[i], found.trace(numbers[i]).thinking, wanted[i].thinking
        )


def is_near_tie(model, request, mine, theirs):
    """Whether the two best logits are about as large where two thoughts first differ."""
    at = next(i for i, (one, other) in enumerate(zip(mine, theirs, strict=False)) if one != other)
    ids = [*request.prompt_token_ids, *model.tokenizer.encode(model.format.think_start), *mine[:at]]
    best = np.sort(model.logits([ids])[0, -1])[-2:]
    return best[1] - best[0] < NEAR_TIE


def replies(server, asked, at_once, pause=0.0):
    """What the server says to all of these, so many at once; every third is streamed."""

    def ask(number):
        one = asked[number]
        time.sleep(pause * (number % at_once))
        if number % 3:
            return said(server.ask(one.path, one.body).json)
        connection = server.connection()
        body = one.body | {"stream": True, "stream_options": {"include_usage": True}}
        connection.sock = server.raw(server.written(one.path, body))
        response = connection.response_class(connection.sock)
        response.begin()
        assert response.status == 200
        with connection.sock:
            return said_by_stream(list(frames_of(response)))

    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(ask, range(len(asked))))


def assert_all_equal(model, offline, asked, found):
    records = offline([one.request for one in asked])
    wanted = [expected(model, one.request, record) for one, record in zip(asked, records, strict=True)]
    different = [(one.body, *pair) for one, *pair in zip(asked, found, wanted, strict=True) if pair[0] != pair[1]]
    assert len(different) <= most_ties(len(asked)), different


def test_over_the_wire_as_well(server, model, offline):
    asked = made_up(model, 60, seed=1)
    found = replies(server, asked, ALL_AT_ONCE)
    assert_all_equal(model, offline, asked, found)
    assert len({one.thinking_end for one in found}) >= 4, "thinking ended in every way"
    assert any(one.ignores_used for one in found) and any(one.reasoning is None for one in found)


def test_the_same_call_of_generate(server, model):
    """The texts of `LoadedModel.generate`, with its own names of options."""
    prompts = [f"Start: {i:02}. Steps: a+{i % 10} b-3. Result mod 100?" for i in range(0, 100, 13)]
    budget = {"max_thinking_tokens": 30, "end_bias": 40.0, "num_ignore": 1}
    options: dict[str, Any] = {"max_answer_tokens": 8, "max_model_len": MAX_MODEL_LEN, "batch_size": BATCH}
    records = model.generate(prompts, budget, {"temperature": 2.0, "top_k": 9}, seed=4, **options)
    body = {"model": NAME, "thinking": {"max_tokens": 30, "end_bias": 40.0, "num_ignore": 1}, "max_answer_tokens": 8}
    body |= {"temperature": 2.0, "top_k": 9, "seed": 4}
    found = []
    for prompt in prompts:
        reply = server.ask(CHAT, body | {"messages": [{"role": "user", "content": prompt}]}).json
        found.append(reply["choices"][0]["message"]["reasoning_content"])
    decode = model.tokenizer.backend_tokenizer.decode
    wanted = [decode(record["thinking_token_ids"], skip_special_tokens=False) for record in records]
    assert sum(one != other for one, other in zip(found, wanted, strict=True)) <= most_ties(len(prompts))


@pytest.mark.slow
@pytest.mark.parametrize("prefix_tokens", [0, 4 * MAX_MODEL_LEN])
def test_two_hundred_requests_32_at_a_time(model, offline, prefix_tokens):
    asked = made_up(model, 200, seed=2)
    sizes = ("--max-model-len", str(MAX_MODEL_LEN), "--batch-size", "32", "--prefix-cache-tokens", str(prefix_tokens))
    with started(*sizes) as server:
        found = replies(server, asked, 32, pause=0.003)
        assert_all_equal(model, offline, asked, found)
        again = replies(server, asked[::-1], 32)[::-1]
        assert_all_equal(model, offline, asked, again)
        cached = server.count("s1_jax_tokens_total", kind="cached")
    assert (cached > 0) == (prefix_tokens > 0)
