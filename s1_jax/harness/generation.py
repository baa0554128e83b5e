"""Generation for the harness: all requests are decoded in one run of each engine that they need."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from s1_jax.config import S1, FormatConfig
from s1_jax.config.lm_eval import HarnessConfig, KeywordConfig
from s1_jax.decoding.core.banned_words import banned_tokens
from s1_jax.decoding.core.budget import Suffix
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.engine import Engine, Progress
from s1_jax.decoding.loaded_model import LoadedModel
from s1_jax.errors import UserError
from s1_jax.harness.encoding import prefix_id, text_ids
from s1_jax.harness.keywords import ANSWER_ROOM, budget_of, format_of, read_keywords, sampling_of, tries_of
from s1_jax.search.rejection import sample_until_natural
from s1_jax.tasks.answers import written

log = logging.getLogger(__name__)


class Asked(NamedTuple):
    """A request of the harness for one text."""

    name: str  # for error messages
    context: str
    gen_kwargs: Mapping[str, Any]


class _Run(NamedTuple):
    """Properties that the requests of one run share."""

    format: FormatConfig
    rejecting: bool


def generate(
    model: LoadedModel, config: HarnessConfig, asked: Sequence[Asked], progress: Progress | None = None
) -> Iterator[tuple[int, str]]:
    """Yield the index of each request and its text, as they are done.

    A text is start marker, thinking, end marker and answer, or the answer alone. It ends before the stop token, and
    before the first of the `until` strings in the answer. Raises UserError on wrong keywords, and on requests that the
    engine cannot decode, before anything is decoded.
    """
    keywords = []
    for one in asked:
        with _naming(one.name):
            keywords.append(read_keywords(one.gen_kwargs, config))
    runs: dict[_Run, list[int]] = defaultdict(list)
    for index, its in enumerate(keywords):
        format = format_of(its, model.tokenizer) if its.thinks else S1
        runs[_Run(format, tries_of(its) > 1)].append(index)
    planned = [
        (run, engine, indices, _requests(engine, model, [asked[i] for i in indices], [keywords[i] for i in indices]))
        for run, indices in runs.items()
        for engine in [model.engine(config.max_length, config.rows, run.format, config.draft_tokens, runs=len(indices))]
    ]
    for _, engine, _, requests in planned:
        for request in requests:
            with _naming(request.name):
                engine.check(request)
    for words in dict.fromkeys(its.banned_words for its in keywords if its.banned_words):
        log.info(str(banned_tokens(model.tokenizer, words, model.config.vocab_size)))
    for run, engine, indices, requests in planned:
        for i, record in _records(run, engine, requests, [tries_of(keywords[index]) for index in indices], progress):
            yield indices[i], text_of(model, record, keywords[indices[i]].until)


def text_of(model: LoadedModel, record: Mapping[str, Any], until: Sequence[str]) -> str:
    """Return a record's text without the stop token, with its answer up to the first of the `until` strings."""
    text = written(record)
    answer = model.tokenizer.decode(record["answer_token_ids"], skip_special_tokens=False)
    if record["num_thinking_tokens"]:  # white space between thinking and answer ends nothing
        answer = answer.lstrip()
    before = text[: len(text) - len(answer)]
    for string in until:
        answer = answer.split(string)[0]
    return before + answer


def _records(
    run: _Run, engine: Engine, requests: Sequence[Request], tries: Sequence[int], progress: Progress | None
) -> Iterable[tuple[int, dict[str, Any]]]:
    if not run.rejecting:
        yield from enumerate(engine.run(requests, progress))
        return
    cut = 0
    for i, record in sample_until_natural(engine, requests, tries, progress):
        cut += record["end"] != "natural"
        yield i, record
    if cut:
        log.warning("rejection_sample: %d of %d requests were cut even in the last try", cut, len(requests))


def _requests(
    engine: Engine, model: LoadedModel, asked: Sequence[Asked], keywords: Sequence[KeywordConfig]
) -> list[Request]:
    """Build the engine's requests; a repeated text is another sample, and a prompt that is too long loses its start."""
    prompts = [text_ids(model.tokenizer, one.context) or [prefix_id(model.tokenizer)] for one in asked]
    longest: Counter[KeywordConfig] = Counter()  # longest prompt for each set of keywords
    for prompt, its in zip(prompts, keywords, strict=True):
        longest[its] = max(longest[its], len(prompt))
    forced = int(engine.markers.suffix_lengths[Suffix.FORCED])
    samples: Counter[tuple[str, KeywordConfig]] = Counter()
    requests, shortened = [], 0
    for one, prompt, its in zip(asked, prompts, keywords, strict=True):
        auto = its.max_gen_toks - longest[its] - len(engine.start_ids) - forced - ANSWER_ROOM
        with _naming(one.name):
            request = _request(its, auto, engine.max_model_len, sample=samples[one.context, its], name=one.name)
        samples[one.context, its] += 1
        room = engine.max_model_len - max(engine.needed(request), min(its.max_gen_toks, ANSWER_ROOM))
        if room < 1:
            raise UserError(f"max_length {engine.max_model_len} leaves no room for a prompt; raise it")
        shortened += len(prompt) > room
        requests.append(dataclasses.replace(request, prompt_token_ids=tuple(prompt[-room:])))
    if shortened:
        log.warning("%d of %d prompts are too long for max_length; their starts were cut", shortened, len(requests))
    return requests


def _request(keywords: KeywordConfig, auto: int, max_length: int, **known: Any) -> Request:
    answer, thinking = sampling_of(keywords)
    request = Request(
        (),
        sampling=answer,
        seed=keywords.seed,
        max_answer_tokens=keywords.max_gen_toks,
        stop_strings=keywords.until,
        thinking=False,
        **known,
    )
    if not keywords.thinks:
        return request
    return dataclasses.replace(
        request,
        thinking=True,
        budget=budget_of(keywords, auto),
        thinking_sampling=thinking,
        # what max_tokens_thinking=auto leaves, without the newline before the end marker
        reserved_answer_tokens=min(keywords.max_gen_toks, ANSWER_ROOM - 1, max_length // 4),
    )


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Prefix the message of a UserError within this context with the name."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(name) else f"{name}: {error}") from None
