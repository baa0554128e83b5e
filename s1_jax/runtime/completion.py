"""What an endpoint's JSON says: the reply, its thinking told from its answer, and the sentence of an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from s1_jax.runtime.json_input import loads

LONGEST_COMPLAINT = 300  # characters of an endpoint's own words in an error
MASK = "***"
SHOWN_OF_A_KEY = 5  # characters of it that may be in an error by chance
SHORTEST_SECRET = 8  # characters of a key that is hidden in replies: "EMPTY" is none, and a word that models write
LONGEST_READ = 10_000  # characters of an endpoint's own words that are looked through
LONGEST_FINISH = 40  # characters
MOST_TOKENS = 10**12  # that a reply can have taken

# Pairs of marks that models put around their thinking. s1's last: an endpoint may drop its special tokens.
MARKS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning")),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|im_start|>think", "<|im_start|>answer"),
    ("think\n", "\nanswer\n"),
)
CLOSES = ("</think>", "[/THINK]", "<|im_start|>answer")  # also where the chat template, not the text, has the opening
ENDS = ("<|im_end|>", "<|endoftext|>")
FINISHES = {
    "stop": ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "finished"),
    "length": ("length", "max_tokens", "model_length", "max_output_tokens", "max_new_tokens", "incomplete"),
    "content_filter": ("content_filter", "safety", "refusal", "recitation", "blocked", "prohibited_content"),
}
FINISH = {word: finish for finish, words in FINISHES.items() for word in words}
FAILURES = ("error", "abort", "aborted", "cancelled")  # in place of a finish: the endpoint's own
THINKING_FIELDS = ("reasoning_content", "reasoning", "reasoning_details", "thinking")
COMPLAINT_FIELDS = (
    *("error", "message", "detail", "msg", "errors", "error_message", "reason", "title", "description"),
    *("type", "code"),
)


class Reply(NamedTuple):
    """What the model wrote; both texts may be empty."""

    thinking: str
    text: str
    finish: str  # "stop", "length", "content_filter"
    tokens_read: int  # 0: the endpoint does not say
    tokens_written: int  # thinking included

    @property
    def whole(self) -> bool:
        """Whether it ended by itself, with an answer."""
        return self.finish == "stop" and bool(self.text)


def parse(completion: Any) -> Reply:
    """A completion's reply; thinking is what the endpoint sets apart, or what stands between a model's marks.

    Raises ValueError, LookupError, TypeError or AttributeError where it is none.
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
    if content is None and (given or finish != "stop"):  # ended before the answer began
        content = ""
    if not isinstance(content, str):
        raise TypeError("content is no string")
    thinking, text = split_thinking(content, given)
    read, written = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    return Reply(_whole(thinking), _whole(text), finish, read, written)


def hidden(reply: Reply, key: str) -> Reply:
    """The reply with MASK wherever the model wrote the key, in any case: replies go into files and data sets."""
    if len(key) < SHORTEST_SECRET:
        return reply
    echoed = re.compile(re.escape(key), re.IGNORECASE)
    thinking, text, finish = (echoed.sub(MASK, said) for said in (reply.thinking, reply.text, reply.finish))
    return reply._replace(thinking=thinking, text=text, finish=finish)


def split_thinking(text: str, given: str = "") -> tuple[str, str]:
    """Thinking and answer; `given` is thinking that was set apart. Thinking that never ends leaves no answer."""
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
    """What the body of an error says: one line without `key`; empty for nothing, and for a page of HTML."""
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
    """The text with nothing in it that tells of a key: neither the key, a part of it, nor one that is half masked."""
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
    """Thinking, and where it ends, of a text that has an opening mark at `begin`; None for another."""
    for opening, close in MARKS:
        ignoring = re.IGNORECASE if opening.startswith("<") else re.NOFLAG
        if begun := re.compile(r"\s*" + re.escape(opening), ignoring).match(text, begin):
            ended = re.compile(re.escape(close), ignoring).search(text, begun.end())
            return (text[begun.end() : ended.start()], ended.end()) if ended else (text[begun.end() :], len(text))
    return None


def _without_ends(text: str) -> str:
    """The text without end marks at its end. No regular expression: one tries every space of a long run of them."""
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
    """A text, or the texts of parts; empty for what has none."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "".join(map(_words, value))
    if isinstance(value, Mapping):
        names = ("text", "thinking", "reasoning", "content", "summary", "value")
        return next((said for name in names if (said := _words(value.get(name)))), "")
    return ""


def _count(tokens: Any) -> int:
    """A number of tokens; 0 where the endpoint does not say. Raises TypeError, ValueError."""
    if tokens is None:
        return 0
    if isinstance(tokens, bool) or not isinstance(tokens, int | float) or tokens != int(tokens):
        raise TypeError("tokens are no number")
    if not 0 <= tokens <= MOST_TOKENS:
        raise ValueError("tokens are out of range")
    return int(tokens)


def _complaint(value: Any) -> str:
    """The sentence in an error's JSON, whatever its shape."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "; ".join(filter(None, map(_complaint, value)))
    if isinstance(value, Mapping):
        said = next((said for name in COMPLAINT_FIELDS if (said := _complaint(value.get(name)))), "")
        # a router's own word, and that of the provider behind it
        behind = value.get("metadata")
        raw = behind.get("raw") if isinstance(behind, Mapping) else None
        if isinstance(raw, str) and raw.strip():
            with suppress(ValueError):
                raw = _complaint(loads(raw))
            said = ": ".join(filter(None, (said, raw)))
        return said
    return ""


def _whole(text: str) -> str:
    """The text without white space around it, and with no half of a surrogate pair, which no file takes."""
    return text.strip().encode("utf-8", "replace").decode()
