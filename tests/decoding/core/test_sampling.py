"""Sampling against NumPy, and keys that depend on what a row is."""

import jax
import jax.numpy as jnp
import numpy as np

from s1_jax.config import SamplingConfig
from s1_jax.decoding.core.sampling import filter_logits, make_sampling, row_key, sample

SHARE_TOLERANCE = 0.03  # of 4,000 draws: four standard errors of a share are 0.032 at most
DRAWS = 4000
SETTINGS = [(0, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.7, 0.0), (0, 1.0, 0.2), (7, 0.8, 0.1), (1, 0.5, 0.9), (50, 0.99, 0.01)]


def numpy_filter(logits, top_k, top_p, min_p):
    """Which of logits [V] stay: top-k, then top-p among those, then min-p."""
    order = np.argsort(-logits, kind="stable")
    kept = list(order[: top_k or len(logits)])
    shares = np.exp(logits[kept] - logits[kept].max())
    shares /= shares.sum()
    if top_p < 1:
        total, needed = 0.0, 0
        while total < top_p and needed < len(kept):
            total += shares[needed]
            needed += 1
        kept = kept[:needed]
    return {int(i) for i in kept if np.exp(logits[i] - logits.max()) >= min_p}


def test_filters_equal_numpy():
    rng = np.random.default_rng(0)
    rows, settings = [], []
    for _ in range(60):
        for setting in SETTINGS:
            rows.append(rng.normal(size=23) * rng.choice([0.3, 1, 5]))
            settings.append(setting)
    logits = np.asarray(rows, np.float32)
    top_k, top_p, min_p = (np.asarray(column) for column in zip(*settings, strict=True))
    kept = np.asarray(filter_logits(jnp.asarray(logits), top_k, top_p.astype(np.float32), min_p.astype(np.float32)))
    for row, original, setting in zip(kept, logits, settings, strict=True):
        survivors = set(map(int, np.flatnonzero(np.isfinite(row))))
        assert survivors == numpy_filter(original.astype(np.float64), *setting)
        assert (row[list(survivors)] == original[list(survivors)]).all()


def test_tokens_as_likely_as_the_last_kept_are_kept():
    kept = filter_logits(jnp.asarray([[1.0, 3.0, 1.0, 2.0]]), jnp.asarray([3]), jnp.ones(1), jnp.zeros(1))
    assert list(np.isfinite(np.asarray(kept[0]))) == [True, True, True, True]


sample_jit = jax.jit(sample)


def draws(logits, config, allowed=None, count=DRAWS, seed=0):
    settings = make_sampling([config] * count, [row_key(seed, None, [1, 2], 0)] * count)
    logits = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (count, len(logits)))
    bias = jnp.zeros(logits.shape) if allowed is None else jnp.where(jnp.asarray(allowed), 0.0, -jnp.inf)
    return np.asarray(sample_jit(logits, jnp.broadcast_to(bias, logits.shape), jnp.arange(count), settings))


def test_shares_follow_the_filtered_softmax_at_the_temperature():
    logits = np.log([0.4, 0.3, 0.2, 0.1])
    for config, expected in (
        (SamplingConfig(temperature=1.0), [0.4, 0.3, 0.2, 0.1]),
        (SamplingConfig(temperature=0.5), np.square([0.4, 0.3, 0.2, 0.1]) / 0.3),
        (SamplingConfig(temperature=1.0, top_k=2), [4 / 7, 3 / 7, 0, 0]),
        (SamplingConfig(temperature=1.0, top_p=0.75), [4 / 9, 3 / 9, 2 / 9, 0]),
        (SamplingConfig(temperature=1.0, min_p=0.6), [4 / 7, 3 / 7, 0, 0]),
    ):
        shares = np.bincount(draws(logits, config), minlength=4) / DRAWS
        assert np.abs(shares - expected).max() < SHARE_TOLERANCE
        assert (shares[np.asarray(expected) == 0] == 0).all()


def test_temperature_zero_is_greedy_whatever_the_filters():
    assert set(draws([0.0, 2.0, 1.0], SamplingConfig(top_k=3, top_p=0.1, min_p=0.5), count=50)) == {1}


def test_masks_come_before_everything():
    allowed = [False, True, True, False]
    for config in (SamplingConfig(), SamplingConfig(temperature=3.0), SamplingConfig(temperature=1.0, top_k=1)):
        assert set(draws([9.0, 0.0, 0.1, 9.0], config, allowed, count=200)) <= {1, 2}


def test_rows_have_their_own_settings():
    logits = jnp.broadcast_to(jnp.asarray([0.0, 0.5, 1.0]), (3, 3))
    configs = [SamplingConfig(), SamplingConfig(temperature=1.0), SamplingConfig(temperature=1.0, top_k=1)]
    seen = [set(), set(), set()]
    for index in range(60):
        settings = make_sampling(configs, [row_key(0, "a", [], 0)] * 3)
        for i, token in enumerate(np.asarray(sample_jit(logits, jnp.ones((3, 3), bool), jnp.full(3, index), settings))):
            seen[i].add(int(token))
    assert seen == [{2}, {0, 1, 2}, {2}]


def test_a_key_is_the_same_in_every_process():
    """The first 8 bytes of SHA-256 of `[0, "aime-1", 0]`."""
    assert list(row_key(0, "aime-1", [1, 2, 3], 0)) == [1367055130, 183811524]


def test_a_key_depends_on_seed_id_and_sample_and_on_the_prompt_only_without_an_id():
    base = list(row_key(0, "a", [1, 2], 0))
    assert base == list(row_key(0, "a", [7], 0))
    for seed, problem_id, sample_number in ((1, "a", 0), (0, "b", 0), (0, "a", 1), (0, None, 0)):
        assert list(row_key(seed, problem_id, [1, 2], sample_number)) != base
    assert list(row_key(0, None, [1, 2], 0)) != list(row_key(0, None, [1, 3], 0))
    assert list(row_key(0, None, np.asarray([1, 2]), 0)) == list(row_key(0, None, (1, 2), 0))
