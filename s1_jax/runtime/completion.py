"""Parses an endpoint's JSON: the reply, split into thinking and answer, or the message of an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from s1_jax.runtime.json_input import loads

LONGEST_COMPLAINT = 300  # characters of an endpoint's own words in an error
MASK = "***"
SHOWN_OF_A_KEY = 5  # characters of a key that an error may contain by chance
SHORTEST_SECRET = 8  # characters; shorter keys, such as "EMPTY", are no secrets and may occur in any reply
LONGEST_READ = 10_000  # characters of an error message that are searched for the key
LONGEST_FINISH = 40  # characters
MOST_TOKENS = 10**12  # a larger count in a reply is an error

# Pairs of markers that models put around their thinking. The last is s1's after an endpoint dropped special tokens.
MARKS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning")),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|im_start|>think", "<|im_start|>answer"),
    ("think\n", "\nanswer\n"),
)
CLOSES = (
    "</think>",
    "[/THINK]",
    "<|im_start|>answer",
)  # the opening marker may be in the chat template instead of the text
ENDS = ("<|im_end|>", "<|endoftext|>")
FINISHES = {
    "stop": ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "finished"),
    "length": ("length", "max_tokens", "model_length", "max_output_tokens", "max_new_tokens", "incomplete"),
    "content_filter": ("content_filter", "safety", "refusal", "recitation", "blocked", "prohibited_content"),
}
FINISH = {word: finish for finish, words in FINISHES.items() for word in words}
FAILURES = ("error", "abort", "aborted", "cancelled")  # finish reasons that mean the endpoint itself failed
THINKING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
COMPLAINT_FIELDS = (
    *("error", "message", "detail", "msg", "errors", "error_message", "reason", "title", "description"),
    *("type", "code"),
)


class Reply(NamedTuple):
    """Texts that the model wrote; both may be empty."""

    thinking: str
    text: str
    finish: str  # "stop", "length", "content_filter"
    tokens_read: int  # 0 if the endpoint does not report it
    tokens_written: int  # thinking included

    @property
    def whole(self) -> bool:
        """Whether the reply ended by itself and has an answer."""
        return self.finish == "stop" and bool(self.text)


def parse(completion: Any) -> Reply:
    """Parse a chat completion into a Reply.

    Thinking is what the endpoint reports as such, or the text between a model's thinking markers. Raises ValueError,
    LookupError, TypeError or AttributeError if `completion` is not a chat completion.
    """
    choice = completion["choices"][0]
    message, usage = choice["message"], completion.get("usage") or {}
    finish = (choice.get("finish_reason") or "stop").lower()
    if finish in FAILURES or len(finish) > LONGEST_FINISH or not finish.isprintable():
        raise ValueError("ended with no finish that is known")
    finish = FINISH.get(finish, finish)
    given = next((said for name in THINKING_FIELDS if (said := _words(message.get(name)))), "")
    content = message.get("content")
    if isinstance(content, list):
        given = given or "\n".join(filter(None, (_words(part) for part in content if _is_thinking(part))))
        content = "".join(part["text"] for part in content if not _is_thinking(part) and "text" in part)
    if content is None and isinstance(refusal := message.get("refusal"), str) and refusal:
        content, finish = "", "content_filter"
    if content is None and (given or finish != "stop"):  # the reply ended before the answer began
        content = ""
    if not isinstance(content, str):
        raise TypeError("content is no string")
    thinking, text = split_thinking(content, given)
    read, written = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(_whole(thinking), _whole(text), finish, read, written)


def hidden(reply: Reply, key: str) -> Reply:
    """Replace the key by MASK in a reply, ignoring case, because replies are written to files and data sets."""
    if len(key) < SHORTEST_SECRET:
        return reply
    echoed = re.compile(re.escape(key), re.IGNORECASE)
    thinking, text, finish = (echoed.sub(MASK, said) for said in (reply.thinking, reply.text, reply.finish))
    return reply._replace(thinking=thinking, text=text, finish=finish)


def split_thinking(text: str, given: str = "") -> tuple[str, str]:
    """Split a text into thinking and answer; `given` is thinking that the endpoint reported separately.

    If the thinking never ends, the answer is empty.
    """
    parts, begin = [given] if given else [], 0
    while found := _opened(text, begin):
        thinking, begin = found
        parts.append(thinking)
    text = text[begin:]
    if not parts:
        for close in CLOSES:
            if close in text:
                thinking, _, text = text.partition(close)
                parts.append(thinking)
                break
    return "\n".join(part.strip() for part in parts if part.strip()), _without_ends(text) if parts else text


def complaint(body: bytes | str, key: str = "") -> str:
    """Extract the message of an error's body as one line without `key`; empty if there is none or it is HTML."""
    text = body if isinstance(body, str) else body.decode("utf-8", "replace")
    try:
        said = _complaint(loads(text))
    except ValueError:
        said = "" if text.lstrip().startswith(("<", "{", "[")) else text
    said = without_key(said[:LONGEST_READ], key)
    line = " ".join("".join(c if c.isprintable() else " " for c in said).split())
    if not re.search(r"\w", line):
        return ""
    return line if len(line) <= LONGEST_COMPLAINT else line[:LONGEST_COMPLAINT].rstrip() + " ..."


def without_key(text: str, key: str) -> str:
    """Mask a key in a text: the key itself, any part of it, and words in which it is already half masked."""
    text = re.sub(r"\S+", lambda word: MASK if MASK in word[0] else word[0], text)
    text = re.sub(r"(?i)\bbearer\s+\S+", f"Bearer {MASK}", text)
    if len(key) <= SHOWN_OF_A_KEY:
        return re.sub(rf"(?<!\w){re.escape(key)}(?!\w)", MASK, text) if key else text
    window, hidden = SHOWN_OF_A_KEY + 1, [False] * len(text)
    for part in {key[i : i + window] for i in range(len(key) - window + 1)}:
        for match in re.finditer(f"(?={re.escape(part)})", text, re.IGNORECASE):
            hidden[match.start() : match.start() + window] = [True] * window
    return re.sub("\0+", MASK, "".join("\0" if hide else c for c, hide in zip(text, hidden, strict=True)))


def _opened(text: str, begin: int) -> tuple[str, int] | None:
    """Return the thinking that opens at `begin` and the index after it; None if no marker opens there."""
    for opening, close in MARKS:
        ignoring = re.IGNORECASE if opening.startswith("<") else re.NOFLAG
        if begun := re.compile(r"\s*" + re.escape(opening), ignoring).match(text, begin):
            ended = re.compile(re.escape(close), ignoring).search(text, begun.end())
            return (text[begun.end() : ended.start()], ended.end()) if ended else (text[begun.end() :], len(text))
    return None


def _without_ends(text: str) -> str:
    """Strip end markers from the end; without a regular expression, which is quadratic in a run of spaces."""
    end: int = len(text)
    found: str | None = text
    while found:
        begin = end
        while begin and text[begin - 1].isspace():
            begin -= 1
        if found := next((mark for mark in ENDS if text.endswith(mark, 0, begin)), None):
            end = begin - len(found)
    return text if end == len(text) else text[:end].rstrip()


def _is_thinking(part: Mapping[str, Any]) -> bool:
    return str(part.get("type", "text")).lower().endswith(("thinking", "reasoning"))


def _words(value: Any) -> str:
    """Return a text, or the joined texts of parts; empty if there is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "".join(map(_words, value))
    if isinstance(value, Mapping):
        names = ("text", "thinking", "reasoning", "content", "summary", "value")
        return next((said for name in names if (said := _words(value.get(name)))), "")
    return ""


def _count(tokens: Any) -> int:
    """Check a number of tokens; 0 if the endpoint does not report it. Raises TypeError, ValueError."""
    if tokens is None:
        return 0
    if isinstance(tokens, bool) or not isinstance(tokens, int | float) or tokens != int(tokens):
        raise TypeError("tokens are no number")
    if not 0 <= tokens <= MOST_TOKENS:
        raise ValueError("tokens are out of range")
    return int(tokens)


def _complaint(value: Any) -> str:
    """Find the message in an error's JSON, whatever its shape."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "; ".join(filter(None, map(_complaint, value)))
    if isinstance(value, Mapping):
        said = next((said for name in COMPLAINT_FIELDS if (said := _complaint(value.get(name)))), "")
        # the message of a router, followed by that of the provider behind it
        behind = value.get("metadata")
        raw = behind.get("raw") if isinstance(behind, Mapping) else None
        if isinstance(raw, str) and raw.strip():
            with suppress(ValueError):
                raw = _complaint(loads(raw))
            said = ": ".join(filter(None, (said, raw)))
        return said
    return ""


def _whole(text: str) -> str:
    """Strip white space and replace lone surrogates, which cannot be written to a file."""
    return text.strip().encode("utf-8", "replace").decode()
