"""The controller in the real loop, with a mock model, against plain Python on thousands of random scripts."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.decoding.core.budget import NO_LIMIT, THOUGHT, AnswerEnd, Budget, End, Kind
from s1_jax.decoding.core.controller import budget_controller, initial_state
from s1_jax.decoding.core.end_markers import Markers
from s1_jax.decoding.core.loop import decode, start
from s1_jax.decoding.host.results import traces_of
from tests.decoding.plain import Plain, Words, plain_decode, plain_free

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
B, C = 1500, 64  # rows of a batch; tokens a row can hold
A, W = 3, 5  # strings of a rotation, their tokens
TABLE = 4093  # score rows of the mock model

rng = np.random.default_rng(0)
WEIGHTS = rng.integers(1, TABLE, C)
SCORES = rng.normal(size=(TABLE, V)).astype(np.float32)
SCORES[:, [IM_START, ANSWER_WORD, 10, 11]] += np.float32([0.7, 0.5, 0.7, 0.5])  # ends must come often
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
        suffixes=jnp.asarray([[0, 3, 0, 0, 0], [0, 3, 4, 5, 0], [4, 0, 3, 4, 5]]),
        suffix_lengths=jnp.asarray([2, 4, 5]),
    )


def mock_scores(history) -> np.ndarray:
    """A score of every next token that depends on all tokens before it, and on where each stands."""
    return SCORES[int(np.dot(np.asarray(history, np.int64) + 1, WEIGHTS[: len(history)]) % TABLE)]


def mock_forward(token_ids, positions, cache):
    """The same as a model over a cache of tokens [B, C], with garbage in the slots nobody wrote."""
    rows = jnp.arange(token_ids.shape[0])
    cache = cache.at[rows, positions[:, 0]].set(token_ids[:, 0])
    seen = jnp.where(jnp.arange(C) <= positions, cache + 1, 0)
    return jnp.asarray(SCORES)[jnp.sum(seen * jnp.asarray(WEIGHTS, jnp.int32), axis=1) % TABLE], cache


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
    return Script(
        prompt, minimum, maximum, int(rng.integers(0, 7)), strings, max_answer_tokens, forcing, grace, bias, limit
    )


def budget_of(scripts: list[Script], words: Words = WORDS) -> Budget:
    def column(values, dtype=np.int32):
        return np.asarray(list(values), dtype)

    ids, lengths = np.zeros((len(scripts), A, W), np.int32), np.zeros((len(scripts), A), np.int32)
    for i, script in enumerate(scripts):
        for j, string in enumerate(script.strings):
            ids[i, j, : len(string)] = string
            lengths[i, j] = len(string)
    room = [C - len(s.prompt) - len(WORDS.start) for s in scripts]
    return Budget(
        min_thinking_tokens=column(s.minimum for s in scripts),
        max_thinking_tokens=column(NO_LIMIT if s.maximum is None else s.maximum for s in scripts),
        grace_tokens=column(s.grace for s in scripts),
        num_ignore=column(s.num_ignore for s in scripts),
        ignore_ids=ids,
        ignore_lengths=lengths,
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
        start_token=column(words.start[-1] for _ in scripts),
    )


@jax.jit
def run_batch(markers, budget, prompts, lengths, active, stop_step):
    def sample_token(logits, bias, index, state):
        return jnp.argmax(logits + bias, axis=-1).astype(jnp.int32)

    seen = jnp.where(jnp.arange(C) < lengths[:, None], prompts + 1, 0)
    logits = jnp.asarray(SCORES)[jnp.sum(seen * jnp.asarray(WEIGHTS, jnp.int32), axis=1) % TABLE]
    controller = budget_controller(budget, markers)
    garbage = jnp.where(jnp.arange(C) < lengths[:, None], prompts, 7)
    state = start(initial_state(budget, markers, active), garbage, logits, lengths, C)
    return decode(mock_forward, sample_token, controller, state, stop_step, len(active))


def run(scripts: list[Script], active=None, words: Words = WORDS):
    prompts, lengths = np.zeros((len(scripts), C), np.int32), np.zeros(len(scripts), np.int32)
    for i, script in enumerate(scripts):
        text = [*script.prompt, *WORDS.start]
        prompts[i, : len(text)], lengths[i] = text, len(text)
    active = np.ones(len(scripts), bool) if active is None else active
    return jax.device_get(
        run_batch(markers_of(words), budget_of(scripts, words), prompts, lengths, active, np.int32(10_000))
    )


def plain_of(state) -> list[Plain]:
    found = []
    for i, row in enumerate(traces_of(state)):
        tokens, kinds = [int(t) for t in row.tokens], row.kinds
        found.append(
            Plain(
                thinking=[t for t, k in zip(tokens, kinds, strict=True) if k in THOUGHT],
                answer=[t for t, k in zip(tokens, kinds, strict=True) if k == Kind.ANSWER],
                generated=tokens,
                end=End(state.controller_state.end[i]).name.lower(),
                answer_end=AnswerEnd(state.controller_state.answer_end[i]).name.lower(),
                ignores_used=int(state.controller_state.ignores_used[i]),
            )
        )
    return found


def plain(script: Script, words: Words = WORDS) -> Plain:
    limits = {"max_model_len": C, "max_answer_tokens": script.max_answer_tokens}
    if not script.forcing:
        free = {"maximum": script.maximum, "limit": script.limit}
        return plain_free(mock_scores, words, script.prompt, **limits, **free)
    return plain_decode(
        mock_scores,
        words,
        script.prompt,
        minimum=script.minimum,
        maximum=script.maximum,
        num_ignore=script.num_ignore,
        strings=script.strings,
        grace=script.grace,
        end_bias=script.end_bias,
        **limits,
    )


@pytest.mark.parametrize("seed", [0])
@pytest.mark.parametrize("words", [WORDS, SEVERAL], ids=["one token", "several"])
def test_controller_equals_plain_python(seed, words):
    rng = np.random.default_rng(seed)
    scripts = [random_script(rng) for _ in range(B)]
    found, wanted = plain_of(run(scripts, words=words)), [plain(script, words) for script in scripts]
    for script, mine, reference in zip(scripts, found, wanted, strict=True):
        assert mine == reference, script
    # the scripts must reach every corner
    pairs = list(zip(scripts, wanted, strict=True))
    for end in ("natural", "forced", "context"):
        assert sum(r.end == end for r in wanted) > 20
    for answer_end in ("stop", "length"):
        assert sum(r.answer_end == answer_end for r in wanted) > 20
    assert sum(s.maximum < len(r.thinking) < s.maximum + s.grace for s, r in pairs if r.end == "forced") > 10
    assert sum(len(r.thinking) == s.maximum + s.grace for s, r in pairs if r.end == "forced" and s.grace) > 20
    assert sum(len(s.strings) > 1 and r.ignores_used > len(s.strings) for s, r in pairs) > 10
    assert sum(r.end == "forced" and s.maximum == 0 for s, r in pairs) > 5
    assert sum(r.ignores_used > 0 and any(s.strings) and r.end != "natural" for s, r in pairs) > 20
    assert sum(() in s.strings and r.ignores_used >= len(s.strings) for s, r in pairs) > 20
    if words.markers:
        ends = [(s, place, marker) for s, r in pairs for place, marker in r.ends_drawn]
        assert {marker for _, _, marker in ends} >= set(words.markers)
        past = [place + len(marker) > s.maximum + s.grace for s, place, marker in ends if s.maximum is not None]
        assert sum(past) > 5
        assert sum(len(marker) > 1 and place == 0 for _, place, marker in ends) > 2


def test_without_forcing_the_text_is_taken_apart_at_the_models_own_marker():
    rng = np.random.default_rng(2)
    scripts = [random_script(rng, forcing=bool(i % 2)) for i in range(B)]
    wanted = [plain(script) for script in scripts]
    for script, mine, reference in zip(scripts, plain_of(run(scripts)), wanted, strict=True):
        assert mine == reference, script
    free = [(script, reference) for script, reference in zip(scripts, wanted, strict=True) if not script.forcing]
    ends = Counter((reference.end, reference.answer_end) for _, reference in free)
    assert set(ends) == {
        *(("natural", "stop"), ("natural", "length"), ("natural", "context"), ("context", "context")),
        *(("forced", "none"), ("length", "length")),
    }
    for script, reference in free:
        assert script.maximum is None or len(reference.thinking) <= script.maximum
        assert script.limit is None or len(reference.generated) <= script.limit + (reference.answer_end == "stop")


def test_a_maximum_gives_the_first_tokens_of_the_run_without_one():
    rng = np.random.default_rng(3)
    scripts = [
        dataclasses.replace(random_script(rng), maximum=None, minimum=1, grace=0, end_bias=0.0) for _ in range(300)
    ]
    unlimited = plain_of(run(scripts))
    for maximum in range(0, 24, 2):
        limited = plain_of(run([dataclasses.replace(s, maximum=maximum) for s in scripts]))
        for whole, cut in zip(unlimited, limited, strict=True):
            assert cut.thinking == whole.thinking[:maximum]
            assert (cut.end == "forced") == (len(whole.thinking) >= maximum)


def test_fewer_ignores_give_a_prefix():
    rng = np.random.default_rng(4)
    scripts = [random_script(rng) for _ in range(300)]
    longer = None
    for num_ignore in range(5, -1, -1):
        rows = plain_of(run([dataclasses.replace(s, num_ignore=num_ignore) for s in scripts]))
        for row, more in zip(rows, longer or rows, strict=True):
            assert row.thinking == more.thinking[: len(row.thinking)]
            assert row.ignores_used <= num_ignore
        longer = rows


def test_maximum_wins_a_tie_with_the_context():
    script = Script((9,) * 40, 1, C - 40 - 2 - 5 - 3, 9, ((10, 11),), 3)
    (tie,) = plain_of(run([script]))
    (later,) = plain_of(run([dataclasses.replace(script, maximum=script.maximum + 1)]))
    assert (tie.end, later.end) == ("forced", "context")
    assert tie.thinking == later.thinking


def test_rows_do_not_depend_on_their_neighbors():
    rng = np.random.default_rng(5)
    scripts = [random_script(rng, forcing=bool(i % 5)) for i in range(40)]
    together = plain_of(run(scripts))
    order = rng.permutation(40)
    shuffled = plain_of(run([scripts[i] for i in order]))
    assert [shuffled[j] for j in np.argsort(order)] == together
    for i in range(0, 40, 8):
        assert plain_of(run(scripts[i : i + 8])) == together[i : i + 8]


def test_inactive_rows_do_nothing():
    rng = np.random.default_rng(6)
    scripts = [random_script(rng) for _ in range(4)]
    state = run(scripts, active=np.asarray([True, False, True, False]))
    assert list(state.num_tokens[1::2]) == [0, 0] and not state.kinds[1::2].any()
    assert plain_of(state)[::2] == plain_of(run(scripts))[::2]


def test_all_budgets_run_in_one_compiled_loop():
    rng = np.random.default_rng(7)
    run([random_script(rng) for _ in range(17)])
    before = run_batch._cache_size()
    for _ in range(3):
        run([random_script(rng, forcing=bool(rng.integers(2))) for _ in range(17)])
    assert run_batch._cache_size() == before
