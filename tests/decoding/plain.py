"""Budget forcing in plain Python, one row and one token at a time, written from the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

Scores = Callable[[Sequence[int]], np.ndarray]  # all tokens so far -> scores of the next one [V]


@dataclass(frozen=True)
class Words:
    """The ids that matter."""

    ends: frozenset[int]
    stops: frozenset[int]
    known: frozenset[int]
    newlines: frozenset[int]  # ids whose text ends in a newline
    newline: int
    start: tuple[int, ...]
    natural: tuple[int, ...]
    forced: tuple[int, ...]


@dataclass
class Plain:
    """What came out; `gaps[i]` is the lead of the best score where token i was drawn, over the largest score."""

    thinking: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    end: str = ""
    answer_end: str = ""
    ignores_used: int = 0
    gaps: dict[int, float] = field(default_factory=dict)


def draw(scores: np.ndarray, banned: frozenset[int], words: Words) -> tuple[int, float]:
    """The best token that is known and not banned, and its lead over the second best, relative to the largest score."""
    scores = np.asarray(scores, np.float64)
    open_ids = [i for i in range(len(scores)) if i in words.known and i not in banned]
    order = sorted(open_ids, key=lambda i: (-scores[i], i))
    return order[0], float(scores[order[0]] - scores[order[1]]) / float(np.abs(scores[open_ids]).max())


def plain_decode(
    scores: Scores,
    words: Words,
    prompt: Sequence[int],
    *,
    max_model_len: int,
    max_answer_tokens: int,
    minimum: int = 1,
    maximum: int | None = None,
    num_ignore: int = 0,
    strings: Sequence[Sequence[int]] = ((),),
    grace: int = 0,
) -> Plain:
    out = Plain()
    text = [*prompt, *words.start]
    first = len(text)

    def at_maximum() -> bool:
        if maximum is None or len(out.thinking) < maximum:
            return False
        line_ends = bool(out.thinking) and out.thinking[-1] in words.newlines
        return line_ends or len(out.thinking) == maximum + grace

    def take(banned: frozenset[int] = frozenset()) -> int:
        token, gap = draw(scores(text), banned, words)
        index = len(text) - first
        out.gaps[index] = min(gap, out.gaps.get(index, gap))
        return token

    def thoughts_fit() -> bool:
        reserve = 1 + len(words.forced) + max_answer_tokens
        return first + len(out.thinking) + 1 + reserve <= max_model_len

    after_ignore = False
    while not out.end:
        if at_maximum():
            out.end = "forced"
        elif not thoughts_fit():
            out.end = "context"
        else:
            token = take(words.ends if len(out.thinking) < minimum or after_ignore else frozenset())
            after_ignore = False
            if token not in words.ends:
                text.append(token)
                out.thinking.append(token)
            elif out.ignores_used == num_ignore:
                out.end = "natural"
            else:
                for token in strings[out.ignores_used % len(strings)]:
                    if not at_maximum() and thoughts_fit():
                        text.append(token)
                        out.thinking.append(token)
                out.ignores_used += 1
                after_ignore = True

    if out.end == "natural":
        text += words.natural
    else:
        if not out.thinking or out.thinking[-1] not in words.newlines:
            text.append(words.newline)
        text += words.forced

    while len(out.answer) < max_answer_tokens:
        token = take()
        text.append(token)
        if token in words.stops:
            out.answer_end = "stop"
            break
        out.answer.append(token)
    out.answer_end = out.answer_end or "length"
    out.generated = text[first:]
    return out


def plain_free(
    scores: Scores, words: Words, prompt: Sequence[int], *, max_model_len: int, max_answer_tokens: int
) -> Plain:
    """No forcing: the model writes on; afterwards its text is taken apart at its own marker."""
    out = Plain()
    text = [*prompt, *words.start]
    first = len(text)
    marker: list[int] = []
    while not out.answer_end:
        in_answer = tuple(marker) == words.natural or bool(out.answer)
        if in_answer and len(out.answer) >= max_answer_tokens:
            out.answer_end = "length"
        elif len(text) == max_model_len:
            out.answer_end = "context"
        else:
            token, gap = draw(scores(text), frozenset(), words)
            out.gaps[len(text) - first] = gap
            text.append(token)
            if token in words.stops:
                out.answer_end = "stop"
            elif not marker and token != words.natural[0]:
                out.thinking.append(token)
            elif not in_answer and token == words.natural[len(marker)]:
                marker.append(token)
            else:
                out.answer.append(token)
    out.end = "natural" if marker or out.answer_end == "stop" else "context"
    out.generated = text[first:]
    return out


@dataclass
class Rounds:
    """What the reference's rounds give: `finish` is its finish reason, after the cut as before it."""

    thinking: list[int]
    finish: str
    was_cut: bool


def reference_rounds(
    scores: Scores, words: Words, prompt: Sequence[int], maximum: int, num_ignore: int, string: Sequence[int]
) -> Rounds:
    """s1's literal rounds, each with the full maximum and a minimum of 1; ids are cut to the maximum at the end."""
    thinking: list[int] = []
    for round_number in range(num_ignore + 1):
        finish = "length"
        for step in range(maximum):
            token, _ = draw(scores([*prompt, *words.start, *thinking]), words.ends if step == 0 else frozenset(), words)
            if token in words.ends:
                finish = "stop"
                break
            thinking.append(token)
        if finish == "length":
            break
        if round_number < num_ignore:
            thinking += string
    return Rounds(thinking[:maximum], finish, len(thinking) > maximum)
