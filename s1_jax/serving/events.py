"""From the tokens of a run to the events that a client is told: texts of its parts, and its end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from s1_jax.decoding.core.budget import IS_THOUGHT, AnswerEnd, End, Kind
from s1_jax.decoding.queue import News, Scored
from s1_jax.decoding.text_pieces import TextPieces
from s1_jax.serving.generation import Delta, Event, Finish, Part, Terms, TokenScore, Usage


class ChoiceEvents:
    """The events of one choice of a generation.

    White space at the beginning of an answer after thinking is left out. A stop token has a score and no text. `prompt`
    counts the tokens of the prompt with start marker and given thinking.
    """

    def __init__(self, terms: Terms, choice: int, prompt: int, thinking: bool, stop: Sequence[str], top: int | None):
        self._choice, self._prompt, self._thinking, self._top = choice, prompt, thinking, top
        self._marker = terms.format.answer_start.strip()
        self._texts = {"reasoning": TextPieces(terms.tokenizer), "content": TextPieces(terms.tokenizer)}
        self._suffix = TextPieces(terms.tokenizer)
        self._marker_text = ""  # what has come of the tokens between thinking and answer
        self._stop = StopText(stop)
        self._begun = not thinking  # whether the answer has text
        self._completion = self._reasoning = 0

    def of(self, news: News) -> Iterator[Event]:
        """Yield the events of news."""
        self._completion += len(news.tokens)
        thought = IS_THOUGHT[news.kinds]
        self._reasoning += int(thought.sum())
        bounds = [0, *(1 + np.flatnonzero(np.diff(_parts(news.kinds)))).tolist(), len(news.tokens)]
        for first, end in itertools.pairwise(bounds):
            if first == end:
                continue
            ids, kind = news.tokens[first:end].tolist(), Kind(news.kinds[first])
            if kind == Kind.SUFFIX:
                self._marker_text += self._suffix.add(ids)
                continue
            part: Part = "content" if kind in (Kind.ANSWER, Kind.STOP) else "reasoning"
            if part == "content":
                yield from self._close_thinking()
            text = "" if kind == Kind.STOP else self._texts[part].add(ids)
            yield from self._delta(part, text, self._scores(ids, news.scored, first))
        if news.ended is not None:
            yield from self._close_thinking()
            yield from self._delta("content", self._texts["content"].rest(), ())
            if rest := self._stop.rest():
                yield Delta(self._choice, "content", rest)
            yield self._finish(news)

    def _close_thinking(self) -> Iterator[Event]:
        """Yield what the thinking has held back, and the text that is forced around the marker of the answer."""
        if rest := self._texts["reasoning"].rest():
            yield Delta(self._choice, "reasoning", rest)
        text, self._marker_text = self._marker_text + self._suffix.rest(), ""
        before, _, after = text.partition(self._marker)
        if before.strip():
            yield Delta(self._choice, "reasoning", before)
        yield from self._delta("content", after, ())

    def _delta(self, part: Part, text: str, scores: tuple[TokenScore, ...]) -> Iterator[Event]:
        if part == "content":
            if not self._begun:
                text = text.lstrip()
                self._begun = bool(text)
            text = self._stop.add(text)
        if text or scores:
            yield Delta(self._choice, part, text, scores)

    def _scores(self, ids: Sequence[int], scored: Scored | None, first: int) -> tuple[TokenScore, ...]:
        if scored is None or self._top is None:
            return ()
        return tuple(
            TokenScore(token, float(scored.own[first + i]), likeliest(scored, first + i, self._top))
            for i, token in enumerate(ids)
        )

    def _finish(self, news: News) -> Finish:
        assert news.ended is not None
        stopped = news.ended.answer_end == AnswerEnd.STOP
        end = End(news.ended.end).name.lower() if self._thinking else "none"
        return Finish(
            self._choice,
            "stop" if stopped else "length",
            self._stop.found,
            None if end == "none" else end,  # type: ignore[arg-type]
            news.ended.ignores_used,
            Usage(self._prompt, news.read.cached, self._completion, self._reasoning),
        )


class StopText:
    """A text that ends before the first of some strings, and comes piece by piece.

    What may be the beginning of one of them is held back.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings, self._held = strings, ""
        self.found: str | None = None  # the string that has ended the text

    def add(self, text: str) -> str:
        """Return the text that can be told after this text has come."""
        if not self._strings:
            return text
        if self.found is not None:
            return ""
        text = self._held + text
        places = [(text.index(string), -len(string), string) for string in self._strings if string in text]
        if places:
            at, _, self.found = min(places)
            self._held = ""
            return text[:at]
        longest = max(map(len, self._strings)) - 1
        begun = next(
            (size for size in range(min(longest, len(text)), 0, -1) if self._begins(text[len(text) - size :])), 0
        )
        self._held = text[len(text) - begun :]
        return text[: len(text) - begun]

    def rest(self) -> str:
        """Return what is held back at the end of the text."""
        text, self._held = self._held, ""
        return text

    def _begins(self, text: str) -> bool:
        return any(string.startswith(text) for string in self._strings)


def likeliest(scored: Scored, index: int, count: int) -> tuple[tuple[int, float], ...]:
    """Return the likeliest tokens in place of token `index`, with their log-probabilities."""
    pairs = zip(scored.top_ids[index, :count].tolist(), scored.top[index, :count].tolist(), strict=True)
    return tuple(pairs)


def prompt_events(
    terms: Terms, choice: int, ids: Sequence[int], scores: Sequence[tuple], top: int | None
) -> list[Event]:
    """Return the prompt as an event, with the scores of its tokens where `top` says how many are told."""
    text = terms.tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=False)
    if top is None:
        return [Delta(choice, "prompt", text)]
    told = [TokenScore(ids[0], None, ())]
    for start, arrays in scores:
        of_chunk = Scored(*(x[0] for x in arrays))
        for i in range(len(of_chunk.own)):
            if len(told) == start + i + 1 < len(ids):  # a chunk may begin within the one before
                told.append(TokenScore(ids[start + i + 1], float(of_chunk.own[i]), likeliest(of_chunk, i, top)))
    return [Delta(choice, "prompt", text, tuple(told))]


def _parts(kinds: np.ndarray) -> np.ndarray:
    """Return a number for the part of each kind: thinking, marker, answer, stop token."""
    return np.select([IS_THOUGHT[kinds], kinds == int(Kind.SUFFIX), kinds == int(Kind.ANSWER)], [0, 1, 2], 3)
