"""Answers of a model that is decoded here, with this project's own engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax.numpy as jnp

from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig, EndpointConfig, SamplingConfig, StoredConfig, UserError, resolve_dtype
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.engine import LONGEST_DEFAULT_ANSWER, Engine, Status, context_length
from s1_jax.decoding.requests import Request
from s1_jax.endpoint import Reply
from s1_jax.sharding import DECODE_RULES, Layout, devices_for, make_mesh

ROOM_FOR_MARKERS = 64  # tokens between prompt, thinking and answer


def decode_here(
    who: EndpointConfig, source: Path, prompts: Sequence[str], show: Callable[[Status], None]
) -> Iterator[tuple[int, Reply | str]]:
    """Replies with the places of their prompts, as they come, or why there can be none; first those of the latter kind.

    `source` is the model's folder. Raises UserError where it is none, and what `show` raises.
    """
    layout = Layout(make_mesh(who.mesh, devices_for(who.mesh)), DECODE_RULES)
    dtype, parts = resolve_dtype("auto"), layout.parts(layout.rules["batch"])
    stored = StoredConfig().resolved(dtype.name)
    tokenizer = hf.load_tokenizer(source)
    ids = [tuple(prompt_ids(tokenizer, prompt)) for prompt in prompts]
    context = context_length(hf.load_config(source))
    engine = Engine(
        *hf.load_for_decoding(source, stored, dtype, layout),
        tokenizer,
        max_model_len=min(context, max(map(len, ids)) + who.max_tokens + ROOM_FOR_MARKERS),
        batch_size=-(-min(who.concurrent, len(prompts)) // parts) * parts,
        dtype=dtype,
        cache_dtype=jnp.dtype(stored.cache),
        layout=layout,
    )
    places, requests = [], []
    for place, prompt in enumerate(ids):
        request = _request(who, prompt, context)
        try:
            engine.check(request)
        except UserError as error:
            yield place, str(error)
        else:
            places.append(place)
            requests.append(request)
    for i, record in engine.run_shared(requests, show):
        ended = record["answer_end"] == "stop" and (record["end"] == "natural" or not who.thinking)
        thinking, text = (
            tokenizer.decode(record[name], skip_special_tokens=True).strip()
            for name in ("thinking_token_ids", "answer_token_ids")
        )
        written = record["num_thinking_tokens"] + record["num_answer_tokens"]
        yield places[i], Reply(thinking, text, "stop" if ended else "length", len(ids[places[i]]), written)


def _request(who: EndpointConfig, prompt: tuple[int, ...], context: int) -> Request:
    """Thinking and answer share `max_tokens`; at least three quarters of them, or of the context, are for thinking."""
    sampling = SamplingConfig(who.temperature or 0.0)
    if not who.thinking:
        return Request(prompt, sampling=sampling, max_answer_tokens=who.max_tokens, thinking=False)
    answer = min(LONGEST_DEFAULT_ANSWER, min(who.max_tokens, context) // 4)
    budget = BudgetConfig(max_thinking_tokens=who.max_tokens - answer)
    return Request(prompt, budget, sampling, max_answer_tokens=answer)
