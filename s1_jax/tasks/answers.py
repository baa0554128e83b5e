r"""Finding the final answer in a response: the reference's rules.

<|im_start|>think ... <|im_start|>answer
... \boxed{204}            or   Answer: 204            or   204
"""

from __future__ import annotations

import re

from s1_jax.data.chat import ANSWER_START, TURN_START

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
ANSWER_LINE = re.compile(r"Answer\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)


def extract_answer(text: str, answer_start: str = ANSWER_START) -> str | None:
    r"""The final answer in a response, from start marker to stop token; None where nothing is left.

    What follows the last `answer_start` and newline; without it, what follows the last `<|im_start|>`, less its first
    line. In that the last `\boxed{...}`, else all that follows "Answer:", else all.
    """
    answer = _answer_part(text, answer_start)
    for stop in STOP_TOKENS:
        answer = answer.split(stop)[0]
    boxed = last_boxed(answer)
    if boxed is not None:
        found = boxed
    elif match := ANSWER_LINE.search(answer):
        found = match[1]  # to the very end, so the first "Answer:" is the last match too
    else:
        found = answer
    return found.strip() or None


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed ...$`, written with a space; else in the last `\boxed{...}`, else `\fbox{...}`.

    None where there is none, or its brace is never closed.
    """
    if r"\boxed " in text:
        return text.split(r"\boxed ")[-1].split("$")[0]
    for opener in (r"\boxed", r"\fbox"):
        if opener in text:
            return _braced(text.split(opener)[-1])
    return None


def _answer_part(text: str, answer_start: str) -> str:
    if (marker := f"{answer_start}\n") in text:
        return text.split(marker)[-1]
    if not answer_start.startswith(TURN_START) and answer_start in text:
        return text.split(answer_start)[-1]
    if TURN_START not in text:
        return text
    first_line, newline, rest = text.split(TURN_START)[-1].partition("\n")
    return rest if newline else first_line


def _braced(text: str) -> str | None:
    """What the brace that opens `text` encloses."""
    depth = 0
    for i, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return text[1:i] if i else None
    return None
