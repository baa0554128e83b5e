"""Scores of trees of texts: those of each text by itself, with what texts share run once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.config import MeshConfig
from s1_jax.errors import UserError
from s1_jax.model.reward import REWARD_MODELS, param_axes
from s1_jax.model.transformer import unstack
from s1_jax.search.scoring import CHUNKS, RewardScorer, check_tokenizers
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.reference import tiny_reward
from tests.tokenizer import SPECIALS, byte_tokenizer

OUTCOME, PROCESS = "Qwen2ForSequenceClassification", "Qwen2ForProcessRewardModel"
TOLERANCE = 1e-4  # of the largest score: float32 through every layer, sums in another order
BFLOAT16_TOLERANCE = 0.1  # 8 bits, over three layers and a cache; a score sums over hidden states that cancel
V = 264
TOKENIZER = byte_tokenizer((*SPECIALS, "<extra_0>"))
STEP_END = TOKENIZER.convert_tokens_to_ids("<extra_0>")


def make_scorer(architecture, layout=None, tokenizer=TOKENIZER, reward=None, **options):
    model = tiny_reward(architecture, vocab_size=V)
    reward = reward or REWARD_MODELS[architecture]
    params = model.params
    if layout is not None:
        params = jax.device_put(params, layout.tree(param_axes(model.config, reward), params))
    return model, RewardScorer(model.config, reward, unstack(params), tokenizer, layout=layout, **options)


def step(rng, longest=30):
    return [*rng.integers(0, 250, rng.integers(1, longest)).tolist(), STEP_END]


def grow(rng, prompt, levels, keep=3, branch=3):
    """Lists of texts as a beam search would ask for them: each level goes on from some of the one before."""
    beam = [prompt]
    for _ in range(levels):
        level = [text + step(rng) for text in beam for _ in range(branch)]
        yield level
        beam = [level[i] for i in rng.permutation(len(level))[:keep]]


def expected(model, architecture, text):
    scores = model.scores(text)
    return scores[np.asarray(text) == STEP_END] if architecture == PROCESS else scores[-1:]


def check(model, architecture, texts, found, tolerance=TOLERANCE):
    assert len(found) == len(texts)
    for text, mine in zip(texts, found, strict=True):
        reference = expected(model, architecture, text)
        assert len(mine) == len(reference) and np.isfinite(mine).all()
        assert np.abs(np.asarray(mine) - reference).max() <= tolerance * max(1, np.abs(reference).max())


def tokens_of_tree(texts):
    """How many different beginnings the texts have: the least that must be run."""
    return len({tuple(text[:end]) for text in texts for end in range(1, len(text) + 1)})


@pytest.mark.parametrize("architecture", [OUTCOME, PROCESS])
def test_a_tree_is_scored_as_its_texts_alone_and_what_they_share_is_run_once(architecture):
    rng = np.random.default_rng(0)
    model, scorer = make_scorer(architecture, batch_size=4, slots=40)
    seen = []
    prompt = rng.integers(0, 250, CHUNKS[-1] + 9).tolist()
    for level in grow(rng, prompt, levels=4):
        seen += level
        check(model, architecture, level, scorer.score(level))
        assert scorer.tokens_run == tokens_of_tree(seen)
    check(model, architecture, seen, scorer.score(seen))
    assert scorer.tokens_run == tokens_of_tree(seen)


def test_a_child_costs_its_own_step():
    rng = np.random.default_rng(1)
    _, scorer = make_scorer(PROCESS)
    parent = rng.integers(0, 250, 50).tolist() + step(rng)
    scorer.score([parent])
    before, new = scorer.tokens_run, step(rng)
    first, *later = scorer.score([parent + new])[0]
    assert scorer.tokens_run == before + len(new)
    assert [first] == scorer.score([parent])[0] and len(later) == 1


def test_what_follows_the_last_separator_is_not_run():
    rng = np.random.default_rng(2)
    model, scorer = make_scorer(PROCESS)
    text = [*step(rng), *step(rng), 1, 2, 3]
    check(model, PROCESS, [text], scorer.score([text]))
    assert scorer.tokens_run == len(text) - 3


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_few_slots_cost_time_and_change_nothing(slots):
    rng = np.random.default_rng(3)
    model, scorer = make_scorer(OUTCOME, batch_size=min(slots, 2), slots=slots)
    seen = []
    for level in grow(rng, rng.integers(0, 250, 20).tolist(), levels=3):
        seen += level
        check(model, OUTCOME, level, scorer.score(level))
    assert scorer.tokens_run > tokens_of_tree(seen)


def test_the_least_recently_used_slots_are_replaced():
    rng = np.random.default_rng(4)
    first, second, third = ([i, *rng.integers(0, 250, 20).tolist()] for i in range(3))
    _, scorer = make_scorer(OUTCOME, batch_size=1, slots=2)
    for text in (first, second, first, third, first):
        scorer.score([text])
    assert scorer.tokens_run == len(first + second + third)
    scorer.score([second])
    assert scorer.tokens_run == len(first + second + third + second)


def test_a_text_that_grows_stays_in_its_slot():
    rng = np.random.default_rng(10)
    _, scorer = make_scorer(OUTCOME, batch_size=1, slots=2)
    other, growing = ([i, *rng.integers(0, 250, 10).tolist()] for i in range(2))
    scorer.score([other])
    for _ in range(4):
        growing = growing + step(rng)
        scorer.score([growing])
    scorer.score([[*other, 1]])
    assert scorer.tokens_run == len(other) + len(growing) + 1


def test_nothing_is_compiled_again():
    rng = np.random.default_rng(5)
    _, scorer = make_scorer(OUTCOME, batch_size=4, slots=8)
    for length in (120, 10):  # a chunk of each size
        scorer.score([rng.integers(0, 250, length).tolist()])
    before = scorer.num_compiled
    for level in grow(rng, rng.integers(0, 250, 10).tolist(), levels=3):
        scorer.score(level)
    assert scorer.num_compiled == before


def test_repeated_and_nested_texts():
    rng = np.random.default_rng(6)
    model, scorer = make_scorer(OUTCOME, batch_size=3, slots=6)
    text = rng.integers(0, 250, 40).tolist()
    texts = [text[:10], text, text, text[:25], [*text[:25], 3]]
    check(model, OUTCOME, texts, scorer.score(texts))
    assert scorer.tokens_run == len(text) + 1
    assert scorer.score([]) == []


@pytest.mark.parametrize("mesh", [{"tensor": 2, "fsdp": 1}, {"fsdp": 2}])
@pytest.mark.parametrize("architecture", [OUTCOME, PROCESS])
def test_the_same_on_two_devices(architecture, mesh):
    rng = np.random.default_rng(7)
    layout = Layout(make_mesh(MeshConfig(**mesh), jax.devices()[:2]), DECODE_RULES)
    model, scorer = make_scorer(architecture, layout, batch_size=4, slots=16)
    for level in grow(rng, rng.integers(0, 250, 60).tolist(), levels=2):
        check(model, architecture, level, scorer.score(level))


@pytest.mark.parametrize("cache", [jnp.bfloat16, jnp.int8])
def test_bfloat16_stays_near_float32(cache):
    rng = np.random.default_rng(8)
    model, scorer = make_scorer(PROCESS, dtype=jnp.bfloat16, cache_dtype=cache)
    for level in grow(rng, rng.integers(0, 250, 30).tolist(), levels=2):
        check(model, PROCESS, level, scorer.score(level), BFLOAT16_TOLERANCE)


def test_an_interrupted_call_leaves_no_wrong_row(monkeypatch):
    rng = np.random.default_rng(9)
    model, scorer = make_scorer(OUTCOME, batch_size=2, slots=2)
    texts = [rng.integers(0, 250, 30).tolist() for _ in range(2)]
    scorer.score(texts)
    put = scorer._put

    def stopped(*arguments):
        put(*arguments)  # the old cache is gone
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scorer, "_put", stopped)
        scorer.score([[*text, 1] for text in texts])
    others = [[*text, 2] for text in texts]
    check(model, OUTCOME, others, scorer.score(others))


def test_texts_that_cannot_be_scored():
    _, scorer = make_scorer(PROCESS, max_length=40)
    good = [1, 2, STEP_END]
    for bad, said in (
        ([], "text 1 is empty"),
        ([1, V], f"text 1: token id {V} lies outside the reward model's vocabulary of {V}"),
        ([1, -1, STEP_END], "text 1: token id -1 lies outside"),
        ([1, 2, 3], "text 1 has no '<extra_0>', after which this reward model scores a step"),
        ([1] * 40 + [STEP_END], "text 1 has 41 tokens to score; the reward model takes at most 40"),
    ):
        with pytest.raises(UserError, match=said):
            scorer.score([good, bad])
    assert scorer.tokens_run == 0
    assert len(scorer.score([good, [1] * 39 + [STEP_END]])) == 2


def test_scorers_that_cannot_be_made():
    with pytest.raises(UserError, match="max_length 257 is not between 1 and the reward model's context of 256"):
        make_scorer(OUTCOME, max_length=257)
    with pytest.raises(UserError, match="batch_size 8 is not between 1 and 4, the number of slots"):
        make_scorer(OUTCOME, slots=4)
    with pytest.raises(UserError, match="separator '<extra_0>' is 9 tokens of the reward model's tokenizer, not one"):
        make_scorer(PROCESS, tokenizer=byte_tokenizer())
    many = byte_tokenizer((*SPECIALS, *(f"<{i}>" for i in range(9)), "<extra_0>"))
    with pytest.raises(UserError, match=f"separator '<extra_0>' is token 268; .* vocabulary has only {V} tokens"):
        make_scorer(PROCESS, tokenizer=many)


def test_a_separator_of_several_tokens_is_scored_behind_its_last():
    model, scorer = make_scorer(PROCESS, reward=dataclasses.replace(REWARD_MODELS[PROCESS], separator="\n-\n"))
    end = TOKENIZER.encode("\n-\n")
    assert len(end) == 3
    text = [1, *end, 2, *end[:2], 3, *end]
    (found,), (given,) = scorer.score([text]), scorer.score([text], [[3, len(text) - 1]])
    assert np.allclose(found, model.scores(text)[[3, -1]], rtol=0, atol=TOLERANCE) and given == found
    (one,) = scorer.score([text], [[5]])
    assert np.allclose(one, model.scores(text)[[5]], rtol=0, atol=TOLERANCE), "where it is told, there alone"
    with pytest.raises(UserError, match="text 0 has no"):
        scorer.score([[1, 2]])


def test_tokenizers_that_differ_in_a_special_token_go_together():
    policy = byte_tokenizer((*SPECIALS, "<|quad_end|>"))
    check_tokenizers(policy, TOKENIZER)  # <extra_0> has that id there
    check_tokenizers(policy, policy)


def test_another_tokenizer_is_refused():
    shifted = byte_tokenizer(("<extra_0>", *SPECIALS))
    with pytest.raises(UserError, match=r"3 tokens differ, first '<\|endoftext\|>' \(256, there 257\)"):
        check_tokenizers(byte_tokenizer(), shifted)
    with pytest.raises(UserError, match=r"another tokenizer than the policy: 1 .*'<\|im_end\|>' \(258, there absent\)"):
        check_tokenizers(byte_tokenizer(), byte_tokenizer(SPECIALS[:2]))
