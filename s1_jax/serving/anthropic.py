"""Anthropic's protocol of messages, `/v1/messages`, with thinking blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from s1_jax.serving import fields
from s1_jax.serving.accepted import MESSAGES, TEXT_BLOCK
from s1_jax.serving.choices import (
    SamplingFields,
    check_model,
    count_prompt,
    make_choices,
    read_lengths,
    read_sampling,
)
from s1_jax.serving.conversation import Conversation, Prompt, Turn, chat_prompt
from s1_jax.serving.errors import ApiError, anthropic_error
from s1_jax.serving.frames import frame, new_id
from s1_jax.serving.generation import Event, Finish, Generation, Part, Terms
from s1_jax.serving.thinking import Thinking, ThinkingField, read_thinking

__all__ = ["Reply", "count_tokens", "error_body", "read"]

ROLES = ("user", "assistant", "system")
NOT_SUPPORTED = {
    "image": "images are",
    "document": "documents are",
    "search_result": "search results are",
    "tool_use": "tools are",
    "tool_result": "tools are",
    "server_tool_use": "tools are",
    "redacted_thinking": "redacted thinking is",
}
BLOCKS = {"reasoning": ("thinking", "thinking_delta"), "content": ("text", "text_delta")}  # type, type of deltas

NOT_ENDED: Mapping[str, Any] = {"stop_reason": None, "stop_sequence": None}

error_body = anthropic_error


class CountBody(ThinkingField):
    """The body of a request that only counts the tokens of a prompt."""

    model: fields.Text
    messages: Annotated[Annotated[list[Any], Field(min_length=1)], fields.said("a list of at least one message")]
    system: Annotated[str | list[Any] | None, fields.said("a string or a list of text blocks")] = None


class MessagesBody(CountBody, SamplingFields):
    """The body of a request."""

    max_tokens: fields.Count
    temperature: fields.LowTemperature = None
    stop_sequences: fields.StopList = None
    stream: fields.Flag = None


class Message(fields.Fields):
    """One message of a conversation."""

    role: fields.Text
    content: Annotated[str | list[Any], fields.said("a string or a list of blocks")]


class TextBlock(fields.Fields):
    """A text in a message's content."""

    type: fields.Text
    text: fields.Text


class ThinkingBlock(fields.Fields):
    """The thinking of an earlier message of the assistant's; the signature is not looked at."""

    type: fields.Text
    thinking: fields.Text
    signature: fields.MaybeText = None


def read(body: Mapping[str, Any], terms: Terms) -> Generation:
    """Read the body of a request. Raises ApiError with one sentence on what is wrong with it.

    Without the field `thinking` the server's default holds.
    """
    fields.check_values(body)
    asked = fields.read_fields(MessagesBody, body, MESSAGES)
    prompt, thinking = _prompt(asked, terms)
    most = asked.max_tokens
    if (tokens := (asked.thinking or {}).get("budget_tokens")) is not None and tokens >= most:
        raise fields.wrong("thinking.budget_tokens", tokens, f"below max_tokens, which is {most}")
    requests = make_choices(
        [prompt],
        1,
        terms,
        budget=thinking.budget,
        sampling=read_sampling(asked, asked.temperature, terms),
        lengths=read_lengths("max_tokens", most, asked, terms),
        stop=asked.stop_sequences or [],
        seed=asked.seed,
    )
    return Generation(requests, bool(asked.stream))


def count_tokens(body: Mapping[str, Any], terms: Terms) -> dict[str, Any]:
    """Return the reply to a request that only counts the tokens of its prompt. Raises ApiError as `read` does."""
    fields.check_values(body)
    prompt, _ = _prompt(fields.read_fields(CountBody, body, MESSAGES), terms)
    return {"input_tokens": count_prompt(prompt, terms)}


class Reply:
    """The reply to a request: one message of thinking and text blocks."""

    def __init__(self, generation: Generation, terms: Terms) -> None:
        (request,) = generation.requests
        prompt = Prompt(request.prompt_token_ids, request.thinking, request.given_thinking)
        self._message = {"id": new_id("msg_"), "type": "message", "role": "assistant", "model": terms.model_name}
        self._num_prompt = count_prompt(prompt, terms)
        self._block: Part | None = None  # that is open
        self._num_blocks = 0  # that were closed
        self._finish: Finish | None = None

    def response(self, events: Sequence[Event]) -> dict[str, Any]:
        """Return the body of a reply that is not streamed, from all its events."""
        texts = {"reasoning": "", "content": ""}
        for event in events:
            if isinstance(event, Finish):
                self._finish = event
            else:
                texts[event.part] += event.text
        content = [_block(part, text) for part, text in texts.items() if text]
        assert self._finish is not None
        return {**self._message, "content": content, **_ending(self._finish), "usage": _usage(self._finish)}

    def start(self) -> list[bytes]:
        """Return the first frames of a stream."""
        counts = {"input_tokens": self._num_prompt, "output_tokens": 0}
        counts |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        message: dict[str, Any] = {
            **self._message,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": counts,
        }
        return [_event("message_start", message=message)]

    def next(self, event: Event) -> list[bytes]:
        """Return the frames of a stream that tell of an event."""
        if isinstance(event, Finish):
            self._finish = event
            return self._close()
        if not event.text:
            return []
        frames = [] if event.part == self._block else [*self._close(), *self._open(event.part)]
        kind, delta = BLOCKS[event.part]
        return [*frames, self._delta({"type": delta, kind: event.text})]

    def end(self) -> list[bytes]:
        """Return the last frames of a stream."""
        assert self._finish is not None
        ended = _event("message_delta", delta=_ending(self._finish), usage=_usage(self._finish))
        return [ended, _event("message_stop")]

    def failed(self, error: ApiError) -> list[bytes]:
        """Return the last frames of a stream that an error ends."""
        return [frame(anthropic_error(error), "error")]

    def _open(self, part: Part) -> list[bytes]:
        self._block = part
        return [_event("content_block_start", index=self._num_blocks, content_block=_block(part, ""))]

    def _close(self) -> list[bytes]:
        if self._block is None:
            return []
        signed = [self._delta({"type": "signature_delta", "signature": ""})] if self._block == "reasoning" else []
        closed = _event("content_block_stop", index=self._num_blocks)
        self._block, self._num_blocks = None, self._num_blocks + 1
        return [*signed, closed]

    def _delta(self, delta: dict[str, str]) -> bytes:
        return _event("content_block_delta", index=self._num_blocks, delta=delta)


def _event(kind: str, **values: Any) -> bytes:
    return frame({"type": kind, **values}, kind)


def _block(part: str, text: str) -> dict[str, str]:
    kind = BLOCKS[part][0]
    return {"type": kind, kind: text} | ({"signature": ""} if part == "reasoning" else {})


def _ending(finish: Finish) -> dict[str, Any]:
    """Return the fields that say how a message ended, this project's own beside Anthropic's."""
    reason = "max_tokens" if finish.reason == "length" else "stop_sequence" if finish.stop_string else "end_turn"
    own = {"thinking_end": finish.thinking_end, "ignores_used": finish.ignores_used}
    return {"stop_reason": reason, "stop_sequence": finish.stop_string, **own}


def _usage(finish: Finish) -> dict[str, Any]:
    """Return the numbers of tokens; in this protocol those of the cache are no input tokens."""
    counts = finish.usage
    return {
        "input_tokens": counts.prompt - counts.cached,
        "output_tokens": counts.completion,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.cached,
        "output_tokens_details": {"thinking_tokens": counts.reasoning},
    }


def _prompt(body: CountBody, terms: Terms) -> tuple[Prompt, Thinking]:
    check_model(body.model, terms)
    turns = [] if body.system is None else [{"role": "system", "content": _system(body.system)}]
    turns += [_turn(message, f"messages[{index}]") for index, message in enumerate(body.messages)]
    role = turns[-1]["role"]
    if role == "system":
        last = f"messages[{len(body.messages) - 1}].role"
        raise fields.wrong(last, role, "'user', or 'assistant' to continue the message")
    conversation = Conversation(turns, continues=role == "assistant")
    thinking = read_thinking(body, terms, terms.config.thinking or conversation.in_thinking)
    return chat_prompt(conversation, thinking, terms), thinking


def _system(system: str | Sequence[Any]) -> str:
    if isinstance(system, str):
        return system
    return "\n".join(_text(block, f"system[{index}]", "system") for index, block in enumerate(system))


def _turn(message: Any, where: str) -> Turn:
    """Read one message: its texts are joined, and so are its thinking blocks."""
    given = fields.read_fields(Message, message, {}, where)
    if given.role not in ROLES:
        raise fields.wrong(f"{where}.role", given.role, f"one of {', '.join(ROLES)}")
    if isinstance(given.content, str):
        return {"role": given.role, "content": given.content}
    texts, thoughts = [], []
    for index, block in enumerate(given.content):
        name = f"{where}.content[{index}]"
        if given.role == "assistant" and isinstance(block, Mapping) and block.get("type") == "thinking":
            thoughts.append(fields.read_fields(ThinkingBlock, block, TEXT_BLOCK, name).thinking)
        else:
            texts.append(_text(block, name, given.role))
    turn = {"role": given.role, "content": "\n".join(texts)}
    return turn | ({"reasoning_content": "\n".join(thoughts)} if thoughts else {})


def _text(block: Any, where: str, role: str) -> str:
    """Return the text of a block."""
    kind = block.get("type") if isinstance(block, Mapping) else None
    if isinstance(kind, str) and kind in NOT_SUPPORTED:
        raise ApiError(400, f"{where}.type is {kind!r}; {NOT_SUPPORTED[kind]} not supported", f"{where}.type")
    if kind == "thinking":
        raise ApiError(400, f"{where} is a thinking block in a message of the {role}; only the assistant's have them")
    given = fields.read_fields(TextBlock, block, TEXT_BLOCK, where)
    if given.type != "text":
        raise fields.wrong(f"{where}.type", given.type, "'text'")
    return given.text
