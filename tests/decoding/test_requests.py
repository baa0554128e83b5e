"""What a request asks for, what is refused, and what its record says."""

from __future__ import annotations

import dataclasses

import pytest

from s1_jax.config import BudgetConfig, SamplingConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine
from s1_jax.errors import UserError
from tests.decoding.byte_model import MAX_ANSWER, MAX_MODEL_LEN, PROMPTS, SAMPLED, TOKENIZER, V, budgets, generated
from tests.decoding.plain import draw


def test_records(engine):
    budget = BudgetConfig(2, 9, 3, ("Hm", "", "no"))
    request = Request(PROMPTS[1], budget, problem_id="p-1", sample=3, seed=5, max_answer_tokens=MAX_ANSWER)
    (record,) = engine.run([request])
    assert list(record)[:5] == ["task", "problem_id", "sample", "seed", "temperature"]
    expected = {
        "task": None,
        "problem_id": "p-1",
        "sample": 3,
        "seed": 5,
        "temperature": 0.0,
        "forcing": True,
        "min_thinking_tokens": 2,
        "max_thinking_tokens": 9,
        "num_ignore": 3,
        "ignore_string": ["Hm", "", "no"],
        "prompt_token_ids": list(PROMPTS[1]),
        "extracted_answer": None,
        "gold": None,
        "correct": None,
        "graded_by": None,
    }
    assert {name: record[name] for name in expected} == expected
    assert record["num_thinking_tokens"] == len(record["thinking_token_ids"]) <= 9
    assert record["num_answer_tokens"] == len(record["answer_token_ids"]) <= MAX_ANSWER
    assert record["text"].startswith("<|im_start|>think")


def test_text_runs_from_the_start_marker_to_the_stop_token(engine, words):
    requests = [Request(prompt, budget, max_answer_tokens=MAX_ANSWER) for prompt in PROMPTS for budget in budgets()]
    ends = set()
    for record in engine.run(requests):
        body = TOKENIZER.decode([*words.start, *generated(record, words)])
        last = ("<|im_end|>", "<|endoftext|>") if record["answer_end"] == "stop" else ("",)
        assert record["text"] in [body + stop for stop in last]
        ends.add((record["end"], record["answer_end"]))
    assert len(ends) > 2


def test_what_cannot_be_decoded_names_the_row_before_anything_is(engine):
    good = Request(PROMPTS[0])
    for bad, message in (
        (Request((), name="row 7"), "row 7: the prompt is empty"),
        (Request((V,), name="row 7"), "row 7: token id 264 lies outside"),
        (
            Request((1,) * 100, max_answer_tokens=40, name="row 7"),
            "row 7: a prompt of 100 tokens and 68 for markers and answer pass",
        ),
        (Request((1,), max_answer_tokens=-1, name="row 7"), "row 7: max_answer_tokens -1 is negative"),
        (Request((1,), BudgetConfig(forcing=False, num_ignore=1), name="row 7"), "row 7: num_ignore needs forcing"),
        (Request((1,), BudgetConfig(forcing=False, min_thinking_tokens=2)), "min_thinking_tokens needs forcing"),
        (
            Request((1,), BudgetConfig(1, 20, 2, forcing=False, newline_grace=0.1, end_bias=1.0), name="row 7"),
            "num_ignore and newline_grace and end_bias need forcing",
        ),
        (
            Request((1,), BudgetConfig(2, 20), thinking=False, name="row 7"),
            "row 7: without thinking there is no budget; leave out min_thinking_tokens and max_thinking_tokens",
        ),
    ):
        with pytest.raises(UserError, match=message):
            engine.run([good, bad])
    assert next(engine.run([Request((1,) * 92, max_answer_tokens=39)]))["end"] in ("context", "natural")


def test_lengths_and_sizes_are_checked(model):
    _, config, params = model
    for options in ({"max_model_len": 257}, {"max_model_len": 0}, {"batch_size": 0}):
        with pytest.raises(UserError, match=next(iter(options))):
            Engine(config, params, TOKENIZER, **options)
    assert Engine(config, params, TOKENIZER).max_model_len == 256


def test_without_thinking_the_answer_begins_at_once(engine, scores, words):
    for prompt in PROMPTS:
        (record,) = engine.run([Request(prompt, max_answer_tokens=12, thinking=False)])
        text, answer = list(prompt), []
        while len(answer) < 12 and not (answer and answer[-1] in words.stops):
            answer.append(draw(scores([*text, *answer]), frozenset(), words)[0])
        stopped = answer[-1] in words.stops
        assert record["answer_token_ids"] == (answer[:-1] if stopped else answer)
        assert record["text"] == TOKENIZER.decode(answer)
        assert (record["end"], record["num_thinking_tokens"]) == ("none", 0)
        assert record["answer_end"] == ("stop" if stopped else "length") and record["thinking"] is False


def test_a_stop_string_ends_an_answer_when_it_is_whole(engine):
    """Noticed only now and then; what a record has does not depend on that."""
    free = Request(PROMPTS[0], BudgetConfig(), SamplingConfig(1.0), thinking=False, max_answer_tokens=MAX_MODEL_LEN)
    requests = [dataclasses.replace(free, sample=i) for i in range(40)]
    longest = max(engine.run(requests), key=lambda record: record["num_answer_tokens"])
    (place,) = [i for i, request in enumerate(requests) if request.sample == longest["sample"]]
    text = TOKENIZER.decode(longest["answer_token_ids"])
    string = text[9:12]
    strings = ("not there", string)
    stopped = dataclasses.replace(requests[place], stop_strings=strings)
    before = engine.decoded_tokens
    (record,) = engine.run([stopped])
    assert record["answer_end"] == "stop" and record["stop_strings"] == list(strings)
    assert record["answer_token_ids"] == longest["answer_token_ids"][: record["num_answer_tokens"]]
    written = TOKENIZER.decode(record["answer_token_ids"])
    assert written == text[: text.index(string) + len(string)] == record["text"]
    assert engine.decoded_tokens - before < longest["num_answer_tokens"]


def test_an_answer_may_be_longer_than_what_thinking_leaves_to_it(engine, words):
    short = Request(PROMPTS[0], BudgetConfig(max_thinking_tokens=9), max_answer_tokens=5)
    long = dataclasses.replace(short, max_answer_tokens=MAX_MODEL_LEN, reserved_answer_tokens=5)
    few, many = engine.run([short, long])
    assert many["answer_token_ids"][:5] == few["answer_token_ids"] and many["answer_end"] in ("stop", "context")
    unending = dataclasses.replace(long, budget=BudgetConfig(min_thinking_tokens=MAX_MODEL_LEN))
    (record,) = engine.run([unending])
    forced = len(words.forced) + 1
    assert record["end"] == "context" and record["num_thinking_tokens"] == (
        MAX_MODEL_LEN - len(PROMPTS[0]) - len(words.start) - forced - 5
    )


def test_thinking_is_drawn_by_settings_of_its_own(engine):
    budget = BudgetConfig(10, 10)
    both = [Request(PROMPTS[0], budget, SAMPLED, sample=i, max_answer_tokens=8) for i in range(6)]
    answers = [dataclasses.replace(request, thinking_sampling=SamplingConfig()) for request in both]
    thoughts = [dataclasses.replace(r, sampling=SamplingConfig(), thinking_sampling=SAMPLED) for r in both]
    (greedy,) = engine.run([dataclasses.replace(both[0], sampling=SamplingConfig())])
    drawn, by_answer, by_thought = (list(engine.run(requests)) for requests in (both, answers, thoughts))
    assert [r["thinking_token_ids"] for r in by_thought] == [r["thinking_token_ids"] for r in drawn]
    assert {tuple(r["thinking_token_ids"]) for r in by_answer} == {tuple(greedy["thinking_token_ids"])}
    assert len({r["text"] for r in by_answer}) > 1
