"""Budget forcing in plain Python, one row and one token at a time, written from the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Scores = Callable[[Sequence[int]], np.ndarray]  # all tokens so far -> scores of the next one [V]


@dataclass(frozen=True)
class Words:
    """The ids that matter."""

    ends: frozenset[int]  # end markers of one token
    stops: frozenset[int]
    known: frozenset[int]
    newlines: frozenset[int]  # ids whose text ends in a newline
    newline: int | None  # None: the text that a cut brings has its own
    start: tuple[int, ...]
    natural: tuple[int, ...]
    forced: tuple[int, ...]
    markers: tuple[tuple[int, ...], ...] = ()  # end markers of several tokens


@dataclass
class Plain:
    """What came out; `gaps[i]` is the lead of the best score where token i was drawn, over the largest score.

    `ends_drawn` are the end markers that were drawn, ignored ones too, each with its place.
    """

    thinking: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    generated: list[int] = field(default_factory=list)
    end: str = ""
    answer_end: str = ""
    ignores_used: int = 0
    gaps: dict[int, float] = field(default_factory=dict, compare=False)
    ends_drawn: list[tuple[int, tuple[int, ...]]] = field(default_factory=list, compare=False)


def draw(scores: np.ndarray, banned: frozenset[int], words: Words) -> tuple[int, float]:
    """The best token that is known and not banned, and its lead over the second best, relative to the largest score."""
    scores = np.asarray(scores, np.float64)
    open_ids = [i for i in range(len(scores)) if i in words.known and i not in banned]
    order = sorted(open_ids, key=lambda i: (-scores[i], i))
    return order[0], float(scores[order[0]] - scores[order[1]]) / float(np.abs(scores[open_ids]).max())


def of_budget(budget: Any, strings: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Options of `plain_decode` from a BudgetConfig; `strings` are the ids of its ignore strings."""
    return {
        "minimum": budget.min_thinking_tokens,
        "maximum": budget.max_thinking_tokens,
        "num_ignore": budget.num_ignore,
        "strings": strings,
        "end_bias": budget.end_bias,
        "repetitions": budget.max_repetitions,
    }


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
    end_bias: float = 0.0,
    notices: Sequence[tuple[int, Sequence[int]]] = (),
    banned_words: frozenset[int] = frozenset(),
    repetitions: int = 0,
    out: Plain | None = None,
) -> Plain:
    """`out`, if given, is what comes out, and grows as it does, where `scores` can see it."""
    markers = (*((token,) for token in words.ends), *words.markers)
    out = Plain() if out is None else out
    text = [*prompt, *words.start]
    first = len(text)

    def at_maximum() -> bool:
        if maximum is None or len(out.thinking) < maximum:
            return False
        line_ends = bool(out.thinking) and out.thinking[-1] in words.newlines
        return line_ends or len(out.thinking) == maximum + grace

    def take(
        banned: frozenset[int] = frozenset(), wished: frozenset[int] = frozenset(), ahead: Sequence[int] = ()
    ) -> int:
        wish = end_bias * (len(out.thinking) + len(ahead)) / max(maximum or 1, 1)
        found = np.array(scores([*text, *ahead]), np.float64)
        found[list(wished)] += wish
        token, gap = draw(found, banned, words)
        index = len(text) - first + len(ahead)
        out.gaps[index] = min(gap, out.gaps.get(index, gap))
        return token

    def thoughts_fit() -> bool:
        reserve = (
            (words.newline is not None)
            + len(words.forced)
            + max_answer_tokens
            + max([len(marker) - 1 for marker in words.markers], default=0)
        )
        return first + len(out.thinking) + 1 + reserve <= max_model_len

    drawn_from = 0  # thinking before it was there when an ignore string ended
    marker_from = 0  # thinking before it was there when a token was last forced
    looped_from = 0  # thinking before it was there when an end was last ignored

    def loops() -> bool:
        tokens = out.thinking[looped_from:]
        return repetitions > 0 and any(
            len(tokens) >= repetitions * p and tokens[-repetitions * p :] == repetitions * tokens[-p:]
            for p in range(1, 257)
        )

    def notice_is_due() -> bool:
        if not left or len(out.thinking) < left[0][0] or (out.ignores_used and len(out.thinking) == drawn_from):
            return False
        drawn = tuple(out.thinking[marker_from:])
        return not any(drawn[-k:] == marker[:k] for marker in markers for k in range(1, len(marker)) if k <= len(drawn))

    left = list(notices)

    def look_ahead() -> tuple[int, bool]:
        """The next token, and whether an end marker begins with it, were the model left alone."""
        ahead: list[int] = []
        while True:
            drawn = [*out.thinking[marker_from:], *ahead]
            banned = set(banned_words)
            for marker in markers:
                before = len(drawn) + 1 - len(marker)  # tokens, if its last one comes next
                begins = marker_from + before
                too_early = begins < minimum or (out.ignores_used and begins == drawn_from)
                if before >= 0 and tuple(drawn[before:]) == marker[:-1] and too_early:
                    banned.add(marker[-1])
            wished = {
                marker[
                    max(
                        k
                        for k in range(len(marker))
                        if k <= len(drawn) and tuple(drawn[len(drawn) - k :]) == marker[:k]
                    )
                ]
                for marker in markers
            }
            ahead.append(take(frozenset(banned), frozenset(wished), ahead))
            if tuple(ahead) in markers:
                out.ends_drawn.append((len(out.thinking), tuple(ahead)))
                return ahead[0], True
            drawn = [*drawn, ahead[-1]]
            other_ends = any(tuple(drawn[-len(marker) :]) == marker for marker in markers)
            if other_ends or not any(marker[: len(ahead)] == tuple(ahead) for marker in markers):
                return ahead[0], False

    while not out.end:
        if at_maximum():
            out.end = "forced"
        elif not thoughts_fit():
            out.end = "context"
        elif loops():
            out.end = "repetition"
        elif notice_is_due():
            for token in left.pop(0)[1]:
                if not at_maximum() and thoughts_fit() and not loops():
                    text.append(token)
                    out.thinking.append(token)
            marker_from = len(out.thinking)
        else:
            token, ends = look_ahead()
            if not ends:
                text.append(token)
                out.thinking.append(token)
            elif out.ignores_used == num_ignore:
                out.end = "natural"
            else:
                looped_from = len(out.thinking)
                for token in strings[out.ignores_used % len(strings)]:
                    if not at_maximum() and thoughts_fit() and not loops():
                        text.append(token)
                        out.thinking.append(token)
                out.ignores_used += 1
                drawn_from = marker_from = len(out.thinking)

    if out.end == "natural":
        text += words.natural
    else:
        if words.newline is not None and (not out.thinking or out.thinking[-1] not in words.newlines):
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
    scores: Scores,
    words: Words,
    prompt: Sequence[int],
    *,
    max_model_len: int,
    max_answer_tokens: int,
    maximum: int | None = None,
    limit: int | None = None,
) -> Plain:
    """No forcing: the model writes on; afterwards its text is taken apart at its own marker.

    `maximum` is that of thinking, what may become the marker included; `limit` that of all tokens.
    """
    out = Plain()
    text = [*prompt, *words.start]
    first = len(text)
    in_answer = False
    while not out.answer_end:
        if not in_answer and maximum is not None and len(out.thinking) >= maximum:
            out.end, out.answer_end = "forced", "none"
        elif in_answer and len(out.answer) >= max_answer_tokens:
            out.answer_end = "length"
        elif limit is not None and len(text) - first >= limit:
            out.end, out.answer_end = "" if in_answer else "length", "length"
        elif len(text) == max_model_len:
            out.answer_end = "context"
        else:
            token, gap = draw(scores(text), frozenset(), words)
            out.gaps[len(text) - first] = gap
            text.append(token)
            if token in words.stops:
                out.answer_end = "stop"
            elif in_answer:
                out.answer.append(token)
            else:
                out.thinking.append(token)
                if tuple(out.thinking[-len(words.natural) :]) == words.natural:
                    in_answer = True
                    del out.thinking[-len(words.natural) :]
    out.end = out.end or ("natural" if in_answer or out.answer_end == "stop" else "context")
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
