"""Arguments and keywords from the harness, checked and turned into format, budget and sampling for the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lm_eval.models.utils import normalize_gen_kwargs
from transformers import PreTrainedTokenizerBase

from s1_jax.config import S1, BudgetConfig, FormatConfig, SamplingConfig
from s1_jax.config.budget import AUTO_MARKER
from s1_jax.config.lm_eval import HarnessConfig, KeywordConfig
from s1_jax.data.chat import STOP_TOKENS
from s1_jax.data.formats import read_format
from s1_jax.errors import UserError
from s1_jax.runtime.overrides import override

ANSWER_ROOM = 100  # tokens that max_tokens_thinking=auto reserves for the answer, as in s1's fork
MOST_TRIES = 1000  # tries of rejection_sample=true, which the fork repeats without limit
WHERE = "gen_kwargs"


def read_model_args(given: Mapping[str, Any]) -> HarnessConfig:
    """Read the model's arguments from the harness. Raises UserError on unknown names and wrong values."""
    if given.get("device") is not None:
        raise UserError(
            "model_args: JAX chooses the device; set the environment variable JAX_PLATFORMS (cpu, tpu, cuda)"
        )
    given = {name: value for name, value in given.items() if value is not None}
    size = str(given.get("batch_size", ""))  # a string in the harness
    if size.isdecimal() or size.startswith("auto:"):  # auto:N guesses again N times; nothing is guessed here
        given["batch_size"] = int(size) if size.isdecimal() else "auto"
    config = override(HarnessConfig(), _whole(given), "model_args")
    if not config.pretrained:
        raise UserError("model_args: pretrained=DIR_OR_HUB_ID is missing")
    return config


def read_keywords(given: Mapping[str, Any], config: HarnessConfig) -> KeywordConfig:
    """Read a request's keywords, with the defaults of `config`. Raises UserError on unknown names and wrong values.

    The harness itself resolves other names of max_gen_toks, and do_sample together with temperature.
    """
    given = {name: value for name, value in given.items() if value is not None}
    try:
        values = dict(normalize_gen_kwargs(given, config.max_gen_toks))
    except (TypeError, ValueError) as error:
        raise UserError(f"{WHERE}: {error}") from None
    values["until"] = [string for string in values["until"] if string]
    if values.get("top_k") == -1:  # "all" in vLLM
        values["top_k"] = 0
    if values.get("num_beams") == 1:  # set by some of the harness's tasks, meaning no beam search
        del values["num_beams"]
    keywords = override(KeywordConfig(seed=config.seed), _whole(values), WHERE)
    _check(keywords)
    return keywords


def format_of(keywords: KeywordConfig, tokenizer: PreTrainedTokenizerBase) -> FormatConfig:
    """Return how thinking is marked: its markers and stop tokens end it, and so does `until` if that is asked for.

    Raises UserError where the markers are to be read from the tokenizer, and it does not say them.
    """
    start, answer, final = keywords.thinking_start, keywords.thinking_end, S1.final_answer
    if start == AUTO_MARKER:
        found = read_format(tokenizer).format
        start, final = found.think_start, found.final_answer
        answer = found.answer_start if answer is None and found != S1 else answer
    own = keywords.until_thinking
    if own is None:
        own = S1.end_markers[0] if answer is None else answer
    task = keywords.until if keywords.until_ends_thinking else ()
    eos = tokenizer.eos_token
    ends = [*((own,) if isinstance(own, str) else own), keywords.until_thinking_2, *STOP_TOKENS, eos, *task]
    return FormatConfig(
        think_start=S1.think_start if start is None else start,
        answer_start=S1.answer_start if answer is None else answer,
        final_answer=final,
        early_stopping_text=keywords.early_stopping_text,
        end_markers=tuple(dict.fromkeys(end for end in ends if end)),
    )


def budget_of(keywords: KeywordConfig, auto: int) -> BudgetConfig:
    """Return the thinking budget, with the number `auto` in place of that word. Raises UserError on a wrong one."""
    most = keywords.max_tokens_thinking
    if most == "auto" and auto < 1:
        raise UserError(
            f"{WHERE}: max_gen_toks {keywords.max_gen_toks} leaves no token for max_tokens_thinking=auto after the "
            f"longest prompt and {ANSWER_ROOM} tokens for the answer; raise it"
        )
    least = keywords.min_tokens_thinking
    try:
        return BudgetConfig(
            min_thinking_tokens=(0 if keywords.thinking_n_ignore is None else 1) if least is None else least,
            max_thinking_tokens=auto if most == "auto" else keywords.max_gen_toks if most is None else most,
            num_ignore=keywords.thinking_n_ignore or 0,
            ignore_string=keywords.thinking_n_ignore_str or "",
            notice_fractions=keywords.notice_fractions,
            notices=keywords.notices,
            banned_words=keywords.banned_words,
            max_repetitions=keywords.max_repetitions,
        )
    except UserError as error:
        raise UserError(f"{WHERE}: {error}") from None


def sampling_of(keywords: KeywordConfig) -> tuple[SamplingConfig, SamplingConfig | None]:
    """Return the sampling of the answer, and that of the thinking if it differs. Raises UserError on wrong settings."""
    names = [field.name for field in dataclasses.fields(SamplingConfig)]
    shared = {name: getattr(keywords, name) for name in names}
    own = {name: value for name in names if (value := getattr(keywords, f"{name}_thinking")) is not None}
    try:
        answer, thinking = SamplingConfig(**shared), SamplingConfig(**shared | own)
    except UserError as error:
        raise UserError(f"{WHERE}: {error}") from None
    return answer, None if thinking == answer else thinking


def tries_of(keywords: KeywordConfig) -> int:
    """Return the maximum number of times that thinking is sampled."""
    return MOST_TRIES if keywords.rejection_sample is True else max(int(keywords.rejection_sample), 1)


def _check(keywords: KeywordConfig) -> None:
    answer, thinking = sampling_of(keywords)
    budget_of(keywords, auto=keywords.min_tokens_thinking or 1)
    if not keywords.rejection_sample:
        return
    if keywords.max_tokens_thinking is None:
        raise UserError(f"{WHERE}: rejection_sample needs max_tokens_thinking, the length that is accepted")
    if keywords.thinking_n_ignore is not None:
        raise UserError(f"{WHERE}: rejection_sample and thinking_n_ignore exclude each other; remove one")
    if not (thinking or answer).temperature:
        raise UserError(f"{WHERE}: rejection_sample needs a temperature above 0; otherwise every try is the same")


def _whole(given: Mapping[str, Any]) -> dict[str, Any]:
    """Convert whole floats to integers, because the harness parses 1e3 and -1 as floats; options accept both."""
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in given.items()}
