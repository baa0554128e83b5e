"""Each request gets its first try that ends by itself, in no more tries than it may have."""

import dataclasses

import numpy as np
import pytest

from s1_jax.config import BudgetConfig, SamplingConfig, SettingConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine, Status
from s1_jax.errors import UserError
from s1_jax.model.transformer import unstack
from s1_jax.search.rejection import TRY_APART, sample_until_natural
from tests.tokenizer import byte_tokenizer

MAXIMUM, PROBLEMS = 12, 6


class Stub:
    """An engine whose run of a request is long or short by a coin of the request's own."""

    def __init__(self, chance):
        self.chance, self.asked = chance, []

    def run_shared(self, requests, progress=None):
        self.asked.append(list(requests))
        for i in np.random.default_rng(len(self.asked)).permutation(len(requests)):
            yield int(i), self.record(requests[i])
            progress(Status(99, 99, 0, 1.0, 1.0))

    def record(self, request):
        coin = np.random.default_rng([request.problem_id, request.sample]).random()
        natural = coin < self.chance
        length = 1 + int(coin * 10) if natural else request.budget.max_thinking_tokens
        return {"sample": request.sample, "num_thinking_tokens": length, "end": "natural" if natural else "forced"}


def asked_for(count, samples=1):
    budget, sampling = BudgetConfig(max_thinking_tokens=MAXIMUM), SamplingConfig(temperature=1.0)
    return [Request((1, 2), budget, sampling, i, sample) for i in range(count) for sample in range(samples)]


@pytest.mark.parametrize("chance", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("most", [1, 3, 40])
def test_the_first_try_that_ends_by_itself(chance, most):
    engine, requests = Stub(chance), asked_for(20, samples=2)
    shown = []
    found = dict(sample_until_natural(engine, requests, [most] * len(requests), shown.append))
    assert sorted(found) == list(range(len(requests)))
    for index, request in enumerate(requests):
        tries = [
            engine.record(dataclasses.replace(request, sample=request.sample + i * TRY_APART)) for i in range(most)
        ]
        number = next((i for i, record in enumerate(tries) if record["end"] == "natural"), most - 1)
        tokens = sum(record["num_thinking_tokens"] for record in tries[: number + 1])
        expected = tries[number] | {"sample": request.sample, "tries": number + 1, "tried_tokens": tokens}
        assert found[index] == expected
    assert len(engine.asked) == max(record["tries"] for record in found.values())
    assert sum(map(len, engine.asked)) == sum(record["tries"] for record in found.values()), "no try too many"
    assert all(status.total == len(requests) and status.done <= len(requests) for status in shown)


def test_each_request_has_a_bound_of_its_own():
    found = dict(sample_until_natural(Stub(0.0), asked_for(3), [1, 5, 2], lambda status: None))
    assert [found[index]["tries"] for index in range(3)] == [1, 5, 2]


@pytest.mark.slow
def test_tries_are_runs_of_the_engine(tiny_model):
    tiny = tiny_model(seed=3, vocab_size=264, tie_word_embeddings=True)
    engine = Engine(tiny.config, unstack(tiny.params), byte_tokenizer(), max_model_len=96, batch_size=4)
    prompts = [tuple(map(int, np.random.default_rng(i).integers(3, 200, 5))) for i in range(PROBLEMS)]
    budget, sampling = BudgetConfig(max_thinking_tokens=40), SamplingConfig(temperature=1.5)
    requests = [Request(prompt, budget, sampling, i, max_answer_tokens=4) for i, prompt in enumerate(prompts)]
    found = dict(sample_until_natural(engine, requests, [8] * PROBLEMS))
    assert len({record["tries"] for record in found.values()}) > 1, "the case says nothing: all ended alike"
    for index, request in enumerate(requests):
        again = dataclasses.replace(request, sample=(found[index]["tries"] - 1) * TRY_APART)
        (alone,) = engine.run([again])
        same = {name: value for name, value in alone.items() if name != "sample"}
        assert found[index] == found[index] | same and found[index]["sample"] == 0


@pytest.mark.parametrize(
    "wrong", [{"max_tries": 0}, {"max_tries": 2}, {"max_tries": 2, "budget": BudgetConfig(forcing=False)}]
)
def test_tries_that_would_all_be_the_same_are_an_error(wrong):
    with pytest.raises(UserError, match="max_tries"):
        SettingConfig(**wrong)
