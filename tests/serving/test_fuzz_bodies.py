"""Bodies of random values: each is read or refused with one clear sentence, and nothing else is raised."""

import json
import random

import pytest

from s1_jax.serving.accepted import CHAT as CHAT_ACCEPTED
from s1_jax.serving.errors import ApiError
from s1_jax.serving.fronts import FRONTS
from s1_jax.serving.generation import Generation
from s1_jax.serving.thinking import OWN
from tests.serving.bodies import LEAST, offer

BODIES = 1500
NAMES = """messages model prompt system max_tokens max_completion_tokens max_answer_tokens temperature top_p top_k min_p
seed n stop stop_sequences stream stream_options logprobs top_logprobs echo best_of continue_final_message
add_generation_prompt thinking thinking_budget thinking_token_budget enable_thinking chat_template_kwargs reasoning
reasoning_effort""".split()
INNER = """role content type text thinking reasoning_content reasoning name signature cache_control include_usage effort
enabled max_tokens budget_tokens enable_thinking exclude""".split()
WORDS = (
    "",
    "user",
    "assistant",
    "system",
    "tool",
    "text",
    "image_url",
    "low",
    "none",
    "enabled",
    "tiny",
    "\ud800",
    "é",
)
NUMBERS = (0, 1, -1, 2, 7, 40, 10**9, 2**31, 2**64, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"))


def value(rng, depth=0):
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(NUMBERS)
    if kind < 0.55:
        return rng.choice(WORDS)
    if kind < 0.7 or depth > 3:
        return rng.choice((None, True, False))
    if kind < 0.85:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice((*INNER, *OWN, *WORDS)): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def messages(rng):
    """Messages of which most are right."""
    roles = rng.choices(("user", "assistant", "system"), k=rng.randrange(1, 4))
    turns = [{"role": role, "content": rng.choice(("", "a", "b" * 50))} for role in roles]
    for turn in turns:
        if rng.random() < 0.3:
            turn[rng.choice(INNER)] = value(rng)
    return turns


@pytest.mark.parametrize("path", FRONTS)
def test_random_bodies(path):
    rng, terms, read = random.Random(path), offer(limits={"max_thinking_tokens": 50}), 0
    for _ in range(BODIES):
        body = dict(LEAST[path])
        if rng.random() < 0.5 and "messages" in body:
            body["messages"] = messages(rng)
        for _ in range(rng.randrange(4)):
            body[rng.choice((*NAMES, *CHAT_ACCEPTED))] = value(rng)
        try:
            generation = FRONTS[path].read(body, terms)
        except ApiError as error:
            assert error.status in (400, 404) and error.message.isprintable()
            json.dumps(FRONTS[path].error_body(error), ensure_ascii=False).encode()
        else:
            assert isinstance(generation, Generation) and generation.requests
            read += 1
    assert read > BODIES // 20
