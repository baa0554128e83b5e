"""Attention in blocks of queries against whole masked scores."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.model.attention import attend
from s1_jax.model.kv_cache import LayerCache
from s1_jax.model.packed_attention import attend_packed
from s1_jax.sharding import row_order

TOLERANCE = 5e-6  # of the largest value, or of 1: float32, other orders of sums
B, K, G, H = 2, 2, 3, 8


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("T,parts", [(1, 1), (5, 1), (130, 1), (192, 2), (264, 4)])
def test_attention_and_gradients_equal_those_of_whole_scores(seed, T, parts):
    rng = np.random.default_rng(seed)
    places = row_order(T, parts)
    segments = np.sort(rng.integers(0, 4, (B, T)), axis=1)[:, ::-1][:, places]  # some 0, padding, at the end of the row
    segments = jnp.asarray(segments)
    q, k, v = (jnp.asarray(rng.normal(size=(B, T, n, H)), jnp.float32) for n in (K * G, K, K))
    weights = jnp.asarray(rng.normal(size=(B, T, K * G * H)), jnp.float32)
    mask = (segments[:, :, None] == segments[:, None, :]) & (places[:, None] >= places[None, :])[None]

    def in_blocks(q, k, v):
        return attend_packed(q, k, v, segments, tuple(places.tolist()))

    def whole(q, k, v):
        return attend(q, LayerCache(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)), mask)

    def value_and_gradients(function):
        return function(q, k, v), jax.grad(lambda *x: jnp.sum(function(*x) * weights), (0, 1, 2))(q, k, v)

    got, expected = (jax.jit(value_and_gradients, static_argnums=0)(function) for function in (in_blocks, whole))
    for mine, reference in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        largest = max(float(jnp.abs(reference).max()), 1.0)  # a lone token's gradients are 0
        assert jnp.abs(mine - reference).max() <= TOLERANCE * largest


def test_segment_mask_by_hand():
    """With equal keys a token's result is the mean of the values it sees: its own document's, up to itself."""
    q = k = jnp.zeros((1, 5, 1, 1))
    values = jnp.asarray([1.0, 3.0, 10.0, 30.0, 100.0]).reshape(1, 5, 1, 1)
    out = attend_packed(q, k, values, jnp.asarray([[1, 1, 2, 2, 0]]), (0, 1, 2, 3, 4))
    np.testing.assert_allclose(out[0, :, 0], [1, 2, 10, 20, 100])
