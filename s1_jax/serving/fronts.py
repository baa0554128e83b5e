"""The protocols that the server speaks, by the path of their requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from s1_jax.serving import anthropic, openai_chat, openai_text
from s1_jax.serving.errors import ApiError
from s1_jax.serving.generation import Event, Generation, Terms


class Reply(Protocol):
    """One reply: a body from all events at once, or the frames of a stream as events come."""

    def response(self, events: Sequence[Event]) -> dict[str, Any]:
        """Return the body of a reply that is not streamed, from all its events."""

    def start(self) -> list[bytes]:
        """Return the first frames of a stream."""

    def next(self, event: Event) -> list[bytes]:
        """Return the frames of a stream that tell of an event."""

    def end(self) -> list[bytes]:
        """Return the last frames of a stream."""

    def failed(self, error: ApiError) -> list[bytes]:
        """Return the last frames of a stream that an error ends."""


class Front(NamedTuple):
    """A protocol: how it reads a body, writes a reply, and tells of an error."""

    read: Callable[[Mapping[str, Any], Terms], Generation]  # raises ApiError
    reply: Callable[[Generation, Terms], Reply]
    error_body: Callable[[ApiError], dict[str, Any]]


FRONTS: Mapping[str, Front] = {
    "/v1/chat/completions": Front(openai_chat.read, openai_chat.Reply, openai_chat.error_body),
    "/v1/completions": Front(openai_text.read, openai_text.Reply, openai_text.error_body),
    "/v1/messages": Front(anthropic.read, anthropic.Reply, anthropic.error_body),
}
