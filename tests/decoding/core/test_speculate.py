"""Decoding with drafts gives what decoding without gives: a mock model whose scores are exact, then real ones."""

from __future__ import annotations

import dataclasses
from functools import partial
from importlib.resources import files
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.checkpoints import hf
from s1_jax.config import BudgetConfig, SamplingConfig, TaskConfig
from s1_jax.data.chat import prompt_ids
from s1_jax.decoding.core import speculate
from s1_jax.decoding.core.controller import budget_controller, initial_state
from s1_jax.decoding.core.loop import decode, start
from s1_jax.decoding.core.requests import Request
from s1_jax.decoding.core.sampling import make_sampling, sample
from s1_jax.decoding.core.speculate import decode_speculatively, look_up
from s1_jax.decoding.engine import Engine
from s1_jax.errors import UserError
from s1_jax.model.transformer import unstack
from s1_jax.tasks import load_task
from tests.decoding.ending_model import MAX_MODEL_LEN, ROWS, TOKENIZER, ending_model, random_requests
from tests.decoding.mock_model import SCORES, SEVERAL, TABLE, WEIGHTS, C, V, budget_of, markers_of, random_script

B = 400
ALL, REPETITIVE = C, 2  # tokens that the mock model's scores depend on
SAMPLED = SamplingConfig(temperature=0.7, top_k=8, top_p=0.95)


def mock_forward(window, token_ids, positions, cache):
    """Scores [B, T, V] that depend on the last `window` tokens, over a cache of tokens [B, C]."""
    rows = jnp.arange(len(token_ids))[:, None]
    cache = cache.at[rows, positions].set(token_ids, mode="drop")
    back = positions[:, :, None] - jnp.arange(C)[None, None]
    weights = jnp.where((back >= 0) & (back < window), jnp.asarray(WEIGHTS, jnp.int32)[jnp.clip(back, 0, C - 1)], 0)
    return jnp.asarray(SCORES)[jnp.sum(weights * (cache[:, None] + 1), axis=2) % TABLE], cache


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Random prompts under random budgets, greedy and sampled, one of five without forcing."""

    budget: Any
    settings: Any
    prompts: Any  # [B, C], garbage behind each
    lengths: Any
    window: Any

    @classmethod
    def random(cls, seed, window):
        rng = np.random.default_rng(seed)
        scripts = [random_script(rng, forcing=bool(i % 5)) for i in range(B)]
        row_keys = list(rng.integers(0, 2**32, (B, 2), dtype=np.uint32))
        settings = make_sampling([SAMPLED if i % 2 else SamplingConfig() for i in range(B)], row_keys)
        prompts, lengths = np.full((B, C), 7, np.int32), np.zeros(B, np.int32)
        for i, script in enumerate(scripts):
            text = [*script.prompt, *SEVERAL.start]
            prompts[i, : len(text)], lengths[i] = text, len(text)
        return cls(budget_of(scripts, SEVERAL), settings, prompts, lengths, window)


def run_batch(D, batch):
    """The state after all rows have ended; D of None: without drafts."""

    def sample_token(logits, bias, index, state):
        return sample(logits, bias, index, batch.settings)

    def forward(token_ids, positions, cache):
        logits, cache = mock_forward(batch.window, token_ids, positions, cache)
        return (logits[:, 0] if D is None else logits), cache

    markers = markers_of(SEVERAL)
    controller = budget_controller(batch.budget, markers)
    last = batch.lengths[:, None] - 1
    logits, cache = mock_forward(batch.window, jnp.take_along_axis(batch.prompts, last, axis=1), last, batch.prompts)
    begun = initial_state(batch.budget, markers, jnp.ones(B, bool))
    state = start(begun, cache, logits[:, 0], batch.lengths, C)
    stop = (jnp.int32(10_000), jnp.int32(B))
    if D is None:
        return decode(forward, sample_token, controller, state, *stop)
    state = dataclasses.replace(state, context=batch.prompts)
    return decode_speculatively(forward, sample_token, controller, D, state, *stop)


run_plain = jax.jit(partial(run_batch, None))


def run(D, batch):
    function = run_plain if D is None else jax.jit(partial(run_batch, D))  # compiled anew where look_up is another
    return jax.device_get(function(batch))


def assert_same(drafted, plain):
    """All that was recorded, and all that the controller knows."""
    for name in ("controller_state", "tokens", "kinds", "num_tokens", "position"):
        jax.tree.map(np.testing.assert_array_equal, getattr(drafted, name), getattr(plain, name))
    assert drafted.num_accepted.sum() < drafted.num_tokens.sum() and not plain.num_accepted.any()


@pytest.mark.parametrize("D", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_the_same_tokens_under_every_budget(D):
    for window in (ALL, REPETITIVE):
        batch = Batch.random(D, window)
        plain, drafted = run(None, batch), run(D, batch)
        assert_same(drafted, plain)
        assert set(plain.controller_state.end) == {1, 2, 3, 4, 5} and set(plain.controller_state.answer_end) >= {1, 2}
        assert drafted.step < plain.step


@pytest.mark.parametrize(
    ("D", "wrong"), [(3, 0.3), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((3, 0.0), (16, 0.1)))]
)
def test_drafts_that_are_right_here_and_there(monkeypatch, D, wrong):
    """Limits, ignored ends, suffixes and the end of the context fall into what is kept, and right behind it."""
    batch = Batch.random(8, ALL)
    plain = run(None, batch)
    text = np.zeros((B, C + 1 + D), np.int32)
    for row, (length, count) in enumerate(zip(batch.lengths, plain.num_tokens, strict=True)):
        text[row, length : length + count] = plain.tokens[row, :count]
    text = np.where(np.random.default_rng(9).random(text.shape) < wrong, (text + 1) % V, text)

    def known(context, lengths, D):
        return jnp.take_along_axis(jnp.asarray(text), lengths[:, None] + jnp.arange(D)[None], axis=1)

    monkeypatch.setattr(speculate, "look_up", known)
    drafted = run(D, batch)
    assert_same(drafted, plain)
    if not wrong:  # a draft ends where an end was ignored for no string, as nothing is fed there
        assert drafted.step <= -(-plain.num_tokens.max() // (1 + D)) + plain.controller_state.ignores_used.max()


def test_repetitions_are_accepted_and_noise_is_not(tiny_model):
    """A model that sees nothing but the last token goes round in circles; a random one says anything."""
    config, params = ending_model(tiny_model, 1)
    blind = jax.tree_util.tree_map_with_path(lambda path, x: x * ("o_proj" not in jax.tree_util.keystr(path)), params)
    requests = [Request((i, 7), BudgetConfig(100, 100), problem_id=i, max_answer_tokens=0) for i in range(ROWS)]

    def tokens_per_step(params):
        engine = Engine(config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN, draft_tokens=7)
        list(engine.run(requests))
        return engine.use.tokens_per_step

    suffix = 121 / (100 + 3)  # its 21 tokens are known before they are fed
    assert tokens_per_step(params) < suffix * 1.1
    assert tokens_per_step(blind) > suffix * 2


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ("abcdxxabc", "dxxabc"),  # what followed
        ("abcdzbceabc", "dzbcea"),  # the longest match, not the latest
        ("abcdabceabc", "eabcea"),  # the latest of equal ones, and on from its own beginning
        ("xyzzaqa", "qaqaqa"),  # a match of one token
        ("aaaa", "aaaaaa"),
        ("abcdef", None),
        ("a", None),
    ],
)
def test_what_is_looked_up_by_hand(text, draft):
    context = np.frombuffer(text.encode() + b"abcdefabcdef", np.uint8).astype(np.int32)  # garbage behind the text
    (found,) = look_up(context[None], np.asarray([len(text)]), 6)
    assert found.tolist() == ([-1] * 6 if draft is None else list(draft.encode()))


def sorted_records(engine, requests):
    return [record for _, record in sorted(engine.run_shared(requests), key=lambda one: one[0])]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "D"), [(1, 3), (2, 7)])
def test_records_are_those_without_drafts(tiny_model, seed, D):
    config, params = ending_model(tiny_model, seed)
    requests = [r for i in range(2) for r in random_requests(np.random.default_rng((seed, i)))]
    requests += [Request((i, 7), BudgetConfig(forcing=False), max_answer_tokens=40) for i in range(5)]
    make = partial(Engine, config, unstack(params), TOKENIZER, max_model_len=MAX_MODEL_LEN)
    plain, drafting = make(batch_size=ROWS), make(batch_size=ROWS + seed, draft_tokens=D)
    alone = list(plain.run(requests))
    assert list(drafting.run(requests)) == alone
    assert drafting.use.tokens == plain.use.tokens and drafting.use.slot_steps < plain.use.slot_steps
    assert drafting.use.fraction <= 1 and drafting.use.tokens_per_step > 1 == plain.use.tokens_per_step
    assert sorted_records(drafting, requests) == alone


@pytest.mark.slow
def test_the_shipped_model_repeats_itself():
    source = hf.resolve(str(files("s1_jax") / "assets" / "tiny_base"))
    model, params = hf.load_params(source, stacked=False)
    tokenizer = hf.load_tokenizer(source)
    requests = [
        Request(tuple(prompt_ids(tokenizer, problem.question)), BudgetConfig(1, 100, 1), SAMPLED, problem.id)
        for problem in load_task(TaskConfig("synthetic", limit=8)).problems
    ]
    make = partial(Engine, model, params, tokenizer, max_model_len=256)
    plain, drafting = make(), make(draft_tokens=7)
    assert list(drafting.run(requests)) == list(plain.run(requests))
    assert drafting.use.tokens_per_step > 1.3


def test_drafts_are_not_negative(tiny_model):
    config, params = ending_model(tiny_model, 1)
    with pytest.raises(UserError, match="draft_tokens -1 is negative"):
        Engine(config, unstack(params), TOKENIZER, draft_tokens=-1)
