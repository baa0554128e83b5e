"""Fields that are taken although they do nothing here, because the value that is taken changes no reply.

The tables are the only place that lists them; the docs are made from them. A field that is in no table and in no body
is refused, and so is any other value of a field in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Accepted(NamedTuple):
    """The values of a field that are taken, and why they change nothing."""

    fits: Callable[[Any], bool]
    values: str  # what is taken, as the end of the sentence "it must be ..."
    why: str


def only(*values: Any, says: str, why: str) -> Accepted:
    """Take these values and null."""
    return Accepted(lambda given: given is None or any(_same(given, value) for value in values), says, why)


def anything(why: str) -> Accepted:
    """Take any value that the field may have."""
    return Accepted(lambda given: True, "anything", why)


def _same(given: Any, value: Any) -> bool:
    """Compare as JSON does: true is not 1, and 1.0 is."""
    return isinstance(given, bool) == isinstance(value, bool) and given == value


PENALTY = only(0, says="0", why="0 penalizes nothing")
NO_TOOLS = only([], says="an empty list: tools are not supported", why="an empty list has no tools")
NO_LIST = only([], says="an empty list", why="an empty list asks for nothing")
NULL = only(says="null", why="null asks for nothing")
FALSE = only(False, says="false", why="false is what the server does")
TRUE = only(True, says="true", why="true is what the server does")
LABEL = anything("it labels the request or its user for the provider's records")
CACHE = anything("it says how long a provider's cache keeps the prompt; the prefix cache here needs no hint")
TIER = "the server has one tier"

OPENAI: Mapping[str, Accepted] = {
    "user": LABEL,
    "metadata": LABEL,
    "store": LABEL,
    "safety_identifier": LABEL,
    "prompt_cache_key": CACHE,
    "prompt_cache_retention": CACHE,
    "prompt_cache_options": CACHE,
    "service_tier": only("auto", "default", says="'auto' or 'default'", why=TIER),
    "frequency_penalty": PENALTY,
    "presence_penalty": PENALTY,
    "repetition_penalty": only(1, says="1", why="1 penalizes nothing"),
    "length_penalty": only(1, says="1", why="1 is no penalty, and there is no beam search"),
    "logit_bias": only({}, says="an empty object", why="an empty object has no bias"),
    "use_beam_search": FALSE,
    "early_stopping": FALSE,
    "skip_special_tokens": TRUE,
    "spaces_between_special_tokens": TRUE,
    "include_stop_str_in_output": FALSE,
    "ignore_eos": FALSE,
    "min_tokens": only(0, says="0; thinking.min_tokens is the minimum of thinking", why="0 is no minimum"),
    "stop_token_ids": NO_LIST,
    "bad_words": NO_LIST,
    "prompt_logprobs": NULL,
    "truncate_prompt_tokens": NULL,
    "priority": only(0, says="0", why="requests are served in the order in which they arrive"),
}

CHAT: Mapping[str, Accepted] = {
    **OPENAI,
    "tools": NO_TOOLS,
    "functions": NO_TOOLS,
    "tool_choice": only("none", "auto", says="'none' or 'auto': tools are not supported", why="there are no tools"),
    "function_call": only("none", "auto", says="'none' or 'auto': tools are not supported", why="there are no tools"),
    "parallel_tool_calls": only(True, False, says="true or false", why="there are no tools"),
    "response_format": only({"type": "text"}, says='{"type": "text"}', why="replies are text"),
    "modalities": only(["text"], says='["text"]', why="replies are text"),
    "audio": NULL,
    "prediction": NULL,
    "moderation": NULL,
    "web_search_options": NULL,
    "verbosity": NULL,
    "include_reasoning": TRUE,
    "separate_reasoning": TRUE,
    "stream_reasoning": TRUE,
    "echo": FALSE,
    "add_special_tokens": FALSE,
    "chat_template": NULL,
    "documents": NO_LIST,
}

TEXT: Mapping[str, Accepted] = {
    **OPENAI,
    "suffix": only("", says="an empty string", why="nothing follows the completion"),
    "add_special_tokens": TRUE,
}

MESSAGES: Mapping[str, Accepted] = {
    "metadata": LABEL,
    "cache_control": CACHE,
    "service_tier": only("auto", "standard_only", says="'auto' or 'standard_only'", why=TIER),
    "speed": only("standard", says="'standard'", why="the server has one speed"),
    "inference_geo": NULL,
    "container": NULL,
    "diagnostics": NULL,
    "context_management": NULL,
    "mcp_servers": NO_LIST,
    "output_config": only({}, says="an empty object", why="an empty object asks for nothing"),
    "tools": NO_TOOLS,
    "tool_choice": only(
        {"type": "auto"},
        {"type": "none"},
        says='{"type": "auto"} or {"type": "none"}: tools are not supported',
        why="there are no tools",
    ),
}

STREAM_OPTIONS: Mapping[str, Accepted] = {
    "include_obfuscation": anything("it only pads the chunks of a stream"),
    "continuous_usage_stats": FALSE,
}

CHAT_MESSAGE: Mapping[str, Accepted] = {
    "type": only("text", "message", says="'text' or 'message'", why="messages are text"),
    "refusal": NULL,
    "annotations": NO_LIST,
    "audio": NULL,
    "function_call": NULL,
    "tool_calls": NO_TOOLS,
    "reasoning_details": NO_LIST,
}

TEXT_BLOCK: Mapping[str, Accepted] = {"cache_control": CACHE, "citations": NO_LIST}

THINKING: Mapping[str, Accepted] = {
    "display": only("summarized", says="'summarized'", why="thinking is always shown, and never shortened"),
}

REASONING: Mapping[str, Accepted] = {
    "exclude": only(False, says="false: thinking is always shown", why="thinking is always shown"),
    "summary": NULL,
}
