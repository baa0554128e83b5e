"""The TPU kernel, interpreted on CPU, against whole masked scores; and which of its blocks are visited."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.config import MeshConfig, ModelConfig
from s1_jax.errors import UserError
from s1_jax.model import attention, rings, splash, transformer
from s1_jax.model.kv_cache import LayerCache
from s1_jax.sharding import TRAIN_RULES, Layout, make_mesh, place_rows, row_order, shard_over
from s1_jax.training.step import loss_and_grads

TOLERANCE = 2e-6  # of the largest value: float32, softmax in blocks instead of whole rows
LOSS_TOLERANCE = 1e-5  # of the largest gradient: two layers of it, and other orders of sums over devices
B, T, K, G, H = 2, 512, 2, 2, 16


def packed_segments(seed: int, rows: int, length: int, shortest: int = 1, longest: int = 300) -> np.ndarray:
    """Documents of random lengths in rows [rows, length], padding (0) at the end of each."""
    rng = np.random.default_rng(seed)
    segments = np.zeros((rows, length), np.int32)
    for row in segments:
        start, end, segment = 0, length - int(rng.integers(0, length // 4)), 1
        while start < end:
            size = int(rng.integers(shortest, longest + 1))
            row[start : min(start + size, end)] = segment
            start, segment = start + size, segment + 1
    return segments


def seen_pairs(segments: np.ndarray) -> np.ndarray:
    """[rows, length, length]: whether a token sees another, by the definition."""
    place = np.arange(segments.shape[1])
    return (segments[:, :, None] == segments[:, None, :]) & (place[:, None] >= place) & (segments > 0)[:, :, None]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_attention_and_its_gradients_equal_those_of_whole_scores(seed, monkeypatch):
    monkeypatch.setattr(splash, "LARGEST_BLOCK", 128)
    rng = np.random.default_rng(seed)
    segments, places = packed_segments(seed, B, T), np.arange(T)
    real = jnp.asarray(segments > 0)[..., None]
    q, k, v = (jnp.asarray(rng.normal(size=(B, T, n, H)), jnp.float32) for n in (K * G, K, K))
    visits = splash.plan_visits(jnp.asarray(segments), places, parts=1)

    def by_kernel(q, k, v):
        return splash.attend_packed(q, k, v, visits, places, interpret=True) * real

    def by_scores(q, k, v):
        mask = jnp.asarray((segments[:, :, None] == segments[:, None, :]) & np.tri(T, dtype=bool))
        return attention.attend(q, LayerCache(k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)), mask) * real

    weights = jnp.asarray(rng.normal(size=(B, T, K * G * H)), jnp.float32)
    for function in (lambda f: f(q, k, v), lambda f: jax.grad(lambda *x: jnp.sum(f(*x) * weights), (0, 1, 2))(q, k, v)):
        for mine, reference in zip(
            *(jax.tree.leaves(jax.jit(function, static_argnums=0)(f)) for f in (by_kernel, by_scores)), strict=True
        ):
            assert jnp.abs(mine - reference).max() <= TOLERANCE * jnp.abs(reference).max()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_no_block_that_holds_a_seen_pair_is_skipped_and_few_others_are_visited(seed, parts, monkeypatch):
    monkeypatch.setattr(splash, "LARGEST_BLOCK", 128)
    length = 2048
    segments, places = packed_segments(seed, 1, length, longest=900), row_order(length, parts)
    visits = splash.plan_visits(jnp.asarray(segments[:, places]), places, parts)
    seen = seen_pairs(segments)[0][places].reshape(length // 128, 128, length // 128, 128).any((1, 3))
    needed = np.asarray(visits.needed[0]).astype(bool)
    assert not (seen & ~needed).any()
    # beyond those: the diagonal in padding, and blocks of documents that meet in a block but not under the diagonal
    extra = (needed & ~seen).sum()
    assert extra <= (segments[0] == 0).sum() / 128 + 1 + 2 * parts


def test_blocks_at_hand_are_needed_ones():
    """The kernel fetches block next_kv (next_q) at every step: the same again where nothing is to do, so no traffic."""
    segments, places = packed_segments(0, 1, 4096, longest=1500), np.arange(4096)
    visits = splash.plan_visits(jnp.asarray(segments), places, 1)
    needed, next_kv, next_q = (np.asarray(x[0]) for x in visits[2:])
    assert needed.sum() < np.tril(np.ones_like(needed)).sum()  # there is something to skip
    for i, j in np.ndindex(needed.shape):
        assert next_kv[i, j] == (j if needed[i, j] else max([0, *np.flatnonzero(needed[i, :j])]))
        assert next_q[i, j] == (i if needed[i, j] else max([0, *np.flatnonzero(needed[:i, j])]))


def test_visited_flops_by_hand():
    model = ModelConfig(10, 1024, 16, 2, 8, 4)  # H = 128
    one = np.ones((1, 2048), np.int32)
    four = np.repeat(np.arange(1, 5), 512)[None]
    a_block = 2 * 512 * 512 * 128 * 8
    for segments, blocks in ((one, 4 * 5 // 2), (four, 4), (np.concatenate([one, four]), 14)):
        forward, backward = splash.visited_flops(model, segments, 1)
        assert (forward.sum(), backward.sum()) == (2 * a_block * blocks, 5 * a_block * blocks)


def test_zig_zag_gives_every_device_the_same_work_under_a_causal_mask():
    forward, _ = splash.visited_flops(ModelConfig(10, 1024, 16, 2, 8, 4), np.ones((1, 16384), np.int32), 4)
    assert len(set(forward[0])) == 1


def test_block_size():
    assert [splash.block_size(n) for n in (128, 512, 2048, 2816, 1280)] == [128, 512, 512, 256, 256]
    with pytest.raises(UserError, match="a multiple of 128, not 100"):
        splash.block_size(100)


@pytest.mark.parametrize(
    "fsdp,context,tensor",
    [(2, 2, 2), *(pytest.param(*mesh, marks=pytest.mark.slow) for mesh in ((1, 1, 1), (2, 4, 1), (1, 4, 2)))],
)
def test_loss_and_gradients_by_the_kernel_on_a_mesh_equal_those_by_whole_scores_on_one_device(
    tiny_model, fsdp, context, tensor, monkeypatch
):
    model = tiny_model(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, max_position_embeddings=T
    )
    rng = np.random.default_rng(0)
    segments = packed_segments(7, B, T)
    starts = np.maximum.accumulate(np.where(np.diff(segments, prepend=-1, axis=1) != 0, np.arange(T), 0), axis=1)
    batch = {
        "token_ids": rng.integers(0, 96, (B, T)).astype(np.int32),
        "positions": (np.arange(T) - starts).astype(np.int32),
        "segment_ids": segments,
        "targets": rng.integers(0, 96, (B, T)).astype(np.int32),
        "weights": (rng.random((B, T)) * (segments > 0) / (B * T)).astype(np.float32),
    }
    batch = {name: array[None] for name, array in batch.items()}
    run = partial(loss_and_grads, model.config, compute_dtype=jnp.float32)
    expected = jax.jit(partial(run, remat="none"))(model.params, batch, jnp.int32(1))

    monkeypatch.setitem(transformer.MIXERS, "cpu", partial(transformer.splash_mixer, interpret=True))
    devices = jax.devices()[: fsdp * context * tensor]
    layout = Layout(make_mesh(MeshConfig(fsdp=fsdp, context=context, tensor=tensor), devices), TRAIN_RULES)
    with layout.use():
        params = jax.device_put(
            jax.tree.map(np.asarray, model.params),
            layout.tree(transformer.param_axes(model.config), transformer.abstract_params(model.config)),
        )
        placed = place_rows(layout, batch, rows=B)
        got = jax.device_get(jax.jit(partial(run, remat="minimal"))(params, placed, jnp.int32(1)))
    assert got[0] == pytest.approx(float(expected[0]), rel=LOSS_TOLERANCE)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected[1]))
    for mine, reference in zip(jax.tree.leaves(got[1]), jax.tree.leaves(expected[1]), strict=True):
        assert np.abs(mine - reference).max() <= LOSS_TOLERANCE * largest


@pytest.mark.parametrize("length", [32, 1536, 2560])  # in 2, 2 and 5 rounds with 4 parts
@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_rows_are_gathered_in_order_and_their_gradients_summed(parts, near, length, monkeypatch):
    monkeypatch.setattr(rings, "is_near", lambda parts, load: near)
    layout = Layout(make_mesh(MeshConfig(fsdp=1, context=parts), jax.devices()[:parts]), TRAIN_RULES)
    ring = rings.Ring(layout, layout.axes("length"))
    x = jnp.asarray(np.random.default_rng(parts).normal(size=(2, length, 1, 2)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(parts, *x.shape)), jnp.float32)
    here, copies = ("batch", "length", None, None), ("length", "batch", None, None, None)
    gather = jax.jit(shard_over(layout, lambda x: splash.whole_rows(ring, x)[None], here, copies))
    placed = place_rows(layout, {"x": np.asarray(x)[None, ..., 0, 0]}, rows=2)["x"][0]
    order = row_order(length, parts)
    assert np.array_equal(gather(x[:, order])[..., 0, 0], np.broadcast_to(x[..., 0, 0], (parts, 2, length)))
    assert np.array_equal(placed, x[:, order, 0, 0])
    grad = jax.jit(jax.grad(lambda x: (gather(x) * weights).sum()))(x[:, order])
    wanted = weights.sum(axis=0)[:, order]
    assert jnp.abs(grad - wanted).max() <= TOLERANCE * jnp.abs(wanted).max()


def test_what_does_not_divide_is_one_line():
    layout = Layout(make_mesh(MeshConfig(fsdp=1, tensor=8)), TRAIN_RULES)
    q, k = jnp.zeros((1, 128, 8, H)), jnp.zeros((1, 128, 2, H))
    places = np.arange(128)
    with layout.use(), pytest.raises(UserError, match="2 kv heads do not divide over the mesh's 1 x 1 x 8"):
        splash.attend_packed(q, k, k, splash.plan_visits(jnp.ones((1, 128), jnp.int32), places, 1), places)
