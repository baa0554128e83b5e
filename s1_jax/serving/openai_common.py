"""What the two protocols of OpenAI share: fields of bodies, and the frame of replies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from s1_jax.decoding.core.requests import Request
from s1_jax.serving import fields
from s1_jax.serving.accepted import STREAM_OPTIONS
from s1_jax.serving.choices import SamplingFields
from s1_jax.serving.errors import ApiError, openai_error
from s1_jax.serving.frames import DONE, frame, new_id
from s1_jax.serving.generation import Delta, Event, Finish, Generation, Part, Terms, TokenScore
from s1_jax.serving.thinking import ThinkingFields
from s1_jax.serving.token_texts import token_texts


class OpenAIFields(SamplingFields, ThinkingFields):
    """Fields that both bodies have."""

    model: fields.Text
    n: fields.Choices = None
    temperature: fields.Temperature = None
    stop: fields.Stops = None
    stream: fields.Flag = None
    stream_options: fields.Object = None


class StreamOptions(fields.Fields):
    """The field `stream_options` of a body."""

    include_usage: fields.Flag = None


def stop_strings(body: OpenAIFields) -> list[str]:
    """Return the strings that end an answer."""
    return [body.stop] if isinstance(body.stop, str) else body.stop or []


def includes_usage(body: OpenAIFields) -> bool:
    """Return whether the stream is to end with a chunk that has the usage. Raises ApiError."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise ApiError(400, "stream_options is given, but stream is not true", "stream_options")
    options = fields.read_fields(StreamOptions, body.stream_options, STREAM_OPTIONS, "stream_options")
    return bool(options.include_usage)


class Choice:
    """All events of one choice, of which the last is its end."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.deltas = [event for event in events if isinstance(event, Delta)]
        (self.finish,) = (event for event in events if isinstance(event, Finish))
        self.index = self.finish.choice

    def of(self, *parts: Part) -> list[Delta]:
        """List the deltas of these parts."""
        return [delta for delta in self.deltas if delta.part in parts]

    def text(self, *parts: Part) -> str:
        """Join the texts of these parts."""
        return "".join(delta.text for delta in self.of(*parts))

    def scores(self, *parts: Part) -> list[TokenScore]:
        """List the log-probabilities of the tokens of these parts."""
        return [score for delta in self.of(*parts) for score in delta.scores]


class OpenAIReply:
    """One reply, to be read at once or as a stream."""

    def __init__(self, generation: Generation, terms: Terms, prefix: str, kind: str) -> None:
        self.generation, self.texts = generation, token_texts(terms.tokenizer)
        self._head = {"id": new_id(prefix), "object": kind, "created": int(time.time()), "model": terms.model_name}
        self._no_usage = {"usage": None} if generation.include_usage else {}
        self._finished: dict[int, Finish] = {}

    def end(self) -> list[bytes]:
        """Return the last frames of a stream."""
        if not self.generation.include_usage:
            return [DONE]
        counts = usage(self.generation.requests, self._finished)
        return [frame(self._head | {"choices": [], "usage": counts}), DONE]

    def failed(self, error: ApiError) -> list[bytes]:
        """Return the last frames of a stream that an error ends."""
        return [frame(openai_error(error))]

    def _whole(self, events: Sequence[Event]) -> list[Choice]:
        of_choices: list[list[Event]] = [[] for _ in self.generation.requests]
        for event in events:
            of_choices[event.choice].append(event)
        return list(map(Choice, of_choices))

    def _response(self, choices: Sequence[Choice], made: Sequence[dict[str, Any]]) -> dict[str, Any]:
        counts = usage(self.generation.requests, {choice.index: choice.finish for choice in choices})
        return self._head | {"choices": list(made), "usage": counts}

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return frame({**self._head, "choices": [choice], **self._no_usage})


def finish_fields(finish: Finish) -> dict[str, Any]:
    """Return the fields of a choice that say how it ended, this project's own beside OpenAI's."""
    return {
        "finish_reason": finish.reason,
        "stop_reason": finish.stop_string,
        "thinking_end": finish.thinking_end,
        "ignores_used": finish.ignores_used,
    }


def usage(requests: Sequence[Request], finished: dict[int, Finish]) -> dict[str, Any]:
    """Add up the tokens of all choices; a prompt counts once, however many choices it has."""
    counts = [finish.usage for finish in finished.values()]
    first = [finish.usage for choice, finish in finished.items() if requests[choice].sample == 0]
    prompt, completion = sum(count.prompt for count in first), sum(count.completion for count in counts)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(count.cached for count in first)},
        "completion_tokens_details": {"reasoning_tokens": sum(count.reasoning for count in counts)},
    }
