"""A mock model whose scores are exact, its words, and random scripts: prompts with budgets."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from s1_jax.decoding.core.budget import NO_LIMIT, Budget
from s1_jax.decoding.core.end_markers import Markers
from tests.decoding.plain import Words

V, KNOWN = 16, 14
IM_START, IM_END, ENDOFTEXT, ANSWER_WORD, NEWLINE, FINAL, LINE = 0, 1, 2, 3, 4, 5, 8
WORDS = Words(
    ends=frozenset((IM_START, IM_END, ENDOFTEXT)),
    stops=frozenset((IM_END, ENDOFTEXT)),
    known=frozenset(range(KNOWN)),
    newlines=frozenset((NEWLINE, LINE)),
    newline=NEWLINE,
    start=(IM_START, 9),
    natural=(IM_START, ANSWER_WORD),
    forced=(IM_START, ANSWER_WORD, NEWLINE, FINAL),
)
# markers of several tokens: one within another, one that another's end begins, one with two beginnings alike
SEVERAL = dataclasses.replace(
    WORDS,
    ends=frozenset((IM_END, ENDOFTEXT)),
    markers=((IM_START, 7), (10, 10, LINE), (10, LINE), (11, 10, 10, 11)),
)
C = 64  # tokens that a row can hold
A, W = 3, 5  # strings of a rotation, their tokens
M, N = 2, 4  # notices, their tokens
BANNED = frozenset((6, 12))
TABLE = 4093  # score rows of the mock model

rng = np.random.default_rng(0)
WEIGHTS = rng.integers(1, TABLE, C)
SCORES = rng.normal(size=(TABLE, V)).astype(np.float32)
SCORES[:, [IM_START, ANSWER_WORD, 10, 11]] += np.array([0.7, 0.5, 0.7, 0.5], np.float32)  # ends must come often
SCORES[:, KNOWN:] += 1.0  # and ids nobody knows be tempting


@dataclasses.dataclass(frozen=True)
class Script:
    """One row: a prompt and a budget, as Python values."""

    prompt: tuple[int, ...]
    minimum: int
    maximum: int | None
    num_ignore: int
    strings: tuple[tuple[int, ...], ...]
    max_answer_tokens: int
    forcing: bool = True
    grace: int = 0
    end_bias: float = 0.0
    limit: int | None = None  # of all tokens, without forcing
    notices: tuple[tuple[int, tuple[int, ...]], ...] = ()  # position and tokens
    banned: bool = False  # BANNED while thinking
    repetitions: int = 0


def markers_of(words: Words) -> Markers:
    ends = [*((token,) for token in words.ends), *words.markers, words.natural]
    bits = np.zeros(V, np.uint32)
    for bit, token in enumerate(token for marker in ends for token in marker):
        bits[token] |= np.uint32(1 << bit)
    return Markers(
        bits=jnp.asarray(bits),
        end_lengths=jnp.asarray([len(marker) for marker in ends]),
        is_stop=jnp.isin(jnp.arange(V), jnp.asarray(list(words.stops))),
        is_known=jnp.arange(V) < KNOWN,
        is_newline=jnp.isin(jnp.arange(V), jnp.asarray(list(words.newlines))),
        banned=4 * jnp.isin(jnp.arange(V), jnp.asarray(list(BANNED))).astype(jnp.uint32) + 2,
        suffixes=jnp.asarray([[0, 3, 0, 0, 0], [0, 3, 4, 5, 0], [4, 0, 3, 4, 5]]),
        suffix_lengths=jnp.asarray([2, 4, 5]),
    )


def mock_scores(history) -> np.ndarray:
    """A score of every next token that depends on all tokens before it, and on where each stands."""
    return SCORES[int(np.dot(np.asarray(history, np.int64) + 1, WEIGHTS[: len(history)]) % TABLE)]


def random_script(rng: np.random.Generator, forcing: bool = True) -> Script:
    minimum = int(rng.integers(0, 5))
    maximum = None if rng.random() < 0.4 else int(rng.integers(minimum if minimum > 1 else 0, 20))
    strings = tuple(
        tuple(map(int, rng.integers(3, KNOWN, rng.integers(0, W + 1)))) for _ in range(rng.integers(1, A + 1))
    )
    longest = C - len(WORDS.start) - 1 - len(WORDS.forced) - 3
    max_answer_tokens = int(rng.integers(0, 7))
    prompt = tuple(map(int, rng.integers(3, KNOWN, rng.integers(1, longest - max_answer_tokens + 1))))
    grace = 0 if maximum is None or rng.random() < 0.5 else int(rng.integers(0, maximum + 1))
    bias = 0.0 if maximum is None or rng.random() < 0.5 else float(rng.uniform(0, 3))
    limit = int(rng.integers(0, 24)) if not forcing and rng.random() < 0.5 else None
    num_ignore = int(rng.integers(0, 7))
    script = Script(prompt, minimum, maximum, num_ignore, strings, max_answer_tokens, forcing, grace, bias, limit)
    if not forcing or rng.random() < 0.4:
        return script
    positions = sorted(map(int, rng.integers(0, maximum or 1, rng.integers(0, M + 1) if maximum else 0)))
    notices = tuple((at, tuple(map(int, rng.integers(3, KNOWN, rng.integers(1, N + 1))))) for at in positions)
    repetitions = int(rng.choice([0, 2, 3]))
    return dataclasses.replace(script, notices=notices, banned=bool(rng.integers(2)), repetitions=repetitions)


def budget_of(scripts: list[Script], words: Words = WORDS) -> Budget:
    def column(values, dtype=np.int32):
        return np.asarray(list(values), dtype)

    ids, lengths = np.zeros((len(scripts), A, W), np.int32), np.zeros((len(scripts), A), np.int32)
    for i, script in enumerate(scripts):
        for j, string in enumerate(script.strings):
            ids[i, j, : len(string)] = string
            lengths[i, j] = len(string)
    notice_at = np.full((len(scripts), M), NO_LIMIT, np.int32)
    notice_ids, notice_lengths = np.zeros((len(scripts), M, N), np.int32), np.zeros((len(scripts), M), np.int32)
    for i, script in enumerate(scripts):
        for j, (at, tokens) in enumerate(script.notices):
            notice_at[i, j], notice_ids[i, j, : len(tokens)], notice_lengths[i, j] = at, tokens, len(tokens)
    room = [C - len(s.prompt) - len(WORDS.start) for s in scripts]
    return Budget(
        min_thinking_tokens=column(s.minimum for s in scripts),
        max_thinking_tokens=column(NO_LIMIT if s.maximum is None else s.maximum for s in scripts),
        grace_tokens=column(s.grace for s in scripts),
        num_ignore=column(s.num_ignore for s in scripts),
        ignore_ids=jnp.asarray(ids),
        ignore_lengths=jnp.asarray(lengths),
        ignore_count=column(len(s.strings) for s in scripts),
        context_limit=column(
            r - 1 - len(WORDS.forced) - s.max_answer_tokens - max([len(m) - 1 for m in words.markers], default=0)
            for r, s in zip(room, scripts, strict=True)
        ),
        end_bias=column((s.end_bias for s in scripts), np.float32),
        max_answer_tokens=column(s.max_answer_tokens for s in scripts),
        max_new_tokens=column(room),
        max_free_tokens=column(NO_LIMIT if s.limit is None else s.limit for s in scripts),
        forcing=column((s.forcing for s in scripts), bool),
        thinking=column((True for _ in scripts), bool),
        notice_at=jnp.asarray(notice_at),
        notice_ids=jnp.asarray(notice_ids),
        notice_lengths=jnp.asarray(notice_lengths),
        banned=column((4 if s.banned else 0 for s in scripts), np.uint32),
        max_repetitions=column(s.repetitions for s in scripts),
        start_token=column(words.start[-1] for _ in scripts),
        given_tokens=column(0 for _ in scripts),
        given_newline=column((False for _ in scripts), bool),
    )
