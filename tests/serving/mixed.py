"""Requests of every kind, as the engine takes them and as they go over the wire, and what must come of them."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from s1_jax import LoadedModel
from s1_jax.config import BudgetConfig, SamplingConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.records import Record
from tests.serving.running import CHAT, NAME, TEXT

STEPS = ("a+2 b-3", "a-9", "c+7 a+5 b-1", "a+1 b+1 c+1 d+1", "a-5 b+6", "b+9 c-2 d+3")
STOPS = ("<|im_end|>", "<|endoftext|>")
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 2.0, "top_k": 20},
    {"temperature": 2.0, "top_p": 0.8},
    {"temperature": 1.5, "min_p": 0.05},
)
BUDGETS: tuple[dict[str, Any], ...] = (  # as the request's field `thinking` has them
    {"max_tokens": 1},
    {"max_tokens": 17},
    {"max_tokens": 40, "min_tokens": 30},
    {"max_tokens": 60, "end_bias": 60.0, "num_ignore": 2, "ignore_string": "Wait"},
    {"max_tokens": 60, "end_bias": 60.0, "num_ignore": 3, "ignore_string": ["Hm", "But"]},
    {"max_tokens": 50, "newline_grace": 0.1},
    {"max_tokens": 40, "notice_fractions": [0.5], "notices": ["Half."]},
    {"max_tokens": 80, "max_repetitions": 3},
    {},
)
OTHER_NAMES = {"max_tokens": "max_thinking_tokens", "min_tokens": "min_thinking_tokens"}


class Asked(NamedTuple):
    """One request: what the engine is asked, and what the server is."""

    request: Request
    path: str
    body: dict[str, Any]


class Said(NamedTuple):
    """What comes of a request."""

    reasoning: str | None
    content: str
    thinking_end: str | None
    ignores_used: int
    reasoning_tokens: int


def made_up(model: LoadedModel, count: int, seed: int = 0) -> list[Asked]:
    """Make so many requests of mixed prompts, budgets and settings, no two of them the same."""
    rng = np.random.default_rng(seed)
    return [_one(model, rng, number) for number in range(count)]


def _one(model: LoadedModel, rng: np.random.Generator, number: int) -> Asked:
    steps, start = STEPS[rng.integers(len(STEPS))], int(rng.integers(100))
    text = f"Start: {start:02}. Steps: {steps}. Result mod 100?"
    sampling, length = SAMPLINGS[rng.integers(len(SAMPLINGS))], int(rng.integers(1, 24))
    settings = {"seed": number, **sampling}
    request = Request(
        (), sampling=SamplingConfig(**sampling), seed=number, max_answer_tokens=length, name=f"request {number}"
    )
    if rng.random() < 0.15:  # a text that is completed, without thinking
        ids = tuple(model.tokenizer.encode(text[: rng.integers(9, len(text))]))
        request = dataclasses.replace(request, prompt_token_ids=ids, thinking=False, max_completion_tokens=length)
        return Asked(request, TEXT, {"model": NAME, "prompt": list(ids), "max_tokens": length} | settings)
    thinking = BUDGETS[rng.integers(len(BUDGETS))]
    stop = ("1",) if rng.random() < 0.2 else ()
    budget: dict[str, Any] = {OTHER_NAMES.get(name, name): value for name, value in thinking.items()}
    budget = {name: tuple(value) if isinstance(value, list) else value for name, value in budget.items()}
    request = dataclasses.replace(
        request,
        prompt_token_ids=model.prompt_token_ids(text),
        budget=BudgetConfig(**budget),
        stop_strings=stop,
    )
    body = {"model": NAME, "messages": [{"role": "user", "content": text}], "thinking": thinking}
    return Asked(request, CHAT, body | {"max_answer_tokens": length, "stop": list(stop)} | settings)


def expected(model: LoadedModel, request: Request, record: Record) -> Said:
    """What the server must say, from the record of the same request."""
    text = record["text"]
    for stop in STOPS:
        text = text.removesuffix(stop)
    if not request.thinking:
        return Said(None, text, None, 0, 0)
    thought = model.tokenizer.backend_tokenizer.decode(record["thinking_token_ids"], skip_special_tokens=False)
    answer = text.rpartition(model.format.answer_start)[2].lstrip()
    for stop in request.stop_strings:
        answer = answer.partition(stop)[0]
    return Said(thought, answer, record["end"], record["ignores_used"], record["num_thinking_tokens"])


def said(reply: Any) -> Said:
    """What a server's reply to a request with one choice says."""
    (choice,) = reply["choices"]
    counts = reply["usage"]["completion_tokens_details"]
    if "text" in choice:
        texts = None, choice["text"]
    else:
        texts = choice["message"]["reasoning_content"], choice["message"]["content"]
    return Said(*texts, choice["thinking_end"], choice["ignores_used"], counts["reasoning_tokens"])


def said_by_stream(chunks: list[Any]) -> Said:
    """What the chunks of a stream with one choice and its usage say."""
    *chunks, last, done = chunks
    assert done == "[DONE]"
    choices = [chunk["choices"][0] for chunk in chunks]
    deltas = [choice.get("delta", choice) for choice in choices]
    content = "".join(delta.get("content", delta.get("text")) or "" for delta in deltas)
    thoughts = [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta]
    end, ignores = choices[-1]["thinking_end"], choices[-1]["ignores_used"]
    reasoning = None if end is None else "".join(thoughts)
    return Said(reasoning, content, end, ignores, last["usage"]["completion_tokens_details"]["reasoning_tokens"])
