"""Replies of a model that is decoded here, with this project's own engine."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from s1_jax.checkpoints import hf
from s1_jax.checkpoints.stops import declared_stops
from s1_jax.config import BudgetConfig, EndpointConfig, SamplingConfig
from s1_jax.data.chat import STOP_TOKENS, prompt_ids
from s1_jax.data.formats import resolve_format
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.token_ids import stop_ids, stop_texts
from s1_jax.decoding.engine import LONGEST_DEFAULT_ANSWER, Status, context_length
from s1_jax.decoding.loaded_model import load_model
from s1_jax.errors import UserError
from s1_jax.records.options import format_field
from s1_jax.runtime.completion import split_thinking
from s1_jax.runtime.endpoint import Reply
from s1_jax.runtime.terminal import say

ROOM_FOR_MARKERS = 64  # tokens between prompt, thinking and answer


def decode_here(
    who: EndpointConfig, source: Path, prompts: Sequence[str], show: Callable[[Status], None]
) -> Iterator[tuple[int, Reply | str]]:
    """Yield the index of each prompt with its reply, or with the reason why it cannot be decoded.

    The reasons come first, then the replies as they are done. `source` is the folder of the model, and `show` is told
    how far decoding is. Raises UserError if the folder holds no model, and whatever `show` raises.
    """
    model = load_model(source, "auto", mesh=who.mesh, format=who.format)
    tokenizer, context = model.tokenizer, context_length(model.config)
    if line := resolve_format(who.format, tokenizer)[1]:
        say(line, file=sys.stderr)
    ids = [tuple(prompt_ids(tokenizer, prompt, who.thinking)) for prompt in prompts]
    longest = min(context, max(map(len, ids)) + who.max_tokens + ROOM_FOR_MARKERS)
    engine = model.engine(longest, who.concurrent, runs=len(prompts))
    decodable, requests = [], []
    for index, prompt in enumerate(ids):
        request = dataclasses.replace(_request(who, prompt, context), name=f"prompt {index}")
        try:
            engine.check(request)
        except UserError as error:
            yield index, str(error)
        else:
            decodable.append(index)
            requests.append(request)
    for i, record in engine.run_shared(requests, show):
        ended = record["answer_end"] == "stop" and (record["end"] == "natural" or not who.thinking)
        thinking, text = (
            tokenizer.decode(record[name], skip_special_tokens=True).strip()
            for name in ("thinking_token_ids", "answer_token_ids")
        )
        if not who.thinking:  # the chat template, or the model by itself, may have opened it
            thinking, text = split_thinking(text)
        written = record["num_thinking_tokens"] + record["num_answer_tokens"]
        index = decodable[i]
        yield index, Reply(thinking, text, "stop" if ended else "length", len(ids[index]), written)


def unusual(who: EndpointConfig, source: Path) -> list[Any]:
    """Return format and stop tokens, which decide the replies too, if they differ from those of s1's models.

    The list is empty if they do not. Raises UserError if `source` holds no model.
    """
    tokenizer, vocab_size = hf.load_tokenizer(source), hf.load_config(source).vocab_size
    stops = stop_ids(tokenizer, declared_stops(source, vocab_size), vocab_size)
    found = [format_field(resolve_format(who.format, tokenizer)[0]), list(stop_texts(tokenizer, stops))]
    return [] if found == [None, sorted(STOP_TOKENS)] else found


def _request(who: EndpointConfig, prompt: tuple[int, ...], context: int) -> Request:
    """Return the request for a prompt; at least three quarters of `max_tokens`, or of the context, go to thinking."""
    sampling = SamplingConfig(who.temperature or 0.0)
    if not who.thinking:
        return Request(prompt, sampling=sampling, max_answer_tokens=who.max_tokens, thinking=False)
    answer = min(LONGEST_DEFAULT_ANSWER, min(who.max_tokens, context) // 4)
    budget = BudgetConfig(max_thinking_tokens=who.max_tokens - answer)
    return Request(prompt, budget, sampling, max_answer_tokens=answer)
