"""The decode kernel, interpreted on CPU, against whole masked scores; the work it does; its programs for TPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s1_jax.config import MeshConfig
from s1_jax.model import attention, cached, decode_attention, decode_kernel
from s1_jax.model.decode_attention import attend_branches, attend_cache, attend_partial, plan_visits
from s1_jax.model.kv_cache import LayerCache, init_cache
from s1_jax.model.transformer import unstack
from s1_jax.sharding import DECODE_RULES, Layout, make_mesh
from tests.planning.conftest import NEEDS_LIBTPU, PATIENCE, PROJECT

TOLERANCE = 2e-6  # of the largest value: float32, softmax in blocks instead of whole rows
BFLOAT16_TOLERANCE = 2**-7  # of the largest value: weights are rounded before they are normalised, the result once more
B = 4
BLOCK = 128


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(decode_kernel, "LARGEST_BLOCK", BLOCK)


def random_normal(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def random_cache(seed, *shape, dtype=jnp.float32) -> LayerCache:
    return LayerCache(*(random_normal([seed, i], *shape, dtype=dtype) for i in range(2)))


def lengths_up_to(S, rows, Q, seed=0) -> jax.Array:
    """[rows, Q]: one slot, the edges of a block, all of them, and any number."""
    lengths = np.random.default_rng(seed).integers(1, S + 1, (rows, Q))
    lengths[:4, 0] = np.minimum([1, S, BLOCK, BLOCK + 1], S)
    return jnp.asarray(lengths, jnp.int32)


def poison(cache, lengths):
    """The cache with NaN and infinity in every slot that no query sees."""
    dead = (jnp.arange(cache.capacity)[None] >= lengths.max(1)[:, None])[:, None, :, None]
    return LayerCache(*(jnp.where(dead, bad, x) for x, bad in zip(cache[:2], (jnp.nan, jnp.inf), strict=True)))


def newest(cache, lengths):
    """What stands in the last live slot of each row: [B, 1, K, H]."""
    last = (lengths - 1)[:, None, :, None]
    return tuple(jnp.take_along_axis(x, last, axis=2).swapaxes(1, 2) for x in cache[:2])


def by_scores(queries, cache, lengths):
    return attention.attend(queries, cache, jnp.arange(cache.capacity)[None, None] < lengths[..., None])


@jax.jit
def by_kernel(queries, cache, lengths, new=()):
    return attend_cache(queries, cache, plan_visits(lengths, cache), new, interpret=True)


def assert_close(mine, reference, tolerance=TOLERANCE):
    mine, reference = (np.asarray(x, np.float32) for x in (mine, reference))
    assert np.abs(mine - reference).max() <= tolerance * np.abs(reference).max()


# capacities of one block, of several, of several and a part, and of less than a lane; H turned round and not
SHAPES = [(64, 2, 3, 128), (64, 1, 3, 64), (512, 2, 3, 128), (512, 2, 7, 64), (300, 1, 5, 128), (300, 2, 2, 64)]


@pytest.mark.parametrize("Q", [1, 3])
@pytest.mark.parametrize("S,K,G,H", SHAPES)
def test_attention_equals_that_of_whole_scores_whatever_dead_slots_hold(S, K, G, H, Q):
    cache, lengths = random_cache(0, B, K, S, H), lengths_up_to(S, B, Q)
    queries = random_normal(1, B, Q, K * G, H)
    got, _ = by_kernel(queries, poison(cache, lengths), lengths)
    assert_close(got, by_scores(queries, cache, lengths))


@pytest.mark.parametrize("S,K,G,H", SHAPES)
def test_a_new_token_is_seen_and_stored_and_nothing_else_changes(S, K, G, H):
    cache, lengths = random_cache(0, B, K, S, H), lengths_up_to(S, B, 1)
    queries, new = random_normal(1, B, 1, K * G, H), newest(cache, lengths)
    before = poison(cache, lengths - 1)
    got, after = by_kernel(queries, before, lengths, new)
    assert_close(got, by_scores(queries, cache, lengths))
    for x, old, token in zip(after[:2], before[:2], new, strict=True):
        expected = old.at[jnp.arange(B), :, lengths[:, 0] - 1].set(token[:, 0])
        np.testing.assert_array_equal(x, expected)


def test_bfloat16():
    cache, lengths = random_cache(0, B, 2, 512, 128, dtype=jnp.bfloat16), lengths_up_to(512, B, 1)
    queries = random_normal(1, B, 1, 10, 128, dtype=jnp.bfloat16)
    got, _ = by_kernel(queries, poison(cache, lengths), lengths)
    assert got.dtype == jnp.bfloat16
    exact = by_scores(queries.astype(jnp.float32), LayerCache(*(x.astype(jnp.float32) for x in cache[:2])), lengths)
    assert_close(got, exact, BFLOAT16_TOLERANCE)


@pytest.mark.parametrize("H", [64, 128])
def test_int8_with_a_scale_a_slot(H):
    S, K = 300, 2
    lengths, rng = lengths_up_to(S, B, 1), np.random.default_rng(0)
    codes = tuple(jnp.asarray(rng.integers(-127, 128, (B, K, S, H)), jnp.int8) for _ in range(2))
    scales = tuple(jnp.asarray(rng.uniform(0.001, 0.02, (B, K, S)), jnp.float32) for _ in range(2))
    cache = LayerCache(*(x * scale[..., None] for x, scale in zip(codes, scales, strict=True)))
    queries = random_normal(1, B, 1, K * 3, H)
    rows, last = jnp.arange(B), lengths[:, 0] - 1
    new = (*newest(codes, lengths), *(x[rows, :, last][:, None] for x in scales))
    empty = LayerCache(
        *(x.at[rows, :, last].set(0) for x in codes), *(x.at[rows, :, last].set(jnp.nan) for x in scales)
    )
    got, after = by_kernel(queries, empty, lengths, new)
    assert_close(got, by_scores(queries, cache, lengths))
    for x, expected in zip(after, (*codes, *scales), strict=True):
        np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("H", [64, 128])
@pytest.mark.parametrize("R,T", [(1, 1), (3, 1), (2, 2)])
def test_branches_equal_those_of_whole_scores(R, T, H):
    S, C, K, G = 300, 144, 2, 3
    prefix, lengths = random_cache(0, B, K, S, H), lengths_up_to(S, B, R * T)
    tails, tail_lengths = random_cache(1, B * R, K, C, H), lengths_up_to(C, B * R, T, seed=1)
    queries, new = random_normal(2, B, R, T, K * G, H), newest(tails, tail_lengths) if T == 1 else ()

    def of_branches(cache):
        return LayerCache(*(x.reshape(B, R, K, C, H).swapaxes(1, 2) for x in cache[:2]))

    @jax.jit
    def run(queries, prefix, tails, new):
        visits = plan_visits(lengths, prefix), plan_visits(tail_lengths, tails)
        new = tuple(x.reshape(B, R, 1, K, H) for x in new)
        return attend_branches(queries, prefix, tails, visits, new, interpret=True)

    before = of_branches(poison(tails, tail_lengths - bool(new)))
    got, after = run(queries, poison(prefix, lengths), before, new)
    np.testing.assert_array_equal(after.keys, of_branches(poison(tails, tail_lengths)).keys)
    pairs = zip(prefix[:2], tails[:2], strict=True)
    each = LayerCache(*(jnp.concatenate([jnp.repeat(x, R, axis=0), own], axis=2) for x, own in pairs))
    seen = [jnp.arange(size)[None, None] < x.reshape(B * R, T, 1) for size, x in ((S, lengths), (C, tail_lengths))]
    reference = attention.attend(queries.reshape(B * R, T, K * G, H), each, jnp.concatenate(seen, axis=-1))
    assert_close(got, reference.reshape(got.shape))


def test_a_row_of_no_slots_sees_nothing_keeps_nothing_and_has_no_weight():
    """What rows that have ended are given: they cost a block, and their cache stays as it is."""
    cache = random_cache(0, B, 2, 300, 64)
    lengths = jnp.asarray([[0], [200], [0], [300]], jnp.int32)
    queries, new = random_normal(1, B, 1, 6, 64), newest(cache, jnp.maximum(lengths, 1))
    before = poison(cache, lengths)
    visits = plan_visits(lengths, cache)
    assert int(visits.counts.sum()) == 1 + 2 + 1 + 3
    (out, lse), after = attend_partial(queries, before, visits, new, interpret=True)
    assert not out[::2].any() and (lse[::2] == decode_kernel.LOWEST).all()
    np.testing.assert_array_equal(after.keys[:, ::2], before.keys[:, ::2])
    assert_close(decode_attention._side_by_side(out, out.dtype)[1::2], by_scores(queries, cache, lengths)[1::2])


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("devices", [1, 2])
def test_work_is_the_blocks_that_are_seen_and_each_once(devices, cores):
    S, rows, Q = 1000, 8, 2
    lengths = lengths_up_to(S, rows, Q)
    visits = jax.tree.map(np.asarray, decode_kernel.plan(lengths, S, BLOCK, devices, cores))
    longest, shortest = np.asarray(lengths).max(1), np.asarray(lengths).min(1)
    local, parts = rows // devices, devices * cores
    tables = [x.reshape(parts, -1) for x in visits[3:]]
    seen = []
    for part, count in enumerate(visits.counts):
        of_rows, blocks, whole = (x[part] for x in tables)
        of_rows = of_rows + part // cores * local
        assert (of_rows[count:] == of_rows[count - 1]).all() and (blocks[count:] == blocks[count - 1]).all()
        seen += zip(of_rows[:count], blocks[:count], whole[:count], strict=True)
    assert seen == [
        (row, block, (block + 1) * BLOCK < shortest[row])
        for row in range(rows)
        for block in range(-(-longest[row] // BLOCK))
    ]


def test_two_cores_share_the_rows(monkeypatch):
    monkeypatch.setattr(decode_attention, "_cores", lambda: 2)
    cache, lengths = random_cache(0, B, 2, 300, 64), lengths_up_to(300, B, 1)
    queries, new = random_normal(1, B, 1, 6, 64), newest(cache, lengths)
    assert len(plan_visits(lengths, cache).counts) == 2
    got, after = jax.jit(by_kernel.__wrapped__)(queries, poison(cache, lengths - 1), lengths, new)
    assert_close(got, by_scores(queries, cache, lengths))
    np.testing.assert_array_equal(after.values, poison(cache, lengths).values)


# rows and kv heads that divide over the mesh, and such as are left whole
@pytest.mark.parametrize("fsdp,tensor,rows,K", [(4, 2, 8, 2), (1, 8, 4, 2), (8, 1, 4, 2), (2, 4, 4, 4)])
def test_on_a_mesh(fsdp, tensor, rows, K):
    S, G, H = 300, 2, 64
    cache, lengths = random_cache(0, rows, K, S, H), lengths_up_to(S, rows, 1)
    queries, new = random_normal(1, rows, 1, K * G, H), newest(cache, lengths)
    layout = Layout(make_mesh(MeshConfig(fsdp=fsdp, tensor=tensor)), DECODE_RULES)
    with layout.use():
        got, after = jax.jit(by_kernel.__wrapped__)(queries, poison(cache, lengths - 1), lengths, new)
    assert_close(got, by_scores(queries, cache, lengths))
    np.testing.assert_array_equal(after.keys, poison(cache, lengths).keys)


def test_one_new_token_a_row():
    cache, lengths = random_cache(0, B, 2, 64, 64), lengths_up_to(64, B, 2)
    queries = random_normal(1, B, 2, 4, 64)
    with pytest.raises(ValueError, match="one token of a row can be put into the cache, not 2"):
        attend_cache(queries, cache, plan_visits(lengths, cache), tuple(queries[:, :, :2] for _ in range(2)))


@NEEDS_LIBTPU
def test_programs_for_tpus_work_in_the_cache_and_copy_none_of_it():
    script = Path(__file__).parent / "decode_programs.py"
    env = dict(os.environ, PYTHONPATH=str(PROJECT))
    run = subprocess.run(
        [sys.executable, str(script)], env=env, check=True, timeout=PATIENCE, stdout=subprocess.PIPE, text=True
    )
    programs = json.loads(run.stdout.splitlines()[-1])
    assert len(programs) > 1
    for name, memory in programs.items():
        assert memory["aliased"] >= memory["caches"], name  # capacities are padded
        assert memory["temporaries"] < 0.1 * memory["caches"], name


def test_a_draft_through_the_model_by_the_kernel(tiny_model, monkeypatch):
    """Hidden states and cache of the tokens within the cache; what lies behind its last slot counts for nothing."""
    tiny = tiny_model(0)
    params, T, S = unstack(tiny.params), 5, 64
    positions = jnp.asarray([[0], [7], [S - 2], [S]]) + jnp.arange(T)[None]
    token_ids = jnp.asarray(np.random.default_rng(0).integers(0, tiny.config.vocab_size, positions.shape))
    empty = init_cache(tiny.config, B, S, jnp.float32)
    filled = tuple(random_cache(i, *empty[0].keys.shape) for i in range(len(empty)))
    expected, written = cached.hidden_states(tiny.config, params, token_ids, positions, filled)
    monkeypatch.setattr(cached, "platform", lambda: "tpu")
    monkeypatch.setattr(cached, "attend_cache", partial(attend_cache, interpret=True))
    found, stored = cached.hidden_states(tiny.config, params, token_ids, positions, filled)
    within = np.asarray(positions < S)
    assert_close(np.asarray(found)[within], np.asarray(expected)[within], 1e-5)
    for mine, reference in zip(jax.tree.leaves(stored), jax.tree.leaves(written), strict=True):
        assert_close(mine, reference, 1e-5)
