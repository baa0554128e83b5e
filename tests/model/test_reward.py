"""Reward models against transformers' own heads, and against plain layers over its backbone where it has none."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from s1_jax.model import reward as reward_model
from s1_jax.model.kv_cache import init_cache
from s1_jax.model.reward import REWARD_MODELS
from s1_jax.model.transformer import unstack
from tests.reference import REWARDS, tiny_reward

TOLERANCE = 1e-4  # of the largest reference logit: float32 through every layer, sums in another order
SCORE_TOLERANCE = 1e-4  # of a probability: the same, through a softmax
PAD = 96
LENGTHS = np.array([40, 23, 1])


def close(mine, reference, tolerance=TOLERANCE):
    assert np.isfinite(mine).all()
    assert np.abs(np.asarray(mine) - reference).max() <= tolerance * np.abs(reference).max()


def padded(model, seed=0):
    """Token ids [B, T] without the pad among them, and padded with it on the right."""
    ids = np.random.default_rng(seed).integers(0, PAD, (len(LENGTHS), LENGTHS.max()))
    return np.where(np.arange(ids.shape[1]) < LENGTHS[:, None], ids, PAD)


def ours(model, ids, places, **options):
    run = jax.jit(partial(reward_model.logits_at, model.config, **options))
    return np.asarray(run(model.params, jnp.asarray(ids), jnp.asarray(LENGTHS), jnp.asarray(places)))


@pytest.mark.parametrize("architecture", REWARDS)
def test_logits_at_places_of_padded_rows(architecture):
    for seed in range(2):
        model = tiny_reward(architecture, seed)
        ids = padded(model, seed)
        places = np.stack([LENGTHS // 3, LENGTHS // 2, LENGTHS - 1], axis=1)
        mine = ours(model, ids, places)
        assert mine.dtype == np.float32 and mine.shape == (3, 3, REWARD_MODELS[architecture].labels)
        reference = model.logits(ids, ids != PAD)
        close(mine, np.take_along_axis(reference, places[:, :, None], axis=1))


@pytest.mark.parametrize("architecture", ["Qwen2ForSequenceClassification", "Qwen2ForTokenClassification"])
def test_scores_are_those_of_transformers_own_forward(architecture):
    """It looks for the last token that is no pad itself, and applies the head itself."""
    model = tiny_reward(architecture, pad_token_id=PAD)
    ids = padded(model)
    with torch.no_grad():
        theirs = model.torch_model(input_ids=torch.tensor(ids), attention_mask=torch.tensor(ids != PAD)).logits
    mine = np.asarray(reward_model.scores(ours(model, ids, LENGTHS[:, None] - 1)))[:, 0]
    if theirs.ndim == 2:
        close(mine, theirs[:, 0].numpy())
    else:
        right = theirs.softmax(-1)[np.arange(3), LENGTHS - 1, 1].numpy()
        assert np.abs(mine - right).max() <= SCORE_TOLERANCE


@pytest.mark.parametrize("architecture", REWARDS)
def test_pads_do_not_matter(architecture):
    model = tiny_reward(architecture)
    ids, last = padded(model), LENGTHS[:, None] - 1
    others = np.where(ids == PAD, np.random.default_rng(1).integers(0, PAD, ids.shape), ids)
    assert (ids != others).any()
    np.testing.assert_array_equal(ours(model, ids, last), ours(model, others, last))


def test_one_label_is_the_score_and_two_are_wrong_and_right():
    logits = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32) * 4
    np.testing.assert_array_equal(reward_model.scores(jnp.asarray(logits[:, :1])), logits[:, 0])
    right = np.exp(logits[:, 1]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(reward_model.scores(jnp.asarray(logits)), right, rtol=1e-5)


@pytest.mark.parametrize("architecture", REWARDS)
def test_scores_over_a_cache_chunk_by_chunk(architecture):
    model = tiny_reward(architecture)
    ids = np.random.default_rng(0).integers(0, PAD, (2, 24))
    expected = np.stack([model.scores(row) for row in ids])
    run = jax.jit(partial(reward_model.cached_scores, model.config))
    cache, layers = init_cache(model.config, 2, 24, jnp.float32), unstack(model.params)
    for first in range(0, 24, 8):
        positions = np.broadcast_to(np.arange(first, first + 8), (2, 8))
        mine, cache = run(layers, jnp.asarray(ids[:, first : first + 8]), jnp.asarray(positions), cache)
        close(mine, expected[:, first : first + 8])


@pytest.mark.parametrize("architecture", ["Qwen2ForRewardModel", "Qwen2ForSequenceClassification"])
def test_bfloat16_compute_stays_near_float32(architecture):
    model = tiny_reward(architecture)
    ids, last = padded(model), LENGTHS[:, None] - 1
    exact, rough = ours(model, ids, last), ours(model, ids, last, compute_dtype=jnp.bfloat16)
    assert rough.dtype == np.float32  # the head's own type
    # bfloat16 keeps 8 bits, over three layers; a score sums over hidden states that cancel
    assert 1e-5 < np.abs(exact - rough).max() / np.abs(exact).max() < 0.1


@pytest.mark.parametrize("architecture", REWARDS)
def test_random_parameters_have_the_reference_s_shapes(architecture):
    model, reward = tiny_reward(architecture), REWARD_MODELS[architecture]
    params = reward_model.init_params(model.config, reward, jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, model.params)
    axes = reward_model.param_axes(model.config, reward)
    jax.tree.map(lambda leaf, names: np.testing.assert_equal(leaf.ndim, len(names)), params, axes)
    kernel = params["score"]["0"]["kernel"] if reward.hidden_layer else params["score"]["kernel"]
    assert 0.5 < np.std(kernel) / model.config.initializer_range < 1.5


def test_the_head_learns_and_so_does_what_is_below_it():
    """Gradients of a Bradley-Terry loss, against torch."""
    model = tiny_reward("Qwen2ForRewardModel")
    ids = jnp.asarray(padded(model)[:2])
    last = jnp.asarray(LENGTHS[:2, None] - 1)

    @jax.jit
    def gradient(params):
        def loss(params):
            better, worse = reward_model.logits_at(model.config, params, ids, last[:, 0] + 1, last)[:, 0, 0]
            return -jax.nn.log_sigmoid(better - worse)

        return jax.grad(loss)(params)

    mine = gradient(model.params)
    hidden = model.torch_model.model(input_ids=torch.tensor(np.asarray(ids))).last_hidden_state
    better, worse = model.torch_model.score(hidden[np.arange(2), LENGTHS[:2] - 1])[:, 0]
    model.torch_model.zero_grad()
    (-torch.nn.functional.logsigmoid(better - worse)).backward()
    close(mine["score"]["0"]["kernel"].T, model.torch_model.score[0].weight.grad.numpy())
    close(mine["score"]["2"]["kernel"].T, model.torch_model.score[2].weight.grad.numpy())
    close(mine["embed_tokens"]["weight"], model.torch_model.model.embed_tokens.weight.grad.numpy())
    model.torch_model.zero_grad()
