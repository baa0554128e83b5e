"""OpenAI's protocol of completions of a text, `/v1/completions`, with log-probabilities of the prompt too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from transformers import PreTrainedTokenizerBase

from s1_jax.serving import fields
from s1_jax.serving.accepted import TEXT
from s1_jax.serving.choices import check_model, make_choices, read_lengths, read_sampling
from s1_jax.serving.conversation import Prompt
from s1_jax.serving.errors import ApiError, openai_error
from s1_jax.serving.generation import Delta, Event, Generation, Terms
from s1_jax.serving.openai_common import Choice, OpenAIFields, OpenAIReply, finish_fields, includes_usage, stop_strings
from s1_jax.serving.thinking import read_thinking
from s1_jax.serving.token_texts import text_scores

__all__ = ["Reply", "error_body", "read"]

DEFAULT_MAX_TOKENS = 16  # as in OpenAI's protocol
PROMPT = "a string, a list of strings, a list of token ids or a list of lists of token ids"

error_body = openai_error


class TextBody(OpenAIFields):
    """The body of a request."""

    prompt: Annotated[str | list[str] | list[int] | list[list[int]], fields.said(PROMPT)]
    max_tokens: fields.MaybeWhole = None
    logprobs: fields.Logprobs = None
    echo: fields.Flag = None
    best_of: fields.Choices = None


def read(body: Mapping[str, Any], terms: Terms) -> Generation:
    """Read the body of a request. Raises ApiError with one sentence on what is wrong with it.

    It thinks only if one of its own fields asks for that.
    """
    fields.check_values(body)
    asked = fields.read_fields(TextBody, body, TEXT)
    check_model(asked.model, terms)
    count, echo = asked.n or 1, bool(asked.echo)
    if asked.best_of not in (None, count):
        raise fields.wrong("best_of", asked.best_of, f"{count}, the same as n")
    tokens = DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
    if tokens == 0 and not echo:
        raise fields.wrong("max_tokens", 0, "a whole number of at least 1 where echo is not true")
    thinking = read_thinking(asked, terms, by_default=False)
    requests = make_choices(
        [Prompt(ids, thinking.on) for ids in _prompts(asked.prompt, terms.tokenizer)],
        count,
        terms,
        budget=thinking.budget,
        sampling=read_sampling(asked, asked.temperature, terms),
        lengths=read_lengths("max_tokens", tokens, asked, terms),
        stop=stop_strings(asked),
        seed=asked.seed,
    )
    return Generation(requests, bool(asked.stream), includes_usage(asked), asked.logprobs, echo)


class Reply(OpenAIReply):
    """The reply to a request for completions."""

    def __init__(self, generation: Generation, terms: Terms) -> None:
        super().__init__(generation, terms, "cmpl-", "text_completion")
        self._written = [0] * len(generation.requests)  # characters of each choice that were sent

    def response(self, events: Sequence[Event]) -> dict[str, Any]:
        """Return the body of a reply that is not streamed, from all its events."""
        choices = self._whole(events)
        return self._response(choices, list(map(self._choice, choices)))

    def start(self) -> list[bytes]:
        """Return the first frames of a stream."""
        return []

    def next(self, event: Event) -> list[bytes]:
        """Return the frames of a stream that tell of an event."""
        if not isinstance(event, Delta):
            self._finished[event.choice] = event
            return [self._chunk({"index": event.choice, "text": "", "logprobs": None, **finish_fields(event)})]
        if not (event.text or event.scores):
            return []
        thinks, begin = event.part == "reasoning", self._written[event.choice]
        logprobs = self._logprobs([], [event]) if thinks else self._logprobs([event], begin=begin)
        choice = {"index": event.choice, "text": "" if thinks else event.text, "logprobs": logprobs}
        if thinks:
            choice |= {"reasoning_content": event.text, "reasoning": event.text}
        else:
            self._written[event.choice] += len(event.text)
        return [self._chunk(choice | {"finish_reason": None})]

    def _choice(self, choice: Choice) -> dict[str, Any]:
        thinks = self.generation.requests[choice.index].thinking
        reasoning = choice.text("reasoning")
        logprobs = self._logprobs(choice.of("prompt", "content"), choice.of("reasoning") if thinks else None)
        made = {"index": choice.index, "text": choice.text("prompt", "content"), "logprobs": logprobs}
        if thinks:
            made |= {"reasoning_content": reasoning, "reasoning": reasoning}
        return made | finish_fields(choice.finish)

    def _logprobs(
        self, text: Sequence[Delta], reasoning: Sequence[Delta] | None = None, begin: int = 0
    ) -> dict[str, Any] | None:
        if self.generation.logprobs is None:
            return None
        found = text_scores(self.texts, [(delta.text, delta.scores) for delta in text], begin)
        if reasoning is not None:
            pieces = [(delta.text, delta.scores) for delta in reasoning]
            found |= {"reasoning_content": text_scores(self.texts, pieces, 0)}
        return found


def _prompts(prompt: str | list[str] | list[int] | list[list[int]], tokenizer: PreTrainedTokenizerBase) -> Any:
    """List the token ids of each prompt."""
    if isinstance(prompt, str):
        return [_ids(prompt, tokenizer)]
    if not prompt:
        raise ApiError(400, "the prompt is an empty list", "prompt")
    if isinstance(prompt[0], int):
        return [tuple(prompt)]
    return [_ids(one, tokenizer) if isinstance(one, str) else tuple(one) for one in prompt]


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Tokenize a prompt with the special tokens that the tokenizer adds, unless it begins with them already."""
    begins = bool(tokenizer.bos_token) and text.startswith(tokenizer.bos_token)
    return tuple(tokenizer.encode(text, add_special_tokens=not begins))
