"""Log-probabilities over the wire are those of the model's raw distribution, of prompts too."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from tests.serving.running import ASKED, NAME, chat, question

TOLERANCE = 1e-4  # of a log-probability: float32, a prompt read in pieces or at once; measured: 8e-6
SUM = question("a+2 b-3")
STOP, STOPS = "<|im_end|>", ("<|im_end|>", "<|endoftext|>")
LENGTHS = (2, 31, 64, 65, 150, 250)  # tokens of prompts: one chunk and several


@pytest.fixture(scope="module")
def log_probabilities(model):
    """`log_probabilities(ids)`: of each token's successors, by the model in this process, [T, V]."""

    def compute(ids):
        logits = model.logits([ids])[0].astype(np.float64)
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    return compute


@pytest.fixture(scope="module")
def id_of(model):
    """The token id of each text that only one token has."""
    ids = {}
    for i in range(model.config.vocab_size):
        ids.setdefault(model.tokenizer.backend_tokenizer.decode([i], skip_special_tokens=False), []).append(i)
    return {text: found[0] for text, found in ids.items() if len(found) == 1}


def own_of(scored):
    return [one.logprob for one in scored]


def test_those_of_a_chat_are_finite_sorted_and_agree(client):
    reply = chat(client, ASKED, logprobs=True, top_logprobs=20, max_tokens=60)
    (choice,) = reply.choices
    tokens = list(choice.logprobs.content)
    thoughts = choice.logprobs.reasoning_content
    assert tokens[-1].token == STOP and choice.finish_reason == "stop"
    assert "".join(one.token for one in tokens[:-1]).strip() in choice.message.content
    assert "".join(one["token"] for one in thoughts) == choice.message.reasoning_content
    assert len(thoughts) == reply.usage.completion_tokens_details.reasoning_tokens
    for one in tokens:
        tops = own_of(one.top_logprobs)
        assert len(tops) == 20 and tops == sorted(tops, reverse=True) and all(map(math.isfinite, tops))
        assert one.logprob <= tops[0] <= 0 and sum(map(math.exp, tops)) <= 1 + TOLERANCE
        assert {top.token: top.logprob for top in one.top_logprobs}.get(one.token, one.logprob) == one.logprob
        assert bytes(one.bytes).decode() == one.token
        assert one.logprob == tops[0], "the answer is greedy, and nothing is masked"
    assert all(len(one["top_logprobs"]) == 20 for one in thoughts)


def test_only_the_tokens_themselves(client):
    (choice,) = chat(client, ASKED, logprobs=True).choices
    assert all(one.top_logprobs == [] and one.logprob <= 0 for one in choice.logprobs.content)
    assert chat(client, ASKED).choices[0].logprobs is None


def test_a_stream_tells_the_same_ones(client):
    asked = {"logprobs": True, "top_logprobs": 2, "n": 2, "temperature": 2.0, "seed": 1}
    whole = chat(client, ASKED, **asked)
    chunks = [chunk.choices[0] for chunk in chat(client, ASKED, stream=True, **asked)]
    for choice in whole.choices:
        told = [chunk.logprobs for chunk in chunks if chunk.index == choice.index and chunk.logprobs]
        assert_same(itertools.chain(*(one.content for one in told)), choice.logprobs.content)
        thoughts = itertools.chain(*(one.model_extra.get("reasoning_content") or () for one in told))
        assert_same(
            *([SimpleNamespace(**one) for one in some] for some in (thoughts, choice.logprobs.reasoning_content))
        )


def assert_same(found, expected):
    found = list(found)
    assert [one.token for one in found] == [one.token for one in expected]
    np.testing.assert_allclose(own_of(found), own_of(expected), atol=TOLERANCE)


def test_they_are_of_the_raw_distribution(client):
    """Temperature, masks and biases change what is written, and no log-probability of what is."""
    pieces = chat(client, SUM, logprobs=True, max_tokens=40).choices[0].logprobs.reasoning_content
    sampled = {"temperature": 0.3, "seed": 1, "extra_body": {"top_k": 1, "thinking": {"min_tokens": 20}}}
    again = chat(client, SUM, logprobs=True, max_tokens=40, **sampled).choices[0].logprobs.reasoning_content
    assert [one["token"] for one in again] == [one["token"] for one in pieces]
    np.testing.assert_allclose([one["logprob"] for one in again], [one["logprob"] for one in pieces], atol=TOLERANCE)


def test_a_forced_end_is_as_unlikely_as_the_model_says(client, model, log_probabilities, id_of):
    """What budget forcing puts in is no token of the model's, and what follows is scored after it."""
    (choice,) = chat(client, SUM, {"thinking": {"max_tokens": 10}}, logprobs=True).choices
    thoughts = [id_of[one["token"]] for one in choice.logprobs.reasoning_content]
    written = [id_of[one.token] for one in choice.logprobs.content]
    prompt = [*model.prompt_token_ids(SUM[0]["content"]), *model.tokenizer.encode("<|im_start|>think")]
    marker = model.tokenizer.encode("\n<|im_start|>answer\nFinal Answer:")
    ids = [*prompt, *thoughts, *marker, *written]
    expected = log_probabilities(ids)[np.arange(len(ids) - 1), ids[1:]]
    np.testing.assert_allclose(own_of(choice.logprobs.content), expected[-len(written) :], atol=TOLERANCE)
    told = [one["logprob"] for one in choice.logprobs.reasoning_content]
    np.testing.assert_allclose(told, expected[len(prompt) - 1 :][: len(thoughts)], atol=TOLERANCE)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_prompt_s_own(client, log_probabilities, length):
    ids = np.random.default_rng(length).integers(0, 352, length).tolist()
    reply = client.completions.create(model=NAME, prompt=ids, max_tokens=0, echo=True, logprobs=5)
    scored = reply.choices[0].logprobs
    assert len(scored.tokens) == len(scored.token_logprobs) == len(scored.top_logprobs) == length
    assert scored.token_logprobs[0] is None and scored.top_logprobs[0] is None
    expected = log_probabilities(ids)
    own = expected[np.arange(length - 1), ids[1:]]
    np.testing.assert_allclose(scored.token_logprobs[1:], own, atol=TOLERANCE)
    best = [max(top.values()) for top in scored.top_logprobs[1:]]
    np.testing.assert_allclose(best, expected[:-1].max(axis=-1), atol=TOLERANCE)
    greedy = np.asarray(ids[1:]) == expected[:-1].argmax(axis=-1)
    assert [own == most for own, most in zip(scored.token_logprobs[1:], best, strict=True)] == greedy.tolist()
    assert reply.usage.completion_tokens == 0 and reply.usage.prompt_tokens == length


def test_prompts_with_what_follows_them(client, model, log_probabilities, id_of):
    prompts = ["a 7+2=9\n", "Start: 07. Steps: a+2 b-3. Result mod 100?", "So 81.\n" * 20]
    reply = client.completions.create(model=NAME, prompt=prompts, max_tokens=6, echo=True, logprobs=3, temperature=0)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    for prompt, choice in zip(prompts, reply.choices, strict=True):
        scored = choice.logprobs
        ids = [id_of[token] for token in scored.tokens]
        read = model.tokenizer.encode(prompt)
        assert ids[: len(read)] == read and choice.text.startswith(prompt)
        expected = log_probabilities(ids)[np.arange(len(ids) - 1), ids[1:]]
        np.testing.assert_allclose(scored.token_logprobs[1:], expected, atol=TOLERANCE)
        for token, offset in zip(scored.tokens, scored.text_offset, strict=True):
            assert token in STOPS or choice.text[offset : offset + len(token)] == token


def test_a_stop_token_has_one_too(client):
    """Else a client that asks for one token and leaves out the last, as lm-evaluation-harness, loses the prompt's."""
    ended = "<|im_start|>answer\nAnswer: 87"
    reply = client.completions.create(model=NAME, prompt=ended, max_tokens=1, echo=True, logprobs=1, temperature=0)
    scored, usage = reply.choices[0].logprobs, reply.usage
    assert scored.tokens[-2:] == ["7", STOP] and reply.choices[0].finish_reason == "stop"
    assert len(scored.token_logprobs) == usage.prompt_tokens + usage.completion_tokens
    assert reply.choices[0].text == ended
