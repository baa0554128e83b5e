r"""Extraction of the final answer from a response: the rules of s1's evaluation code, extended to Markdown.

<|im_start|>think ... <|im_start|>answer
... \boxed{204}            or   Answer: 204            or   204

Markdown around an answer, which the rules of s1's code keep, is removed:

**Answer:** 204   **Final Answer**\n\n204   Answer: **204**   Answer：204   \boxed {204}   \framebox{204}     all 204
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from s1_jax.data.chat import ANSWER_START, STOP_TOKENS, TURN_START

ANSWER_LINE = re.compile(r"Answer\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
MARKED_LABEL = re.compile(r"\bAnswer[*_\s]{0,8}[:：]\s*(.*)", re.IGNORECASE | re.DOTALL)  # **Answer**: and Answer：
HEADING = re.compile(  # a line of its own that says only "Final Answer"
    r"^[ \t]*(?:#{1,6}[ \t]*)?(?:[0-9]{1,2}\.[ \t]*)?[*_]{0,3}(?:the[ \t])?(?:final[ \t])?answer[*_]{0,3}[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
BOXES = (r"\boxed", r"\fbox", r"\framebox")
CLOSES = re.compile(r"(?<=\S)\*\*(?=\s)")  # as in "No.** He does not ..."; "x**2" is a power
MARKS = ("***", "**", "__", "*", "`")


def extract_answer(text: str, answer_start: str = ANSWER_START) -> str | None:
    r"""Return the final answer of a response, or None if it is empty.

    The answer part begins after the last `answer_start` and newline, or else after the first line that follows the
    last `<|im_start|>`, and ends at a stop token. Within it, the answer is the last `\boxed{...}`; else the text after
    "Answer:"; else the text after a heading "Final Answer"; else all of it. Markdown marks around the answer, and
    marks whose other half lies outside it, are removed.
    """
    answer = answer_part(text, answer_start)
    boxed = last_boxed(answer)
    if boxed is not None:
        return boxed.strip() or None
    if match := ANSWER_LINE.search(answer):
        found = match[1]  # to the very end, so the first "Answer:" is the last match too
    elif match := MARKED_LABEL.search(answer):
        found = match[1]
    else:
        ends = [heading.end() for heading in HEADING.finditer(answer)]
        found = answer[ends[-1] :] if ends and answer[ends[-1] :].strip() else answer
    return unmarked(found.strip()) or None


def answer_part(text: str, answer_start: str = ANSWER_START) -> str:
    """Return the text between the answer's start marker and the first stop token."""
    answer = _after_marker(text, answer_start)
    for stop in STOP_TOKENS:
        answer = answer.split(stop)[0]
    return answer


def without_stop(text: str, stop_tokens: Sequence[str]) -> str:
    """Remove the stop token at the end of the text: the longest one that matches."""
    found = [stop for stop in stop_tokens if text.endswith(stop)]
    return text.removesuffix(max(found, key=len, default=""))


def written(record: Mapping[str, Any]) -> str:
    """Return a record's text without the stop token that ended it.

    Records of earlier versions do not name their stop tokens; for them STOP_TOKENS are used.
    """
    ended = record.get("answer_end", "stop") == "stop"
    return without_stop(record["text"], record.get("stop_tokens", STOP_TOKENS)) if ended else record["text"]


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed ...$` (with a space), or else of the last `\boxed{...}` or `\fbox{...}`.

    Returns None if there is no box or its brace is not closed. A brace after the space opens an ordinary box.
    """
    if r"\boxed " in text:
        last = text.split(r"\boxed ")[-1]
        return _braced(last.lstrip()) if last.lstrip().startswith("{") else last.split("$")[0]
    for opener in BOXES:
        if opener in text:
            return _braced(text.split(opener)[-1].lstrip())
    return None


def unmarked(text: str) -> str:
    """Remove Markdown marks around the whole text and half of a pair whose other half is missing, as in "** 73"."""
    for mark in MARKS:
        if text.startswith(mark) and (text.count(mark) == 1 or text[len(mark) : len(mark) + 1].isspace()):
            text = text.removeprefix(mark).lstrip()
        if text.endswith(mark) and text.count(mark) == 1:
            text = text.removesuffix(mark).rstrip()
        if text.startswith(mark) and text.endswith(mark) and text.count(mark) == 2 and len(text) > 2 * len(mark):
            text = text.removeprefix(mark).removesuffix(mark).strip()
    closed = CLOSES.search(text) if text.count("**") == 1 else None
    return text[: closed.start()] + text[closed.end() :] if closed else text


def _after_marker(text: str, answer_start: str) -> str:
    if (marker := f"{answer_start}\n") in text:
        return text.split(marker)[-1]
    if not answer_start.startswith(TURN_START) and answer_start in text:
        return text.split(answer_start)[-1]
    if TURN_START not in text:
        return text
    first_line, newline, rest = text.split(TURN_START)[-1].partition("\n")
    return rest if newline else first_line


def _braced(text: str) -> str | None:
    """Return the text inside the brace that `text` begins with; None if it is not closed."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:i] if i else None
    return None
