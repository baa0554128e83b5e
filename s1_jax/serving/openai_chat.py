"""OpenAI's protocol of chat completions, `/v1/chat/completions`, with thinking and its budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from s1_jax.serving import fields
from s1_jax.serving.accepted import CHAT, CHAT_MESSAGE, TEXT_BLOCK
from s1_jax.serving.choices import check_model, make_choices, read_lengths, read_sampling
from s1_jax.serving.conversation import Conversation, Turn, chat_prompt
from s1_jax.serving.errors import ApiError, openai_error
from s1_jax.serving.generation import Delta, Event, Generation, Terms, TokenScore
from s1_jax.serving.openai_common import Choice, OpenAIFields, OpenAIReply, finish_fields, includes_usage, stop_strings
from s1_jax.serving.thinking import read_thinking
from s1_jax.serving.token_texts import chat_scores

__all__ = ["Reply", "error_body", "read"]

SYSTEM_ROLES = ("system", "developer")
TOOL_ROLES = ("tool", "function")
ROLES = (*SYSTEM_ROLES, "user", "assistant")
MEDIA = {
    "image_url": "images are",
    "input_image": "images are",
    "image": "images are",
    "input_audio": "audio is",
    "video_url": "videos are",
    "file": "files are",
    "input_file": "files are",
}

error_body = openai_error


class ChatBody(OpenAIFields):
    """The body of a request."""

    messages: Annotated[Annotated[list[Any], Field(min_length=1)], fields.said("a list of at least one message")]
    max_completion_tokens: fields.MaybeCount = None
    max_tokens: fields.MaybeCount = None
    logprobs: fields.Flag = None
    top_logprobs: fields.Logprobs = None
    add_generation_prompt: fields.Flag = None
    continue_final_message: fields.Flag = None


class Message(fields.Fields):
    """One message of a conversation."""

    role: fields.Text
    content: Annotated[str | list[Any] | None, fields.said("a string or a list of parts")] = None
    reasoning_content: fields.MaybeText = None
    reasoning: fields.MaybeText = None
    name: fields.MaybeText = None


class TextPart(fields.Fields):
    """One text of a message's content."""

    type: fields.Text
    text: fields.Text


def read(body: Mapping[str, Any], terms: Terms) -> Generation:
    """Read the body of a request. Raises ApiError with one sentence on what is wrong with it."""
    fields.check_values(body)
    asked = fields.read_fields(ChatBody, body, CHAT)
    check_model(asked.model, terms)
    conversation = _conversation(asked)
    thinking = read_thinking(asked, terms, terms.config.thinking or conversation.in_thinking)
    requests = make_choices(
        [chat_prompt(conversation, thinking, terms)],
        asked.n or 1,
        terms,
        budget=thinking.budget,
        sampling=read_sampling(asked, asked.temperature, terms),
        lengths=read_lengths(*_max_tokens(asked), asked, terms),
        stop=stop_strings(asked),
        seed=asked.seed,
    )
    return Generation(requests, bool(asked.stream), includes_usage(asked), _logprobs(asked))


class Reply(OpenAIReply):
    """The reply to a chat request."""

    def __init__(self, generation: Generation, terms: Terms) -> None:
        kind = "chat.completion.chunk" if generation.stream else "chat.completion"
        super().__init__(generation, terms, "chatcmpl-", kind)

    def response(self, events: Sequence[Event]) -> dict[str, Any]:
        """Return the body of a reply that is not streamed, from all its events."""
        choices = self._whole(events)
        return self._response(choices, list(map(self._choice, choices)))

    def start(self) -> list[bytes]:
        """Return the first frames of a stream."""
        opening = {"delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return [self._chunk({"index": index, **opening}) for index in range(len(self.generation.requests))]

    def next(self, event: Event) -> list[bytes]:
        """Return the frames of a stream that tell of an event."""
        if isinstance(event, Delta):
            if not (event.text or event.scores):
                return []
            text, thinks = event.text, event.part == "reasoning"
            delta = {"reasoning_content": text, "reasoning": text} if thinks else {"content": text}
            logprobs = self._logprobs([], event.scores) if thinks else self._logprobs(event.scores)
            ended = {"finish_reason": None}
        else:
            self._finished[event.choice] = event
            delta, logprobs, ended = {}, None, finish_fields(event)
        return [self._chunk({"index": event.choice, "delta": delta, "logprobs": logprobs, **ended})]

    def _choice(self, choice: Choice) -> dict[str, Any]:
        thinks = self.generation.requests[choice.index].thinking
        reasoning = choice.text("reasoning") if thinks else None
        message = {
            "role": "assistant",
            "content": choice.text("content"),
            "reasoning_content": reasoning,
            "reasoning": reasoning,
            "refusal": None,
        }
        logprobs = self._logprobs(choice.scores("content"), choice.scores("reasoning") if thinks else None)
        return {"index": choice.index, "message": message, "logprobs": logprobs, **finish_fields(choice.finish)}

    def _logprobs(
        self, content: Sequence[TokenScore], reasoning: Sequence[TokenScore] | None = None
    ) -> dict[str, Any] | None:
        if self.generation.logprobs is None:
            return None
        found: dict[str, Any] = {"content": chat_scores(self.texts, content), "refusal": None}
        return found if reasoning is None else found | {"reasoning_content": chat_scores(self.texts, reasoning)}


def _max_tokens(body: ChatBody) -> tuple[str, int | None]:
    """Return the maximum of tokens of a reply and the field that has it."""
    both = (body.max_tokens, body.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        message = f"max_tokens {both[0]} and max_completion_tokens {both[1]} disagree; give one of them"
        raise ApiError(400, message, "max_completion_tokens")
    return ("max_tokens", body.max_tokens) if both[1] is None else ("max_completion_tokens", both[1])


def _logprobs(body: ChatBody) -> int | None:
    """Return how many of the likeliest tokens are told beside each; None: no log-probabilities at all."""
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, f"top_logprobs {body.top_logprobs} needs logprobs true", "top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _conversation(body: ChatBody) -> Conversation:
    """Read the messages, and whether the last is to be continued."""
    continues = bool(body.continue_final_message)
    if body.add_generation_prompt is continues:
        other = "false" if continues else "true"
        wanted = f"{other} where continue_final_message is {'true' if continues else 'false'}"
        raise fields.wrong("add_generation_prompt", body.add_generation_prompt, wanted)
    turns = [_turn(message, f"messages[{index}]") for index, message in enumerate(body.messages)]
    role, last = turns[-1]["role"], f"messages[{len(turns) - 1}].role"
    if continues and role != "assistant":
        raise fields.wrong(last, role, "'assistant' where continue_final_message is true")
    if not continues and role != "user":
        raise fields.wrong(last, role, "'user' in the last message, or else continue_final_message true")
    return Conversation(turns, continues)


def _turn(message: Any, where: str) -> Turn:
    """Read one message."""
    if isinstance(message, Mapping) and (tool := message.get("role")) in TOOL_ROLES:
        raise ApiError(400, f"{where}.role is {tool!r}; tools are not supported", f"{where}.role")
    given = fields.read_fields(Message, message, CHAT_MESSAGE, where)
    role = given.role
    if role not in ROLES:
        raise fields.wrong(f"{where}.role", role, f"one of {', '.join(ROLES)}")
    texts = {text for text in (given.reasoning_content, given.reasoning) if text is not None}
    if texts and role != "assistant":
        raise ApiError(400, f"{where} is from the {role}; only the assistant's messages have reasoning", where)
    if len(texts) > 1:
        raise ApiError(400, f"{where}.reasoning_content and {where}.reasoning disagree; give one of them", where)
    if given.content is None and not texts:
        raise fields.wrong(f"{where}.content", None, "a string or a list of parts")
    turn = {"role": "system" if role in SYSTEM_ROLES else role, "content": _text(given.content, where)}
    if given.name is not None:
        turn["name"] = given.name
    return turn | ({"reasoning_content": texts.pop()} if texts else {})


def _text(content: str | Sequence[Any] | None, where: str) -> str:
    """Join the texts of a message's content."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(_part(part, f"{where}.content[{index}]") for index, part in enumerate(content))


def _part(part: Any, where: str) -> str:
    """Return the text of one part of a message's content."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(kind, str) and kind in MEDIA:
        raise ApiError(400, f"{where}.type is {kind!r}; {MEDIA[kind]} not supported", f"{where}.type")
    given = fields.read_fields(TextPart, part, TEXT_BLOCK, where)
    if given.type != "text":
        raise fields.wrong(f"{where}.type", given.type, "'text'")
    return given.text
