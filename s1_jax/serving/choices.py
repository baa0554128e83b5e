"""From what bodies have in common to the engine's requests: one for each choice."""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from s1_jax.config import BudgetConfig, SamplingConfig
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.token_ids import marker_at_end, start_ids
from s1_jax.errors import UserError
from s1_jax.serving import fields
from s1_jax.serving.conversation import Prompt
from s1_jax.serving.errors import ApiError, refusal, too_long
from s1_jax.serving.generation import Terms

SEEDS = 2**32
MOST_RESERVED = 1024  # answer tokens that thinking leaves room for


class SamplingFields(fields.Fields):
    """How tokens are sampled, in all protocols; a field that is left out is the server's default."""

    top_p: fields.TopP = None
    top_k: fields.TopK = None
    min_p: fields.MinP = None
    seed: fields.Seed = None
    max_answer_tokens: fields.MaybeCount = None


class Lengths(NamedTuple):
    """How many tokens a choice may have."""

    completion: int | None  # after the start marker: thinking, markers and answer; None: as many as fit
    answer: int
    reserved: int  # of the answer, that thinking leaves room for


def check_model(name: str, terms: Terms) -> None:
    """Raise ApiError if the request is for another model than this server's."""
    if name != terms.model_name:
        known = f"the model {fields.shown(name)} does not exist; this server has {fields.shown(terms.model_name)}"
        raise ApiError(404, known, "model", "model_not_found")


def read_sampling(body: SamplingFields, temperature: float | None, terms: Terms) -> SamplingConfig:
    """Put a request's sampling parameters over the server's defaults. Raises ApiError."""
    top_k = 0 if body.top_k == -1 else body.top_k
    named = {"temperature": temperature, "top_k": top_k, "top_p": body.top_p, "min_p": body.min_p}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    try:
        return dataclasses.replace(terms.config.sampling, **given)
    except UserError as error:
        raise refusal(error, terms, str(error).split(" ")[0]) from None


def read_lengths(name: str, tokens: int | None, body: SamplingFields, terms: Terms) -> Lengths:
    """Return the limits of a choice that may have so many `tokens`, in the field `name`. Raises ApiError."""
    most = terms.config.limits.max_completion_tokens
    if tokens is not None and most is not None and tokens > most:
        raise fields.wrong(name, tokens, f"at most {most}, the server's limit")
    completion = most if tokens is None else tokens
    bound = terms.max_model_len if completion is None else min(completion, terms.max_model_len)
    answer = bound if body.max_answer_tokens is None else min(bound, body.max_answer_tokens)
    return Lengths(completion, answer, min(MOST_RESERVED, bound // 4, answer))


def make_choices(
    prompts: Sequence[Prompt],
    count: int,
    terms: Terms,
    budget: BudgetConfig,
    sampling: SamplingConfig,
    lengths: Lengths,
    stop: Sequence[str],
    seed: int | None,
) -> tuple[Request, ...]:
    """Make the requests of `count` choices for each prompt. Raises ApiError where there are too many or too long."""
    if len(prompts) * count > (most := terms.config.limits.max_choices):
        asked = f"{len(prompts)} prompts with n {count}" if len(prompts) > 1 else f"n {count}"
        raise ApiError(400, f"{asked} are {len(prompts) * count} choices; the server's limit is {most}", "n")
    for prompt in prompts:
        _check(prompt, terms)
    common = Request(
        (),
        sampling=sampling,
        seed=secrets.randbelow(SEEDS) if seed is None else seed % SEEDS,
        max_answer_tokens=lengths.answer,
        name="request",
        reserved_answer_tokens=lengths.reserved,
        stop_strings=tuple(stop),
        max_completion_tokens=lengths.completion,
    )
    return tuple(
        dataclasses.replace(
            common,
            prompt_token_ids=prompt.token_ids,
            budget=budget if prompt.thinking else BudgetConfig(),
            thinking=prompt.thinking,
            given_thinking=prompt.given_thinking,
            sample=sample,
        )
        for prompt in prompts
        for sample in range(count)
    )


def count_prompt(prompt: Prompt, terms: Terms) -> int:
    """Count the tokens that the model reads first: the prompt, the start marker and given thinking."""
    marker = start_ids(terms.tokenizer, terms.format) if prompt.thinking else []
    own = marker and marker_at_end(terms.tokenizer, prompt.token_ids, terms.format.think_start)
    return len(prompt.token_ids) + (0 if own else len(marker)) + len(prompt.given_thinking)


def _check(prompt: Prompt, terms: Terms) -> None:
    """Check a prompt as far as can be said without the engine."""
    ids = prompt.token_ids + prompt.given_thinking
    if not ids:
        raise ApiError(400, "the prompt is empty", "prompt")
    if not 0 <= min(ids) <= max(ids) < terms.vocab_size:
        first = next(i for i in ids if not 0 <= i < terms.vocab_size)
        raise ApiError(400, f"the prompt has token id {first}; ids are from 0 to {terms.vocab_size - 1}", "prompt")
    if len(ids) >= terms.max_model_len:
        raise too_long(f"the prompt has {len(ids):,} tokens", terms)
