"""Kernels transposed and in int8, caches in int8: how far off they may be, and that everything takes them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.model import cached, stored_weights, transformer
from s1_jax.model.kv_cache import as_stored, copy_rows, init_cache, resize, take_rows
from tests.model.test_logits import random_ids

WHOLE_LOGITS = 0.08  # of the largest: half a step in 127 a weight, averaged over no more than 64 of them
SAME_SUMS = 2e-6  # of the largest logit: float32 sums in another order
MESSAGE = "a rounding error is at most half a step"


@pytest.fixture
def tiny(tiny_model):
    return tiny_model(1)


def logits(tiny, layers, ids, cache_dtype=jnp.float32):
    B, T = ids.shape

    @jax.jit
    def run(layers, ids):
        positions = jnp.broadcast_to(jnp.arange(T), (B, T))
        cache = init_cache(tiny.config, B, T, cache_dtype)
        hidden, _ = cached.hidden_states(tiny.config, layers, ids, positions, cache)
        return transformer.logits(tiny.config, layers, hidden)

    return np.asarray(run(layers, ids))


@pytest.mark.parametrize("shape", [(1, 1), (2, 24)])
def test_transposed_kernels_give_the_same_logits(tiny, shape):
    ids = random_ids(tiny, shape)
    layers = transformer.unstack(tiny.params)
    exact, kept = logits(tiny, layers, ids), jax.tree.map(np.asarray, layers)
    layers = stored_weights.transpose(layers)
    found = [x for x in jax.tree.leaves(layers, is_leaf=is_transposed) if is_transposed(x)]
    assert len(found) == 7 * tiny.config.num_hidden_layers
    assert np.abs(logits(tiny, layers, ids) - exact).max() <= SAME_SUMS * np.abs(exact).max()
    jax.tree.map(np.testing.assert_array_equal, upright(layers), kept)


def is_transposed(x):
    return isinstance(x, stored_weights.TransposedWeight)


def upright(layers):
    """The parameters with no kernel transposed."""
    return jax.tree.map(lambda x: x.values.T if is_transposed(x) else x, layers, is_leaf=is_transposed)


def test_kernels_are_off_by_half_a_step_at_most(tiny):
    layers = transformer.unstack(tiny.params)
    kept = jax.tree.map(np.asarray, layers)
    rounded = stored_weights.quantize(layers)
    for i, layer in kept["layers"].items():
        for part in ("self_attn", "mlp"):
            for name, linear in layer[part].items():
                kernel = rounded["layers"][i][part][name]["kernel"]
                assert kernel.values.dtype == jnp.int8
                off = np.abs(np.asarray(stored_weights.whole(kernel)) - linear["kernel"])
                assert (off <= 0.5001 * np.asarray(kernel.scales)).all(), MESSAGE
    for name in ("embed_tokens", "norm"):
        jax.tree.map(np.testing.assert_array_equal, rounded[name], kept[name])


@pytest.mark.parametrize(("weights", "cache"), [("int8", "float32"), ("float32", "int8"), ("int8", "int8")])
def test_logits_stay_close(tiny, weights, cache):
    ids = random_ids(tiny, (2, 24))
    exact = logits(tiny, transformer.unstack(tiny.params), ids)
    layers = transformer.unstack(tiny.params)
    layers = stored_weights.quantize(layers) if weights == "int8" else layers
    mine = logits(tiny, layers, ids, jnp.dtype(cache))
    off = np.abs(mine - exact).max() / np.abs(exact).max()
    assert 0 < off <= WHOLE_LOGITS


def test_a_cache_keeps_its_scales_when_it_is_moved(tiny):
    rng = np.random.default_rng(0)
    cache = init_cache(tiny.config, 3, 8, jnp.int8)
    K, H = tiny.config.num_key_value_heads, tiny.config.head_dim
    new = [jnp.asarray(rng.normal(size=(3, K, 8, H)) * rng.uniform(1e-3, 1e3, (3, K, 8, 1)), jnp.float32) for _ in "kv"]
    full = tuple(as_stored(layer, *new) for layer in cache)
    for stored, scales, x in zip(full[0][:2], full[0][2:], new, strict=True):
        off = np.abs(stored * scales[..., None] - x)
        assert (off <= 0.5001 * scales[..., None]).all(), MESSAGE
    moved = copy_rows(take_rows(full, jnp.array([2, 0])), jnp.array([1, 0]), cache, jnp.array([0, 2]))
    grown = resize(resize(moved, 16), 8)
    for after, before in zip(grown, full, strict=True):
        for x, y in zip(after, before, strict=True):
            np.testing.assert_array_equal(x, np.asarray(y) * np.array([1, 0, 1]).reshape(-1, *[1] * (y.ndim - 1)))


def test_nothing_is_zero_divided_by_zero(tiny):
    cache = init_cache(tiny.config, 1, 4, jnp.int8)[0]
    K, H = tiny.config.num_key_value_heads, tiny.config.head_dim
    stored = as_stored(cache, jnp.zeros((1, 1, K, H)), jnp.zeros((1, 1, K, H)))
    assert all(np.isfinite(x).all() for x in stored)
    kernel = partial(jnp.zeros, (4, 4))()
    assert np.isfinite(stored_weights.whole(stored_weights.rounded(kernel))).all()
