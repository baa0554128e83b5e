"""The controller in the real loop, with a mock model, against plain Python on thousands of random scripts."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.decoding.core.budget import THOUGHT, AnswerEnd, End, Kind
from s1_jax.decoding.core.controller import budget_controller, initial_state
from s1_jax.decoding.core.loop import decode, start
from s1_jax.decoding.host.results import traces_of
from tests.decoding.mock_model import (
    BANNED,
    SCORES,
    SEVERAL,
    TABLE,
    WEIGHTS,
    WORDS,
    C,
    Script,
    budget_of,
    markers_of,
    mock_scores,
    random_script,
)
from tests.decoding.plain import Plain, Words, plain_decode, plain_free

B = 1500  # rows of a batch


def mock_forward(token_ids, positions, cache):
    """The same as a model over a cache of tokens [B, C], with garbage in the slots nobody wrote."""
    rows = jnp.arange(token_ids.shape[0])
    cache = cache.at[rows, positions[:, 0]].set(token_ids[:, 0])
    seen = jnp.where(jnp.arange(C)[None] <= positions, cache + 1, 0)
    return jnp.asarray(SCORES)[jnp.sum(seen * jnp.asarray(WEIGHTS, jnp.int32)[None], axis=1) % TABLE], cache


@jax.jit
def run_batch(markers, budget, prompts, lengths, active, stop_step):
    def sample_token(logits, bias, index, state):
        return jnp.argmax(logits + bias, axis=-1).astype(jnp.int32)

    seen = jnp.where(jnp.arange(C)[None] < lengths[:, None], prompts + 1, 0)
    logits = jnp.asarray(SCORES)[jnp.sum(seen * jnp.asarray(WEIGHTS, jnp.int32)[None], axis=1) % TABLE]
    controller = budget_controller(budget, markers)
    garbage = jnp.where(jnp.arange(C)[None] < lengths[:, None], prompts, 7)
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
        notices=script.notices,
        banned_words=BANNED if script.banned else frozenset(),
        repetitions=script.repetitions,
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
    for end in ("natural", "forced", "context", "repetition"):
        assert sum(r.end == end for r in wanted) > 20
    assert sum(len(s.notices) == 2 and len(r.thinking) > s.notices[1][0] + 8 for s, r in pairs) > 5
    assert sum(bool(s.notices) and r.ignores_used > 1 and r.end == "natural" for s, r in pairs) > 2
    assert sum(s.banned and len(r.thinking) > 8 for s, r in pairs) > 100
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
